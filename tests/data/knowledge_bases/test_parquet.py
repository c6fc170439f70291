"""import-kb parquet."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from spacy_gemel.data.knowledge_bases.importer import import_kb
from spacy_gemel.data.knowledge_bases.work import ImportOptions, ImportReport
from tests.data.datasets.test_parquet import save_to_disk, write_parquet
from tests.data.knowledge_bases.dumps import entities

ROWS: list[dict[str, Any]] = [
    {"qid": "Q308", "name": "Mercury (planet)", "aliases": ["Merkur|", "☿"], "description": "a planet", "count": 12.0},
    {"qid": "Q925", "name": "Mercury (element)", "aliases": None, "description": None, "count": None},
    {"qid": "Q1", "name": "Odd", "aliases": [], "description": "", "count": -1.0},
    {"qid": None, "name": "Nobody", "aliases": [], "description": "", "count": 1.0},
]
EXPECTED = {
    "Q308": {
        "id": "Q308",
        "name": "Mercury (planet)",
        "aliases": ["Merkur|", "☿"],
        "description": "a planet",
        "count": 12,
    },
    "Q925": {"id": "Q925", "name": "Mercury (element)"},
    "Q1": {"id": "Q1", "name": "Odd"},
}


def run(source: Path, **options: Any) -> tuple[Any, ImportReport]:
    out = source.parent / "out" / "entities.jsonl"
    report = import_kb("parquet", [source], out, ImportOptions(**options), progress=False)
    return entities(out), report


def test_a_file_and_a_data_set_saved_to_disk(tmp_path: Path) -> None:
    for source in (write_parquet(tmp_path / "kb.parquet", ROWS), save_to_disk(tmp_path / "saved", ROWS[:1], ROWS[1:])):
        by_id, report = run(source, column=("id=qid",))
        assert by_id == EXPECTED
        assert report.read == {"rows": 4}
        assert dict(report.dropped) == {
            "counts that are not a whole number from 0 (the entity is kept)": 1,
            "entities without an id": 1,
        }


def test_aliases_in_one_text_are_cut_as_in_csv(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "kb.parquet", [{"id": 7, "name": "M", "aliases": "a;b"}])
    assert run(source, alias_separator=";")[0] == {"7": {"id": "7", "name": "M", "aliases": ["a", "b"]}}


def test_a_column_that_is_missing_is_named(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "kb.parquet", [{"id": "Q1", "title": "M"}])
    with pytest.raises(ValueError, match=r"no column 'name', but id, title: name it with --column name=COLUMN"):
        run(source)
    with pytest.raises(ValueError, match="no column 'n'"):
        run(source, column=("name=title", "count=n"))


def test_large_strings_and_integers(tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.int64()), ("name", pa.large_string()), ("count", pa.uint32())])
    parquet.write_table(pa.table({"id": [7], "name": ["M"], "count": [3]}, schema), tmp_path / "kb.parquet")
    assert run(tmp_path / "kb.parquet")[0] == {"7": {"id": "7", "name": "M", "count": 3}}
