"""Which entities are linked, what is written on a doc, and what is left as it is."""

from pathlib import Path
from typing import Any

import pytest
import spacy
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span

from spacy_gemel.pipeline.loaded_pipeline import overridden
from tests.entity_linker.world import (
    GOLDS,
    PLANET,
    TEXT,
    add_linker,
    candidates,
    ids,
    make_world_kb,
    photo,
    rounded,
    training_data,
)
from tests.mini_pipeline import Ent, doc_of, linker, picture

LONG = "The god Mercury of Rome met Mercury and Hermes at dawn in New York City."


@pytest.fixture
def pipe(trained: Language) -> Any:
    """The trained pipe, whose settings are set back after the test."""
    pipe = linker(trained)
    with overridden(pipe, **vars(pipe.settings)):
        yield pipe


# Docs of all kinds


@pytest.mark.parametrize("text", ["", " ", "\n\n \t", "No entity is here."])
def test_a_doc_without_entities_is_left_alone(trained: Language, text: str) -> None:
    doc = trained.make_doc(text)
    doc.user_data["image"] = picture("Mercury")
    before = doc.to_bytes()
    assert trained(doc).to_bytes() == before
    assert list(trained.pipe([text, text], batch_size=1))[1].text == text


@pytest.mark.parametrize("words", ["Mercury", LONG])
def test_an_entity_may_be_all_of_the_doc(trained: Language, words: str) -> None:
    doc = trained(doc_of(trained, words, (words, "ENT", "")))
    assert {token.ent_kb_id_ for token in doc} == set(ids(doc))
    assert ids(doc)[0] in GOLDS


def test_every_token_of_an_entity_gets_its_id_and_no_other(trained: Language) -> None:
    doc = trained(doc_of(trained, LONG, ("god Mercury of Rome", "ENT", ""), ("New York City", "ENT", "")))
    first, second = ids(doc)
    expected = ["", *[first] * 4, *[""] * 7, *[second] * 3, ""]
    assert [token.ent_kb_id_ for token in doc] == expected
    assert doc[1:5].ents[0].kb_id_ == first  # spans that are made later know it as well
    assert Span(doc, 12, 15, label="ENT", kb_id=doc[13].ent_kb_id).kb_id_ == second


def test_neighbours_stay_two_entities(trained: Language) -> None:
    doc = trained(doc_of(trained, "Mercury Mercury Mercury", *[("Mercury", "ENT", "")] * 3))
    assert [(ent.start, ent.end) for ent in doc.ents] == [(0, 1), (1, 2), (2, 3)]
    assert len(candidates(doc)) == 3


def test_entities_and_labels_are_never_changed(trained: Language) -> None:
    doc = doc_of(trained, LONG, ("god Mercury", "GOD", ""), ("Hermes", "PERSON", ""), ("New York City", "GPE", ""))
    before = [(ent.start, ent.end, ent.label_) for ent in doc.ents]
    assert [(ent.start, ent.end, ent.label_) for ent in trained(doc).ents] == before


def test_an_entity_across_sentences_is_linked(trained: Language, pipe: Any) -> None:
    pipe.configure(context="sentence")
    doc = doc_of(trained, "Mahler wrote Symphony No. 8 in Vienna.", ("Symphony No. 8", "WORK", ""))
    for token in doc:
        token.is_sent_start = token.i in (0, 5)
    assert ids(trained(doc))[0] in GOLDS


# Ids that are there already


def test_overwrite(trained: Language, pipe: Any) -> None:
    def doc() -> Doc:
        return doc_of(trained, LONG, ("Mercury", "ENT", "Q1"), ("Hermes", "ENT", ""), ("New York City", "ENT", "NIL"))

    pipe.overwrite = False
    kept = trained(doc())
    assert (ids(kept)[0], ids(kept)[2]) == ("Q1", "NIL")
    assert ids(kept)[1] in GOLDS
    assert [bool(found) for found in candidates(kept)] == [False, True, False]
    pipe.overwrite = True
    replaced = trained(doc())
    assert set(ids(replaced)) <= set(GOLDS)
    assert rounded(replaced)[1] == rounded(kept)[1]


def test_where_only_some_tokens_have_an_id(trained: Language, pipe: Any) -> None:
    """As spaCy's own linker does: an entity has the id of its first token, and tokens with an id keep it."""
    pipe.overwrite = False
    doc = doc_of(trained, LONG, ("New York City", "ENT", ""))
    doc[13].ent_kb_id_ = "Q1"
    linked = [token.ent_kb_id_ for token in trained(doc)[12:15]]
    assert linked[0] == linked[2] != "Q1" == linked[1]
    pipe.overwrite = True
    assert len({token.ent_kb_id_ for token in trained(doc)[12:15]}) == 1


def test_linked_once_more_without_overwrite_nothing_is_lost(trained: Language, pipe: Any) -> None:
    pipe.overwrite = False
    doc = trained(photo(trained, like=PLANET))
    before = rounded(doc)
    assert before[0][2]
    assert rounded(trained(doc)) == before
    [unpacked] = DocBin(store_user_data=True, docs=[doc]).get_docs(trained.vocab)
    assert rounded(trained(unpacked)) == before  # where the rows have become tuples
    pipe.labels_discard = ["ENT"]
    assert rounded(trained(doc)) == before  # an entity that keeps its id is not discarded either
    cut = doc[2:].as_doc(copy_user_data=True)
    assert rounded(trained(cut)) == before
    doc.set_ents([])
    assert "gemel_candidates" not in trained(doc).user_data  # what is no entity any more is not kept


def test_entities_of_an_older_doc_go_with_its_ids(trained: Language) -> None:
    doc = trained(doc_of(trained, LONG, ("Hermes", "ENT", ""), ("New York City", "ENT", "")))
    doc.set_ents([Span(doc, 2, 3, label="ENT")])
    assert [[row[0], row[1]] for row in trained(doc).user_data["gemel_candidates"]] == [[8, 15]]


def test_entities_given_as_tuples(trained: Language, pipe: Any) -> None:
    """doc.ents of (label, id, start, end) in numbers, the oldest way to set them."""
    doc = trained.make_doc(TEXT)
    strings = trained.vocab.strings
    doc.ents = [(strings.add("ENT"), strings.add("Q1"), 3, 4)]
    pipe.overwrite = False
    assert ids(trained(doc)) == ["Q1"]
    pipe.overwrite = True
    assert ids(trained(doc))[0] in GOLDS


# What stays of it


def test_candidates_stay_where_tokens_are_merged(trained: Language) -> None:
    doc = trained(doc_of(trained, LONG, ("New York City", "ENT", "")))
    expected = candidates(doc)
    with doc.retokenize() as retokenizer:
        retokenizer.merge(doc[1:3])
        retokenizer.merge(doc.ents[0])
    assert (ids(doc)[0] in GOLDS, candidates(doc)) == (True, expected)


# Discarded labels, and batches


def test_discarded_labels_are_nil(trained: Language, pipe: Any) -> None:
    def doc() -> Doc:
        return doc_of(trained, LONG, ("Mercury", "ENT", ""), ("Hermes", "GOD", "Q1"), ("New York City", "GPE", ""))

    expected = rounded(trained(doc()))
    pipe.labels_discard = ["GOD"]
    found = rounded(trained(doc()))
    assert found == [expected[0], ("Hermes", "NIL", []), expected[2]]
    pipe.overwrite = False
    assert ids(trained(doc()))[1] == "Q1"  # it has an id already


WORDS = {"Mercury": "ENT", "Hermes": "GOD", "Rome": "GPE", "New York City": "GPE"}


@given(st.data())
@hypothesis_settings(max_examples=25)
def test_nothing_shifts_to_another_doc_or_entity(trained: Language, pipe: Any, data: st.DataObject) -> None:
    """Batches of docs with and without entities, some labels discarded, some ids kept: each gets what it gets alone."""
    pipe.overwrite = data.draw(st.booleans(), label="overwrite")
    pipe.labels_discard = data.draw(st.lists(st.sampled_from(["ENT", "GOD", "GPE"]), unique=True), label="discard")
    chosen = st.lists(st.sampled_from(sorted(WORDS)), unique=True)
    given_ids = st.sampled_from(["", "", "Q1"])
    batch = data.draw(st.lists(st.tuples(chosen, given_ids, st.booleans()), max_size=6), label="batch")

    def docs() -> list[Doc]:
        made = []
        for index, (words, kb_id, with_image) in enumerate(batch):
            ents: list[Ent] = [(word, WORDS[word], kb_id) for word in sorted(words, key=LONG.index)]
            made.append(doc_of(trained, LONG, *ents, image=picture("Mercury", index) if with_image else None))
        return made

    alone = [rounded(trained(doc)) for doc in docs()]
    size = data.draw(st.integers(1, 6), label="batch size")
    assert [rounded(doc) for doc in trained.pipe(docs(), batch_size=size)] == alone
    for linked, (_, kb_id, _) in zip(alone, batch, strict=True):
        for words, found, rows in linked:
            if kb_id and not pipe.overwrite:
                assert (found, rows) == (kb_id, [])
            elif WORDS[words] in pipe.labels_discard:
                assert (found, rows) == ("NIL", [])
            else:
                assert found in GOLDS


def test_a_stream_keeps_its_order_and_its_docs(trained: Language) -> None:
    kinds = [PLANET, "", "Mercury", "Mercury_(element)", "", PLANET] * 5
    docs = [photo(trained, like=kind) if kind else trained.make_doc(f"Nothing {n}.") for n, kind in enumerate(kinds)]
    linked = list(trained.pipe(iter(docs), batch_size=7))
    assert [id(doc) for doc in linked] == [id(doc) for doc in docs]
    assert [ids(doc) for doc in linked] == [[kind] if kind else [] for kind in kinds]
    assert list(trained.pipe([])) == []
    pairs = trained.pipe(((photo(trained, like=kind), kind) for kind in kinds if kind), as_tuples=True)
    assert all(ids(doc) == [kind] for doc, kind in pairs)


# Several linkers


def test_two_linkers_in_one_pipeline(models: Path, kb: Path, tmp_path: Path) -> None:
    """The second one links what the first has left, to a knowledge base of its own."""
    other = make_world_kb(tmp_path, models, [{"id": "Q1", "name": "Mercury"}, {"id": "Q2", "name": "Hermes"}])
    nlp = spacy.blank("en")
    add_linker(nlp, models, kb, labels_discard=["GOD"])
    add_linker(nlp, models, other, name="second", overwrite=False)
    data = training_data(nlp)
    nlp.initialize(lambda: data)
    assert nlp.update(data).keys() == {"gemel_linker", "second"}

    def doc() -> Doc:
        return doc_of(nlp, LONG, ("Mercury", "ENT", ""), ("Hermes", "GOD", ""))

    both = nlp(doc())
    assert ids(both)[0] in GOLDS
    assert ids(both)[1] == "NIL"  # which is an answer: an entity that nobody looked at has no id
    assert {found.kb_id for found in candidates(both)[0]} == set(GOLDS)  # not lost to the second one
    with nlp.select_pipes(disable="gemel_linker"):
        assert set(ids(nlp(doc()))) <= {"Q1", "Q2"}
    linker(nlp, "second").overwrite = True
    assert set(ids(nlp(doc()))) <= {"Q1", "Q2"}
    nlp.to_disk(tmp_path / "saved")
    again = spacy.load(tmp_path / "saved")
    assert [len(linker(again, name).kb) for name in ("gemel_linker", "second")] == [3, 2]
