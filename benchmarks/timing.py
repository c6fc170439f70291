"""Times over repeats: the median, and how far the repeats lie apart."""

import time
from collections.abc import Callable, Sequence
from statistics import median


def seconds_of(action: Callable[[], object], repeats: int = 1) -> list[float]:
    """What each of some runs of an action took."""
    return [_seconds(action) for _ in range(repeats)]


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """The median of some repeats, the least, the most and how many there were."""
    return {
        "median": round(median(values), digits),
        "least": round(min(values), digits),
        "most": round(max(values), digits),
        "repeats": len(values),
    }
