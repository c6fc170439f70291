"""JSON lines: no line raises, and no mention is lost."""

import json
from pathlib import Path
from typing import Any

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.data.jsonl import read_jsonl
from spacy_gemel.data.reader import doc_from_record
from spacy_gemel.data.records import MentionSpan, Problem, Record, split_overlaps

NLP = spacy.blank("en")
TEXT = st.text(alphabet=st.sampled_from("ab Z.,-’'\n\t😀é(1"), min_size=1, max_size=30)


@settings(max_examples=300)
@given(TEXT, st.data())
def test_no_mention_is_lost_to_the_tokeniser(
    tmp_path_factory: pytest.TempPathFactory, text: str, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    path = tmp_path_factory.getbasetemp() / "mention.jsonl"
    path.write_text(json.dumps({"text": text, "mentions": [{"start": start, "end": end, "kb_id": "x"}]}))
    parsed = list(read_jsonl(path))
    if not text.strip() or not text[start:end].strip():
        assert isinstance(parsed[0], Problem)
        return
    (record,) = parsed
    assert isinstance(record, Record)
    doc, problems, _ = doc_from_record(record, NLP.make_doc, None)
    assert not problems
    (ent,) = doc.ents
    assert text[start:end].strip() in ent.text


@settings(max_examples=300)
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
def test_no_line_raises(tmp_path_factory: pytest.TempPathFactory, line: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "line.jsonl"
    path.write_bytes(b"\n" + line)  # of the first line what is no JSON lines is told
    for item in read_jsonl(path):
        if isinstance(item, Record):
            for record in split_overlaps(item)[0]:
                doc_from_record(record, NLP.make_doc, record.image_path_from(Path()))


def test_a_blank_line_and_a_byte_order_mark_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"id": 7, "text": "Java"}\n\n  \n')
    (record,) = read_jsonl(path)
    assert isinstance(record, Record) and record.id == "7"


PHOTOS = "\U0001f4f7\U0001f4f7 São Tomé saw Mercury, and Mercury saw Java"


def mention_of(tmp_path: Path, row: dict[str, Any]) -> MentionSpan | Problem:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(row), encoding="utf8")
    first, *records = read_jsonl(path)
    if isinstance(first, Problem):
        return first
    assert not records and first.mentions is not None
    return first.mentions[0]


def units(text: str, encoding: str, size: int) -> int:
    return len(text.encode(encoding)) // size


@pytest.mark.parametrize(
    ("start", "words", "found", "rule"),
    [
        (PHOTOS.index("Mercury"), "Mercury", "first", "offsets of the data set"),
        (PHOTOS.index("Mercury"), None, "first", "offsets of the data set"),
        (PHOTOS.index("Mercury"), " mercury", "first", "offsets of the data set"),
        (units(PHOTOS[: PHOTOS.index("Mercury")], "utf-16-le", 2), "Mercury", "first", "offsets in units of UTF-16"),
        (units(PHOTOS[: PHOTOS.index("Mercury")], "utf-8", 1), "Mercury", "first", "offsets in units of UTF-8"),
        (units(PHOTOS[: PHOTOS.rindex("Mercury")], "utf-8", 1), "Mercury", "second", "offsets in units of UTF-8"),
        (3, "Java", "only", "the only place of its words"),
        (900, "Java", "only", "the only place of its words"),
        (-3, "Java", "only", "the only place of its words"),
    ],
)
def test_offsets_are_held_against_the_words(
    tmp_path: Path, start: int, words: str | None, found: str, rule: str
) -> None:
    mention = {"start": start, "end": start + len((words or "Mercury").strip()), "kb_id": "x", "text": words}
    at = {"first": PHOTOS.index("Mercury"), "second": PHOTOS.rindex("Mercury"), "only": PHOTOS.index("Java")}[found]
    read = mention_of(tmp_path, {"text": PHOTOS, "mentions": [mention]})
    assert isinstance(read, MentionSpan)
    assert (read.start, read.rule) == (at, rule)
    assert PHOTOS[read.start : read.end].lower() == (words or "Mercury").strip().lower()


@pytest.mark.parametrize("words", ["Mercury", "Pluto"])
def test_offsets_that_cannot_be_repaired_are_said(tmp_path: Path, words: str) -> None:
    mention = {"start": 4, "end": 4 + len(words), "kb_id": "x", "text": words}
    read = mention_of(tmp_path, {"text": PHOTOS, "mentions": [mention]})
    assert isinstance(read, Problem)
    assert (read.what, read.reason) == ("mention", "its offsets and its words differ")
    assert words in read.detail


def test_optional_fields_as_data_frames_write_them(tmp_path: Path) -> None:
    nothing = float("nan")
    row = {"id": 7.0, "text": "Mercury", "image": "", "mentions": [{"start": 0.0, "end": 7.0, "kb_id": "308"}]}
    path = tmp_path / "in.jsonl"
    mentions = [{"start": 0, "end": 7, "kb_id": nothing, "label": "", "text": nothing}]
    lines = [
        row,
        {**row, "id": nothing, "image": nothing, "mentions": mentions},
        {**row, "id": "", "mentions": nothing},
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf8")
    first, second, third = read_jsonl(path)
    assert isinstance(first, Record) and isinstance(second, Record) and isinstance(third, Record)
    assert (first.id, second.id, third.id) == ("7", None, None)
    assert first.image is second.image is third.image is third.mentions is None
    assert first.mentions == (MentionSpan(0, 7, "308"),) and second.mentions == (MentionSpan(0, 7),)


def test_an_image_may_be_a_data_uri(tmp_path: Path) -> None:
    rows = [{"text": "a", "image": f"data:image/png;base64,{data}"} for data in ("cGljdHVyZQ==", "!", "")]
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    record, *problems = read_jsonl(path)
    assert isinstance(record, Record)
    assert (record.image, record.picture) == (None, b"picture")
    assert doc_from_record(record, NLP.make_doc, None)[0].user_data["image"] == b"picture"
    assert {problem.reason for problem in problems if isinstance(problem, Problem)} == {
        "image is no data URI in base64"
    }
    assert len(problems) == 2
