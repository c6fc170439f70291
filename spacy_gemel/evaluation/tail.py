"""Common and tail entities.

The paper calls tail the "entities that appear less than 5 % of the total count", which can be
read in more than one way. Here: the least-counted entities that together hold `share` of all counts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TailSplit:
    """threshold: an entity counted 1 to `threshold` times is tail, one counted more often is common.

    held: the share of all counts that the tail really holds, at most the `share` asked for, since entities
    with the same count are never parted. entities: how many are tail. An entity with count 0 is neither: a
    KB's distractors were never counted, and say nothing about popularity. counted: how many were counted at all.
    """

    share: float
    threshold: int
    held: float
    entities: int
    counted: int = 0

    def is_tail(self, count: int) -> bool | None:
        """Whether an entity with this count is tail; None for one that was never counted."""
        return None if count <= 0 else count <= self.threshold


def split_tail(counts: NDArray[np.int64], share: float) -> TailSplit:
    """Find the greatest threshold whose entities hold at most `share` of the total: the paper's tail, read as above.

    counts: (entities,) whole numbers, 0 for never counted. Raises ValueError for a share outside 0 to 1.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"the tail's share is {share}: it must be from 0 to 1")
    counts = np.asarray(counts, dtype=np.int64)
    counted = int((counts > 0).sum())
    values, times = np.unique(counts[counts > 0], return_counts=True)  # (distinct,) ascending
    if not len(values):
        return TailSplit(share=share, threshold=0, held=0.0, entities=0)
    held = np.cumsum(values * times) / float((values * times).sum())
    # a share such as 0.2 of a total of 10 is 2 exactly; the tolerance keeps rounding from denying it
    last = int(np.searchsorted(held, share + 1e-12, side="right")) - 1
    if last < 0:
        return TailSplit(share=share, threshold=0, held=0.0, entities=0, counted=counted)
    entities = int(times[: last + 1].sum())
    return TailSplit(share, threshold=int(values[last]), held=float(held[last]), entities=entities, counted=counted)
