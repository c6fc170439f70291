"""The bounded cache: what it keeps, what it lets go."""

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spacy_gemel.bounded import BoundedCache


def test_what_was_not_used_for_longest_goes() -> None:
    cache: BoundedCache[str, int] = BoundedCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert [cache.get(key) for key in "abc"] == [1, None, 3]
    assert len(cache) == 2


def test_sizes_in_bytes() -> None:
    cache: BoundedCache[int, np.ndarray] = BoundedCache(100, lambda row: row.nbytes)
    for key in range(5):
        cache.put(key, np.zeros(40, dtype=np.uint8))
    assert [key for key in range(5) if cache.get(key) is not None] == [3, 4]
    large = cache.put(9, np.zeros(101, dtype=np.uint8))
    assert large.nbytes == 101  # given back, not kept, and nothing is kept in its place
    assert (len(cache), cache.size) == (0, 0)
    cache.put(1, np.zeros(3, dtype=np.uint8))
    cache.clear()
    assert (len(cache), cache.size) == (0, 0)


def test_it_goes_to_another_process() -> None:
    cache: BoundedCache[str, int] = BoundedCache(2)
    cache.put("a", 1)
    assert pickle.loads(pickle.dumps(cache)).get("a") == 1


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 20))), st.integers(1, 40))
def test_never_over_its_limit(puts: list[tuple[int, int]], limit: int) -> None:
    cache: BoundedCache[int, int] = BoundedCache(limit, lambda value: value)
    for key, value in puts:
        cache.put(key, value)
        assert cache.size <= limit
        assert cache.get(key) == (value if value <= limit else None)
    assert cache.size == sum(cache.get(key) or 0 for key in range(10))
