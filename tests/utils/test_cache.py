"""The bounded cache: what it keeps, what it lets go."""

import copy
import random
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spacy_gemel.utils.cache import BoundedCache
from tests.sending import Sent


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
    assert large.nbytes == 101  # given back, not kept, and the others stay
    assert cache.get(9) is None
    assert [key for key in range(5) if cache.get(key) is not None] == [3, 4]
    cache.put(3, large)  # what was under its key is no longer right
    assert [key for key in range(5) if cache.get(key) is not None] == [4]
    assert (len(cache), cache.size) == (1, 40)
    cache.put(1, np.zeros(3, dtype=np.uint8))
    cache.clear()
    assert (len(cache), cache.size) == (0, 0)


def test_it_goes_to_another_process() -> None:
    cache: BoundedCache[str, int] = BoundedCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    for other in (Sent(cache).receive(), copy.deepcopy(cache)):
        assert other.get("a") == 1
        other.put("c", 3)
        assert [other.get(key) for key in "abc"] == [1, None, 3]
    assert [cache.get(key) for key in "abc"] == [1, 2, None]


def test_several_threads() -> None:
    cache: BoundedCache[int, int] = BoundedCache(50, abs)
    barrier = Barrier(4)

    def use(seed: int) -> None:
        generator = random.Random(seed)
        for index in range(500):
            barrier.wait()  # all four work on the cache at the same time
            key = generator.randrange(20)
            assert cache.get(key) in (None, key)
            cache.put(key, key)
            if index % 50 == 0:
                Sent(cache)
            if index == 250:
                cache.clear()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(use, range(4)))
    assert cache.size == sum(cache.get(key) or 0 for key in range(20)) <= 50


def test_a_thread_waits_until_another_has_put_its_value() -> None:
    inside, leave, second_done = Event(), Event(), Event()

    class Paused(OrderedDict[Any, Any]):
        """Stops in the middle of the first `put`, after the previous value has been removed."""

        def pop(self, *arguments: Any) -> Any:
            value = super().pop(*arguments)
            if not inside.is_set():
                inside.set()
                assert leave.wait(60)
            return value

    cache: BoundedCache[str, int] = BoundedCache(1)
    cache.put("a", 1)
    cache._values = Paused(cache._values)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(cache.put, "a", 2)
        assert inside.wait(60)
        second = threads.submit(lambda: (cache.get("a"), second_done.set()))
        assert cache._lock.locked() and not second_done.is_set()
        leave.set()
        first.result()
        assert second.result()[0] == 2
    assert (len(cache), cache.size) == (1, 1)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 20))), st.integers(1, 40))
def test_never_over_its_limit(puts: list[tuple[int, int]], limit: int) -> None:
    cache: BoundedCache[int, int] = BoundedCache(limit, lambda value: value)
    for key, value in puts:
        cache.put(key, value)
        assert cache.size <= limit
        assert cache.get(key) == (value if value <= limit else None)
    assert cache.size == sum(cache.get(key) or 0 for key in range(10))
