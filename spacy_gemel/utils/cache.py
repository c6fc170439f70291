"""A cache of bounded size, so that a stream of documents holds memory flat."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class BoundedCache(Generic[KeyT, ValueT]):
    """Caches values up to a total size; the least recently used go first. Threads may share it.

    Args:
        limit: the largest total size; a value larger than this is not cached.
        size_of: the size of a value; by default each counts 1.
    """

    def __init__(self, limit: int, size_of: Callable[[ValueT], int] | None = None) -> None:
        self.limit = limit
        self.size = 0
        self._size_of = size_of or _one
        self._values: OrderedDict[KeyT, tuple[ValueT, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            state = {**self.__dict__, "_values": self._values.copy()}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: KeyT) -> ValueT | None:
        """The cached value, or None."""
        with self._lock:
            entry = self._values.get(key)
            if entry is None:
                return None
            self._values.move_to_end(key)
            return entry[0]

    def put(self, key: KeyT, value: ValueT) -> ValueT:
        """Cache a value, and return it."""
        size = self._size_of(value)
        with self._lock:
            previous = self._values.pop(key, None)
            if previous is not None:
                self.size -= previous[1]
            if size <= self.limit:
                self._values[key] = value, size
                self.size += size
            while self.size > self.limit:
                _, (_, evicted) = self._values.popitem(last=False)
                self.size -= evicted
        return value

    def clear(self) -> None:
        """Remove all values."""
        with self._lock:
            self._values.clear()
            self.size = 0


def _one(_value: object) -> int:
    return 1  # a function, as a lambda cannot be pickled
