"""Fitting the prior's weight, and answering docs with a weight they had no part in."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.evaluation.bootstrap import accuracy_of, difference_of
from spacy_gemel.evaluation.prior_weight import (
    GRID,
    PriorCandidate,
    PriorCase,
    cross_validate,
    curve,
    fit_weight,
)
from spacy_gemel.linking.candidates import ScoredName, to_candidates
from spacy_gemel.linking.prior import FLOOR, rerank

A = PriorCandidate("a", -1.0, 0.1)
B = PriorCandidate("b", -2.0, 0.8)
C = PriorCandidate("c", -0.5, 0.3, searched=False)
TURN = 1 / math.log((0.8 + FLOOR) / (0.1 + FLOOR))  # from this weight on b beats a

candidates = st.builds(
    PriorCandidate,
    kb_id=st.sampled_from("abcdef"),
    score=st.floats(-5, 0),
    prior=st.sampled_from([0.0, 0.2, 0.6]),
    searched=st.booleans(),
)


def case_of(doc: str, gold: str, candidates: list[PriorCandidate], prior_answer: str | None = None) -> PriorCase:
    """The prior answers the candidate that it is surest of, unless told otherwise."""
    surest = max((c for c in candidates if c.prior > 0), key=lambda c: c.prior, default=None)
    own = surest.kb_id if surest else "NIL"
    return PriorCase(doc, gold, candidates, own if prior_answer is None else prior_answer)


cases = st.lists(
    st.builds(
        case_of,
        doc=st.sampled_from([f"doc {i}" for i in range(9)]),
        gold=st.sampled_from("abcdef"),
        candidates=st.lists(candidates, max_size=4, unique_by=lambda candidate: candidate.kb_id),
        prior_answer=st.sampled_from(["a", "NIL", None]),
    ),
    min_size=1,
    max_size=20,
)


def test_the_answers() -> None:
    case = case_of("d", "b", [A, B, C])
    assert (case.by_model(), case.by_prior) == ("a", "b")  # c was not found by the search
    assert case.by_both(0.0) == "a"
    assert case_of("d", "b", [A, B]).by_both(TURN * 0.99) == "a"
    assert case_of("d", "b", [A, B]).by_both(TURN * 1.01) == "b"
    assert case.by_both(0.01) == "c"
    assert case.by_both(1e4) == "b"
    unknown = case_of("d", "b", [A._replace(prior=0.0), B._replace(prior=0.0)])
    assert (unknown.by_prior, unknown.by_both(5.0)) == ("NIL", "a")
    assert (case.by_backoff(), unknown.by_backoff()) == ("b", "a")
    assert case_of("d", "z", [A], prior_answer="z").by_backoff() == "z"
    assert case_of("d", "b", []).by_both(1.0) == case_of("d", "b", []).by_model() == "NIL"
    assert case_of("d", "b", [A], prior_answer="z").by_prior == "z"


def test_the_weight_is_the_smallest_of_the_best() -> None:
    helped = case_of("d", "b", [A, B])
    hurt = case_of("e", "a", [A, B])
    assert fit_weight([helped, helped, hurt]) == min(weight for weight in GRID if weight > TURN)
    assert fit_weight([helped, hurt, hurt]) == fit_weight([helped, hurt]) == 0.0
    with pytest.raises(ValueError, match="no mention with a gold entity"):
        fit_weight([])


@given(cases, st.integers(2, 6), st.integers(0, 3))
@settings(max_examples=200)
def test_no_doc_is_answered_with_a_weight_it_was_part_of(cases: list[PriorCase], folds: int, seed: int) -> None:
    docs = {case.doc for case in cases}
    if len(docs) < 2:
        with pytest.raises(ValueError, match="cross-validation needs two of each"):
            cross_validate(cases, folds=folds, seed=seed)
        return
    found = cross_validate(cases, folds=folds, seed=seed)
    assert len(found.weights) == min(folds, len(docs)) == len(set(found.folds))
    for doc in docs:
        assert len({fold for case, fold in zip(cases, found.folds, strict=True) if case.doc == doc}) == 1
    for fold, weight in enumerate(found.weights):
        rest = [case for case, own in zip(cases, found.folds, strict=True) if own != fold]
        assert weight == fit_weight(rest)
    both = [case.by_both(found.weights[fold]) == case.gold for case, fold in zip(cases, found.folds, strict=True)]
    assert found.correct["both"] == both
    assert found.correct["model"] == [case.by_model() == case.gold for case in cases]
    message = found.to_json()
    for way in ("model", "prior", "both"):
        right = found.correct[way]
        assert message[way]["n"] == len(cases)
        assert message[way]["accuracy"] == sum(right) / len(right)
        assert message[way]["low"] <= message[way]["accuracy"] <= message[way]["high"]
    for other in ("prior", "model", "backoff"):
        difference = message["both"]["accuracy"] - message[other]["accuracy"]
        assert message[f"both_minus_{other}"]["difference"] == pytest.approx(difference)
    assert cross_validate(cases, folds=folds, seed=seed) == found


def test_mentions_of_one_doc_are_resampled_together() -> None:
    """Ten mentions of a doc that go alike tell no more than one: the intervals are those of the docs."""
    helped, hurt = case_of("b", "b", [A, B]), case_of("a", "a", [A, B])
    docs = [replace(helped if number % 3 else hurt, doc=f"doc {number}") for number in range(60)]
    many = [case for case in docs for _ in range(10)]
    once, often = (cross_validate(cases).to_json() for cases in (docs, many))
    for key, figure in (("both", "accuracy"), ("both_minus_model", "difference")):
        assert often[key][figure] == pytest.approx(once[key][figure])
        assert often[key]["low"] == pytest.approx(once[key]["low"])
        assert often[key]["high"] == pytest.approx(once[key]["high"])
        assert often[key]["high"] - often[key]["low"] > 0.2
    by_mention = accuracy_of(cross_validate(many).correct["both"])
    assert by_mention["high"] - by_mention["low"] < 0.1
    pairs = difference_of([True] * 300 + [False] * 300, [False] * 600)
    assert pairs["high"] - pairs["low"] < 0.1


@given(cases)
def test_the_best_of_the_curve_is_the_fitted_weight(cases: list[PriorCase]) -> None:
    points = curve(cases)
    assert [point["weight"] for point in points] == list(GRID)
    assert points[0]["accuracy"] == pytest.approx(sum(case.by_model() == case.gold for case in cases) / len(cases))
    best = max(point["accuracy"] for point in points)
    assert fit_weight(cases) == next(point["weight"] for point in points if point["accuracy"] == best)


@given(st.lists(candidates, min_size=1, max_size=5, unique_by=lambda c: c.kb_id), st.floats(0.01, 20))
def test_both_answer_what_a_pipe_with_this_weight_does(own: list[PriorCandidate], weight: float) -> None:
    own = sorted((c._replace(searched=True) for c in own), key=lambda c: -c.score)
    found = [ScoredName(c.kb_id, c.score, [(c.kb_id, 0)]) for c in own]
    linked = to_candidates(rerank(found, {c.kb_id: c.prior for c in own if c.prior}, weight, 5))
    assert case_of("d", "a", own).by_both(weight) == linked[0].kb_id
