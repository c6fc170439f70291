"""Mentions that overlap are split into several records, and none is lost."""

from pathlib import Path

import spacy
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.data.reader import doc_from_record
from spacy_gemel.data.records import MentionSpan, Record, split_overlaps

NLP = spacy.blank("en")
TEXT = st.text(alphabet=st.sampled_from("ab Z.,-’'\n\t😀é(1"), min_size=1, max_size=30)


@settings(max_examples=300)
@given(TEXT, st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29), st.sampled_from("xy")), max_size=8))
def test_mentions_that_overlap_are_all_in_some_doc(text: str, spans: list[tuple[int, int, str]]) -> None:
    mentions = [
        MentionSpan(start, end, kb_id)
        for start, end, kb_id in spans
        if start < end <= len(text) and text[start:end].strip()
    ]
    records, problems = split_overlaps(Record("f:1", text, mentions=tuple(mentions)))
    assert [record.rows for record in records] == [1] + [0] * (len(records) - 1)
    split = [mention for record in records for mention in record.mentions or ()]
    assert len(split) + len(problems) + records[0].merged == len(mentions)
    # every span is there once, with the gold that came first
    golds: dict[tuple[int, int], str] = {}
    for mention in mentions:
        golds.setdefault((mention.start, mention.end), mention.kb_id)
    assert {(mention.start, mention.end): mention.kb_id for mention in split} == golds and len(split) == len(golds)
    for record in records:
        doc, problems, _ = doc_from_record(record, NLP.make_doc, None)
        assert not problems and len(doc.ents) == len(record.mentions or ())


def test_mentions_that_are_not_annotated_stay_so() -> None:
    (record,), _ = split_overlaps(Record("f:1", "Java"))
    assert record.mentions is None
    assert not doc_from_record(record, NLP.make_doc, None)[0].has_annotation("ENT_IOB")


def test_a_relative_path_is_the_same_behind_a_link(tmp_path: Path) -> None:
    """A corpus may be written by one path to its folder and read by another."""
    (tmp_path / "home" / "project" / "corpus").mkdir(parents=True)
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "corpora").symlink_to(tmp_path / "home" / "project" / "corpus")
    record = Record("", "text", image="1.jpg", folder=tmp_path / "home" / "project" / "pictures")
    for folder in ("home/project/corpus", "scratch/corpora"):
        assert record.image_path_from(tmp_path / folder) == "../pictures/1.jpg"
