"""Prompts as the language model takes them: visual prefixes and text embeddings in a row."""

from collections.abc import Sequence

import torch
from torch import Tensor

from spacy_gemel.language.causal_lm import CausalLM


def embed_prompt(model: CausalLM, segments: Sequence[Sequence[int]], images: Sequence[int], prefixes: Tensor) -> Tensor:
    """One prompt, (tokens, width).

    segments: token ids of each segment. images: each segment's row in prefixes, -1 for none.
    prefixes: (images, prefix length, width); may require a gradient.
    """
    parts: list[Tensor] = []
    texts = model.embed([token for ids in segments for token in ids])  # (text tokens, width)
    start = 0
    for ids, image in zip(segments, images, strict=True):
        if image >= 0:
            parts.append(prefixes[image].to(model.dtype))
        parts.append(texts[start : start + len(ids)])
        start += len(ids)
    return torch.cat(parts)
