import json
from pathlib import Path

from spacy_gemel.data.report import ReasonCounter, report_path, write_report


def test_reasons_are_counted_with_the_first_examples(tmp_path: Path) -> None:
    counter = ReasonCounter()
    for line in range(7):
        counter.add("not UTF-8", lambda line=line: f"a:{line}")  # type: ignore[misc]
    counter.add("blank", number=1200)
    counter.add("nothing", number=0)
    assert counter == {"not UTF-8": 7, "blank": 1200}
    assert counter.lines("row: ") == ["  1,200 x row: blank", "  7 x row: not UTF-8, such as a:0"]
    write_report(tmp_path / "out.jsonl", counter.to_dict())
    assert json.loads(report_path(tmp_path / "out.jsonl").read_text()) == {
        "blank": {"count": 1200, "first": []},
        "not UTF-8": {"count": 7, "first": [f"a:{line}" for line in range(5)]},
    }
