"""The keys and values of a search: one copy per mention, in memory that is taken once.

transformers' own DynamicCache concatenates, that is copies, all keys and values at each step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache


@dataclass
class _Layer:
    """One layer's, (mentions, heads, width + room, head width) each; `filled` of their tokens are taken."""

    keys: Tensor
    values: Tensor
    filled: int


class SharedCache(Cache):
    """A key-value cache for prompts, read some at a time, and a known number of tokens after all of them.

    mentions: prompts. width: tokens of the longest. room: tokens that may be appended to each.
    It keeps all of a prompt also for layers with a sliding window: what they may see is left to the mask. The models
    of transformers 4.53 and of 5.x both take it: it answers the questions that either asks of a `Cache`.
    """

    is_compileable = False

    def __init__(self, mentions: int, width: int, room: int) -> None:
        # Not Cache's own __init__: 4.53's takes nothing, that of 5.x the layers, which 5.x looks for sliding ones.
        self.mentions = mentions
        self.width = width
        self.room = room
        self.layers: list[Any] = []
        self._layers: dict[int, _Layer] = {}
        self._reading: slice | None = None

    def __len__(self) -> int:
        return len(self._layers)

    @contextmanager
    def reading(self, mentions: slice) -> Iterator[None]:
        """Take what the model gives meanwhile as the prompts of these mentions, padded on the right."""
        self._reading = mentions
        try:
            yield
        finally:
            self._reading = None

    def rewind(self) -> None:
        """Forget what stands after the prompts: the room for it is free again."""
        for layer in self._layers.values():
            layer.filled = self.width

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        """Take a layer's keys and values in; those that the new tokens look at, (mentions, heads, tokens, head width).

        Raises RuntimeError where there is no room left.
        """
        layer = self._layers.get(layer_idx)
        if layer is None:
            layer = _Layer(self._empty(key_states), self._empty(value_states), self.width)
            self._layers[layer_idx] = layer
        new = key_states.shape[-2]
        if self._reading is not None:
            layer.keys[self._reading, :, :new] = key_states
            layer.values[self._reading, :, :new] = value_states
            return key_states, value_states  # a prompt attends to itself alone
        stop = layer.filled + new
        if stop > layer.keys.shape[-2]:
            raise RuntimeError(f"the cache has room for {self.room} tokens after the prompt, {new} are too many")
        layer.keys[..., layer.filled : stop, :] = key_states
        layer.values[..., layer.filled : stop, :] = value_states
        layer.filled = stop
        return layer.keys[..., :stop, :], layer.values[..., :stop, :]

    def _empty(self, states: Tensor) -> Tensor:
        # Zeros: where a shorter prompt leaves them, the mask weighs them with nothing, and nothing times NaN is NaN.
        return states.new_zeros((self.mentions, states.shape[1], self.width + self.room, states.shape[-1]))

    # What the models of transformers ask

    def get_seq_length(self, layer_idx: int | None = 0) -> int:
        """Tokens in a layer, before those that come."""
        layer = self._layers.get(layer_idx or 0)
        return 0 if layer is None or self._reading is not None else layer.filled

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Asked by 5.x: where the next token stands."""
        return self.get_seq_length(layer_idx)

    def get_mask_sizes(self, query: Any, layer_idx: int) -> tuple[int, int]:
        """Keys that the next tokens see, and the place of the first. query: their number (5.x) or places (4.53)."""
        length = query if isinstance(query, int) else query.shape[0]
        return self.get_seq_length(layer_idx) + length, 0

    def get_max_cache_shape(self, layer_idx: int = 0) -> int | None:
        """Asked by 4.53: no limit."""
        return None

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """Asked by 5.x: no limit."""
        return -1
