"""Common and tail, by hand and on generated counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_gemel.evaluation.results import split_tail


@pytest.mark.parametrize(
    ("counts", "share", "threshold", "held", "entities"),
    [
        # 100 in all; 1 + 2 + 7 = 10 are a tenth of it
        ([60, 30, 7, 2, 1, 0, 0], 0.10, 7, 0.10, 3),
        ([60, 30, 7, 2, 1, 0, 0], 0.09, 2, 0.03, 2),
        ([60, 30, 7, 2, 1], 0.0, 0, 0.0, 0),
        ([60, 30, 7, 2, 1], 1.0, 60, 1.0, 5),
        # equal counts are never parted: both twos would hold 40 % together
        ([2, 2, 6], 0.20, 0, 0.0, 0),
        ([2, 2, 6], 0.40, 2, 0.40, 2),
        ([0, 0], 0.5, 0, 0.0, 0),
        ([], 0.5, 0, 0.0, 0),
    ],
)
def test_by_hand(counts: list[int], share: float, threshold: int, held: float, entities: int) -> None:
    split = split_tail(np.array(counts, dtype=np.int64), share)
    assert (split.threshold, split.entities) == (threshold, entities)
    assert split.share_held == pytest.approx(held)


def test_an_entity_that_was_never_counted_is_neither() -> None:
    split = split_tail(np.array([60, 30, 7, 2, 1, 0]), 0.1)
    assert [split.is_tail(n) for n in (0, 1, 7, 8)] == [None, True, True, False]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_from_0_to_1(share: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        split_tail(np.array([1]), share)


@given(st.lists(st.integers(0, 50), max_size=40), st.floats(0, 1))
def test_it_is_the_largest_tail_within_the_share(counts: list[int], share: float) -> None:
    split = split_tail(np.array(counts, dtype=np.int64), share)
    counted = [n for n in counts if n > 0]
    tail = [n for n in counted if n <= split.threshold]
    total = sum(counted)
    assert len(tail) == split.entities
    assert sum(tail) <= share * total + 1e-6
    more = [n for n in counted if n > split.threshold]
    if more:  # the next count would be one too many
        assert sum(n for n in counted if n <= min(more)) > share * total - 1e-6
