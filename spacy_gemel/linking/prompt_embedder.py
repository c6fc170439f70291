"""Embedding prompts for the language model: visual prefixes and text embeddings in a row."""

from collections.abc import Sequence

import torch
from torch import Tensor

from spacy_gemel.models.causal_lm import CausalLM
from spacy_gemel.utils.cache import BoundedCache

# About 400 demonstrations for a model of 7B parameters in bf16, all of the mini world's for its own.
_CACHE_BYTES = 256 * 2**20


class PromptEmbedder:
    """Embeds prompts and caches the embeddings of demonstrations.

    Another process gets it with an empty cache: a tensor that is sent takes shared memory and an open file.
    """

    def __init__(self, model: CausalLM, cache_bytes: int = _CACHE_BYTES) -> None:
        self.model = model
        self._texts: BoundedCache[tuple[int, ...], Tensor] = BoundedCache(cache_bytes, _bytes_of)

    def __reduce__(self) -> tuple[object, tuple[CausalLM, int]]:
        return PromptEmbedder, (self.model, self._texts.limit)

    def embed(self, segments: Sequence[tuple[int, ...]], images: Sequence[int], prefixes: Tensor) -> Tensor:
        """One prompt, (tokens, width).

        Args:
            segments: token ids of each segment, the query's last.
            images: row of each segment's visual prefix, -1 for none.
            prefixes: (images, prefix length, width); may require a gradient.
        """
        embeddings: list[Tensor] = []
        for index, (ids, image) in enumerate(zip(segments, images, strict=True)):
            if image >= 0:
                embeddings.append(prefixes[image].to(self.model.dtype))
            embeddings.append(self._demonstration(ids) if index < len(segments) - 1 else self.model.embed(ids))
        return torch.cat(embeddings)

    def _demonstration(self, ids: tuple[int, ...]) -> Tensor:
        """The embeddings of a demonstration's text, (tokens, width)."""
        cached = self._texts.get(ids)
        return self._texts.put(ids, self.model.embed(ids)) if cached is None else cached


def _bytes_of(text: Tensor) -> int:
    return text.numel() * text.element_size()
