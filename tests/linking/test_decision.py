"""The decision against brute force, its fit against an independent likelihood, and what is read and written."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import approx_fprime, minimize

from spacy_gemel.linking.candidates import to_candidates
from spacy_gemel.linking.decision import NAME_SHARE, NIL_INDEX, RIDGE, Decision, fit_decision
from tests.names import scored

Values = NDArray[np.float64]
COLUMNS = ["score", "prior", "count"]

numbers = st.floats(-20, 20)
rows = st.lists(st.tuples(numbers, numbers, numbers), max_size=6)
weights = st.dictionaries(st.sampled_from([*COLUMNS, "elsewhere"]), st.floats(-5, 5))
nils = st.one_of(st.none(), st.floats(-30, 30))


@given(rows, weights, nils)
def test_probabilities_against_brute_force(rows: list[Any], weights: dict[str, float], nil: float | None) -> None:
    decision = Decision(weights, nil)
    utilities = decision.utilities(np.array(rows).reshape(-1, 3), COLUMNS)
    probabilities, of_nil = decision.probabilities(utilities)
    sums = [sum(weights.get(name, 0.0) * value for name, value in zip(COLUMNS, row, strict=True)) for row in rows]
    assert utilities.tolist() == pytest.approx(sums, abs=1e-9)
    if not rows:
        assert of_nil == 1.0
        return
    top = max([*sums, -math.inf if nil is None else nil])
    shares = [math.exp(each - top) for each in sums]
    share_of_nil = 0.0 if nil is None else math.exp(nil - top)
    total = sum(shares) + share_of_nil
    assert probabilities.tolist() == pytest.approx([share / total for share in shares], abs=1e-9)
    assert of_nil == pytest.approx(share_of_nil / total, abs=1e-9)
    assert probabilities.sum() + of_nil == pytest.approx(1)


@given(st.lists(st.floats(-20, 0), min_size=1, max_size=6), st.floats(0.05, 20))
def test_the_score_alone_is_the_softmax_at_a_temperature(scores: list[float], temperature: float) -> None:
    decision = Decision({"score": 1 / temperature})
    probabilities, nil = decision.probabilities(decision.utilities(np.array(scores)[:, None], ["score"]))
    names = [scored(f"n{number}", score / temperature) for number, score in enumerate(scores)]
    assert probabilities.tolist() == pytest.approx([candidate.probability for candidate in to_candidates(names)])
    assert nil == 0.0


def mentions(
    rng: np.random.Generator, count: int, truth: Sequence[float], nil: float | None, widest: int = 5
) -> tuple[list[Values], list[int | None]]:
    """Mentions whose gold was drawn with the probabilities of a true decision."""
    values: list[Values] = []
    gold: list[int | None] = []
    for _ in range(count):
        own = rng.normal(0, [1.0, 3.0, 0.2][: len(truth)], size=(rng.integers(1, widest + 1), len(truth)))
        utilities = np.append(own @ np.array(truth), -np.inf if nil is None else nil)
        shares = np.exp(utilities - utilities.max())
        drawn = int(rng.choice(len(utilities), p=shares / shares.sum()))
        values.append(own)
        gold.append(NIL_INDEX if drawn == len(own) else drawn)
    return values, gold


def likelihood(weights: Values, nil: float | None, values: Sequence[Values], gold: Sequence[int | None]) -> float:
    """The log-likelihood, a mention and a candidate at a time."""
    total = 0.0
    for own, index in zip(values, gold, strict=True):
        if index is None:
            continue
        utilities = [sum(w * v for w, v in zip(weights, row, strict=True)) for row in own.tolist()]
        every = utilities if nil is None else [*utilities, nil]
        chosen = every[-1] if index == NIL_INDEX else utilities[index]
        total += chosen - math.log(sum(math.exp(each - max(every)) for each in every)) - max(every)
    return total


def penalised(fitted: Decision, values: Sequence[Values], gold: Sequence[int | None], ridge: float) -> Any:
    """The loss of weights in the features' own units, and NIL's last."""
    scales = np.array([*fitted.scales.values()])

    def loss(parameters: Values) -> float:
        weights, nil = parameters[: len(scales)], None if fitted.nil is None else parameters[-1]
        return 0.5 * ridge * float(((weights * scales) ** 2).sum()) - likelihood(weights, nil, values, gold)

    return loss


@pytest.mark.parametrize("nil", [None, 0.5])
@pytest.mark.parametrize("ridge", [RIDGE, 10.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_fit_is_the_best_by_another_likelihood(nil: float | None, ridge: float, seed: int) -> None:
    values, gold = mentions(np.random.default_rng(seed), 60, [1.5, -0.5, 2.0], nil)
    gold[::7] = [None] * len(gold[::7])
    fitted = fit_decision(values, gold, COLUMNS, ridge)
    assert (fitted.nil is None) == (nil is None)
    found = np.array([*fitted.weights.values(), *([] if fitted.nil is None else [fitted.nil])])
    loss = penalised(fitted, values, gold, ridge)
    assert np.abs(approx_fprime(found, loss, 1e-6)).max() < 0.05 * len(values) ** 0.5
    best = minimize(loss, np.zeros(len(found)), method="BFGS")
    assert loss(found) == pytest.approx(best.fun, abs=1e-3)
    assert found == pytest.approx(best.x, abs=0.02)


def test_the_scale_is_what_a_column_varies_by_within_a_mention() -> None:
    values, gold = mentions(np.random.default_rng(0), 50, [1.0, 0.5, 0.0], None)
    fitted = fit_decision(values, gold, COLUMNS)
    within = np.concatenate([own - own.mean(0) for own in values]).std(0)
    assert [*fitted.scales.values()] == pytest.approx(within.tolist())


@pytest.mark.parametrize("nil", [None, 1.0, -2.0])
def test_a_true_decision_is_found(nil: float | None) -> None:
    truth = [2.0, -0.5, 3.0]
    values, gold = mentions(np.random.default_rng(1), 4000, truth, nil)
    fitted = fit_decision(values, gold, COLUMNS)
    assert [*fitted.weights.values()] == pytest.approx(truth, abs=0.35)
    assert fitted.nil == (None if nil is None else pytest.approx(nil, abs=0.3))


def test_the_unit_of_a_feature_does_not_matter() -> None:
    values, gold = mentions(np.random.default_rng(2), 80, [1.0, 0.3, 1.0], 0.0)
    unit = np.array([1.0, 1000.0, 1e-3])
    one, other = fit_decision(values, gold, COLUMNS), fit_decision([own * unit for own in values], gold, COLUMNS)
    assert (np.array([*other.weights.values()]) * unit).tolist() == pytest.approx([*one.weights.values()], rel=1e-3)
    assert other.nil == pytest.approx(one.nil, rel=1e-3)


def test_a_column_that_says_nothing_has_no_weight() -> None:
    values, gold = mentions(np.random.default_rng(3), 60, [1.0, 0.5], 0.0)
    fitted = fit_decision([np.insert(own, 1, 7.0, axis=1) for own in values], gold, ["score", "constant", "prior"])
    plain = fit_decision(values, gold, ["score", "prior"])
    assert fitted.weights["constant"] == 0.0
    assert [fitted.weights["score"], fitted.weights["prior"]] == pytest.approx([*plain.weights.values()], abs=1e-4)
    assert fitted.nil == pytest.approx(plain.nil, abs=1e-4)


def test_what_the_candidates_of_a_mention_share_tells_them_from_nil_alone() -> None:
    """A column that is 1 for all candidates of a mention that is an entity, and 0 for those of one that is NIL."""
    rng = np.random.default_rng(4)
    values = [np.column_stack([rng.normal(size=3), np.full(3, number % 2)]) for number in range(100)]
    gold = [0 if number % 2 else NIL_INDEX for number in range(100)]
    fitted = fit_decision(values, gold, ["score", "known"])
    assert fitted.weights["known"] > 1.0
    known, unknown = (np.array([[0.0, each]]) for each in (1.0, 0.0))
    for own, is_nil in ((known, False), (unknown, True)):
        probabilities, nil = fitted.probabilities(fitted.utilities(own, ["score", "known"]))
        assert (nil > probabilities[0]) == is_nil
    entities = [(own, index) for own, index in zip(values, gold, strict=True) if index != NIL_INDEX]
    assert fit_decision(*map(list, zip(*entities, strict=True)), ["score", "known"]).weights["known"] == 0.0


@pytest.mark.parametrize("nil", [None, 0.5])
def test_the_share_of_a_name_is_not_fitted(nil: float | None) -> None:
    """Its weight is 1, whatever the data say, and the others are the best beside it."""
    columns = ["score", NAME_SHARE, "prior"]
    values, gold = mentions(np.random.default_rng(7), 80, [1.0, -0.5, 2.0], nil)
    fitted = fit_decision(values, gold, columns)
    assert fitted.weights[NAME_SHARE] == pytest.approx(1.0, abs=1e-12)
    loss = penalised(fitted, values, gold, RIDGE)

    def beside(parameters: Values) -> float:
        return loss(np.array([parameters[0], 1.0, *parameters[1:]]))

    others = [fitted.weights["score"], fitted.weights["prior"], *([] if fitted.nil is None else [fitted.nil])]
    best = minimize(beside, np.zeros(len(others)), method="BFGS")
    assert others == pytest.approx(best.x.tolist(), abs=0.02)
    alone = [np.column_stack([own[:, 0], np.zeros(len(own))]) for own in values]
    assert fit_decision(alone, gold, ["score", NAME_SHARE]).weights[NAME_SHARE] == 1.0


def test_a_gold_that_is_no_candidate_has_no_part() -> None:
    values, gold = mentions(np.random.default_rng(5), 40, [1.0, 0.5], 0.0)
    more = [*values, np.full((3, 2), 50.0), np.zeros((0, 2)), np.zeros((0, 2))]
    assert fit_decision(more, [*gold, None, None, NIL_INDEX], ["a", "b"]) == fit_decision(values, gold, ["a", "b"])


@pytest.mark.parametrize(
    ("values", "gold"), [([], []), ([np.ones((2, 1))], [None]), ([np.ones((2, 1))] * 2, [NIL_INDEX, None])]
)
def test_nothing_to_fit_on(values: list[Values], gold: list[int | None]) -> None:
    with pytest.raises(ValueError, match="no mention has its gold entity among its candidates, so there is nothing"):
        fit_decision(values, gold, ["a"])


def test_the_same_each_time() -> None:
    values, gold = mentions(np.random.default_rng(6), 50, [1.0, 0.5, 0.0], 0.0)
    assert fit_decision(values, gold, COLUMNS) == fit_decision(values, gold, COLUMNS)


tables = st.dictionaries(st.text(max_size=8), st.floats(allow_nan=False, allow_infinity=False))


@given(tables, st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)), tables)
def test_json_gives_back_every_digit(weights: dict[str, float], nil: float | None, scales: dict[str, float]) -> None:
    decision = Decision(weights, nil, scales)
    assert Decision.from_json(decision.to_json()) == decision
    assert set(json.loads(decision.to_json())) == {"weights", "nil", "scales"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"7",
        b"{}",
        b'{"weights": {}, "scales": {}}',
        b'{"weights": {"a": "b"}, "nil": null, "scales": {}}',
        b'{"weights": {"a": null}, "nil": null, "scales": {}}',
        b'{"weights": {"a": NaN}, "nil": null, "scales": {}}',
        b'{"weights": {}, "nil": -Infinity, "scales": {}}',
    ],
)
def test_other_json_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        Decision.from_json(data)
