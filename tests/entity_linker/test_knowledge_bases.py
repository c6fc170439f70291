"""set_kb, validate_kb, kb_loader: where the knowledge base comes from, and what is said of a wrong one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.kb import InMemoryLookupKB
from spacy.language import Language
from spacy.vocab import Vocab

from spacy_gemel.kb.entity import KBError
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from tests.entity_linker.world import (
    GOLDS,
    PLANET,
    add_linker,
    candidates,
    example_of,
    ids,
    make_nlp,
    make_world_kb,
    photo,
    training_data,
)
from tests.mini_pipeline import linker
from tests.tiny import make_tokenizer

OTHER = [{"id": "Q1", "name": "Mercury (boat)"}, {"id": "Q2", "name": "Mercury (god)", "aliases": ["Mercurius"]}]


def opening(folder: Path) -> Callable[[Vocab], KnowledgeBase]:
    return lambda vocab: KnowledgeBase.open(folder)


@pytest.fixture(scope="module")
def other(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world_kb(tmp_path_factory.mktemp("other"), models, OTHER)


@pytest.fixture
def untrained(models: Path) -> Language:
    nlp = spacy.blank("en")
    add_linker(nlp, models, None)
    return nlp


def test_without_one_training_says_what_to_add(untrained: Language) -> None:
    for call in (
        lambda: linker(untrained).validate_kb(),
        lambda: untrained.initialize(lambda: training_data(untrained)),
    ):
        with pytest.raises(
            ValueError, match=r"no knowledge base.*initialize\.components\.gemel_linker\.kb_loader.*set_kb"
        ):
            call()


def test_set_before_it_is_initialized(untrained: Language, kb: Path) -> None:
    linker(untrained).set_kb(opening(kb))
    linker(untrained).validate_kb()  # says nothing
    assert PLANET in linker(untrained).kb  # known at once, as by spaCy's own linker
    untrained.initialize(lambda: training_data(untrained))
    assert ids(untrained(photo(untrained)))[0] in GOLDS


def test_the_loader_is_given_the_pipes_vocab(untrained: Language, kb: Path) -> None:
    seen: list[Vocab] = []

    def load(vocab: Vocab) -> KnowledgeBase:
        seen.append(vocab)
        return KnowledgeBase.open(kb)

    linker(untrained).set_kb(load)
    assert seen == [untrained.vocab]


def test_a_loader_in_the_config_goes_before(models: Path, kb: Path, other: Path) -> None:
    nlp = spacy.blank("en")
    add_linker(nlp, models, kb)
    linker(nlp).set_kb(opening(other))
    nlp.initialize(lambda: training_data(nlp))
    assert "Q1" not in linker(nlp).kb


def test_set_after_training_for_the_next_doc(models: Path, kb: Path, other: Path) -> None:
    nlp = make_nlp(models, kb)
    mapper = linker(nlp).model.get_param("W").copy()
    linker(nlp).set_kb(opening(other))
    [found] = candidates(nlp(photo(nlp)))
    assert {one.kb_id for one in found} == {"Q1", "Q2"}
    assert (linker(nlp).model.get_param("W") == mapper).all()
    again = spacy.blank("en", config=nlp.config).from_bytes(nlp.to_bytes())  # and it is the one that is saved
    assert [one.kb_id for one in candidates(again(photo(again)))[0]] == [one.kb_id for one in found]


@pytest.mark.parametrize(
    ("given", "kind"), [("kb", "str"), (None, "NoneType"), (InMemoryLookupKB(Vocab(), 1), "InMem")]
)
def test_what_is_no_loader(untrained: Language, given: Any, kind: str) -> None:
    with pytest.raises(ValueError, match=f"set_kb takes a function of the vocab.*not {kind}"):
        linker(untrained).set_kb(given)


@pytest.mark.parametrize("after_training", [False, True])
def test_a_knowledge_base_of_spacys_own(models: Path, kb: Path, after_training: bool) -> None:
    """The function that was given to entity_linker's set_kb, without a change."""
    nlp = make_nlp(models, kb) if after_training else spacy.blank("en")
    if not after_training:
        add_linker(nlp, models, None)
    with pytest.raises(ValueError, match=r"gave InMemoryLookupKB.*spacy_gemel\.KBFromLookupKB\.v1"):
        linker(nlp).set_kb(lambda vocab: InMemoryLookupKB(vocab, entity_vector_length=3))
    if after_training:
        assert ids(nlp(photo(nlp)))[0] in GOLDS  # the old one goes on


def test_one_for_another_tokenizer(models: Path, kb: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from spacy_gemel.kb.builder import build_kb
    from spacy_gemel.models.tokenizer import NameTokenizer

    make_tokenizer(tmp_path / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    tokenizer.add_tokens(["Mars rover"])
    (tmp_path / "entities.jsonl").write_text('{"id": "Q1", "name": "Mercury"}\n')
    build_kb(tmp_path / "entities.jsonl", tmp_path / "kb", NameTokenizer(tokenizer), progress=False)
    nlp = make_nlp(models, kb)
    with pytest.raises(KBError, match=r"built for another tokenizer than that of .*Build it again with"):
        linker(nlp).set_kb(opening(tmp_path / "kb"))
    assert ids(nlp(photo(nlp)))[0] in GOLDS  # the old one goes on
    fresh = spacy.blank("en")
    add_linker(fresh, models, tmp_path / "kb")
    with pytest.raises(KBError, match="built for another tokenizer"):
        fresh.initialize(lambda: [example_of(fresh, photo(fresh, "Q1"))])


def test_one_that_is_not_there(models: Path, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    add_linker(nlp, models, tmp_path / "nowhere")
    with pytest.raises(KBError, match=r"nowhere is not a knowledge base.*build-kb"):
        nlp.initialize(lambda: training_data(nlp))


def test_one_without_the_golds(models: Path, other: Path) -> None:
    nlp = spacy.blank("en")
    add_linker(nlp, models, other)
    with pytest.raises(ValueError, match=r"no usable mention.*not there: Mercury_\(planet\)"):
        nlp.initialize(lambda: training_data(nlp))


def test_aliases_are_golds_and_never_answers(models: Path, other: Path) -> None:
    nlp = make_nlp(models, other, [example_of(spacy.blank("en"), photo(spacy.blank("en"), "Mercurius"))])
    assert linker(nlp).training_gold_ids == {"Q2"}
    [found] = candidates(nlp(photo(nlp)))
    assert {one.name for one in found} == {"Mercury (boat)", "Mercury (god)"}
    assert "Mercurius" not in linker(nlp).kb  # an alias is no id


def test_its_ids_come_into_the_vocab_as_they_are_used(trained: Language) -> None:
    """Not all at once, as with an InMemoryLookupKB: there may be millions."""
    again = spacy.blank("en", config=trained.config).from_bytes(trained.to_bytes(), exclude=["vocab"])
    assert PLANET not in again.vocab.strings
    doc = again(photo(again, like=PLANET))
    assert again.vocab.strings[doc[3].ent_kb_id] == PLANET
