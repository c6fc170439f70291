"""Evaluated mentions as arrays, and 95 % intervals over several seeds of a setting."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.evaluation.bootstrap import RESAMPLES, SEED, wilson_interval
from spacy_gemel.evaluation.results import MentionResult, scored

BoolArray = NDArray[np.bool_]
_COUNTS_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True)
class Outcomes:
    """One evaluation as arrays: `mentions` holds the key of each mention, all else is (mentions,) bool."""

    mentions: tuple[tuple[str, int, int, str], ...]
    correct: BoolArray
    common: BoolArray
    tail: BoolArray
    seen: BoolArray
    image: BoolArray
    unreadable_image: BoolArray

    def part(self, name: str) -> BoolArray:
        """(mentions,): which mentions belong to one of SUBSETS."""
        if name == "unseen":
            return ~self.seen
        if name == "without_image":
            return ~(self.image | self.unreadable_image)
        result: BoolArray = getattr(self, "image" if name == "with_image" else name)
        return result


def outcomes(results: Iterable[MentionResult]) -> Outcomes:
    """The outcomes of the mentions that accuracy is over."""
    counted = scored(list(results))

    def array(condition: Callable[[MentionResult], bool]) -> BoolArray:
        return np.array([condition(r) for r in counted], dtype=bool)

    return Outcomes(
        mentions=tuple(r.key for r in counted),
        correct=array(lambda r: r.correct),
        common=array(lambda r: r.tail is False),
        tail=array(lambda r: r.tail is True),
        seen=array(lambda r: r.seen),
        image=array(lambda r: r.image),
        unreadable_image=array(lambda r: r.unreadable_image),
    )


def with_interval(figure: dict[str, Any]) -> dict[str, Any]:
    """A figure of evaluation/bootstrap.py with its `low` and `high` as one `interval`."""
    rest = {name: value for name, value in figure.items() if name not in ("low", "high")}
    return {**rest, "interval": [figure["low"], figure["high"]]}


@dataclass(frozen=True, slots=True)
class Term:
    """One accuracy of a statistic that adds and subtracts some.

    correct: (seeds, mentions); one row where every seed gives the same. keep: (mentions,), the mentions that it is
    over, None for all. sign: 1 to add it, -1 to subtract it.
    """

    correct: NDArray[np.bool_]
    keep: NDArray[np.bool_] | None = None
    sign: int = 1


def seeds_and_mentions_interval(terms: Sequence[Term], *, seed: int = SEED) -> tuple[float, float, float] | None:
    """The sum of the terms' signed accuracies, each the mean over seeds and mentions, and its 95 % interval.

    Seeds and mentions are resampled apart (Owen 2007, "The pigeonhole bootstrap"), and alike for all terms, so that
    what is compared stays paired. One accuracy that is 0 or 1 with every seed has Wilson's interval over its mentions:
    seeds that agree are no mentions more. Raises ValueError where there is no term or their shapes do not agree; None
    where a term has no mention. A resample in which one has none is left out.
    """
    right, keeps_of_terms = _line_up(terms)
    if not keeps_of_terms.any(axis=1).all():
        return None
    number, seeds, n = right.shape
    if number == 1 and terms[0].sign == 1:
        outcomes_of_term = right[0][:, keeps_of_terms[0]]
        if outcomes_of_term.all() or not outcomes_of_term.any():
            share = float(outcomes_of_term[0, 0])
            return share, *wilson_interval(share, outcomes_of_term.shape[1])
    # Mentions that went alike in every term are one kind, drawn together.
    kinds, times = np.unique(np.concatenate([right.reshape(-1, n), keeps_of_terms]), axis=1, return_counts=True)
    right = kinds[: number * seeds].reshape(number, seeds, -1).astype(np.float64)  # (terms, seeds, kinds)
    keeps_of_terms = kinds[number * seeds :]  # (terms, kinds)

    def values(of_seeds: NDArray[np.int64], of_kinds: NDArray[np.int64]) -> NDArray[np.float64]:
        """(resamples,) from how often each seed (resamples, seeds) and kind (resamples, kinds) was drawn."""
        total = np.zeros(len(of_seeds))
        for term, row, keep in zip(terms, right, keeps_of_terms, strict=True):
            hits = (of_seeds * (of_kinds @ (row * keep).T)).sum(axis=1)
            with np.errstate(invalid="ignore"):  # 0 / 0 where none of its mentions was drawn
                total += term.sign * hits / (seeds * (of_kinds @ keep.astype(np.float64)))
        return total

    of_seeds, of_kinds = np.random.default_rng(seed).spawn(2)
    step = max(1, _COUNTS_AT_ONCE // len(times))
    draws = [
        values(
            of_seeds.multinomial(seeds, np.full(seeds, 1 / seeds), size=size),
            of_kinds.multinomial(n, times / n, size=size),
        )
        for size in (min(step, RESAMPLES - start) for start in range(0, RESAMPLES, step))
    ]
    low, high = np.nanpercentile(np.concatenate(draws), [2.5, 97.5])
    [value] = values(np.ones((1, seeds), dtype=np.int64), times[None])
    return float(value), float(low), float(high)


def _line_up(terms: Sequence[Term]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """What is right (terms, seeds, mentions) and what counts (terms, mentions); see `seeds_and_mentions_interval`."""
    if not terms:
        raise ValueError("there is no term to take an interval of")
    seeds = max(len(term.correct) for term in terms)
    n = terms[0].correct.shape[1]
    keeps = [np.ones(n, dtype=bool) if term.keep is None else term.keep for term in terms]
    for term, keep in zip(terms, keeps, strict=True):
        if term.correct.shape not in ((seeds, n), (1, n)) or keep.shape != (n,):
            raise ValueError(
                f"outcomes of shape {term.correct.shape}, over mentions {keep.shape}, do not fit {seeds} seeds "
                f"and {n} mentions"
            )
    return np.stack([np.broadcast_to(term.correct, (seeds, n)) for term in terms]), np.stack(keeps)
