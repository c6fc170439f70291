"""What a method is called with, told from outside."""

from types import ModuleType
from typing import Any

import pytest


class Calls:
    """What a method was called with, in order; it still does what it did."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.seen: list[Any] = []
        method = getattr(owner, name)

        def counted(first: Any, *args: Any, **kwargs: Any) -> Any:
            self.seen.append(first)
            return method(first, *args, **kwargs)

        if isinstance(owner, type | ModuleType):
            monkeypatch.setattr(owner, name, counted)
        else:  # setattr would leave the method in the object, where nobody sees that its class is watched later
            monkeypatch.setitem(vars(owner), name, counted)
