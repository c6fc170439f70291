"""Entities and demonstrations that are added to a trained pipe."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from spacy_gemel.kb.entity import Entity, KBError
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.kb.resolve import resolve_gold
from spacy_gemel.pipeline.gemel_linker import GemelLinker
from tests.calls import Calls
from tests.mini_pipeline import examples, linker, make_doc, make_kb, make_pipeline, picture
from tests.sending import Sent

NEW = "Mercury (god)"


@pytest.fixture
def nlp(models: Path, kb: Path) -> Language:
    # more beams than names, so that each name is a candidate
    return make_pipeline(models, kb, beam_size=40, n_candidates=40)


def candidates(nlp: Language, text: str = "A photo of Mercury.") -> dict[str, tuple[str, float]]:
    doc = nlp(make_doc(nlp, text, "Mercury", image=picture("Mercury", 3)))
    return {found.kb_id: (found.name, found.score) for found in doc.ents[0]._.gemel_candidates}


def test_an_added_entity_is_found_by_the_next_doc(nlp: Language) -> None:
    before = candidates(nlp)
    linker(nlp).add_entity("mercury-god", NEW, aliases=["Mercurius"], description="A Roman god.", count=5)
    after = candidates(nlp)
    assert set(after) == set(before) | {"mercury-god"}
    assert after["mercury-god"][0] == NEW
    for kb_id, (name, score) in before.items():  # the others are what they were
        assert after[kb_id] == (name, pytest.approx(score, abs=1e-4))


def test_the_score_is_that_of_a_kb_built_with_the_entity(nlp: Language, models: Path, tmp_path: Path) -> None:
    from tests.mini_pipeline import entity_id
    from tests.tiny import NAMES

    rows = [{"id": entity_id(name), "name": name, "count": index} for index, name in enumerate(NAMES)]
    rows.append({"id": "mercury-god", "name": NEW, "count": 5})
    (tmp_path / "whole").mkdir()
    whole = make_pipeline(models, make_kb(tmp_path / "whole", models, rows), beam_size=40, n_candidates=40)
    linker(nlp).add_entity("mercury-god", NEW, count=5)
    linker(whole).model.from_bytes(linker(nlp).model.to_bytes())
    expected, found = candidates(whole), candidates(nlp)
    assert list(found) == list(expected)
    for kb_id, (name, score) in expected.items():
        assert found[kb_id] == (name, pytest.approx(score, abs=1e-4))


def test_an_added_bearer_of_a_name_shares_its_probability(nlp: Language) -> None:
    linker(nlp).add_entity("band", "Mercury (planet)", count=10**6)
    doc = nlp(make_doc(nlp, "A photo of Mercury.", "Mercury"))
    bearers = [found for found in doc.ents[0]._.gemel_candidates if found.name == "Mercury (planet)"]
    assert [found.kb_id for found in bearers] == ["band", "Mercury_(planet)"]
    assert bearers[0].probability > 1000 * bearers[1].probability


def test_golds_may_be_added_entities(nlp: Language) -> None:
    pipe = linker(nlp)
    pipe.add_entity("mercury-god", NEW, aliases=["Mercurius"])
    row = pipe.kb.row("mercury-god")
    assert row is not None
    assert row == len(pipe.kb) - 1
    for gold in ("mercury-god", NEW, "Mercury_(god)", "https://en.wikipedia.org/wiki/Mercury_%28god%29", "Mercurius"):
        assert resolve_gold(pipe.kb, gold) == row
    assert pipe.kb.is_in_trie(row)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kb_id": "Mercury", "name": "Another"}, "'Mercury' cannot be added: the knowledge base has an entity with"),
        ({"kb_id": "NIL", "name": "Nothing"}, "the answer for a mention without an entity"),
        ({"kb_id": "", "name": "Nothing"}, '"id" must be a text that is not empty'),
        ({"kb_id": "x", "name": ""}, "the name is empty"),
        ({"kb_id": "x", "name": "two\nlines"}, "line break"),
        ({"kb_id": "x", "name": "long " * 100}, "tokens, the limit is"),
        ({"kb_id": "x", "name": "half \ud800"}, "half of a surrogate pair"),
        ({"kb_id": "x", "name": "X", "count": -1}, '"count" of'),
        ({"kb_id": "x", "name": "X", "aliases": "abc"}, "must be a list of texts"),
        ({"kb_id": "x", "name": "X", "aliases": [1]}, '"aliases" of'),
    ],
)
def test_what_cannot_be_added_is_said_and_changes_nothing(
    nlp: Language, options: dict[str, object], message: str
) -> None:
    size = len(linker(nlp).kb)
    with pytest.raises(ValueError, match=message):
        linker(nlp).add_entity(**options)  # type: ignore[arg-type]
    assert len(linker(nlp).kb) == size


def test_many_entities_at_once(nlp: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = linker(nlp)
    before = candidates(nlp)
    pipe.add_entity("first", "Mercury (boat)")
    tokenised = Calls(monkeypatch, pipe.linking_model.language_model.tokenizer, "encode")
    new = (Entity("mercury-god", NEW, np.int64(5), ("Mercurius",), "A god."), Entity("late", "Mercury (train)"))  # type: ignore[arg-type]
    pipe.add_entities(entity for entity in new)
    pipe.add_entities([])
    assert tokenised.seen == [[NEW, "Mercury (train)"]]  # those that were there are not tokenised again
    assert set(candidates(nlp)) == {*before, "first", "mercury-god", "late"}
    row = pipe.kb.row("mercury-god")
    assert row is not None
    assert pipe.kb.entity(row) == Entity("mercury-god", NEW, 5, ("Mercurius",), "A god.")
    alone = KnowledgeBase.open(pipe.kb.path).with_added(
        pipe.kb.added.entities, pipe.linking_model.language_model.tokenizer
    )
    for edge in range(alone.added.trie.n_edges):  # type: ignore[union-attr]
        ours, others = (kb.added.trie.tokens[edge] for kb in (pipe.kb, alone))  # type: ignore[union-attr]
        assert ours == others
    assert pipe.kb.added.trie.all_rows().tolist() == alone.added.trie.all_rows().tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Entity("Mercury", "Another"), "'Mercury' cannot be added: the knowledge base has an entity with"),
        (Entity("good", "Twice"), "'good' cannot be added"),
        (Entity("x", "long " * 100), "tokens, the limit is"),
        (Entity("x", "X", count=4.5), '"count" of'),  # type: ignore[arg-type]
        ({"id": "x", "name": "X"}, "entities are added as Entity of .*not as dict"),
    ],
)
def test_one_that_cannot_be_added_keeps_out_all(nlp: Language, wrong: Any, message: str) -> None:
    pipe = linker(nlp)
    kb = pipe.kb
    with pytest.raises(ValueError, match=message):
        pipe.add_entities([Entity("good", "Mercury (boat)"), wrong])
    assert pipe.kb is kb
    assert "good" not in candidates(nlp)


def test_a_count_of_numpy(nlp: Language) -> None:
    pipe = linker(nlp)
    pipe.add_entity("x", "Mercury (boat)", count=np.int64(4))  # type: ignore[arg-type]
    row = pipe.kb.row("x")
    assert row is not None
    assert pipe.kb.count(row) == 4
    pipe.to_bytes()


def test_an_id_cannot_be_added_twice(nlp: Language) -> None:
    linker(nlp).add_entity("x", "Mercury (god)")
    with pytest.raises(KBError, match="'x' cannot be added"):
        linker(nlp).add_entity("x", "Mercury (boat)")


def test_a_name_that_this_pipe_cannot_say_is_refused(models: Path, kb: Path) -> None:
    short = linker(make_pipeline(models, kb, max_name_tokens=3))
    with pytest.raises(KBError, match="tokens, the limit is 3"):
        short.add_entity("x", "Mercury of the very long name")
    assert "x" not in short.kb


def test_before_the_pipe_is_trained() -> None:
    nlp = spacy.blank("en")
    pipe = nlp.add_pipe("gemel_linker")
    with pytest.raises(ValueError, match="not ready"):
        pipe.add_entity("x", "X")
    with pytest.raises(ValueError, match="not ready"):
        pipe.add_demonstrations([])


def reload_from_disk(nlp: Language, tmp_path: Path) -> Language:
    nlp.to_disk(tmp_path / "saved")
    return spacy.load(tmp_path / "saved")


def reload_from_bytes(nlp: Language, tmp_path: Path) -> Language:
    return spacy.blank("en", config=nlp.config).from_bytes(nlp.to_bytes())


@pytest.mark.parametrize("again", [reload_from_disk, reload_from_bytes])
def test_additions_are_saved_with_the_pipe(
    nlp: Language, tmp_path: Path, again: Callable[[Language, Path], Language]
) -> None:
    linker(nlp).add_entity("mercury-god", NEW, aliases=["Mercurius"], description="A Roman god.", count=5)
    linker(nlp).add_demonstrations([make_doc(nlp, "The god Mercury.", "Mercury", "mercury-god", picture("Mercury"))])
    loaded = again(nlp, tmp_path)
    assert linker(loaded).kb.added.entities == linker(nlp).kb.added.entities
    assert list(linker(loaded).store) == list(linker(nlp).store)
    found, expected = candidates(loaded), candidates(nlp)
    assert list(found) == list(expected)
    for kb_id, (name, score) in expected.items():
        assert found[kb_id] == (name, pytest.approx(score, abs=1e-4))
    linker(loaded).add_entity("another", "Mercury (boat)")  # and it can go on
    assert "another" in candidates(loaded)


def test_two_processes_know_of_the_addition(nlp: Language) -> None:
    linker(nlp).add_entity("mercury-god", NEW, count=5)
    docs = [make_doc(nlp, f"A photo of Mercury {index}.", "Mercury") for index in range(4)]
    for doc in nlp.pipe(docs, n_process=2):
        assert "mercury-god" in {found.kb_id for found in doc.ents[0]._.gemel_candidates}
    kb = linker(nlp).kb
    again = Sent(kb).receive()
    assert again.row("mercury-god") == kb.row("mercury-god")


def test_added_demonstrations_are_shown_to_the_next_doc(nlp: Language) -> None:
    pipe = linker(nlp)
    pipe.configure(n_demonstrations=100)
    before = len(pipe.store)
    docs = [
        make_doc(nlp, "A statue of Quirin.", "Quirin", "Mercury_(planet)", picture("Mercury (planet)")),
        make_doc(nlp, "Nobody knows Quirin.", "Quirin", "NIL"),
    ]
    assert pipe.add_demonstrations(docs) == 1
    assert len(pipe.store) == before + 1
    doc = make_doc(nlp, "Here stands Quirin.", "Quirin")
    shown = pipe.demonstrations_for(doc, doc.ents[0])
    assert (shown[-1].text, shown[-1].kb_id) == ("A statue of Quirin.", "Mercury_(planet)")
    assert pipe.store.features[shown[-1].image] == pytest.approx(pipe._reader.read([picture("Mercury (planet)")])[0])


def test_what_is_shown_already_is_not_shown_twice(nlp: Language) -> None:
    doc = make_doc(nlp, "A statue of Quirin.", "Quirin", "Mercury_(planet)", picture("Mercury (planet)"))
    assert linker(nlp).add_demonstrations([doc]) == 1
    before = list(linker(nlp).store)
    assert linker(nlp).add_demonstrations([doc]) == 0
    assert list(linker(nlp).store) == before


def quirin(nlp: Language, seed: int | None, kb_id: str = "Mercury_(planet)") -> Doc:
    """The same caption every time, with one of several pictures or none."""
    image = None if seed is None else picture("Mercury (planet)", seed)
    return make_doc(nlp, "A statue of Quirin.", "Quirin", kb_id, image)


def images_of(pipe: GemelLinker, docs: int) -> list[int]:
    """Which row of features each of the last demonstrations has, counted from what training left, -1 for none."""
    first = len(pipe.store) - docs
    return [max(shown.image - 18, -1) for shown in list(pipe.store)[first:]]


@pytest.mark.parametrize("together", [True, False], ids=["in one call", "in a call each"])
@pytest.mark.parametrize(
    ("seeds", "pictures"),
    [
        ([1, 2], [0, 1]),  # one caption of two pictures
        ([1, 1, 1], [0]),
        ([None, None], [-1]),
        ([None, 1], [0]),  # the picture comes later
        ([1, None], [0]),  # and is never lost
        ([None, 1, 2, None, 1], [0, 1]),
    ],
)
def test_a_demonstration_is_its_words_and_its_picture(
    nlp: Language, seeds: list[int | None], pictures: list[int], together: bool
) -> None:
    pipe = linker(nlp)
    before = list(pipe.store)
    docs = [quirin(nlp, seed) for seed in seeds]
    calls = [docs] if together else [[doc] for doc in docs]
    added = [pipe.add_demonstrations(call) for call in calls]
    assert list(pipe.store)[: len(before)] == before
    assert images_of(pipe, len(pictures)) == pictures
    assert len(pipe.store) == len(before) + len(pictures)
    assert len(pipe.store.features) == 18 + sum(index >= 0 for index in pictures)
    if together:
        assert added == [len(pictures)]
    for seed, index in zip([seed for seed in dict.fromkeys(seeds) if seed is not None], pictures, strict=False):
        own = pipe._reader.read([picture("Mercury (planet)", seed)])[0]
        assert pipe.store.features[18 + index] == pytest.approx(own, abs=1e-5)


def test_the_picture_of_a_training_example_comes_later(models: Path, kb: Path) -> None:
    nlp = make_pipeline(models, kb)
    nlp.initialize(lambda: [Example(quirin(nlp, None), quirin(nlp, None)), *examples(nlp)])
    pipe = linker(nlp)
    size = len(pipe.store)
    assert pipe.add_demonstrations([quirin(nlp, 1), quirin(nlp, None, "Mercury")]) == 2  # and another entity is another
    assert len(pipe.store) == size + 1
    assert pipe.store.features[pipe.store[0].image] == pytest.approx(
        pipe._reader.read([picture("Mercury (planet)", 1)])[0], abs=1e-5
    )
    doc = make_doc(nlp, "A statue of Quirin.", "Quirin")
    pipe.configure(n_demonstrations=1)
    [shown] = pipe.demonstrations_for(doc, doc.ents[0])
    assert shown == pipe.store[0]
    with_picture = nlp(doc.copy()).ents[0]._.gemel_candidates
    pipe.configure(use_image=False)
    assert nlp(doc.copy()).ents[0]._.gemel_candidates != with_picture  # it is in the prompt


def test_what_is_known_is_neither_embedded_nor_tokenised_again(nlp: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = linker(nlp)
    pipe.configure(n_demonstrations=2)
    here = make_doc(nlp, "Here stands Mercury.", "Mercury")
    nlp(here)
    embedded = Calls(monkeypatch, pipe.retriever._embed.model, "encode")
    tokenised = Calls(monkeypatch, pipe.linking_model.language_model.tokenizer, "encode")
    docs = [
        quirin(nlp, 1),
        make_doc(nlp, "Old Quirin sleeps.", "Quirin", "Mercury"),
        make_doc(nlp, "The god Mercury sleeps.", "Mercury", "Mercury"),
    ]
    assert pipe.add_demonstrations(docs) == 3
    assert embedded.seen == [["Quirin"]]
    assert pipe.add_demonstrations([quirin(nlp, 2)]) == 1
    assert embedded.seen == [["Quirin"]]
    nlp(make_doc(nlp, "Here stands Mercury.", "Mercury"))
    assert embedded.seen == [["Quirin"], ["Mercury"]]  # the query: its ranks are others now
    assert [text for texts in tokenised.seen for text in texts if not text.endswith("[Answer]")] == []
    again = spacy.blank("en", config=nlp.config).from_bytes(nlp.to_bytes())
    doc = make_doc(nlp, "A statue of Quirin.", "Quirin")
    pipe.configure(n_demonstrations=10)
    linker(again).configure(n_demonstrations=10)
    assert linker(again).demonstrations_for(doc, doc.ents[0]) == pipe.demonstrations_for(doc, doc.ents[0])


@pytest.mark.parametrize("what", [lambda doc: doc, lambda doc: [doc[0]], lambda doc: [doc, "A text."]])
def test_what_is_no_list_of_docs(nlp: Language, what: Callable[[Doc], Any]) -> None:
    with pytest.raises(ValueError, match="add_demonstrations takes a list of docs"):
        linker(nlp).add_demonstrations(what(quirin(nlp, None)))


@pytest.mark.parametrize("docs", [[], [spacy.blank("en")("Nothing here.")]], ids=["no doc", "no entity"])
def test_nothing_to_show(nlp: Language, docs: list[Doc]) -> None:
    with pytest.raises(ValueError, match="no entity to show"):
        linker(nlp).add_demonstrations(docs)


def test_demonstrations_of_unknown_entities_are_refused(nlp: Language) -> None:
    before = list(linker(nlp).store)
    with pytest.raises(ValueError, match="no usable mention in the given docs"):
        linker(nlp).add_demonstrations([make_doc(nlp, "Here is Quirin.", "Quirin", "nobody")])
    assert list(linker(nlp).store) == before


def test_another_knowledge_base(nlp: Language, models: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    rows = [{"id": "Q1", "name": "Mercury (planet)"}, {"id": "Q2", "name": "Mercury (boat)"}]
    other = make_kb(tmp_path / "other", models, rows)
    linker(nlp).set_kb(lambda vocab: load(other))
    assert set(candidates(nlp)) == {"Q1", "Q2"}


def test_another_knowledge_base_keeps_what_was_added(nlp: Language, models: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    rows = [{"id": "Q1", "name": "Mercury (planet)"}, {"id": "there", "name": "Mercury (boat)"}]
    other = make_kb(tmp_path / "other", models, rows)
    linker(nlp).add_entity("here", "Mercury (god)")
    linker(nlp).add_entity("there", "Mercury (ship)")
    linker(nlp).set_kb(lambda vocab: load(other))
    assert {kb_id: name for kb_id, (name, _) in candidates(nlp).items()} == {
        "Q1": "Mercury (planet)",
        "there": "Mercury (boat)",
        "here": "Mercury (god)",
    }


def test_an_addition_embeds_no_demonstration_again(nlp: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = linker(nlp)
    monkeypatch.setattr(pipe.retriever, "index", lambda mentions: pytest.fail("all were embedded again"))
    pipe.add_entity("here", "Mercury (god)")
    assert "here" in candidates(nlp)


def load(folder: Path) -> object:
    from spacy_gemel.kb.knowledge_base import KnowledgeBase

    return KnowledgeBase.open(folder)


def test_a_text_alone_may_be_demonstrated(nlp: Language) -> None:
    docs: list[Doc] = [make_doc(nlp, "Old Quirin sleeps.", "Quirin", "Mercury")]
    assert linker(nlp).add_demonstrations(docs) == 1
    assert linker(nlp).store[-1].image == -1
