"""Which prompts begin alike, so that what they have in common is read once."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spacy_gemel.decoding.constraints import IntArray
from spacy_gemel.utils.cache import BoundedCache

# Fewer tokens are read again: a prompt that waits for another is read in a pass of its own.
MIN_SHARED = 64
# About 100 beginnings of 800 tokens for a model of 135M parameters in bf16, and four for one of 7B.
_CACHE_BYTES = 2 * 2**30
# Relative to the largest number: one picture's soft tokens differ by this much from batch to batch.
_ROUNDING = 2**-17
_PADDING = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Beginning:
    """The beginning of prompts as a model has read it.

    Attributes:
        embedded: (tokens, width).
        layers: keys and values of each layer, (heads, tokens, head width) each.
    """

    embedded: Tensor
    layers: Sequence[tuple[Tensor, ...]]

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return self.embedded.nbytes + sum(each.nbytes for layer in self.layers for each in layer)

    def begins(self, prompt: Tensor) -> bool:
        """Whether a prompt, (tokens, width), begins so, up to rounding."""
        length, known = len(self.embedded), self.embedded
        if len(prompt) <= length:
            return False
        prompt, known = prompt[:length].float(), known.float()
        # Numbers may also fall to the next one of their dtype, but no farther: a mapper that has learned moves them.
        tolerance = torch.finfo(self.embedded.dtype).eps * known.abs() + _ROUNDING * known.abs().max()
        return bool(((prompt - known).abs() <= tolerance).all())


class BeginningCache:
    """Beginnings that outlive their batch, up to a total size. Another process gets it empty (see PromptEmbedder)."""

    def __init__(self) -> None:
        self.entries: BoundedCache[Hashable, Beginning] = BoundedCache(_CACHE_BYTES, lambda each: each.nbytes)

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return BeginningCache, ()


@dataclass(frozen=True, slots=True)
class Sharing:
    """What is known of prompts before they are read.

    Attributes:
        inputs: a number for each of a prompt's embeddings, in each prompt; equal numbers have equal embeddings.
        kept: how many of each prompt's first tokens later prompts will begin with; 0 if that is not known.
        cache: holds these.
        min_shared: fewer common tokens are read again.
    """

    inputs: Sequence[Sequence[int]]
    kept: Sequence[int]
    cache: BeginningCache
    min_shared: int = MIN_SHARED

    def key(self, prompt: int) -> Hashable:
        """Under which the kept beginning of a prompt is cached."""
        return tuple(self.inputs[prompt][: self.kept[prompt]])


class Source(NamedTuple):
    """Where the keys and values of a prompt's beginning come from: another prompt of the batch, or the cache."""

    length: int
    prompt: int = -1
    beginning: Beginning | None = None


def find_sources(prompts: Sequence[Tensor], sharing: Sharing) -> list[Source | None]:
    """The longest beginning of each embedded prompt, (tokens, width), that need not be read; None if all must be.

    A prompt's source stands before it, and at least its last token is left to be read.
    """
    width = max(map(len, prompts))
    inputs: IntArray = np.full((len(prompts), width), _PADDING, dtype=np.int64)
    for row, numbers in zip(inputs, sharing.inputs, strict=True):
        row[: len(numbers)] = numbers
    sources: list[Source | None] = []
    for index, prompt in enumerate(prompts):
        source = Source(0)
        if sharing.kept[index] and (known := sharing.cache.entries.get(sharing.key(index))) is not None:
            source = Source(sharing.kept[index], beginning=known) if known.begins(prompt) else source
        common = (inputs[:index] == inputs[index]).cumprod(axis=1).sum(axis=1).clip(max=len(prompt) - 1)
        if index and common.max() > source.length:
            source = Source(int(common.max()), prompt=int(common.argmax()))
        sources.append(source if source.length >= sharing.min_shared else None)
    return sources
