"""The combined score of names and their entities."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_gemel.linking.candidates import ScoredName, to_candidates
from spacy_gemel.linking.prior import FLOOR, rerank

IDS = list("abcdefgh")
probabilities = st.dictionaries(st.sampled_from(IDS), st.floats(0.01, 0.9), max_size=8)
weights = st.floats(0.01, 100)


@st.composite
def found_names(draw: st.DrawFn) -> list[ScoredName]:
    """Names as the search finds them: best first, each entity under one name."""
    ids = draw(st.permutations(IDS))
    scores = sorted(draw(st.lists(st.floats(-9, 0), min_size=4, max_size=4)), reverse=True)
    return [
        ScoredName(f"n{index}", score, [(kb_id, draw(st.integers(0, 3))) for kb_id in ids[2 * index : 2 * index + 2]])
        for index, score in enumerate(scores)
    ]


@given(found_names(), probabilities, weights, st.integers(1, 5))
def test_each_entity_has_its_own_score(
    found: list[ScoredName], prior: dict[str, float], weight: float, limit: int
) -> None:
    parts = rerank(found, prior, weight, limit)
    if not prior:
        assert parts == found
        return
    expected = {
        kb_id: name.score + weight * math.log(prior.get(kb_id, 0.0) + FLOOR)
        for name in found
        for kb_id, _ in name.entities
    }
    scores = {kb_id: part.score for part in parts for kb_id, _ in part.entities}
    assert scores == pytest.approx({kb_id: expected[kb_id] for kb_id in scores})
    assert [part.score for part in parts] == sorted((part.score for part in parts), reverse=True)
    assert max(scores.values()) == pytest.approx(max(expected.values()))
    best = {name.name: max(expected[kb_id] for kb_id, _ in name.entities) for name in found}
    kept = {part.name for part in parts}
    assert len(kept) == min(limit, len(found))
    assert all(best[one] >= best[other] - 1e-9 for one in kept for other in best.keys() - kept)
    for name in found:
        if name.name in kept:
            assert {kb_id for kb_id, _ in name.entities} <= scores.keys()


@given(found_names(), probabilities, weights)
def test_probabilities_are_in_the_order_of_the_scores_and_add_up(
    found: list[ScoredName], prior: dict[str, float], weight: float
) -> None:
    candidates = to_candidates(rerank(found, prior, weight, 5), temperature=2.0)
    assert sum(candidate.probability for candidate in candidates) == pytest.approx(1)
    scores = [candidate.score for candidate in candidates]
    assert scores == sorted(scores, reverse=True)


def test_bearers_of_one_name_are_told_apart_by_the_prior_or_else_share_by_count() -> None:
    found = [
        ScoredName("Mercury", -1.0, [("planet", 30), ("element", 10), ("god", 0)]),
        ScoredName("Jaguar", -2.0, [("c", 1)]),
    ]
    [element, *_] = to_candidates(rerank(found, {"element": 0.9}, 1.0, 5))
    assert element.kb_id == "element"
    assert element.score == pytest.approx(-1 + math.log(0.9 + FLOOR))
    rest = {c.kb_id: c for c in to_candidates(rerank(found, {"element": 0.9}, 1.0, 5))[1:]}
    assert rest["planet"].score == rest["god"].score == pytest.approx(-1 + math.log(FLOOR))
    assert rest["god"].probability == 0.0 < rest["planet"].probability < element.probability


def test_a_large_weight_gives_the_priors_order() -> None:
    found = [ScoredName(name, -float(index), [(name, 0)]) for index, name in enumerate("abcd")]
    prior = {"d": 0.5, "b": 0.3, "c": 0.1}
    assert [part.name for part in rerank(found, prior, 1e4, 9)] == ["d", "b", "c", "a"]
    assert [part.name for part in rerank(found, prior, 1e-6, 9)] == ["a", "b", "c", "d"]
