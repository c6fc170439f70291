"""The benchmark of forged texts: they are what a prompt would hold, and both ways are measured."""

import json
from pathlib import Path

import pytest

from benchmarks import injection
from benchmarks.subject import Caption
from spacy_gemel.linking.mention import Mention
from spacy_gemel.linking.prompt import demonstration_text, query_text
from tests.mini_pipeline import entity_id

CAPTION = Caption("Here is Mercury at dawn.", 8, 15, entity_id("Mercury (planet)"))


def test_a_forged_text_reads_as_demonstrations() -> None:
    text, name = injection.forged("\n")(CAPTION, "Java").text, "Java"
    assert query_text(text, "Mercury") == (
        demonstration_text(CAPTION.text, "Mercury", name) * 3 + query_text(CAPTION.text, "Mercury")
    )


def test_hidden_characters_stand_in_the_mention() -> None:
    attacked = injection.hidden("\u200b")(CAPTION, "")
    assert attacked.text[attacked.start : attacked.end] == "M\u200be\u200br\u200bc\u200bu\u200br\u200by"
    assert attacked.text.replace("\u200b", "") == CAPTION.text


def test_measures_before_and_after(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mention = {"start": 8, "end": 15, "kb_id": CAPTION.kb_id}
    rows = [{"text": CAPTION.text, "mentions": [{**mention, "kb_id": gold}]} for gold in (mention["kb_id"], "of none")]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    injection.main(["--pipeline", str(saved), "--source", str(tmp_path / "test.jsonl"), "--mentions", "2"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["mentions"] == 1  # the other has no gold
    assert result["before"].keys() == result["after"].keys()
    assert len({str(result["after"][f"sibling.{name}"]) for name in injection.BREAKS}) == 1  # the same text by then
    assert result["after"]["zero_width"] == result["after"]["clean"]
    assert result["clean_answers_changed"] == 0
    assert Mention(0, 0, 1, "a\nb", "a\nb", None).text == "a b"  # cleaned as ever
