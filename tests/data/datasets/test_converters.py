"""`convert`: reports, images, options and errors of all data sets."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from spacy_gemel.__main__ import app
from spacy_gemel.data.datasets.converters import CONVERTERS, convert
from spacy_gemel.data.fetch.urls import add_to_index
from spacy_gemel.data.records import MentionSpan, Record
from spacy_gemel.data.report import report_path
from tests.data.datasets.conversion import WIKI, ents, pictures, run, write

GOOD = {
    "id": 7,
    "text": "Mercuryrises over Java.",
    "image": "images/7.jpg",
    "mentions": [
        {"start": 0, "end": 7, "kb_id": "Mercury (planet)", "label": "PLANET"},
        {"start": 18, "end": 22, "kb_id": "NIL"},
    ],
}


def test_converts_mentions_image_and_id(tmp_path: Path) -> None:
    source = write(tmp_path / "raw" / "train.jsonl", [GOOD], lines=True)
    pictures(tmp_path / "raw" / "images", "7.jpg")
    report, (doc,), written = run("jsonl", source)
    assert doc.text == GOOD["text"]
    # "Mercury" ends inside the token "Mercuryrises": widened, not dropped
    assert ents(doc) == [("Mercuryrises", "PLANET", "Mercury (planet)"), ("Java", "ENTITY", "NIL")]
    assert doc.user_data == {"id": "7", "image": "../images/7.jpg"}
    assert (written["mentions"]["widened_to_tokens"], written["mentions"]["nil"]) == (1, 1)
    assert written["images"] == {"named": 1, "missing": 0}
    assert written == report.to_dict()


def test_counts_what_it_leaves_out_by_reason_with_file_and_line(tmp_path: Path) -> None:
    spans = [
        {"start": 0, "end": 4, "kb_id": "a"},
        {"start": 0, "end": 4, "kb_id": "at the same place"},
        {"start": 5, "end": 99, "kb_id": "outside"},
        {"start": True, "end": 4, "kb_id": "bool"},
        {"start": 4, "end": 5, "kb_id": "blank"},
        {"start": 5, "end": 9, "kb_id": ["x"]},
        "no object",
        {"start": 5, "end": 9},
    ]
    rows = [
        b"{broken",
        {"text": "Java coffee", "mentions": spans},
        [1],
        {"text": 3},
        {"text": "  "},
        b'"\xff"',
        {"text": "half \ud800", "mentions": []},
        {"text": "x", "image": 5},
        {"text": "x", "mentions": {}},
        {"text": "x", "id": [1]},
    ]
    source = write(tmp_path / "in.jsonl", rows, lines=True)
    _, (doc,), written = run("jsonl", source)
    assert written["rows"] == {
        "read": 10,
        "kept": 1,
        "dropped": {
            "id is neither a string nor a whole number": 1,
            "image is not a path": 1,
            "mentions is not a list": 1,
            "no text": 1,
            "not JSON": 1,
            "not UTF-8": 1,
            "not an object": 1,
            "the text is empty": 1,
            "the text is not valid Unicode": 1,
        },
    }
    assert written["mentions"] == {
        "read": 8,
        "kept": 2,
        "dropped": {
            "another mention has its place": 1,
            "kb_id is not a string": 1,
            "not an object": 1,
            "start and end are not inside the text": 1,
            "start or end is not a whole number": 1,
            "the mention is blank": 1,
        },
        "widened_to_tokens": 1,
        "nil": 0,
        "unannotated": 1,
    }
    assert written["problems"][0].startswith(f"{source}:1: row left out: not JSON")
    assert any(f"{source}:2, mention 3" in line for line in written["problems"])
    assert [e.kb_id_ for e in doc.ents] == ["a", ""]


def test_mentions_that_overlap_go_into_further_docs(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"picture")
    spans = [(9, 20, "Lena"), (14, 20, "Quist"), (0, 20, "both"), (0, 4, "Otto"), (9, 13, "first"), (9, 20, "Lena")]
    mentions = [{"start": start, "end": end, "kb_id": kb_id} for start, end, kb_id in spans]
    row = {"id": 1, "text": "Otto and Lena Quist.", "image": "x.jpg", "mentions": mentions}
    report, docs, written = run("jsonl", write(tmp_path / "in.jsonl", [row, GOOD], lines=True))
    assert [[(e.text, e.kb_id_) for e in doc.ents] for doc in docs] == [
        [("Otto and Lena Quist.", "both")],
        [("Otto", "Otto"), ("Lena Quist.", "Lena")],
        [("Lena", "first"), ("Quist.", "Quist")],
        [("Mercuryrises", "Mercury (planet)"), ("Java", "NIL")],
    ]
    assert {doc.text for doc in docs[:3]} == {row["text"]}
    assert all(doc.user_data == {"id": "1", "image": "../x.jpg"} for doc in docs[:3])
    assert written["docs"] == {"written": 4, "for_overlapping_mentions": 2}
    assert written["rows"] == {"read": 2, "kept": 2, "dropped": {}}
    assert (written["mentions"]["read"], written["mentions"]["kept"], written["mentions"]["dropped"]) == (8, 7, {})
    assert written["alignment"]["same_mention_listed_again"] == 1
    assert written["images"] == {"named": 4, "missing": 1}
    assert "docs: 4 written, 2 of them for mentions that overlap others" in report.summary()


def test_an_image_url_is_not_a_path(tmp_path: Path) -> None:
    """The URL is kept, and the file that fetch-images downloaded for it is used."""
    url, other_url = "https://upload.example.org/a/b%20c.jpg?x=1", "HTTP://example.org/d.png"
    rows = [{"text": "Java", "image": f" {url}\n"}, {"text": "Java", "image": other_url}, GOOD]
    source = write(tmp_path / "raw" / "in.jsonl", rows, lines=True)
    report, docs, written = run("jsonl", source)
    assert [doc.user_data for doc in docs] == [
        {"image_url": url},
        {"image_url": other_url},
        {"id": "7", "image": "../images/7.jpg"},
    ]
    assert written["docs_not_annotated"] == 2
    assert written["images"] == {"named": 1, "missing": 1}
    assert (written["image_urls"], written["image_urls_without_a_file"]) == (2, 2)
    assert "2 docs have only the URL of their image: download the images with fetch-images" in report.summary()

    name = "0123456789abcdef0123456789abcdef.jpg"
    pictures(tmp_path / "pictures", name)
    add_to_index(tmp_path / "pictures", url, name, len(b"picture"))
    _, docs, written = run("jsonl", source, images=tmp_path / "pictures")
    assert docs[0].user_data == {"image": f"../../pictures/{name}", "image_url": url}
    assert docs[1].user_data == {"image_url": other_url}
    assert written["image_urls_without_a_file"] == 1
    row = {"sentence": "Java", "imgPath": "x.jpg", "mention": ["Java"], "answer": ["Q1"], "img-url": url}
    _, (doc,), written = run("mimic", write(tmp_path / "raw" / "mimic.json", [row]), images=tmp_path / "pictures")
    assert doc.user_data["image"] == f"../../pictures/{name}"
    assert written["images"] == {"named": 1, "missing": 0}


def test_an_absolute_image_path_stays_absolute(tmp_path: Path) -> None:
    image = str(tmp_path / "x.jpg")
    _, (doc,), _ = run("jsonl", write(tmp_path / "in.jsonl", [{**GOOD, "image": image}], lines=True))
    assert doc.user_data["image"] == image


@pytest.mark.parametrize(
    ("dataset", "rows", "out", "options", "message"),
    [
        ("nosuch", [GOOD], "o.spacy", {}, "unknown data set 'nosuch': there are jsonl"),
        ("jsonl", [GOOD], "o.bin", {}, "must end in .spacy"),
        ("jsonl", [GOOD], "o.spacy", {"lang": "zz"}, "no language 'zz'"),
        ("jsonl", [{"text": 1}], "o.spacy", {}, "none of its 1 rows is usable.*: row left out: no text"),
        ("jsonl", None, "o.spacy", {}, "no such file"),
        ("mimic", [GOOD], "o.spacy", {"features": Path("f.h5")}, "mimic does not take --features: it is for gemel"),
        ("jsonl", [GOOD], "o.spacy", {"images": Path("nowhere")}, "nowhere: no such folder of images"),
    ],
)
def test_one_clear_error(
    tmp_path: Path, dataset: str, rows: list[object] | None, out: str, options: dict[str, Any], message: str
) -> None:
    source = tmp_path / "in.jsonl" if rows is None else write(tmp_path / "in.jsonl", rows, lines=True)
    with pytest.raises(ValueError, match=message):
        convert(dataset, source, tmp_path / out, progress=False, **options)
    assert not (tmp_path / out).exists()


def test_a_folder_is_answered_with_its_files(tmp_path: Path) -> None:
    for name in ("train.json", "val.json", "notes.txt"):
        write(tmp_path / "set" / name, [])
    with pytest.raises(ValueError, match=r"a folder; convert each of its files .*: there are train\.json, val\.json$"):
        convert("mimic", tmp_path / "set", tmp_path / "o.spacy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no \.json or \.jsonl file in it"):
        convert("mimic", tmp_path / "empty", tmp_path / "o.spacy")


def test_the_report_is_written_however_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "o.spacy"
    with pytest.raises(ValueError, match="none of its 2 rows is usable"):
        convert("jsonl", write(tmp_path / "in.jsonl", [b"{", {"text": 1}], lines=True), out, progress=False)
    written = json.loads(report_path(out).read_text())
    assert written["rows"] == {"read": 2, "kept": 0, "dropped": {"no text": 1, "not JSON": 1}}
    assert "none of its 2 rows is usable" in written["stopped"]

    # a data set is one function in the table
    def failing_reader(path: Path):
        yield Record(f"{path}:1", "Java", mentions=(MentionSpan(0, 4, "x"),))
        raise OSError("the disk is gone")

    monkeypatch.setitem(CONVERTERS, "failing", failing_reader)
    with pytest.raises(OSError, match="the disk is gone"):
        convert("failing", tmp_path / "in.jsonl", out, progress=False)
    written = json.loads(report_path(out).read_text())
    assert written["stopped"] == "OSError: the disk is gone"
    assert (written["rows"]["read"], written["mentions"]["kept"], written["docs"]["written"]) == (1, 1, 0)
    assert not out.exists()
    convert("jsonl", write(tmp_path / "in.jsonl", [GOOD], lines=True), out, progress=False)
    assert json.loads(report_path(out).read_text())["stopped"] is None


def test_same_bytes_for_the_same_input(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [GOOD] * 3, lines=True)
    for name in ("a.spacy", "b.spacy"):
        convert("jsonl", source, tmp_path / name, progress=False)
    assert (tmp_path / "a.spacy").read_bytes() == (tmp_path / "b.spacy").read_bytes()


def test_the_command(tmp_path: Path) -> None:
    images = pictures(tmp_path / "img", "1.jpg")
    rows = {"1": {"sentence": "Tom de Vaart", "mentions": ["Tom Vaart"], "answer": ["Q1"]}}
    source, out = write(tmp_path / "x.json", rows), tmp_path / "o.spacy"
    result = CliRunner().invoke(app, ["convert", "wikimel", str(source), str(out), "--images", str(images), "-q"])
    assert result.exit_code == 0, result.output
    assert "alignment: 0 verbatim, 0 not found" in result.stdout
    assert "1 x found by the rule: function words" in result.stdout
    assert "images: 1 named, 0 not found" in result.stdout
    result = CliRunner().invoke(app, ["convert", "wikimel", str(tmp_path), str(out)])
    assert result.exit_code == 1 and result.stderr.startswith("error: ") and "a folder" in result.stderr
    assert ", ".join(CONVERTERS) in " ".join(
        CliRunner().invoke(app, ["convert", "--help"]).stdout.replace("│", " ").split()
    )


ATOMS = (
    st.none() | st.booleans() | st.integers(-2, 9) | st.text(max_size=6) | st.sampled_from(["Ada", "nil", WIKI + "A"])
)
FIELDS = [
    "id",
    "sentence",
    "mention",
    "mentions",
    "answer",
    "imgPath",
    "img-url",
    "text",
    "golden",
    "target",
    "img_url",
    "image",
    "spans",
    "accept",
    "data",
    "annotations",
    "result",
    "value",
    "type",
    "labels",
    "start",
]
ROWS = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner, max_size=11) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=8),
    max_leaves=20,
)


@settings(max_examples=100)
@given(st.lists(ROWS, max_size=4), st.sampled_from(sorted(set(CONVERTERS) - {"jsonl", "parquet"})))
def test_no_row_raises_and_none_disappears(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], dataset: str
) -> None:
    good = {"text": "Ada", "sentence": "Ada", "mention": "Ada", "golden": "Q1", "answer": "Q1"}
    others = {"wikidiverse": ["Ada", None, "t", []], "label-studio": {"data": good}, "prodigy": {"text": "Ada"}}
    usable = others.get(dataset, good)
    path = tmp_path_factory.mktemp("rows") / "x.json"
    source = write(path, [usable, *rows], lines=dataset in ("gemel", "prodigy"))
    report, docs, written = run(dataset, source)
    assert written["rows"]["read"] == len(rows) + 1
    assert written["rows"]["kept"] + sum(written["rows"]["dropped"].values()) == len(rows) + 1
    assert sum(len(doc.ents) for doc in docs) == written["mentions"]["kept"] == report.mentions["kept"]
