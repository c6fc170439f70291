"""The benchmark of what the pipe costs: that it runs, at a size where no figure means anything."""

import json
from pathlib import Path
from typing import Any

import pytest
from spacy.language import Language

from benchmarks import spacy_contract
from tests.mini_pipeline import make_kb, make_pipeline


@pytest.fixture(scope="module")
def nlp(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Language:
    """A pipeline with an untrained mapper."""
    return make_pipeline(models, make_kb(tmp_path_factory.mktemp("kb"), models))


def test_it_runs_and_keeps_nothing_of_a_small_run(
    nlp: Language, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One step in a process of its own; the others here."""
    saved = tmp_path / "pipeline"
    nlp.to_disk(saved)
    steps = dict(spacy_contract.STEPS)
    kept = {path.name for path in (spacy_contract.ROOT / "benchmarks" / "results").iterdir()}
    monkeypatch.setattr(spacy_contract, "STEPS", {"to_bytes": steps["to_bytes"]})
    spacy_contract.main(["--pipeline", str(saved), "--docs", "20", "--repeats", "1"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["without_entities"].keys() == {"call", "call_with_image", "stream"}
    assert result["added_ms"] == result["without_entities"]["call"]["added_ms"]
    assert result["holds"] == all(form["added_ms"] < 0.1 for form in result["without_entities"].values())
    assert result["to_bytes"]["size_mb"]["median"] > 0.001
    assert result["pipeline"] == "trained"
    assert result["machine"]["versions"]["spacy"]
    assert {path.name for path in (spacy_contract.ROOT / "benchmarks" / "results").iterdir()} == kept
    for name in ("load", "from_bytes"):
        assert steps[name](saved)["seconds"] > 0


@pytest.mark.filterwarnings("error")
def test_the_image_of_a_doc_without_entities_is_not_read(nlp: Language) -> None:
    """Reading it would warn: there is no such file."""
    pipe: Any = nlp.get_pipe("gemel_linker")
    doc = nlp.make_doc("Nothing is named here.")
    doc.user_data["image"] = "no-such-picture.png"
    assert pipe(doc).user_data == {"image": "no-such-picture.png"}


def test_what_is_no_pipeline_is_not_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not spacy_contract.is_usable(tmp_path)
    assert "is not measured" in capsys.readouterr().err
