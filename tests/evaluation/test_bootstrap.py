"""The intervals against a bootstrap that draws mention by mention."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_gemel.evaluation.bootstrap import accuracy_interval, interval_by_doc, paired_difference


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


@given(st.integers(1, 500), st.data())
def test_the_interval_holds_the_accuracy_and_repeats(n: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, n))
    low, high = accuracy_interval(correct, n)
    assert 0 <= low <= correct / n <= high <= 1
    assert (low, high) == accuracy_interval(correct, n)
    assert low < high, "however they went, so many mentions settle it no more than that"


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


def test_docs_as_by_drawing_doc_by_doc() -> None:
    """Of one to six mentions, some docs easy and some hard; values of single mentions, and of pairs."""
    rng = np.random.default_rng(5)
    docs = [f"doc {doc}" for doc in range(80) for _ in range(rng.integers(1, 7))]
    ease = dict(zip(dict.fromkeys(docs), rng.random(80), strict=True))
    right = np.array([rng.random() < ease[doc] for doc in docs], dtype=float)
    for values in (right, right - (rng.random(len(docs)) < 0.5)):
        of_doc = [values[[index for index, own in enumerate(docs) if own == doc]] for doc in dict.fromkeys(docs)]
        means = []
        for _ in range(4000):
            drawn = [of_doc[doc] for doc in rng.integers(0, 80, 80)]
            means.append(np.concatenate(drawn).mean())
        low, high = interval_by_doc(list(values), docs)
        assert (low, high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.015)
        assert (low, high) == interval_by_doc(list(values), docs)
    # where each mention is a doc, they are what is drawn
    alone = interval_by_doc(list(right), [str(index) for index in range(len(right))])
    assert alone == pytest.approx(accuracy_interval(int(right.sum()), len(right)), abs=0.015)
    assert interval_by_doc([], []) is None
    with pytest.raises(ValueError, match="each mention needs one"):
        interval_by_doc([1.0], [])
