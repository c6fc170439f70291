"""The converter on good and bad rows."""

import json
from pathlib import Path

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import DocBin

from spacy_gemel.data.datasets.converters import CONVERTERS, convert, report_path
from spacy_gemel.data.docs import doc_of
from spacy_gemel.data.fetch.index import add_to_index
from spacy_gemel.data.jsonl import parse_line, read_jsonl
from spacy_gemel.data.overlaps import apart
from spacy_gemel.data.records import Mention, Problem, Record

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
    assert written["problems"][0].startswith(f"{tmp_path / 'in.jsonl'}:1: row left out: not JSON")
    assert any(f"{tmp_path / 'in.jsonl'}:2, mention 3" in line for line in written["problems"])
    (doc,) = docs_of(out)
    assert [e.kb_id_ for e in doc.ents] == ["a", ""]


def test_mentions_that_overlap_go_into_further_docs(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"picture")
    spans = [(9, 20, "Lena"), (14, 20, "Quist"), (0, 20, "both"), (0, 4, "Otto"), (9, 13, "first"), (9, 20, "Lena")]
    mentions = [{"start": start, "end": end, "kb_id": kb_id, "label": kb_id} for start, end, kb_id in spans]
    row = {"id": 1, "text": "Otto and Lena Quist.", "image": "x.jpg", "mentions": mentions}
    report = convert("jsonl", write(tmp_path / "in.jsonl", [row, GOOD]), tmp_path / "o.spacy", progress=False)
    docs = docs_of(tmp_path / "o.spacy")
    assert [[(e.text, e.kb_id_) for e in doc.ents] for doc in docs] == [
        [("Otto and Lena Quist.", "both")],
        [("Otto", "Otto"), ("Lena Quist.", "Lena")],
        [("Lena", "first"), ("Quist.", "Quist")],
        [("Mercuryrises", "Mercury (planet)"), ("Java", "NIL")],
    ]
    assert {doc.text for doc in docs[:3]} == {row["text"]}
    assert all(doc.user_data == {"id": "1", "image": "x.jpg"} for doc in docs[:3])
    written = report.to_dict()
    assert written["docs"] == {"written": 4, "for_overlapping_mentions": 2}
    assert written["rows"] == {"read": 2, "kept": 2, "dropped": {}}
    assert (written["mentions"]["read"], written["mentions"]["kept"], written["mentions"]["dropped"]) == (8, 7, {})
    assert written["alignment"]["same_mention_listed_again"] == 1
    assert written["images"] == {"named": 4, "missing": 1}
    assert "2 further docs were made for mentions that overlap others" in report.summary()


def test_a_url_is_no_path(tmp_path: Path) -> None:
    """It stays where other data sets have it, and the folder that fetch-images filled is asked for it later."""
    url = "https://upload.example.org/a/b%20c.jpg?x=1"
    rows = [{"text": "Java", "image": f" {url}\n"}, {"text": "Java", "image": "HTTP://example.org/d.png"}, GOOD]
    source = write(tmp_path / "raw" / "in.jsonl", rows)
    report = convert("jsonl", source, tmp_path / "data" / "o.spacy", progress=False)
    assert report.to_dict()["docs_not_annotated"] == 2
    first, second, third = (doc.user_data for doc in docs_of(tmp_path / "data" / "o.spacy"))
    assert first == {"image_url": url}
    assert second == {"image_url": "HTTP://example.org/d.png"}
    assert third == {"id": "7", "image": "../raw/images/7.jpg"}
    written = report.to_dict()
    assert written["images"] == {"named": 1, "missing": 1}
    assert (written["image_urls"], written["image_urls_without_a_file"]) == (2, 2)
    assert "2 docs know only their image's URL: fetch-images downloads" in report.summary()

    name = "0123456789abcdef0123456789abcdef.jpg"
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / name).write_bytes(b"12345")
    add_to_index(tmp_path / "pictures", url, name, 5)
    report = convert("jsonl", source, tmp_path / "data" / "o.spacy", images=tmp_path / "pictures", progress=False)
    first, second, _ = (doc.user_data for doc in docs_of(tmp_path / "data" / "o.spacy"))
    assert first == {"image": f"../pictures/{name}", "image_url": url}
    assert second == {"image_url": "HTTP://example.org/d.png"}
    assert report.image_urls_alone == 1


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


def test_the_report_is_written_however_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "o.spacy"
    with pytest.raises(ValueError, match="not one usable row of 2"):
        convert("jsonl", write(tmp_path / "in.jsonl", [b"{", {"text": 1}]), out, progress=False)
    written = json.loads(report_path(out).read_text())
    assert written["rows"] == {"read": 2, "kept": 0, "dropped": {"no text": 1, "not JSON": 1}}
    assert "not one usable row" in written["stopped"]

    def breaks(path: Path):
        yield Record(f"{path}:1", "Java", mentions=(Mention(0, 4, "x"),))
        raise OSError("the disk is gone")

    monkeypatch.setitem(CONVERTERS, "breaks", breaks)
    with pytest.raises(OSError, match="the disk is gone"):
        convert("breaks", tmp_path / "in.jsonl", out, progress=False)
    written = json.loads(report_path(out).read_text())
    assert written["stopped"] == "OSError: the disk is gone"
    assert (written["rows"]["read"], written["mentions"]["kept"], written["docs"]["written"]) == (1, 1, 0)
    assert not out.exists()
    convert("jsonl", write(tmp_path / "in.jsonl", [GOOD]), out, progress=False)
    assert json.loads(report_path(out).read_text())["stopped"] is None


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
@given(TEXT, st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29), st.sampled_from("xy")), max_size=8))
def test_mentions_that_overlap_are_all_in_some_doc(text: str, spans: list[tuple[int, int, str]]) -> None:
    mentions = [
        Mention(start, end, kb_id)
        for start, end, kb_id in spans
        if start < end <= len(text) and text[start:end].strip()
    ]
    split = apart(Record("f:1", text, mentions=tuple(mentions)))
    assert [part.rows for part in split.records] == [1] + [0] * (len(split.records) - 1)
    kept = [mention for part in split.records for mention in part.mentions or ()]
    assert len(kept) + len(split.problems) + split.records[0].merged == len(mentions)
    # every place is there once, with the gold that came first
    golds: dict[tuple[int, int], str] = {}
    for mention in mentions:
        golds.setdefault((mention.start, mention.end), mention.kb_id)
    assert {(mention.start, mention.end): mention.kb_id for mention in kept} == golds and len(kept) == len(golds)
    for part in split.records:
        doc, problems, _ = doc_of(part, NLP.make_doc, None)
        assert not problems and len(doc.ents) == len(part.mentions or ())


def test_mentions_that_are_not_annotated_stay_so() -> None:
    (record,) = apart(Record("f:1", "Java")).records
    assert record.mentions is None
    assert not doc_of(record, NLP.make_doc, None)[0].has_annotation("ENT_IOB")


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
            for part in apart(item).records:
                doc_of(part, NLP.make_doc, part.image_for(Path()))


def test_a_blank_line_and_a_byte_order_mark_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\n\n  \n")
    (record,) = read_jsonl(path)
    assert isinstance(record, Record) and record.id == "7"
