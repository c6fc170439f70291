"""JSON lines: no line raises, and no mention is lost."""

import json
from pathlib import Path

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.data.jsonl import read_jsonl
from spacy_gemel.data.reader import doc_from_record
from spacy_gemel.data.records import Problem, Record, split_overlaps

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
    path.write_bytes(line)
    for item in read_jsonl(path):
        if isinstance(item, Record):
            for record in split_overlaps(item)[0]:
                doc_from_record(record, NLP.make_doc, record.image_path_from(Path()))


def test_a_blank_line_and_a_byte_order_mark_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"id": 7, "text": "Java"}\n\n  \n')
    (record,) = read_jsonl(path)
    assert isinstance(record, Record) and record.id == "7"
