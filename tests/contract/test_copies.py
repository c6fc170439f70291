"""What becomes of the answers when spaCy copies, joins, cuts and stores docs."""

import warnings
from typing import Any

import pytest
from PIL import Image
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span

from spacy_gemel.images.image import encode_png
from tests.mini_pipeline import captions, picture


@pytest.fixture(scope="module")
def linked(trained: Language) -> Doc:
    """Two mentions with answers of their own, and text behind them."""
    doc = trained.make_doc("Java is here. A photo of Mercury, and much more that is said of neither.")
    doc.ents = [Span(doc, 0, 1, label="ENT"), Span(doc, 7, 8, label="ENT")]
    doc.user_data["image"] = encode_png(Image.fromarray(picture("Mercury")))
    for index, token in enumerate(doc):
        token.is_sent_start = index in (0, 4)
    return trained(doc)


def answers(doc: Doc) -> list[Any]:
    return [[ent.text, ent.kb_id_, ent._.gemel_candidates] for ent in doc.ents]


def test_the_answers_differ(linked: Doc) -> None:
    first, second = (ent._.gemel_candidates for ent in linked.ents)
    assert first and second
    assert first != second


def test_a_copy_keeps_them_and_is_its_own(linked: Doc) -> None:
    copy = linked.copy()
    assert answers(copy) == answers(linked)
    copy.user_data["gemel_candidates"][0][2][0] = "changed"
    assert answers(copy) != answers(linked)


def test_stored_and_read(linked: Doc, trained: Language) -> None:
    assert answers(Doc(trained.vocab).from_bytes(linked.to_bytes())) == answers(linked)
    bytes_of = DocBin(store_user_data=True, docs=[linked]).to_bytes()
    [read] = DocBin().from_bytes(bytes_of).get_docs(trained.vocab)
    assert answers(read) == answers(linked)
    assert read.user_data["image"] == linked.user_data["image"]
    [bare] = DocBin().from_bytes(DocBin(docs=[linked]).to_bytes()).get_docs(trained.vocab)
    assert [row[1] for row in answers(bare)] == [ent.kb_id_ for ent in linked.ents]  # ids are on the tokens
    assert [row[2] for row in answers(bare)] == [[], []]
    assert len(linked.to_json()["ents"]) == 2


def test_joined_docs_keep_the_ids_and_lose_the_candidates(linked: Doc, trained: Language) -> None:
    """spaCy warns of it: user_data that is not a custom attribute has no place in two docs."""
    bare = linked.copy()
    del bare.user_data["image"]
    with pytest.warns(UserWarning, match="gemel_candidates"):
        joined = Doc.from_docs([bare, bare])
    assert [ent.kb_id_ for ent in joined.ents] == [ent.kb_id_ for ent in linked.ents] * 2
    assert [ent._.gemel_candidates for ent in joined.ents] == [[]] * 4
    assert len(trained(joined).ents[3]._.gemel_candidates) == 5


def test_a_span_as_doc_keeps_the_ids(linked: Doc) -> None:
    for sentence, ent in zip(linked.sents, linked.ents, strict=True):
        cut = sentence.as_doc()
        assert [(e.text, e.kb_id_) for e in cut.ents] == [(ent.text, ent.kb_id_)]
        assert cut.ents[0]._.gemel_candidates == []


def test_a_span_as_doc_with_its_user_data_keeps_its_own_answers(linked: Doc, trained: Language) -> None:
    """spaCy copies the rows as they are, with the places of the whole doc; here another mention's would fit."""
    doc = trained.make_doc("Java, where the rest is long, and Nile, about which there is nothing to say.")
    doc.ents = [Span(doc, 0, 1, label="ENT"), Span(doc, 9, 10, label="ENT")]
    doc = trained(doc)
    assert doc.ents[0]._.gemel_candidates != doc.ents[1]._.gemel_candidates
    cut = doc[9:].as_doc(copy_user_data=True)
    assert answers(cut) == answers(doc)[1:]
    cut = doc[4:].as_doc(copy_user_data=True)[5:].as_doc(copy_user_data=True)
    assert answers(cut) == answers(doc)[1:]
    assert answers(Doc(trained.vocab).from_bytes(cut.to_bytes())) == answers(doc)[1:]
    again = trained(cut)
    assert len(answers(again)[0][2]) == 5
    assert answers(again.copy()) == answers(again)
    for start in range(len(linked)):
        for ent in linked[start:].as_doc(copy_user_data=True).ents:
            [own] = [whole for whole in linked.ents if whole.text == ent.text]
            assert ent._.gemel_candidates == own._.gemel_candidates


def test_any_span_may_be_asked(linked: Doc) -> None:
    assert linked[0:1]._.gemel_candidates == linked.ents[0]._.gemel_candidates
    assert linked[1:3]._.gemel_candidates == []
    assert linked[0:0]._.gemel_candidates == []
    assert Span(linked, 0, 1, label="OTHER")._.gemel_candidates == linked.ents[0]._.gemel_candidates


def test_a_doc_that_was_linked_is_linked_again_from_its_bytes(linked: Doc, trained: Language) -> None:
    read = Doc(trained.vocab).from_bytes(linked.to_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [row[:2] for row in answers(trained(read))] == [row[:2] for row in answers(linked)]


def test_pickled_as_multiprocessing_does(trained: Language) -> None:
    from tests.sending import Sent

    doc = trained(captions(trained)[0])
    assert answers(Sent(doc).receive()) == answers(doc)
