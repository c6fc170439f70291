"""95 % intervals by resampling mentions (percentile bootstrap, Efron 1979).

The outcomes are right and wrong only, so a resample is a draw from the binomial or multinomial distribution
with the observed shares: the same distribution as drawing mentions one by one, at a cost that does not grow
with them.
"""

from collections.abc import Sequence

import numpy as np

SEED = 0
RESAMPLES = 10_000


def accuracy_interval(correct: int, n: int, *, seed: int = SEED) -> tuple[float, float] | None:
    """The 95 % interval of correct / n; None for no mention at all."""
    if not n:
        return None
    draws = np.random.default_rng(seed).binomial(n, correct / n, size=RESAMPLES) / n
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def paired_difference(
    first: Sequence[bool], second: Sequence[bool], *, seed: int = SEED
) -> tuple[float, float, float] | None:
    """Accuracy of `first` minus that of `second` on the same mentions, and its 95 % interval.

    Mentions are resampled as pairs. Raises ValueError where the two are not of one length; None where they
    are empty.
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
