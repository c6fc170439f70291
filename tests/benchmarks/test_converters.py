"""The benchmark of the converters on a made-up folder in the shape of the real one."""

import json
from pathlib import Path

import pytest

from benchmarks import converters

ROWS = {
    "1": {"id": "1", "sentence": "Louis of Nassau", "mentions": ["Louis Nassau"], "answer": ["Q1"]},
    "2": {"id": "2", "sentence": "Ada and Ada", "mentions": ["Ada", "Ada", "Ada"], "answer": ["Q2", "Q2", "Q3"]},
    "4": {"id": "4", "sentence": "An Icelandic poet", "mentions": ["Iceland"], "answer": ["Q6"]},
    "5": {"id": "5", "sentence": "Ann met Anna", "mentions": ["Ann", "Ann"], "answer": ["Q7", "Q7"]},
    "3": {"id": "3", "sentence": "Lena Quist", "mentions": ["Quist", "Lena Quist"], "answer": ["Q4", "Q5"]},
}
ONE = [{"sentence": "Ada", "mention": ["Ada"], "answer": ["Q2"]}]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "repo"
    (root / "benchmarks" / "results").mkdir(parents=True)
    monkeypatch.setattr(converters, "ROOT", root)
    monkeypatch.setattr(converters, "describe_machine", lambda: {"date": "today"})
    folder = tmp_path / "data"
    strings = {key: {**row, "mentions": row["mentions"][0], "answer": row["answer"][0]} for key, row in ROWS.items()}
    for name, content in (
        ("wikidiverse/train.json", ONE),
        ("wikidiverse/val.json", ONE),
        ("wikimel/Wikidata-MEL.json", ROWS),
        ("richpediamel/Richpedia-MEL.json", strings),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


def test_counts_the_file_and_reads_what_was_written(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    converters.main(["--data", str(data)])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    text = (converters.ROOT / "benchmarks" / "results" / "converters.json").read_text()
    assert json.loads(text) == result
    assert set(result["holds"].values()) == {True}
    figures = result["sets"]["wikimel"]
    assert (figures["verbatim"], figures["verbatim_aligned"], figures["verbatim_in_docs"]) == (6, 6, 6)
    assert figures["of_these_inside_a_longer_word"] == 1
    assert figures["listed_more_often_than_they_occur"]["same_entity_so_merged"] == 1
    assert figures["not_verbatim"] == {"mentions": 1, "aligned": 1, "share": 1.0, "by_rule": {"function words": 1}}
    assert figures["listed_more_often_than_they_occur"]["another_entity_so_left_out"] == 1
    # figures and reasons only: nothing of the data's text
    assert not any(word in text for word in ("Ada", "Nassau", "Quist", "Q2"))


def test_a_sample_for_reading_stays_out_of_the_repo(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = data / "sample.jsonl"
    converters.main(["--data", str(data), "--sample", "5", "--sample-file", str(out)])
    first, *_ = map(json.loads, out.read_text().splitlines())
    assert first["found"] == "Louis of Nassau" and first["rule"] == "function words"
    with pytest.raises(SystemExit):
        converters.main(["--data", str(data), "--sample", "5", "--sample-file", str(converters.ROOT / "s.jsonl")])
    assert "outside the repo" in capsys.readouterr().err
