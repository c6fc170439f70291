"""95 % intervals by resampling mentions (percentile bootstrap, Efron 1979).

The outcomes are right and wrong only, so a resample is a draw from the binomial or multinomial distribution
with the observed shares: the same distribution as drawing mentions one by one, at a cost that does not grow
with them.

Where all mentions went alike every resample is the sample itself, as if a handful of mentions settled it. An accuracy
of 0 or 1 has Wilson's score interval instead (Wilson 1927), which tells how many mentions there were. A difference of
two settings that went alike on every mention stays 0 from 0 to 0: often they are one setting.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEED = 0
RESAMPLES = 10_000
_COUNTS_AT_ONCE = 4_000_000
_Z = 1.959963984540054  # of the normal distribution's 97.5 %


def accuracy_interval(correct: int, n: int, *, seed: int = SEED) -> tuple[float, float] | None:
    """The 95 % interval of correct / n (percentile bootstrap, Efron 1979); None for no mention at all."""
    if not n:
        return None
    if correct in (0, n):
        return _wilson(correct / n, n)
    draws = np.random.default_rng(seed).binomial(n, correct / n, size=RESAMPLES) / n
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def _wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share that is 0 or 1 among n mentions."""
    reach = _Z**2 / (n + _Z**2)
    return (0.0, reach) if share == 0 else (1 - reach, 1.0)


def paired_difference(
    first: Sequence[bool], second: Sequence[bool], *, seed: int = SEED
) -> tuple[float, float, float] | None:
    """Accuracy of `first` minus that of `second` on the same mentions, and its 95 % interval.

    Mentions are resampled as pairs (percentile bootstrap, Efron 1979). Raises ValueError where the two are not of one
    length; None where they are empty.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} mentions cannot be paired")
    n = len(first)
    if not n:
        return None
    gained = sum(a and not b for a, b in zip(first, second, strict=True))
    lost = sum(b and not a for a, b in zip(first, second, strict=True))
    shares = [gained / n, lost / n, (n - gained - lost) / n]
    draws = np.random.default_rng(seed).multinomial(n, shares, size=RESAMPLES)  # (resamples, 3)
    low, high = np.percentile((draws[:, 0] - draws[:, 1]) / n, [2.5, 97.5])
    return (gained - lost) / n, float(low), float(high)


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
    right, kept = _line_up(terms)
    if not kept.any(axis=1).all():
        return None
    number, seeds, n = right.shape
    if number == 1 and terms[0].sign == 1:
        shown = right[0][:, kept[0]]
        if shown.all() or not shown.any():
            share = float(shown[0, 0])
            return share, *_wilson(share, shown.shape[1])
    # Mentions that went alike in every term are one kind, drawn together.
    kinds, times = np.unique(np.concatenate([right.reshape(-1, n), kept]), axis=1, return_counts=True)
    right = kinds[: number * seeds].reshape(number, seeds, -1).astype(np.float64)  # (terms, seeds, kinds)
    kept = kinds[number * seeds :]  # (terms, kinds)

    def values(of_seeds: NDArray[np.int64], of_kinds: NDArray[np.int64]) -> NDArray[np.float64]:
        """(resamples,) from how often each seed (resamples, seeds) and kind (resamples, kinds) was drawn."""
        total = np.zeros(len(of_seeds))
        for term, row, keep in zip(terms, right, kept, strict=True):
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


def interval_by_doc(values: Sequence[float], docs: Sequence[str], *, seed: int = SEED) -> tuple[float, float] | None:
    """The 95 % interval of the mean of some mentions' values, docs resampled with all their mentions.

    values: 1 for right and 0 for wrong, or of a pair the first's minus the second's. docs: what tells each mention's
    doc from others: mentions of one doc are not right or wrong independently. Raises ValueError where the two are not
    of one length; None where they are empty.
    """
    if len(values) != len(docs):
        raise ValueError(f"{len(values)} mentions cannot be told apart by {len(docs)} docs")
    if not docs:
        return None
    totals: dict[str, tuple[float, int]] = {}
    for value, doc in zip(values, docs, strict=True):
        total, n = totals.get(doc, (0.0, 0))
        totals[doc] = total + value, n + 1
    # Docs with as many mentions of the same sum are one kind, drawn together.
    kinds, times = np.unique(np.array([*totals.values()]), axis=0, return_counts=True)  # (kinds, 2)
    drawn = np.random.default_rng(seed).multinomial(len(totals), times / len(totals), size=RESAMPLES)
    sums = drawn @ kinds  # (resamples, 2)
    low, high = np.percentile(sums[:, 0] / sums[:, 1], [2.5, 97.5])
    return float(low), float(high)
