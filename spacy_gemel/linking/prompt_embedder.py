"""Prompts as the language model takes them: visual prefixes and text embeddings in a row."""

from collections.abc import Sequence

import torch
from torch import Tensor

from spacy_gemel.models.causal_lm import CausalLM
from spacy_gemel.utils.cache import BoundedCache

# About 400 demonstrations for a model of 7B parameters in bf16, all of the mini world's for its own.
_KEPT_BYTES = 256 * 2**20


class PromptEmbedder:
    """Embeds prompts; the texts that come again, those before the last one of each, are looked up once.

    Another process gets it with nothing kept: a tensor that is sent takes shared memory and an open file.
    """

    def __init__(self, model: CausalLM, kept_bytes: int = _KEPT_BYTES) -> None:
        self.model = model
        self._texts: BoundedCache[tuple[int, ...], Tensor] = BoundedCache(kept_bytes, _bytes_of)

    def __reduce__(self) -> tuple[object, tuple[CausalLM, int]]:
        return PromptEmbedder, (self.model, self._texts.limit)

    def embed(self, segments: Sequence[tuple[int, ...]], images: Sequence[int], prefixes: Tensor) -> Tensor:
        """One prompt, (tokens, width).

        segments: token ids of each segment, the query's last. images: each segment's row in prefixes, -1 for none.
        prefixes: (images, prefix length, width); may require a gradient.
        """
        parts: list[Tensor] = []
        for index, (ids, image) in enumerate(zip(segments, images, strict=True)):
            if image >= 0:
                parts.append(prefixes[image].to(self.model.dtype))
            parts.append(self._text(ids) if index < len(segments) - 1 else self.model.embed(ids))
        return torch.cat(parts)

    def _text(self, ids: tuple[int, ...]) -> Tensor:
        """The embeddings of a demonstration's text, (tokens, width)."""
        kept = self._texts.get(ids)
        return self._texts.put(ids, self.model.embed(ids)) if kept is None else kept


def _bytes_of(text: Tensor) -> int:
    return text.numel() * text.element_size()
