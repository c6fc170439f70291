"""A cache that forgets what was not used for longest, so that a stream of documents holds memory flat."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class BoundedCache(Generic[KeyT, ValueT]):
    """Keeps values up to a total size. Several threads may use it; another process gets a copy.

    limit: the most that is kept, in the unit of size_of.
    size_of: the size of a value; where it is not given each counts 1.
    A value that is larger than the limit is not kept at all, and takes no other's place.
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
        """The value kept under a key, or None."""
        with self._lock:
            kept = self._values.get(key)
            if kept is None:
                return None
            self._values.move_to_end(key)
            return kept[0]

    def put(self, key: KeyT, value: ValueT) -> ValueT:
        """Keep a value, let go of the oldest ones beyond the limit, and give the value back."""
        size = self._size_of(value)
        with self._lock:
            old = self._values.pop(key, None)
            if old is not None:
                self.size -= old[1]
            if size <= self.limit:
                self._values[key] = value, size
                self.size += size
            while self.size > self.limit:
                _, (_, gone) = self._values.popitem(last=False)
                self.size -= gone
        return value

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
            self.size = 0


def _one(_value: object) -> int:
    return 1  # no lambda: another process may get the cache
