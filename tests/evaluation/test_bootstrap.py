"""The intervals against a bootstrap that draws mention by mention."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.evaluation.bootstrap import accuracy_interval, paired_difference


def slow_interval(values: np.ndarray) -> tuple[float, float]:
    rng = np.random.default_rng(1)
    means = [rng.choice(values, len(values)).mean() for _ in range(4000)]
    return tuple(np.percentile(means, [2.5, 97.5]))


def test_accuracy_as_by_drawing_mentions() -> None:
    right = np.array([1.0] * 70 + [0.0] * 30)
    assert accuracy_interval(70, 100) == pytest.approx(slow_interval(right), abs=0.015)


def test_difference_as_by_drawing_pairs() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.random(120) < 0.8, rng.random(120) < 0.6
    difference, low, high = paired_difference(list(first), list(second))
    assert difference == pytest.approx(first.mean() - second.mean())
    assert (low, high) == pytest.approx(slow_interval(first.astype(float) - second), abs=0.015)


@settings(deadline=None)
@given(st.integers(1, 500), st.data())
def test_the_interval_holds_the_accuracy_and_repeats(n: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, n))
    low, high = accuracy_interval(correct, n)
    assert 0 <= low <= correct / n <= high <= 1
    assert (low, high) == accuracy_interval(correct, n)
    if correct in (0, n):
        assert low == high


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=100))
def test_the_difference_turns_its_sign_with_the_order(pairs: list[tuple[bool, bool]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    difference, low, high = paired_difference(first, second)
    assert low <= difference <= high
    assert paired_difference(second, first)[0] == -difference
    assert paired_difference(first, first) == (0, 0, 0)


def test_nothing_and_unequal() -> None:
    assert accuracy_interval(0, 0) is None
    assert paired_difference([], []) is None
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference([True], [])
