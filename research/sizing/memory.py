"""Memory that the passes of a linker take beside the weights, found by running them without data."""

from collections.abc import Sequence

import torch
from torch import Tensor

from research.sizing.models import Encoder
from research.sizing.tracing import PeakMemory
from spacy_gemel.decoding.decoder import SharedPrefixDecoder
from spacy_gemel.models.causal_lm import CausalLM

IMAGES_AT_ONCE = 32
"""Images that vision.encoder encodes at once."""
KEPT_EMBEDDINGS = 256 * 2**20
"""Bytes of demonstrations' embeddings that language.embedding keeps where the language model is."""


class _OnePass(SharedPrefixDecoder):
    """Reads all prompts of a batch at once, as on a GPU; the models that are run without data say they are on a CPU."""

    def _parts(self, lengths: Sequence[int]) -> list[slice]:  # type: ignore[override]
        return [slice(0, len(lengths))]


def rows_of(budget: int, held: int) -> int:
    """Prompts that go through the language model at once: batch_tokens over the tokens that each holds."""
    return max(1, budget // held)


def training_memory(model: CausalLM, prompt: int, rows: int, name: int) -> int:
    """The most bytes that a step on so many prompts takes, forward and backward, the weights not counted.

    prompt: tokens of each prompt. name: tokens of a name and its end. The backward pass goes through the frozen model
    to the visual prefixes, so that what each layer has done is kept; the weights have no gradients.
    """
    with PeakMemory() as memory:
        prompts = [_prompt(model, prompt).requires_grad_() for _ in range(rows)]
        losses = model.name_loss(prompts, [[0] * name] * rows)
        (losses.sum() / rows).backward()
    return memory.peak


def prediction_memory(model: CausalLM, prompt: int, rows: int, beams: int, name: int) -> int:
    """The most bytes that a search takes, its keys and values included, the weights not counted.

    prompt: tokens of each prompt. name: tokens of the longest name.
    """
    with PeakMemory() as memory, torch.no_grad():
        state = _OnePass(model, [_prompt(model, prompt) for _ in range(rows)], room=beams * name)
        tokens = torch.zeros((rows, beams), dtype=torch.long)
        logits = state.extend(tokens, torch.ones((rows, beams, beams), dtype=torch.bool), 0)
        torch.logsumexp(logits, dim=-1)
    return memory.peak


def encoding_memory(encoder: Encoder) -> int:
    """The most bytes that encoding a full batch of images takes, the weights not counted."""
    dtype = next(encoder.model.parameters()).dtype
    with PeakMemory() as memory, torch.no_grad():
        encoder.model(torch.empty(IMAGES_AT_ONCE, 3, encoder.size, encoder.size, dtype=dtype, device="meta"))
    return memory.peak


def _prompt(model: CausalLM, tokens: int) -> Tensor:
    return torch.empty((tokens, model.width), dtype=model.dtype)
