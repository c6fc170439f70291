"""Evaluated mentions as arrays: what was right, and which kind each mention is."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.evaluation.comparison import scored
from spacy_gemel.evaluation.results import MentionResult

BoolArray = NDArray[np.bool_]

PARTS = ("common", "tail", "seen", "unseen", "with_image", "without_image")


@dataclass(frozen=True, slots=True)
class Outcomes:
    """One evaluation. mentions: what tells them apart, in their order. All else: (mentions,) bool."""

    mentions: tuple[tuple[str, int, int, str], ...]
    correct: BoolArray
    common: BoolArray
    tail: BoolArray
    seen: BoolArray
    image: BoolArray
    unreadable_image: BoolArray

    def part(self, name: str) -> BoolArray:
        """(mentions,): which belong to one of PARTS."""
        if name in ("common", "tail"):
            return self.common if name == "common" else self.tail
        if name in ("seen", "unseen"):
            return self.seen if name == "seen" else ~self.seen
        return self.image if name == "with_image" else ~(self.image | self.unreadable_image)


def outcomes(results: Iterable[MentionResult]) -> Outcomes:
    """What counts for accuracy: the mentions whose gold entity is in the KB."""
    counted = scored(list(results))
    return Outcomes(
        mentions=tuple(r.key for r in counted),
        correct=np.array([r.correct for r in counted], dtype=bool),
        common=np.array([r.tail is False for r in counted], dtype=bool),
        tail=np.array([r.tail is True for r in counted], dtype=bool),
        seen=np.array([r.seen for r in counted], dtype=bool),
        image=np.array([r.image for r in counted], dtype=bool),
        unreadable_image=np.array([r.unreadable_image for r in counted], dtype=bool),
    )
