"""Keys, values and attention masks of beams that share one prompt: one copy per mention, in memory allocated once.

transformers' own DynamicCache concatenates, that is copies, all keys and values at each step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

# Config keys for the window of layers that mask by cache position themselves: GPT-Neo, Llama 4.
_POSITION_WINDOWS = ("window_size", "attention_window_size", "attention_chunk_size")
# Frequencies that change with the length of the input, so that other prompts in a batch would change the answer.
_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")


@dataclass(frozen=True, slots=True)
class AttentionWindows:
    """How far back the layers of a model attend; None means no limit."""

    windows: dict[str, int | None]  # tokens that each kind of layer in the model's config sees, itself included
    same_positions: int | None  # the longest sequence whose positions are encoded as those of a shorter one
    max_cache_length: int | None  # the longest cache, all beams included, for which the model's own masks are right

    @classmethod
    def of(cls, model: Any) -> "AttentionWindows":
        """Read the windows, positions and masks of a Hugging Face causal language model."""
        config = model.config.get_text_config()
        window = _positive(getattr(config, "sliding_window", None))
        kinds = getattr(config, "layer_types", None)
        # Models without kinds of layers have one window for all: Mistral, Phi-3.
        windows = {kind: window if kind == "sliding_attention" else None for kind in kinds or ()} or {"all": window}
        limits = [limit for name in _POSITION_WINDOWS if (limit := _positive(getattr(config, name, None)))]
        limits += [buffer.shape[-1] for buffer in model.buffers() if buffer.dtype == torch.bool and buffer.ndim == 4]
        # transformers 4.53 says rope_scaling, 5.x rope_parameters, with a block per kind of layer in some models.
        block = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
        original = getattr(config, "original_max_position_embeddings", None)
        lengths = [
            rope.get("original_max_position_embeddings") or original
            for rope in (block, *(value for value in block.values() if isinstance(value, dict)))
            if rope.get("rope_type", rope.get("type")) in _LENGTH_DEPENDENT_ROPE
        ]
        return cls(windows, min(filter(None, lengths), default=None), min(limits, default=None))

    @property
    def shortest(self) -> int | None:
        """The longest sequence that every layer sees whole, None for no limit."""
        return min((window for window in self.windows.values() if window), default=None)

    @property
    def longest(self) -> int:
        """The widest window, 0 if there is none."""
        return max((window for window in self.windows.values() if window), default=0)

    def rest_mask(self, positions: Tensor, stop: int, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
        """The additive mask of what is left of prompts, (prompts, 1, tokens, stop), or one for each kind of layer.

        Args:
            positions: of the tokens in their prompts, (prompts, tokens).
            stop: keys that the pass gets.
            dtype: the model's.
        """
        columns, masks = torch.arange(stop, device=positions.device), {}
        for window in set(self.windows.values()):
            visible = columns <= positions[..., None]  # (prompts, tokens, stop)
            if window is not None:
                visible = visible & (columns > positions[..., None] - window)
            masks[window] = _additive(visible[:, None], dtype)
        return self._by_kind(masks)

    def _by_kind(self, masks: dict[int | None, Tensor]) -> Tensor | dict[str, Tensor]:
        """Masks by window as a model takes them."""
        if len(masks) == 1:
            return next(iter(masks.values()))
        return {kind: masks[window] for kind, window in self.windows.items()}

    def beam_mask(
        self, lengths: Tensor, width: int, depths: Tensor, seen: Tensor, depth: Tensor, dtype: torch.dtype
    ) -> Tensor | dict[str, Tensor]:
        """The additive mask of one step, (mentions, 1, beams, width + slots), or one for each kind of layer.

        Args:
            lengths: tokens of each prompt, (mentions,).
            width: tokens of the longest prompt.
            depths: depths of the tokens in the slots, (mentions, slots).
            seen: (mentions, beams, slots) bool, the ancestors of each beam and itself.
            depth: depth of the beams' tokens, (mentions, beams).
            dtype: the model's.
        """
        masks = {}
        columns = torch.arange(width, device=lengths.device)
        for window in set(self.windows.values()):
            prompt = (columns < lengths[:, None])[:, None].expand(-1, seen.shape[1], -1)  # (mentions, beams, width)
            slots = seen  # (mentions, beams, slots)
            if window is not None:
                first = depth[..., None] - window  # (mentions, beams, 1), the depth before the window
                prompt = prompt & (columns > lengths[:, None, None] + first)
                slots = slots & (depths[:, None] > first)
            masks[window] = _additive(torch.cat([prompt, slots], dim=-1)[:, None], dtype)  # (mentions, 1, beams, keys)
        return self._by_kind(masks)


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


@dataclass
class _Layer:
    """Keys and values of one layer, (mentions, heads, width + room, head width) each."""

    keys: Tensor
    values: Tensor


class SharedCache(Cache):
    """A key-value cache for prompts, which may be read in several passes, and for at most `room` tokens after each.

    Sliding windows are left to the mask. It answers what the models of transformers 4.53 and of 5.x ask of a `Cache`.

    Args:
        mentions: the number of prompts.
        width: tokens of the longest prompt.
        room: tokens that may be appended to each.
    """

    is_compileable = False

    def __init__(self, mentions: int, width: int, room: int) -> None:
        # Not Cache's own __init__: 4.53's takes nothing, that of 5.x the layers, among which it looks for sliding ones.
        self.mentions = mentions
        self.width = width
        self.room = room
        self.layers: list[Any] = []
        self._layers: dict[int, _Layer] = {}
        # Where the next pass is stored: the mentions, and the first column and that behind the last.
        self._rows: slice | Tensor = slice(None)
        self._start, self._stop = 0, 0
        self._columns: Tensor | None = None  # of each new token, (mentions, tokens), if they are not the same for all

    def __len__(self) -> int:
        return len(self._layers)

    def read(self, mentions: Tensor, columns: Tensor | None = None) -> None:
        """The next pass reads the prompts of some mentions, (mentions,), padded on the right.

        columns: of each token, if their beginnings are there already, (mentions, tokens).
        """
        self._rows, self._start, self._columns = mentions, 0, columns
        if columns is not None:
            self._start, self._stop = int(columns.min()), int(columns.max()) + 1

    def append(self, mentions: slice, slots: int, new: int) -> None:
        """The next pass puts new tokens behind the prompts of some mentions and `slots` tokens; later ones are dropped.

        Raises RuntimeError if there is no room for them.
        """
        if slots + new > self.room:
            raise RuntimeError(
                f"the cache has room for {self.room} tokens after the prompt, {slots + new} are too many"
            )
        self._rows, self._start, self._columns = mentions, self.width + slots, None

    def copy(self, mention: int, source: int, length: int) -> None:
        """Let a mention's prompt begin as another's, with so many tokens."""
        for layer in self._layers.values():
            for states in (layer.keys, layer.values):
                states[mention, :, :length] = states[source, :, :length]

    def beginning(self, mention: int, length: int) -> list[tuple[Tensor, ...]]:
        """A copy of the keys and values of a prompt's first tokens, (heads, length, head width) for each layer."""
        layers = [self._layers[index] for index in sorted(self._layers)]
        return [tuple(each[mention, :, :length].clone() for each in (layer.keys, layer.values)) for layer in layers]

    def put(self, mention: int, beginning: Sequence[tuple[Tensor, ...]]) -> None:
        """Let a mention's prompt begin with what `beginning` gave."""
        for index, (keys, values) in enumerate(beginning):
            layer = self._layer(index, keys[None], values[None])
            layer.keys[mention, :, : keys.shape[1]], layer.values[mention, :, : keys.shape[1]] = keys, values

    def _layer(self, index: int, keys: Tensor, values: Tensor) -> _Layer:
        """A layer, made for states of these shapes, (any, heads, any, head width), if it is not there yet."""
        if index not in self._layers:
            # Zeros, because the mask multiplies the padding of shorter prompts by 0, and 0 times NaN is NaN.
            shape = (self.mentions, keys.shape[1], self.width + self.room)
            self._layers[index] = _Layer(*(states.new_zeros((*shape, states.shape[-1])) for states in (keys, values)))
        return self._layers[index]

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        """Store a layer's new keys and values, (mentions, heads, tokens, head width) each; returns all to attend to."""
        layer, rows, stop = self._layer(layer_idx, key_states, value_states), self._rows, self._stop
        if self._columns is None:
            stop = self._start + key_states.shape[-2]
            layer.keys[rows, :, self._start : stop] = key_states
            layer.values[rows, :, self._start : stop] = value_states
        else:
            assert isinstance(rows, Tensor)
            layer.keys[rows[:, None], :, self._columns] = key_states.transpose(1, 2)
            layer.values[rows[:, None], :, self._columns] = value_states.transpose(1, 2)
        if not self._start:
            return key_states, value_states  # a prompt attends only to itself
        return layer.keys[rows, :, :stop], layer.values[rows, :, :stop]

    def get_seq_length(self, layer_idx: int | None = 0) -> int:
        """Tokens in a layer before the new ones."""
        return self._start

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """For 5.x: position of the next token."""
        return self.get_seq_length(layer_idx)

    def get_mask_sizes(self, query: Any, layer_idx: int) -> tuple[int, int]:
        """Number of keys that the new tokens see, and offset of the first. query: their number (5.x) or indices."""
        length = query if isinstance(query, int) else query.shape[0]
        return (self._start + length if self._columns is None else self._stop), 0

    def get_max_cache_shape(self, layer_idx: int = 0) -> int | None:
        """For 4.53: no limit."""
        return None

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """For 5.x: no limit."""
        return -1
