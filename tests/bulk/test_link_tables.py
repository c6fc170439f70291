"""Tables in and out of `link`, and `link_table`."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import spacy
from pyarrow import parquet

from spacy_gemel.bulk import link_table
from spacy_gemel.bulk.sources import find_mention, read_rows
from tests.bulk.test_link_resume import linker, run
from tests.evaluation.doubles import pipeline

ROWS: list[dict[str, Any]] = [
    {"key": "k1", "text": "Mercury rises", "image": "a.jpg", "mention": "Mercury"},
    {"key": "k2", "text": "A Jaguar", "image": "", "mention": "Jaguar"},
    {"key": "k3", "text": "A Jaguar", "image": "", "mention": "Puma"},
]
IDS = ["Mercury (planet)", "Jaguar", None]


@pytest.fixture
def nlp() -> spacy.Language:
    return pipeline(linker(), entities=["Jaguar"])


def write_csv(path: Path) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()
    with path.open(newline="") as file:
        return [{name: value or None for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("given", [".csv", ".parquet"])
@pytest.mark.parametrize("wanted", [".csv", ".parquet"])
def test_a_table_keeps_its_rows_and_columns(nlp: spacy.Language, tmp_path: Path, given: str, wanted: str) -> None:
    source, out = tmp_path / f"in{given}", tmp_path / f"out{wanted}"
    if given == ".csv":
        write_csv(source)
    else:
        parquet.write_table(pa.Table.from_pylist(ROWS), source)
    report = run(nlp, source, out)
    assert (report.docs, report.failed) == (2, 1)
    linked = read(out)
    assert [row["key"] for row in linked] == ["k1", "k2", "k3"]
    assert [row["kb_id"] for row in linked] == IDS
    assert float(linked[0]["probability"]) == 0.5
    assert linked[2]["reason"] == "the mention does not stand in the text ('Puma')"


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_table_as_other_countries_spreadsheets_write_it(nlp: spacy.Language, tmp_path: Path, delimiter: str) -> None:
    lines = ["key", "text", "mention"], ["k1", "Mercury, rising", "Mercury"], ["k2", f'"A{delimiter} Jaguar"', "Jaguar"]
    text = "".join(delimiter.join(line) + "\r\n" for line in lines)
    (tmp_path / "in.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert run(nlp, tmp_path / "in.csv", tmp_path / "out.csv").docs == 2
    with (tmp_path / "out.csv").open(newline="") as file:
        linked = [*csv.DictReader(file, delimiter=delimiter)]
    assert [(row["text"], row["kb_id"]) for row in linked] == [
        ("Mercury, rising", "Mercury (element)"),
        (f"A{delimiter} Jaguar", "Jaguar"),
    ]


def test_what_a_killed_run_has_left_of_its_table_goes(nlp: spacy.Language, tmp_path: Path) -> None:
    (tmp_path / ".out.csv.0123abcd").write_text("half of a")
    (tmp_path / ".other.csv.0123abcd").write_text("another run's")
    run(nlp, write_csv(tmp_path / "in.csv"), tmp_path / "out.csv")
    assert not (tmp_path / ".out.csv.0123abcd").exists()
    assert (tmp_path / ".other.csv.0123abcd").exists()


def test_a_row_for_each_mention_of_json_lines(nlp: spacy.Language, tmp_path: Path) -> None:
    row = {"id": 1, "text": "Mercury and Jaguar", "mentions": [{"start": 0, "end": 7}, {"start": 12, "end": 18}]}
    (tmp_path / "in.jsonl").write_text(json.dumps(row))
    run(nlp, tmp_path / "in.jsonl", tmp_path / "out.parquet")
    first, second = read(tmp_path / "out.parquet")
    assert (first["line"], first["mention"], first["kb_id"]) == (1, "Mercury", "Mercury (element)")
    assert (second["start"], second["end"], second["kb_id"]) == (12, 18, "Jaguar")


def test_images_and_offsets_in_a_table(nlp: spacy.Language, tmp_path: Path) -> None:
    rows = [
        {"text": "Mercury rises", "image": {"bytes": b"png", "path": None}, "start": 0.0, "end": 7.0},
        {"text": "Mercury rises", "image": None, "start": 0.0, "end": 7.0},
        {"text": "Mercury rises", "image": None, "start": None, "end": 7.0},
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    run(nlp, tmp_path / "in.parquet", tmp_path / "out.jsonl")
    linked = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["mentions"][0]["kb_id"] for row in linked] == ["Mercury (planet)", "Mercury (element)"]
    assert "start or end is not a whole number" in (tmp_path / "out.jsonl.failed.jsonl").read_text()


@pytest.mark.parametrize("kind", ["pandas", "arrow"])
def test_a_table_in_memory(nlp: spacy.Language, kind: str) -> None:
    rows = [{"caption": row["text"], "word": row["mention"], "picture": row["image"]} for row in ROWS]
    table: Any = pa.Table.from_pylist(rows)
    if kind == "pandas":
        table = pytest.importorskip("pandas").DataFrame(rows)
    linked = link_table(table, nlp, text="caption", image="picture", mention="word")
    found = linked.to_dict("records") if kind == "pandas" else linked.to_pylist()
    # pandas 3 has NaN for a missing text
    assert [row["kb_id"] if isinstance(row["kb_id"], str) else None for row in found] == IDS
    assert [row["caption"] for row in found] == [row["text"] for row in ROWS]
    with pytest.raises(ValueError, match="no column 'text': name that of the texts"):
        link_table(table, nlp)


def test_a_damaged_table_is_named(nlp: spacy.Language, tmp_path: Path) -> None:
    (tmp_path / "in.parquet").write_bytes(b"text,mention")
    with pytest.raises(ValueError, match=r"in\.parquet: not a \.parquet file"):
        run(nlp, tmp_path / "in.parquet", tmp_path / "out.jsonl")


def test_a_table_that_is_damaged_further_on_is_named(nlp: spacy.Language, tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": ["A Jaguar at dusk"]}), tmp_path / "sound.parquet", compression="none")
    sound = (tmp_path / "sound.parquet").read_bytes()
    (tmp_path / "in.parquet").write_bytes(sound.replace(b"A Jaguar", b"A \xffaguar"))
    with pytest.raises(
        ValueError, match=r"in\.parquet: not a \.parquet file that can be read: .*can't decode byte 0xff"
    ):
        run(nlp, tmp_path / "in.parquet", tmp_path / "out.jsonl")
    (tmp_path / "in.parquet").write_bytes(sound[:4] + bytes(20) + sound[24:])  # the header of a page
    with pytest.raises(ValueError, match=r"in\.parquet: not a \.parquet file that can be read"):
        run(nlp, tmp_path / "in.parquet", tmp_path / "out.jsonl")


@pytest.mark.parametrize("content", [b"text,mention", gzip.compress(b"text,mention\n" * 99)[:-20]])
def test_a_packed_table_that_is_damaged_is_named(nlp: spacy.Language, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in.csv.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"in\.csv\.gz: not a \.csv file that can be read"):
        run(nlp, tmp_path / "in.csv.gz", tmp_path / "out.jsonl")


def test_a_stray_line_break_in_a_csv(nlp: spacy.Language, tmp_path: Path) -> None:
    """In the header it is a fault of the file, in a row of that row."""
    (tmp_path / "in.csv").write_bytes(b"te\rxt,mention\nA Jaguar,Jaguar\n")
    with pytest.raises(ValueError, match=r"in\.csv: not a \.csv file that can be read: new-line character"):
        run(nlp, tmp_path / "in.csv", tmp_path / "out.jsonl")
    (tmp_path / "in.csv").write_bytes(b"text,mention\nA Ja\rguar,Jaguar\nA Jaguar,Jaguar\n")
    report = run(nlp, tmp_path / "in.csv", tmp_path / "out.jsonl")
    [failure] = [json.loads(line) for line in (tmp_path / "out.jsonl.failed.jsonl").read_text().splitlines()]
    assert (report.rows, report.docs, failure["line"]) == (2, 1, 1)
    assert failure["reason"].startswith("not CSV ('new-line character seen")


@pytest.mark.parametrize("wanted", ["out.csv", "out.jsonl", "out.csv.gz"])
def test_a_bad_row_of_a_table_costs_no_other(nlp: spacy.Language, tmp_path: Path, wanted: str) -> None:
    rows = [b"text,mention,image", b"A Jaguar,Jaguar,", b"caf\xe9 Jaguar,Jaguar,", b"A Jaguar,Jaguar,,more", b"B,,nan"]
    rows += [b'"A" Jaguar,Jaguar,', b'"A\nJaguar",Jaguar,', b"no Jaguar"]
    (tmp_path / "in.csv").write_bytes(b"\n".join(rows))
    report = run(nlp, tmp_path / "in.csv", tmp_path / wanted)
    failures = [json.loads(line) for line in (tmp_path / f"{wanted}.failed.jsonl").read_text().splitlines()]
    assert {row["line"]: row["reason"].split(" (")[0] for row in failures} == {
        2: "the text is not valid Unicode",
        3: "more fields than the header has columns",
    }
    assert (report.rows, report.docs) == (7, 5)
    if wanted == "out.csv":
        assert [row["kb_id"] for row in read(tmp_path / wanted)] == ["Jaguar", *[None] * 3, *["Jaguar"] * 3]


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("text,name", "has a column 'name', which the answers need"),
        ("text,text", "two columns 'text'"),
        ("caption,mention", "no column 'text', only 'caption', 'mention'"),
        ("", "no column 'text', only none"),
    ],
)
def test_a_table_that_could_not_be_written_is_refused_first(
    nlp: spacy.Language, tmp_path: Path, header: str, says: str
) -> None:
    (tmp_path / "in.csv").write_text(f"{header}\nA Jaguar,Jaguar\n")
    with pytest.raises(ValueError, match=says):
        run(nlp, tmp_path / "in.csv", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv.partial").exists()


def test_parts_of_other_columns_make_no_table(nlp: spacy.Language, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "0.csv").write_text("text,key\nA Jaguar,1\n")
    (tmp_path / "parts" / "1.csv").write_text("text,other\nA Jaguar,1\n")
    with pytest.raises(ValueError, match=r"1\.csv: it has other columns"):
        run(nlp, tmp_path / "parts", tmp_path / "out.csv")
    assert run(nlp, tmp_path / "parts", tmp_path / "out.jsonl").docs == 2


@pytest.mark.parametrize(
    ("text", "mention", "at"),
    [("carbon car", "car", 7), ("carbon", "car", 0), ("C++ and C", "C++", 0), ("x", "y", None), ("x y", " ", None)],
)
def test_where_a_mention_begins(text: str, mention: str, at: int | None) -> None:
    assert find_mention(text, mention) == at


def test_rows_that_unpack_to_more_than_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    parquet.write_table(pa.table({"text": ["x" * 2**24]}), tmp_path / "bomb.parquet", compression="zstd")
    monkeypatch.setattr("spacy_gemel.bulk.sources.unpacked_limit", lambda size: 100 * size)
    with pytest.raises(ValueError, match="write smaller row groups"):
        list(read_rows(tmp_path / "bomb.parquet", spacy.blank("en").vocab))
