"""Scores of given names: what the search would have given them, had it found them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from spacy_gemel.decoding.decoder import DecoderState

Name = Sequence[int]


def score_names(
    state: DecoderState, names: Sequence[Sequence[Name]], end_id: int, *, beams: int, length_penalty: float = 1.0
) -> list[list[float]]:
    """The score of each name as `beam_search` defines it, of each mention's names in their order.

    state: prompts that have been read, with room for so many beams of the longest name; what was appended to them is
        forgotten, and they are not read again.
    names: for each mention some names as token ids, not empty, their end left out; mentions may have none.
    beams: names of a mention that go through the model at once, so that no more memory is taken than by a search.
    """
    scores: list[list[float]] = [[] for _ in names]
    # Long names first, so that those of one length share their steps and the ended ones stand last.
    orders = [np.argsort([-len(name) for name in own], kind="stable").tolist() for own in names]
    sums: list[dict[int, float]] = [{} for _ in names]
    for first in range(0, max(map(len, names), default=0), beams):
        indices = [order[first : first + beams] for order in orders]
        chunk = [[own[index] for index in some] for own, some in zip(names, indices, strict=True)]
        for found, some, values in zip(sums, indices, _sums(state, chunk, end_id), strict=True):
            found.update(zip(some, values, strict=False))
    for index, own in enumerate(names):
        scores[index] = [sums[index][at] / (len(name) + 1) ** length_penalty for at, name in enumerate(own)]
    return scores


def _sums(state: DecoderState, names: Sequence[Sequence[Name]], end_id: int) -> list[list[float]]:
    """Log-probability of each name and its end. names: of each mention the longest first."""
    state.rewind()
    device = state.logits.device
    width = max(map(len, names))
    lengths = torch.zeros((len(names), width), dtype=torch.long)
    tokens = torch.full((len(names), width, max(len(own[0]) for own in names if own) + 1), end_id)
    for row, own in enumerate(names):
        for beam, name in enumerate(own):
            lengths[row, beam] = len(name)
            tokens[row, beam, : len(name)] = torch.tensor(list(name))
    sums = torch.zeros((len(names), width), device=device)
    logits = state.logits[:, None].expand(-1, width, -1)  # (mentions, names, vocab)
    seen = np.zeros((len(names), width, 0), dtype=np.bool_)
    for depth in range(tokens.shape[-1]):
        said = _log_probabilities(logits, tokens[:, :width, depth].to(device))  # (mentions, names that go on)
        sums[:, :width] += said.masked_fill((lengths[:, :width] < depth).to(device), 0.0)
        width = int((lengths > depth).sum(dim=1).max())
        if not width:
            break
        itself = np.broadcast_to(np.eye(width, dtype=np.bool_), (len(names), width, width))
        seen = np.concatenate([seen[:, :width], itself], axis=-1)
        logits = state.extend(tokens[:, :width, depth].to(device), torch.from_numpy(seen).to(device), depth)
    return sums.tolist()


def _log_probabilities(logits: Tensor, tokens: Tensor) -> Tensor:
    """Of one token each, over the whole vocabulary. logits: (mentions, names, vocab); tokens: (mentions, names)."""
    picked = logits.gather(-1, tokens[..., None])[..., 0]
    return picked - torch.logsumexp(logits, dim=-1)
