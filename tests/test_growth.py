"""Entities and demonstrations that are added to a trained pipe."""

from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc

from spacy_gemel.component import GemelLinker
from spacy_gemel.golds import gold_row
from spacy_gemel.kb.errors import KBError
from tests.pipeline import make_doc, make_kb, make_pipeline, picture
from tests.sending import Sent

NEW = "Mercury (god)"


@pytest.fixture
def kb(models: Path, tmp_path: Path) -> Path:
    return make_kb(tmp_path, models)


@pytest.fixture
def nlp(models: Path, kb: Path) -> Language:
    # more beams than names, so that each name is a candidate
    return make_pipeline(models, kb, beam_size=40, n_candidates=40)


def linker(nlp: Language) -> GemelLinker:
    pipe = nlp.get_pipe("gemel_linker")
    assert isinstance(pipe, GemelLinker)
    return pipe


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
    from tests.pipeline import entity_id
    from tests.tiny import NAMES

    rows = [{"id": entity_id(name), "name": name, "count": place} for place, name in enumerate(NAMES)]
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
        assert gold_row(pipe.kb, gold) == row
    assert pipe.kb.is_linkable(row)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kb_id": "Mercury", "name": "Another"}, "'Mercury' cannot be added: the knowledge base has an entity of"),
        ({"kb_id": "NIL", "name": "Nothing"}, "what a mention without an entity gets"),
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


def test_an_id_cannot_be_added_twice(nlp: Language) -> None:
    linker(nlp).add_entity("x", "Mercury (god)")
    with pytest.raises(KBError, match="'x' cannot be added"):
        linker(nlp).add_entity("x", "Mercury (boat)")


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
    docs = [make_doc(nlp, f"A photo of Mercury {place}.", "Mercury") for place in range(4)]
    for doc in nlp.pipe(docs, n_process=2):
        assert "mercury-god" in {found.kb_id for found in doc.ents[0]._.gemel_candidates}
    kb = linker(nlp).kb
    again = Sent(kb).receive()
    assert again.row("mercury-god") == kb.row("mercury-god")


def test_added_demonstrations_are_shown_to_the_next_doc(nlp: Language) -> None:
    pipe = linker(nlp)
    pipe.settings.n_demonstrations = 100
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


def test_demonstrations_of_unknown_entities_are_refused(nlp: Language) -> None:
    before = list(linker(nlp).store)
    with pytest.raises(ValueError, match="no usable mention"):
        linker(nlp).add_demonstrations([make_doc(nlp, "Here is Quirin.", "Quirin", "nobody")])
    assert list(linker(nlp).store) == before


def test_another_knowledge_base(nlp: Language, models: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    rows = [{"id": "Q1", "name": "Mercury (planet)"}, {"id": "Q2", "name": "Mercury (boat)"}]
    other = make_kb(tmp_path / "other", models, rows)
    linker(nlp).set_kb(lambda vocab: load(other))
    assert set(candidates(nlp)) == {"Q1", "Q2"}


def load(folder: Path) -> object:
    from spacy_gemel.kb.knowledge_base import KnowledgeBase

    return KnowledgeBase.open(folder)


def test_a_text_alone_may_be_demonstrated(nlp: Language) -> None:
    docs: list[Doc] = [make_doc(nlp, "Old Quirin sleeps.", "Quirin", "Mercury")]
    assert linker(nlp).add_demonstrations(docs) == 1
    assert linker(nlp).store[-1].image == -1
