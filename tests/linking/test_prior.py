"""P(entity | mention) against counting in plain dicts, which spellings are one mention, and the combined score."""

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.kb.builder import build_kb
from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.linking.candidates import ScoredName, to_candidates
from spacy_gemel.linking.prior import ALIAS, FLOOR, SURFACE, UNKNOWN, MentionPrior, fold, rerank, spellings
from tests.calls import Calls
from tests.kb.conftest import CharacterTokenizer
from tests.names import scored

ROWS: list[dict[str, Any]] = [
    {"id": "planet", "name": "Mercury", "aliases": ["Hermes"], "count": 9},
    {"id": "element", "name": "Mercury", "aliases": ["Quicksilver"], "count": 2},
    {"id": "god", "name": "Mercurius", "aliases": ["Mercury", "Hermes"]},
    {"id": "cars", "name": "Jaguar"},
    {"id": "cat", "name": "Panthera Onca", "aliases": ["Jaguar", "Jaguars"]},
    {"id": "ny", "name": "New York", "aliases": ["NY", "Big Apple"], "count": 1},
    {"id": "nyc", "name": "New York City", "aliases": ["New York", "NY"], "count": 5},
    {"id": "usa", "name": "United States", "aliases": ["US"]},
]
ADDED = [Entity("boat", "Mercury", 3, ("MS Mercury",)), Entity("comet", "Quirin", 0, ("Hermes",))]
MENTIONS = [
    "Mercury", "mercury", "MERCURY", "Mercury's", "mERCURY", "\u201cMercury\u201d", "Hermes", "hermes.", "Quicksilver",
    "Jaguar", "jaguars", "Jaguars'", "JAGUARS", "New York", "New_York", "new york", "New-York", "NEW YORK'S", "NY",
    "ny", "US", "us", "U.S.", "Quirin", "quirin's", "Nobody", "nobody", "...", "",
]  # fmt: skip
IDS = [row["id"] for row in ROWS] + ["boat", "comet", "gone"]


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    folder = tmp_path_factory.mktemp("kb")
    (folder / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    build_kb(folder / "e.jsonl", folder / "kb", CharacterTokenizer(), progress=False)
    return KnowledgeBase.open(folder / "kb")


def exact(text: str) -> str:
    text = text.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def folded(text: str) -> str:
    text = re.sub(r"(?:'s|(?<=s)')$", "", text, flags=re.I).casefold().replace("-", " ")
    return re.sub(r"[^\w ]", "", text)


def reference(mention: str, training: list[tuple[str, str]], entities: list[Entity]) -> dict[str, float]:
    known = {entity.kb_id for entity in entities}
    for key in (exact, folded):
        if not key(mention):
            continue
        counts = Counter(kb_id for words, kb_id in training if key(words) == key(mention) and kb_id in known)
        weights, surface = {}, 0.0
        for entity in entities:
            by_name, by_alias = key(entity.name) == key(mention), key(mention) in map(key, entity.aliases)
            if by_name or by_alias:
                weights[entity.kb_id] = (entity.count + 1) * (1.0 if by_name else ALIAS)
                surface = SURFACE if by_name else surface or SURFACE * ALIAS
        total = sum(counts.values()) + surface + UNKNOWN
        found = {
            kb_id: (counts[kb_id] + surface * weights.get(kb_id, 0) / (sum(weights.values()) or 1)) / total
            for kb_id in counts.keys() | weights.keys()
        }
        if found:
            return found
    return {}


@given(
    training=st.lists(st.tuples(st.sampled_from(MENTIONS), st.sampled_from(IDS)), max_size=30),
    added=st.lists(st.sampled_from(ADDED), unique_by=lambda entity: entity.kb_id),
    mention=st.sampled_from(MENTIONS),
)
@settings(max_examples=200)
def test_it_is_what_counting_gives(
    kb: KnowledgeBase, training: list[tuple[str, str]], added: list[Entity], mention: str
) -> None:
    base = [Entity(row["id"], row["name"], row.get("count", 0), tuple(row.get("aliases", ()))) for row in ROWS]
    entities = [*base, *added]
    prior = MentionPrior(training, kb.with_added(added, CharacterTokenizer()))
    found = prior.of(mention)
    assert found == pytest.approx(reference(mention, training, entities))
    assert prior.of(mention) == found  # from its cache
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert sum(found.values()) < 1
    counts = {entity.kb_id: entity.count for entity in entities}
    indices = {entity.kb_id: index for index, entity in enumerate(entities)}
    order = sorted(found, key=lambda kb_id: (-found[kb_id], -counts[kb_id], indices[kb_id]))
    assert list(found) == order


def test_exact_evidence_comes_before_folded(kb: KnowledgeBase) -> None:
    """US is a country; us, of which training knows something, is not; and what U.S. is they tell together."""
    prior = MentionPrior([("us", "cat")] * 5, kb)
    assert list(prior.of("US")) == ["usa"]
    assert list(prior.of("us")) == ["cat"]
    assert list(prior.of("U.S.")) == ["cat", "usa"]


def test_what_is_returned_may_be_changed(kb: KnowledgeBase) -> None:
    prior = MentionPrior([], kb)
    prior.of("Mercury").clear()
    assert prior.of("Mercury")


@given(st.text(max_size=12))
@settings(max_examples=300)
def test_folding_and_spelling_any_text(text: str) -> None:
    assert fold(text) == fold(f"  {text} ")
    for written in spellings(text):
        assert written
        assert written == " ".join(written.split())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Obama's", "obama"), ("OBAMA’S", "Obama"), ("the Beatles'", "The Beatles"), ("U.S.", "US"),
        ("«Paris»", "paris"), ("Saint-Denis", "saint denis"), ("Jean–Luc", "Jean Luc"), ("AC/DC", "ac dc"),
        ("STRASSE", "straße"),
    ],
)  # fmt: skip
def test_the_same_words(one: str, other: str) -> None:
    assert fold(one) == fold(other) != ""


@pytest.mark.parametrize(("one", "other"), [("Mercury", "Mercuri"), ("Georgia", "Georgias"), ("C", "C++"), ("s", "")])
def test_other_words(one: str, other: str) -> None:
    assert fold(one) != fold(other)


def test_a_large_knowledge_base_is_not_gone_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": f"Q{i}", "name": f"Name {i}", "aliases": [f"Alias {i}"]} for i in range(5000)]
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build_kb(tmp_path / "e.jsonl", tmp_path / "kb", CharacterTokenizer(), progress=False)
    kb = KnowledgeBase.open(tmp_path / "kb")
    read = Calls(monkeypatch, kb.table, "value")
    prior = MentionPrior([("somebody", "Q7")] * 1000, kb)
    assert not read.seen
    assert all(next(iter(prior.of(f"ALIAS {i}'s"))) == f"Q{i}" for i in range(0, 5000, 100))
    assert len(read.seen) < 50 * 20


LETTERS = list("abcdefgh")
probabilities = st.dictionaries(st.sampled_from(LETTERS), st.floats(0.01, 0.9), max_size=8)
weights = st.floats(0.01, 100)


@st.composite
def scored_names(draw: st.DrawFn) -> list[ScoredName]:
    """Names as the search finds them: best first, each entity under one name."""
    ids = draw(st.permutations(LETTERS))
    scores = sorted(draw(st.lists(st.floats(-9, 0), min_size=4, max_size=4)), reverse=True)
    return [
        scored(f"n{index}", score, *((kb_id, draw(st.integers(0, 3))) for kb_id in ids[2 * index : 2 * index + 2]))
        for index, score in enumerate(scores)
    ]


@given(scored_names(), probabilities, weights, st.integers(1, 5))
def test_each_entity_has_its_own_score(
    found: list[ScoredName], prior: dict[str, float], weight: float, limit: int
) -> None:
    parts = rerank(found, prior, weight, limit)
    if not prior:
        assert parts == found
        return
    expected = {
        entity.kb_id: name.score + weight * math.log(prior.get(entity.kb_id, 0.0) + FLOOR)
        for name in found
        for entity in name.entities
    }
    rows = {(name.name, row, entity) for name in found for row, entity in zip(name.rows, name.entities, strict=True)}
    assert {(p.name, row, e) for p in parts for row, e in zip(p.rows, p.entities, strict=True)} <= rows
    scores = {entity.kb_id: part.score for part in parts for entity in part.entities}
    assert scores == pytest.approx({kb_id: expected[kb_id] for kb_id in scores})
    assert [part.score for part in parts] == sorted((part.score for part in parts), reverse=True)
    assert max(scores.values()) == pytest.approx(max(expected.values()))
    best = {name.name: max(expected[entity.kb_id] for entity in name.entities) for name in found}
    kept = {part.name for part in parts}
    assert len(kept) == min(limit, len(found))
    assert all(best[one] >= best[other] - 1e-9 for one in kept for other in best.keys() - kept)
    for name in found:
        if name.name in kept:
            assert {entity.kb_id for entity in name.entities} <= scores.keys()


@given(scored_names(), probabilities, weights)
def test_probabilities_are_in_the_order_of_the_scores_and_add_up(
    found: list[ScoredName], prior: dict[str, float], weight: float
) -> None:
    candidates = to_candidates(rerank(found, prior, weight, 5))
    assert sum(candidate.probability for candidate in candidates) == pytest.approx(1)
    scores = [candidate.score for candidate in candidates]
    assert scores == sorted(scores, reverse=True)


def test_bearers_of_one_name_are_told_apart_by_the_prior_or_else_share_by_count() -> None:
    found = [
        scored("Mercury", -1.0, ("planet", 30), ("element", 10), ("god", 0)),
        scored("Jaguar", -2.0, ("c", 1)),
    ]
    [element, *_] = to_candidates(rerank(found, {"element": 0.9}, 1.0, 5))
    assert element.kb_id == "element"
    assert element.score == pytest.approx(-1 + math.log(0.9 + FLOOR))
    rest = {c.kb_id: c for c in to_candidates(rerank(found, {"element": 0.9}, 1.0, 5))[1:]}
    assert rest["planet"].score == rest["god"].score == pytest.approx(-1 + math.log(FLOOR))
    assert rest["god"].probability == 0.0 < rest["planet"].probability < element.probability


def test_a_large_weight_gives_the_priors_order() -> None:
    found = [scored(name, -float(index)) for index, name in enumerate("abcd")]
    prior = {"d": 0.5, "b": 0.3, "c": 0.1}
    assert [part.name for part in rerank(found, prior, 1e4, 9)] == ["d", "b", "c", "a"]
    assert [part.name for part in rerank(found, prior, 1e-6, 9)] == ["a", "b", "c", "d"]
