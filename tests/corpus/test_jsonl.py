"""The converter on good and bad rows."""

import json
from pathlib import Path

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import DocBin

from spacy_gemel.corpus.converters import CONVERTERS, convert, report_path
from spacy_gemel.corpus.docs import doc_of
from spacy_gemel.corpus.jsonl import parse_line, read_jsonl
from spacy_gemel.corpus.records import Mention, Problem, Record

GOOD = {
    "id": 7,
    "text": "Mercuryrises over Java.",
    "image": "images/7.jpg",
    "mentions": [
        {"start": 0, "end": 7, "kb_id": "Mercury (planet)", "label": "PLANET"},
        {"start": 18, "end": 22, "kb_id": "NIL"},
    ],
}


def write(path: Path, rows: list[object]) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def docs_of(path: Path) -> list[spacy.tokens.Doc]:
    return list(DocBin().from_disk(path).get_docs(spacy.blank("en").vocab))


def test_converts_mentions_image_and_id(tmp_path: Path) -> None:
    source = write(tmp_path / "raw" / "train.jsonl", [GOOD])
    (tmp_path / "raw" / "images").mkdir()
    (tmp_path / "raw" / "images" / "7.jpg").write_bytes(b"picture")
    out = tmp_path / "data" / "train.spacy"
    report = convert("jsonl", source, out, progress=False)
    (doc,) = docs_of(out)
    assert doc.text == GOOD["text"]
    # "Mercury" ends inside the token "Mercuryrises": widened, not dropped
    assert [(e.text, e.label_, e.kb_id_) for e in doc.ents] == [
        ("Mercuryrises", "PLANET", "Mercury (planet)"),
        ("Java", "ENTITY", "NIL"),
    ]
    assert doc.user_data == {"id": "7", "image": "../raw/images/7.jpg"}
    assert (out.parent / doc.user_data["image"]).samefile(tmp_path / "raw" / "images" / "7.jpg")
    assert (report.mentions_widened, report.mentions_nil, report.images_missing) == (1, 1, 0)


def test_counts_what_it_leaves_out_by_reason_with_file_and_line(tmp_path: Path) -> None:
    spans = [
        {"start": 0, "end": 4, "kb_id": "a"},
        {"start": 2, "end": 9, "kb_id": "overlaps"},
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
    out = tmp_path / "out.spacy"
    report = convert("jsonl", write(tmp_path / "in.jsonl", rows), out, progress=False)
    written = json.loads(report_path(out).read_text())
    assert written == report.to_dict()
    assert written["rows"]["read"] == len(rows)
    assert written["rows"]["kept"] == 1
    assert sum(written["rows"]["dropped"].values()) == len(rows) - 1
    assert written["mentions"] == {
        "read": 8,
        "kept": 2,
        "dropped": {
            "kb_id is not a string": 1,
            "not an object": 1,
            "overlaps an earlier mention": 1,
            "start and end are not inside the text": 1,
            "start or end is not a whole number": 1,
            "the mention is blank": 1,
        },
        "widened_to_tokens": 1,
        "nil": 0,
        "unannotated": 1,
    }
    assert written["problems"][0].startswith(f"{tmp_path / 'in.jsonl'}:1: row left out: not JSON")
    assert any(f"{tmp_path / 'in.jsonl'}:2, mention 3" in line for line in written["problems"])
    (doc,) = docs_of(out)
    assert [e.kb_id_ for e in doc.ents] == ["a", ""]


def test_counts_images_that_are_not_there(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [GOOD, {"text": "Java", "mentions": []}])
    assert convert("jsonl", source, tmp_path / "o.spacy", progress=False).to_dict()["images"] == {
        "named": 1,
        "missing": 1,
    }


def test_an_absolute_image_path_stays_absolute(tmp_path: Path) -> None:
    image = str(tmp_path / "x.jpg")
    convert("jsonl", write(tmp_path / "in.jsonl", [{**GOOD, "image": image}]), tmp_path / "d" / "o.spacy")
    assert docs_of(tmp_path / "d" / "o.spacy")[0].user_data["image"] == image


@pytest.mark.parametrize(
    ("dataset", "rows", "out", "lang", "says"),
    [
        ("nosuch", [GOOD], "o.spacy", "en", "unknown data set 'nosuch': there are jsonl"),
        ("jsonl", [GOOD], "o.bin", "en", "must end in .spacy"),
        ("jsonl", [GOOD], "o.spacy", "zz", "no language 'zz'"),
        ("jsonl", [{"text": 1}], "o.spacy", "en", "not one usable row of 1"),
        ("jsonl", None, "o.spacy", "en", "no such file"),
    ],
)
def test_one_clear_error(
    tmp_path: Path, dataset: str, rows: list[object] | None, out: str, lang: str, says: str
) -> None:
    source = tmp_path / "in.jsonl" if rows is None else write(tmp_path / "in.jsonl", rows)
    with pytest.raises(ValueError, match=says):
        convert(dataset, source, tmp_path / out, lang=lang, progress=False)
    assert not (tmp_path / out).exists()


def test_another_data_set_is_one_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lines(path: Path):
        for number, text in enumerate(path.read_text().splitlines(), start=1):
            yield Record(f"{path}:{number}", text, mentions=(Mention(0, len(text), "x"),))

    monkeypatch.setitem(CONVERTERS, "lines", lines)
    (tmp_path / "in.txt").write_text("Java\nJaguar\n")
    assert convert("lines", tmp_path / "in.txt", tmp_path / "o.spacy", progress=False).mentions_kept == 2


def test_same_bytes_for_the_same_input(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [GOOD] * 3)
    for name in ("a.spacy", "b.spacy"):
        convert("jsonl", source, tmp_path / name, progress=False)
    assert (tmp_path / "a.spacy").read_bytes() == (tmp_path / "b.spacy").read_bytes()


TEXT = st.text(alphabet=st.sampled_from("ab Z.,-’'\n\t😀é(1"), min_size=1, max_size=30)


@settings(max_examples=300, deadline=None)
@given(TEXT, st.data())
def test_no_mention_is_lost_to_the_tokeniser(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    row = json.dumps({"text": text, "mentions": [{"start": start, "end": end, "kb_id": "x"}]}).encode()
    parsed = list(parse_line(row, where="f:1", folder=Path()))
    if not text.strip() or not text[start:end].strip():
        assert isinstance(parsed[0], Problem)
        return
    (record,) = parsed
    assert isinstance(record, Record)
    doc, problems, _ = doc_of(record, NLP.make_doc, None)
    assert not problems
    (ent,) = doc.ents
    assert text[start:end].strip() in ent.text


NLP = spacy.blank("en")


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["text", "image", "id", "mentions", "start", "end", "kb_id", "label"]),
                    inner,
                    max_size=5,
                )
            ),
            max_leaves=12,
        ).map(lambda row: json.dumps(row).encode()),
    )
)
def test_no_line_raises(line: bytes) -> None:
    for item in parse_line(line, where="f:1", folder=Path()):
        if isinstance(item, Record):
            doc_of(item, NLP.make_doc, item.image_for(Path()))


def test_a_blank_line_and_a_byte_order_mark_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\n\n  \n")
    (record,) = read_jsonl(path)
    assert isinstance(record, Record) and record.id == "7"
