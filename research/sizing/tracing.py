"""Running models without weights and data, to learn how much memory they would hold."""

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_aten = torch.ops.aten


@contextmanager
def without_data() -> Iterator[None]:
    """Let all tensors made meanwhile have a shape and a type, but no numbers: a model of any size takes no memory."""
    from transformers import masking_utils

    with FakeTensorMode(), ExitStack() as undo:
        # transformers 5 makes masks for such tensors that it leaves out for others, which then take other kernels.
        if hasattr(masking_utils, "is_tracing"):
            undo.callback(setattr, masking_utils, "is_tracing", masking_utils.is_tracing)
            masking_utils.is_tracing = lambda tensor=None: False
        yield


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of the tensors without data that are made while it is on: those alive, and the most there were.

    Views count once. What was made before, such as a model's weights, counts nothing.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See TorchDispatchMode."""
        kwargs = kwargs or {}
        result = self._answer(func, args) or func(*args, **kwargs)
        given = {_id_of(tensor) for tensor in _tensors_in((args, kwargs))}
        for tensor in _tensors_in(result):
            storage, key = tensor.untyped_storage(), _id_of(tensor)
            if key not in given and key not in self._known:
                self._known.add(key)
                self.live += storage.nbytes()
                weakref.finalize(storage, self._forget, key, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return result[0] if isinstance(result, _Told) else result

    def _answer(self, func: Any, args: tuple[Any, ...]) -> Any:
        """What depends on numbers that there are not: None where nothing does."""
        if func is _aten._local_scalar_dense.default:  # models ask whether all of a sequence is there: it is
            return _Told((True,))
        if func is _aten._unique2.default:  # the most that there may be: all are different
            return args[0].clone().flatten(), torch.empty_like(args[0]), torch.empty_like(args[0])
        return None

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


class _Told(tuple[bool]):
    """An answer that is no tensor; a tuple so that it is true whatever it says."""


def _tensors_in(values: Any) -> list[Tensor]:
    """The tensors in nested lists, tuples and dicts."""
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _id_of(tensor: Tensor) -> int:
    """What tensors that share memory have in common."""
    return int(tensor.untyped_storage()._cdata)
