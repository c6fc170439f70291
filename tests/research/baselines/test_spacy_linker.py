"""spaCy's entity_linker as a baseline: what its knowledge base holds, that it learns, and that its seed decides."""

import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st

from research.baselines.spacy_linker import (
    LinkerOptions,
    SpacyLinker,
    alias_priors,
    make_lookup_kb,
    projected_vectors,
    train_linker,
    unit_vectors,
)
from spacy_gemel.data.reader import read_docs
from spacy_gemel.evaluation.baselines import TrainingMentions, training_mentions
from spacy_gemel.kb.entity import Entity
from tests.research.baselines.world import CARS, CAT, ELEMENT, GOD, PLANET, make_corpus, open_kb

SHORT = {"vector_length": 64, "dropout": 0.0, "progress": False}
# every mention is one of several entities, each as often: only the words around it tell
LEARNED = [
    ("The telescope saw Mercury rise", [("Mercury", PLANET)]),
    ("Craters of Mercury from orbit", [("Mercury", PLANET)]),
    ("A thermometer filled with Mercury", [("Mercury", ELEMENT)]),
    ("Toxic drops of Mercury poured out", [("Mercury", ELEMENT)]),
    ("A temple for Mercury in Rome", [("Mercury", GOD)]),
    ("The winged statue of Mercury", [("Mercury", GOD)]),
    ("A Jaguar with four wheels parked. It rained.", [("Jaguar", CARS)]),
    ("The jungle hides a Jaguar", [("Jaguar", CAT)]),
]
word = st.text("ab ß🪐", min_size=1, max_size=4)


def trained(folder: Path, docs: list = LEARNED, dev: bool = False, **changes: object) -> tuple[SpacyLinker, list[str]]:
    """A trained linker, and what it says of the training mentions."""
    kb = open_kb(folder / "world")
    nlp = spacy.blank("en")
    train = list(read_docs(make_corpus(folder / "train.spacy", docs), nlp.vocab))
    options = LinkerOptions(**{**SHORT, "epochs": 60, **changes})  # type: ignore[arg-type]
    linker = train_linker(nlp, kb, training_mentions(train, kb), train, train if dev else None, options)
    asked = [doc.copy() for doc in train]
    for doc in asked:
        for token in doc:
            token.ent_kb_id_ = ""
    return linker, [ent.kb_id_ for doc in linker.link(asked) for ent in doc.ents]


def test_it_learns_what_the_words_around_a_mention_tell(tmp_path: Path) -> None:
    _, before = trained(tmp_path / "a", epochs=1, learn_rate=0.0)
    _, after = trained(tmp_path / "b")
    golds = [gold for _, [(_, gold)] in LEARNED]
    assert after == golds
    assert before != golds


def test_the_seed_decides_and_nothing_outside_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    random.seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    runs = [trained(tmp_path / str(number), epochs=4, dev=True, seed=seed) for number, seed in enumerate((3, 3, 4))]
    assert before == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    assert list(here.iterdir()) == []
    weights = [linker.nlp.get_pipe("entity_linker").model.to_bytes() for linker, _ in runs]
    assert weights[0] == weights[1] != weights[2]
    assert (runs[0][1], runs[0][0].dev) == (runs[1][1], runs[1][0].dev)


def test_the_best_epoch_on_dev_is_kept(tmp_path: Path) -> None:
    linker, said = trained(tmp_path, dev=True, epochs=60, patience=60)
    assert linker.epoch == linker.dev.index(max(linker.dev)) + 1
    golds = [gold for _, [(_, gold)] in LEARNED]
    assert sum(a == b for a, b in zip(said, golds, strict=True)) / len(golds) == max(linker.dev)
    stopped, _ = trained(tmp_path / "again", dev=True, epochs=60, patience=1)
    assert len(stopped.dev) < 60


def test_mentions_it_cannot_learn_from_do_no_harm(tmp_path: Path) -> None:
    odd = [
        ("Mercury is not here", [("Mercury", "NIL")]),
        ("Mercury is unknown", [("Mercury", "Q999999")]),
        ("Mercury was not looked at", [("Mercury", "")]),
        ("No mention", []),
        ("A band called Yahoo ! Mercury played", [("Yahoo ! Mercury", GOD)]),
    ]
    _, said = trained(tmp_path, [*LEARNED, *odd])
    assert said[: len(LEARNED)] == [gold for _, [(_, gold)] in LEARNED]
    assert said[-1] == GOD, "a mention that a sentence ends in is one of the training mentions all the same"
    kb = open_kb(tmp_path / "other")
    docs = list(read_docs(make_corpus(tmp_path / "odd.spacy", odd[:4]), spacy.blank("en").vocab))
    counted = training_mentions(docs, kb)
    assert (counted.used, counted.nil, counted.not_in_kb, counted.unannotated) == (0, 1, 1, 1)
    with pytest.raises(ValueError, match="not one mention of the training data"):
        train_linker(spacy.blank("en"), kb, counted, docs, None, LinkerOptions(**SHORT))  # type: ignore[arg-type]


def test_golds_may_be_urls_and_titles(tmp_path: Path) -> None:
    golds = ["https://en.wikipedia.org/wiki/Mercury_(planet)", "Mercury_(element)", "Mercury (planet)", PLANET]
    docs = [(f"It is Mercury {number}", [("Mercury", gold)]) for number, gold in enumerate(golds)]
    kb = open_kb(tmp_path)
    counted = training_mentions(read_docs(make_corpus(tmp_path / "t.spacy", docs), spacy.blank("en").vocab), kb)
    assert {kb.entity(row).kb_id: times for row, times in counted.rows["Mercury"].items()} == {PLANET: 3, ELEMENT: 1}
    assert counted.gold_ids == {PLANET, ELEMENT}


@settings(max_examples=60)
@given(
    st.lists(st.tuples(word, st.lists(word, max_size=3), st.integers(0, 5)), min_size=1, max_size=6),
    st.lists(st.tuples(word, st.integers(0, 99)), max_size=8),
)
def test_priors_are_training_mentions_and_one_shared_by_the_bearers(
    made: list[tuple[str, list[str], int]], pairs: list[tuple[str, int]]
) -> None:
    entities = [Entity(f"Q{n}", name, count, tuple(aliases)) for n, (name, aliases, count) in enumerate(made)]
    pairs = [(text, number % len(made)) for text, number in pairs]
    rows: dict[str, Counter[int]] = {}
    for text, row in pairs:
        rows.setdefault(text, Counter())[row] += 1
    training = TrainingMentions(rows, frozenset(), len(pairs), 0, 0, 0)
    priors = alias_priors(entities, training)
    vectors = np.eye(len(entities), 8, dtype=np.float32)
    lookup = make_lookup_kb(spacy.blank("en").vocab, entities, vectors, training)
    assert set(lookup.get_entity_strings()) == {entity.kb_id for entity in entities}
    known = {name for name, _, _ in made} | {alias for _, some, _ in made for alias in some} | {t for t, _ in pairs}
    assert set(priors) == known
    for text in known:
        bears = [text == entity.name or text in entity.aliases for entity in entities]
        shared = sum(1 + e.count for e, bearer in zip(entities, bears, strict=True) if bearer)
        weights = {}
        for row, entity in enumerate(entities):
            weight = pairs.count((text, row)) + (bears[row] and (1 + entity.count) / shared)
            if weight:
                weights[f"Q{row}"] = weight
        found = {c.entity_: c.prior_prob for c in lookup.get_alias_candidates(text)}
        assert found.keys() == weights.keys()
        for kb_id, weight in weights.items():
            assert math.isclose(found[kb_id], weight / sum(weights.values()), rel_tol=1e-5)


@settings(max_examples=50)
@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=8), st.integers(1, 20))
def test_every_text_has_a_direction(texts: list[str], width: int) -> None:
    vectors = projected_vectors(texts, width)
    assert vectors.shape == (len(texts), width)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    assert np.array_equal(vectors, projected_vectors(texts, width))


def test_cosines_are_those_of_the_words() -> None:
    texts = ["big wild cat", "big cat", "british maker of cars", "maker of watches", "🌎", "British MAKER of cars"]
    words = [text.casefold().split() for text in texts]
    occurs = Counter(word for row in words for word in set(row))
    idf = {word: math.log((1 + len(texts)) / (1 + times)) + 1 for word, times in occurs.items()}

    def cosine(a: list[str], b: list[str]) -> float:
        def dot(x: list[str], y: list[str]) -> float:
            return sum(x.count(word) * y.count(word) * idf[word] ** 2 for word in set(x) & set(y))

        return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))

    vectors = projected_vectors(texts, 4000)
    exact = np.array([[cosine(a, b) for b in words] for a in words])
    assert np.abs(vectors @ vectors.T - exact).max() < 0.1
    assert np.allclose(vectors[2], vectors[5])
    with pytest.raises(ValueError, match="length is 0"):
        projected_vectors(texts, 0)


def test_a_vector_of_zeros_gets_a_direction() -> None:
    assert unit_vectors(np.zeros((1, 3), dtype=np.float32)).tolist() == [[1, 0, 0]]
