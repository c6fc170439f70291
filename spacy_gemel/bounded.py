"""A cache that forgets what was not used for longest, so that a stream of documents holds memory flat."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class BoundedCache(Generic[KeyT, ValueT]):
    """Keeps values up to a total size.

    limit: the most that is kept, in the unit of size_of.
    size_of: the size of a value; where it is not given each counts 1.
    A value that is larger than the limit is not kept at all.
    """

    def __init__(self, limit: int, size_of: Callable[[ValueT], int] | None = None) -> None:
        self.limit = limit
        self.size = 0
        self._size_of = size_of or _one
        self._values: OrderedDict[KeyT, ValueT] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: KeyT) -> ValueT | None:
        """The value kept under a key, or None."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: KeyT, value: ValueT) -> ValueT:
        """Keep a value, let go of the oldest ones beyond the limit, and give the value back."""
        old = self._values.pop(key, None)
        if old is not None:
            self.size -= self._size_of(old)
        self._values[key] = value
        self.size += self._size_of(value)
        while self.size > self.limit and self._values:
            _, gone = self._values.popitem(last=False)
            self.size -= self._size_of(gone)
        return value

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
        self.size = 0


def _one(_value: object) -> int:
    return 1  # no lambda: another process may get the cache
