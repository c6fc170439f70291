"""95 % intervals by resampling mentions (percentile bootstrap, Efron 1979).

Outcomes are only right or wrong, so a resample is a draw from the binomial or multinomial distribution with the
observed shares: the same distribution as drawing mentions one by one, at a cost that does not grow with them.

If all mentions are right, or all wrong, every resample is the sample itself, as if a handful of mentions settled it.
An accuracy of 0 or 1 gets Wilson's score interval instead (Wilson 1927), which depends on the number of mentions.
"""

from collections.abc import Container, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED = 0
RESAMPLES = 10_000
_Z = 1.959963984540054  # of the normal distribution's 97.5 %


def accuracy_interval(correct: int, n: int) -> tuple[float, float] | None:
    """The 95 % interval of correct / n; None for no mention at all."""
    if not n:
        return None
    if correct in (0, n):
        return wilson_interval(correct / n, n)
    return _percentiles(np.random.default_rng(SEED).binomial(n, correct / n, size=RESAMPLES) / n)


def _percentiles(draws: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share that is 0 or 1 among n mentions."""
    width = _Z**2 / (n + _Z**2)
    return (0.0, width) if share == 0 else (1 - width, 1.0)


def paired_difference(first: Sequence[bool], second: Sequence[bool]) -> tuple[float, float, float] | None:
    """Accuracy of `first` minus that of `second` on the same mentions, and its 95 % interval; None for no mention.

    Mentions are resampled as pairs. Raises ValueError if the lengths differ.
    """
    n = len(first)
    if n != len(second):
        raise ValueError(f"{n} and {len(second)} mentions cannot be paired")
    if not n:
        return None
    gained = sum(a and not b for a, b in zip(first, second, strict=True))
    lost = sum(b and not a for a, b in zip(first, second, strict=True))
    shares = [gained / n, lost / n, (n - gained - lost) / n]
    draws = np.random.default_rng(SEED).multinomial(n, shares, size=RESAMPLES)  # (resamples, 3)
    return (gained - lost) / n, *_percentiles((draws[:, 0] - draws[:, 1]) / n)


def interval_by_doc(values: Sequence[float], docs: Sequence[str]) -> tuple[float, float] | None:
    """The 95 % interval of a mean over mentions; docs are resampled with all their mentions, which are not independent.

    `values` are 1 for right and 0 for wrong, or for a pair the first's minus the second's. Raises ValueError if
    there is not one doc id per mention.
    """
    if len(values) != len(docs):
        raise ValueError(f"{len(values)} mentions and {len(docs)} doc ids: each mention needs one")
    if not docs:
        return None
    totals: dict[str, tuple[float, int]] = {}
    for value, doc in zip(values, docs, strict=True):
        total, n = totals.get(doc, (0.0, 0))
        totals[doc] = total + value, n + 1
    # Docs with equally many mentions of the same sum are one kind, drawn together.
    kinds, times = np.unique(np.array([*totals.values()]), axis=0, return_counts=True)  # (kinds, 2)
    draws = np.random.default_rng(SEED).multinomial(len(totals), times / len(totals), size=RESAMPLES)
    sums = draws @ kinds  # (resamples, 2)
    return _percentiles(sums[:, 0] / sums[:, 1])


def accuracy_of(correct: Sequence[bool], docs: Sequence[str] | None = None) -> dict[str, Any]:
    """{"n", "accuracy", "low", "high"}; mentions are resampled, or with `docs` the docs with all their mentions."""
    n, right = len(correct), sum(correct)
    if docs is None or right in (0, n):  # for equal outcomes a doc says no more than its mentions
        low, high = accuracy_interval(right, n) or (None, None)
    else:
        low, high = interval_by_doc(correct, docs) or (None, None)
    return {"n": n, "accuracy": right / n if n else None, "low": low, "high": high}


def difference_of(
    first: Sequence[bool], second: Sequence[bool], docs: Sequence[str] | None = None
) -> dict[str, float | None]:
    """{"difference", "low", "high"} of two accuracies on the same mentions; resampled like `accuracy_of`."""
    value, low, high = paired_difference(first, second) or (None, None, None)
    if docs is not None:
        gains = [int(a) - int(b) for a, b in zip(first, second, strict=True)]
        low, high = interval_by_doc(gains, docs) or (None, None)
    return {"difference": value, "low": low, "high": high}


def folds_by_doc(
    docs: Sequence[str], folds: int, *, seed: int = SEED, spread: Container[str] = ()
) -> NDArray[np.int64]:
    """(n,): the fold of each mention, by its doc's id. Docs are shuffled, and those in `spread` are dealt evenly."""
    names = list(dict.fromkeys(docs))
    shuffled = [names[index] for index in np.random.default_rng(seed).permutation(len(names))]
    fold_of = {doc: index % folds for index, doc in enumerate(sorted(shuffled, key=lambda doc: doc in spread))}
    return np.array([fold_of[doc] for doc in docs], dtype=np.int64)
