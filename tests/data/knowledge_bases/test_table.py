"""import-kb csv, on files as spreadsheets and scripts write them."""

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.data.knowledge_bases.importer import import_kb
from spacy_gemel.data.knowledge_bases.work import ImportOptions, ImportReport
from tests.data.knowledge_bases.dumps import entities


def run(source: Path, content: bytes | str | None = None, **options: Any) -> tuple[Any, ImportReport]:
    if content is not None:
        source.write_bytes(content.encode() if isinstance(content, str) else content)
    out = source.parent / "out" / "entities.jsonl"
    report = import_kb("csv", [source], out, ImportOptions(**options), progress=False)
    return entities(out), report


FULL = {
    "Q1": {
        "id": "Q1",
        "name": "Mercury, the planet",
        "aliases": ["☿", "Hermes"],
        "description": 'A "planet"',
        "count": 12,
    },
    "Q2": {"id": "Q2", "name": "Jaguar"},
}


def test_all_columns(tmp_path: Path) -> None:
    content = (
        'name,id,count,aliases,description,other\n"Mercury, the planet",Q1,12,☿| Hermes|,"A ""planet""",x\nJaguar,Q2\n'
    )
    by_id, report = run(tmp_path / "kb.csv", content)
    assert by_id == FULL
    assert report.dropped == {}
    assert report.read == {"rows": 2}


def test_tabs_by_the_name_of_the_file_also_when_packed(tmp_path: Path) -> None:
    content = "id\tname\tcount\nQ1\tA, B\t3.0\n"
    expected = {"Q1": {"id": "Q1", "name": "A, B", "count": 3}}
    assert run(tmp_path / "kb.TSV", content)[0] == expected
    assert run(tmp_path / "kb.tsv.gz", gzip.compress(content.encode()))[0] == expected
    assert run(tmp_path / "kb.csv", content, delimiter=r"\t")[0] == expected
    assert run(tmp_path / "kb.csv", content.replace("\t", ";"), delimiter=";")[0] == expected


def test_other_names_of_columns_and_separators(tmp_path: Path) -> None:
    content = "qid,Label,also,n\nQ1,Mercury,Hermes;☿,5\n"
    columns = ("id=qid", "name=Label", "aliases=also", "count=n")
    by_id, _ = run(tmp_path / "kb.csv", content, column=columns, alias_separator=";")
    assert by_id == {"Q1": {"id": "Q1", "name": "Mercury", "aliases": ["Hermes", "☿"], "count": 5}}


def test_marks_and_line_ends_of_windows(tmp_path: Path) -> None:
    by_id, _ = run(tmp_path / "kb.csv", b'\xef\xbb\xbfid,name\r\nQ1,"two\r\nlines"\r\n\r\nQ2,B\r\n')
    assert {row["name"] for row in by_id.values()} == {"two\nlines", "B"}


def test_rows_that_cannot_be_used(tmp_path: Path) -> None:
    rows = [
        b"id,name,count",
        b"Q1,J\xe4ger,1",
        b"Q2",
        b"Q3,C,1,2",
        b",D,1",
        b"Q5,,1",
        b"Q6,F,many",
        b"Q7,G,-1",
        b"Q8,H,99999999999999999999999",
        b"Q6,again,1",
        b"Q9,I,nan",
    ]
    by_id, report = run(tmp_path / "kb.csv", b"\n".join(rows))
    assert {kb_id: row.get("count") for kb_id, row in by_id.items()} == {"Q6": None, "Q7": None, "Q8": None, "Q9": None}
    assert report.dropped == {
        "rows that are not UTF-8 (save it as UTF-8)": 1,
        "rows with another number of columns than the header": 2,
        "entities without an id": 1,
        "entities without a name": 1,
        "counts that are not a whole number from 0 (the entity is kept)": 4,
        "entities with the id of an earlier one": 1,
    }
    assert report.dropped.examples["rows that are not UTF-8 (save it as UTF-8)"] == ["kb.csv:2: Q1,J\\xe4ger,1"]
    assert (
        report.dropped.examples["rows with another number of columns than the header"][0]
        == "kb.csv:3: 1 instead of 3: Q2"
    )
    assert report.read["rows"] == 10


@pytest.mark.parametrize(
    ("text", "count"),
    [("12", 12), ("12.0", 12), ("12.000", None), ("1.234.567", None), ("12,0", None), ("1e3", 1000)],
)
def test_counts_of_spreadsheets(tmp_path: Path, text: str, count: int | None) -> None:
    by_id, report = run(tmp_path / "kb.csv", f"id;name;count\nQ1;A;{text}\n", delimiter=";")
    assert by_id["Q1"].get("count") == count
    assert report.dropped == ({} if count else {"counts that are not a whole number from 0 (the entity is kept)": 1})


def test_the_first_line_of_excel_names_the_delimiter(tmp_path: Path) -> None:
    by_id, _ = run(tmp_path / "kb.csv", "\ufeffsep=;\r\nid;name\r\nQ1;A, B\r\n")
    assert by_id["Q1"]["name"] == "A, B"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,name\rQ1,A\rQ2,B\r", "line ends of old Macs"),
        ("id,name\nQ1,A\n".encode("utf-16"), "is UTF-16: save it as UTF-8"),
    ],
)
def test_a_file_that_is_no_text_in_lines_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=rf"kb\.csv.* {message}"):
        run(tmp_path / "kb.csv", content)


def test_quotation_marks_that_are_no_csv_take_no_other_row_with_them(tmp_path: Path) -> None:
    content = (
        'id\tname\nQ1\t"Weird Al" Yankovic\nQ2\t"not closed\nQ3\tC\nQ4\t5" disk\nQ5\t"Big ""E"""\nQ6\t"two\nlines"\n'
    )
    by_id, report = run(tmp_path / "kb.tsv", content)
    assert {kb_id: row["name"] for kb_id, row in by_id.items()} == {
        "Q1": '"Weird Al" Yankovic',
        "Q2": '"not closed',
        "Q3": "C",
        "Q4": '5" disk',
        "Q5": 'Big "E"',
        "Q6": "two\nlines",
    }
    assert report.dropped == {}


cells = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1, max_size=8).filter(
    lambda text: text == text.strip() and text.isprintable()
)


@settings(max_examples=60)
@given(st.dictionaries(cells, cells, min_size=1, max_size=8), st.sampled_from([",", "\t", ";"]))
def test_what_csv_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, str], delimiter: str
) -> None:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerows([("id", "name"), *rows.items()])
    by_id, report = run(tmp_path_factory.mktemp("csv") / "kb.csv", file.getvalue(), delimiter=delimiter)
    assert {kb_id: row["name"] for kb_id, row in by_id.items()} == rows
    assert report.dropped == {}


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        ("a,b\n1,2\n", {}, r"kb\.csv:1: no column 'id' in the header, but a, b: name it with --column id=COLUMN"),
        ("id,name\n1,2\n", {"column": ("count=n",)}, "no column 'n' in the header"),
        ("id,name\n1,2\n", {"column": ("title=n",)}, "'title=n': give FIELD=COLUMN with one of id, name"),
        ("id,name\n1,2\n", {"delimiter": "::"}, "the delimiter is '::': give one character"),
        ("id,name\n1,2\n", {"alias_separator": ""}, "separator of aliases is empty"),
        ("", {}, "no column 'id' in the header, but nothing"),
        ("id,name\n", {}, "no entity in .*, so nothing was written"),
        ("\ufeffid,name\nQ1,A\n".encode("utf-16-le"), {}, "is UTF-16: save it as UTF-8"),
    ],
)
def test_files_that_are_no_such_table(tmp_path: Path, content: Any, options: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        run(tmp_path / "kb.csv", content, **options)
    assert not (tmp_path / "out" / "entities.jsonl").exists()
