"""What a token may look at: how far back the layers of a model see, and the masks of beams in one sequence."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Mask = Tensor | dict[str, Tensor]

_SLIDING = "sliding_attention"
# What configs call the reach of layers with a mask of the model's own, over places in the cache: GPT-Neo, Llama 4.
_OTHER_REACHES = ("window_size", "attention_window_size", "attention_chunk_size")
# Frequencies that change with the length of what is read, so that the batch would change the answer.
_CHANGING_POSITIONS = ("dynamic", "longrope")


@dataclass(frozen=True, slots=True)
class AttentionWindows:
    """How far back the layers of a model look.

    windows: for each kind of layer in the model's config the tokens that it sees, itself counted; None for all.
    same_positions: the longest sequence whose positions are encoded as those of a shorter one, None for no limit.
    places: the most places in a cache, those of all beams counted, that the model's own masks are right for; None for
        no limit.
    """

    windows: dict[str, int | None]
    same_positions: int | None
    indices: int | None

    @property
    def shortest(self) -> int | None:
        """The longest sequence of which every layer sees all, None if there is no limit."""
        return min((window for window in self.windows.values() if window), default=None)

    @property
    def longest(self) -> int:
        """The widest window, 0 where there is none."""
        return max((window for window in self.windows.values() if window), default=0)


def attention_windows(model: Any) -> AttentionWindows:
    """What a Hugging Face causal language model tells of its windows, its positions and its own masks."""
    config = model.config.get_text_config()
    window = _positive(getattr(config, "sliding_window", None))
    kinds = getattr(config, "layer_types", None)
    # Models without kinds of layers have one window for all: Mistral, Phi-3.
    windows = {kind: window if kind == _SLIDING else None for kind in kinds} if kinds else {"all": window}
    limits = [limit for name in _OTHER_REACHES if (limit := _positive(getattr(config, name, None)))]
    limits += [buffer.shape[-1] for buffer in model.buffers() if buffer.dtype == torch.bool and buffer.ndim == 4]
    return AttentionWindows(windows, _same_positions(config), min(limits, default=None))


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _same_positions(config: Any) -> int | None:
    # 4.53 says rope_scaling, 5.x rope_parameters, there also one block per kind of layer.
    block = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    blocks = [block, *(inner for inner in block.values() if isinstance(inner, dict))]
    limits = []
    for each in blocks:
        if each.get("rope_type", each.get("type")) in _CHANGING_POSITIONS:
            message = each.get("original_max_position_embeddings")
            limits.append(message or getattr(config, "original_max_position_embeddings", None))
    return min((limit for limit in limits if limit), default=None)


def beam_mask(
    reach: AttentionWindows, lengths: Tensor, width: int, depths: Tensor, seen: Tensor, depth: int, dtype: torch.dtype
) -> Mask:
    """The mask of one step: an additive one, (mentions, 1, beams, width + slots), or one for each kind of layer.

    lengths: tokens of each prompt, (mentions,); width: of the longest. depths: of the tokens in the slots, (slots,).
    seen: (mentions, beams, slots) bool, the ancestors of each beam and itself. depth: of the beams' tokens.
    """
    masks = {
        window: _mask(window, lengths, width, depths, seen, depth, dtype) for window in set(reach.windows.values())
    }
    if len(masks) == 1:
        return next(iter(masks.values()))
    return {kind: masks[window] for kind, window in reach.windows.items()}


def _mask(
    window: int | None, lengths: Tensor, width: int, depths: Tensor, seen: Tensor, depth: int, dtype: torch.dtype
) -> Tensor:
    columns = torch.arange(width, device=lengths.device)
    prompt = columns < lengths[:, None]  # (mentions, width)
    if window is not None:
        prompt = prompt & (columns > lengths[:, None] + depth - window)
        seen = seen & (depths > depth - window)
    beams = seen.shape[1]
    visible = torch.cat([prompt[:, None].expand(-1, beams, -1), seen], dim=-1)
    mask = torch.zeros(visible.shape, dtype=dtype, device=lengths.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]
