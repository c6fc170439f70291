"""search = "exact" from outside: the best of all names, and what the span tells of the others."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from spacy.language import Language
from spacy.tokens import Doc, DocBin

from spacy_gemel.linking.features import LEAST_LOG_PROBABILITY, NameProbabilityFeature
from spacy_gemel.pipeline.loaded_pipeline import overridden
from tests.mini_pipeline import captions, linker, make_doc, make_pipeline

ALL_NAMES = 60
TEXT = "Here is a word, and then a photo of Mercury."


@pytest.fixture(scope="module")
def made(models: Path, kb: Path) -> Language:
    nlp = make_pipeline(models, kb)
    linker(nlp).add_entity("mercury-god", "Mercury (Roman god)", count=5)
    return nlp


@pytest.fixture
def nlp(made: Language) -> Iterator[Language]:
    with overridden(linker(made), search="exact", beam_size=1, n_candidates=1):
        yield made


def told(doc: Doc) -> list[dict[str, Any] | None]:
    searches = [ent._.gemel_search for ent in doc.ents]
    return [search and {**search, "mass": [*search["mass"]]} for search in searches]  # of a DocBin a tuple


def test_one_beam_and_a_proof_find_what_all_names_hold(nlp: Language) -> None:
    docs = [nlp(doc) for doc in captions(nlp, 6)]
    with overridden(linker(nlp), search="beam", beam_size=ALL_NAMES, n_candidates=ALL_NAMES):
        everything = [nlp(doc) for doc in captions(nlp, 6)]
    for doc, whole in zip(docs, everything, strict=True):
        best, scored = doc.ents[0]._.gemel_candidates[0], whole.ents[0]._.gemel_candidates
        assert (best.kb_id, best.name) == (scored[0].kb_id, scored[0].name)
        assert best.score == pytest.approx(scored[0].score, abs=1e-4)
        assert told(whole) == [None]
        [search] = told(doc)
        assert search is not None
        assert search.keys() == {"exact", "gap", "passes", "mass"}
        assert (search["exact"], search["gap"]) == (True, 0)
        assert search["passes"] >= 1
        tokens = linker(nlp).linking_model.language_model.tokenizer
        names = {each.name: each.score for each in scored}
        lengths = map(len, tokens.encode([*names]))
        masses = {name: math.exp(names[name] * (length + 1)) for name, length in zip(names, lengths, strict=True)}
        low, high = search["mass"]
        assert low - 1e-4 <= masses[best.name] / sum(masses.values()) <= high + 1e-4


def test_what_it_tells_goes_with_the_doc(nlp: Language) -> None:
    [doc] = nlp.pipe([make_doc(nlp, TEXT, "Mercury")])
    [search] = told(doc)
    assert search is not None
    assert told(Doc(nlp.vocab).from_bytes(doc.to_bytes())) == [search]
    stored = DocBin(store_user_data=True, docs=[doc]).to_bytes()
    assert [told(each) for each in DocBin().from_bytes(stored).get_docs(nlp.vocab)] == [[search]]
    assert told(doc[5:].as_doc(copy_user_data=True)) == [search]
    with overridden(linker(nlp), overwrite=False):
        assert told(nlp(doc)) == [search]
    with overridden(linker(nlp), search="beam"):
        assert told(nlp(doc)) == [None]


def test_two_processes_tell_the_same(nlp: Language) -> None:
    docs = [*nlp.pipe([make_doc(nlp, TEXT, "Mercury"), make_doc(nlp, "A Java.", "Java")], n_process=2)]
    assert all(search is not None and search["exact"] for doc in docs for search in told(doc))


def test_where_it_gives_up_the_gap_is_told(nlp: Language) -> None:
    with overridden(linker(nlp), exact_tokens=1):
        searches = [search for doc in captions(nlp, 6) for search in told(nlp(doc)) if search is not None]
    assert len(searches) == 6
    assert any(search["gap"] > 0 for search in searches)
    assert all(search["exact"] == (search["gap"] == 0) for search in searches)


def test_names_that_are_listed_need_no_search(nlp: Language) -> None:
    with overridden(linker(nlp), candidates="aliases"):
        assert told(nlp(make_doc(nlp, TEXT, "Mercury"))) == [None]


def test_the_feature_knows_what_the_search_told(nlp: Language) -> None:
    pipe = linker(nlp)
    doc = make_doc(nlp, TEXT, "Mercury")
    [options] = pipe.linking_model.options(pipe.mentions_of(pipe.entities_to_link([doc])), pipe.settings)
    [values] = NameProbabilityFeature().values([options], pipe.linking_model, pipe.settings)
    [search] = told(nlp(doc))
    assert search is not None
    searched = [value for value, name in zip(values[:, 0], options.names, strict=True) if name.searched]
    assert searched == [pytest.approx(max(math.log(search["mass"][0]), LEAST_LOG_PROBABILITY))]
    assert len(values) > len(searched)
