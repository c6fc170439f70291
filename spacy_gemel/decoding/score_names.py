"""Scores of given names: those that the search would have given them, had it found them."""

from collections.abc import Sequence

import numpy as np
import torch

from spacy_gemel.decoding.decoder import DecoderState

Name = Sequence[int]


def score_names(
    state: DecoderState, names: Sequence[Sequence[Name]], end_id: int, *, beams: int, length_penalty: float = 1.0
) -> list[list[float]]:
    """The scores of each mention's names, in their order, as `beam_search` defines them.

    `state` has room for `beams` beams of the longest name; what follows its prompts is dropped. `names` are, for each
    mention, token ids without the end, not empty; a mention may have none. `beams` names of a mention are scored in one
    pass, so that no more memory is taken than by a search.
    """
    # Long names first, so that those of one length share their steps and the finished ones stand last.
    orders = [np.argsort([-len(name) for name in row], kind="stable").tolist() for row in names]
    sums: list[dict[int, float]] = [{} for _ in names]
    for start in range(0, max(map(len, names), default=0), beams):
        indices = [order[start : start + beams] for order in orders]
        chunk = [[row[index] for index in chosen] for row, chosen in zip(names, indices, strict=True)]
        for sums_of_mention, chosen, values in zip(sums, indices, _sums(state, chunk, end_id), strict=True):
            sums_of_mention.update(zip(chosen, values, strict=False))
    return [
        [sums_of_mention[index] / (len(name) + 1) ** length_penalty for index, name in enumerate(row)]
        for sums_of_mention, row in zip(sums, names, strict=True)
    ]


def _sums(state: DecoderState, names: Sequence[Sequence[Name]], end_id: int) -> list[list[float]]:
    """Log-probability of each name and its end. names: of each mention the longest first."""
    state.rewind()
    device = state.logits.device
    width = max(map(len, names))
    lengths = torch.zeros((len(names), width), dtype=torch.long)
    tokens = torch.full((len(names), width, max(len(row[0]) for row in names if row) + 1), end_id)
    for mention, row in enumerate(names):
        for beam, name in enumerate(row):
            lengths[mention, beam] = len(name)
            tokens[mention, beam, : len(name)] = torch.tensor(list(name))
    sums = torch.zeros((len(names), width), device=device)
    logits = state.logits[:, None].expand(-1, width, -1)  # (mentions, names, vocab)
    seen = np.zeros((len(names), width, 0), dtype=np.bool_)
    for depth in range(tokens.shape[-1]):
        step = tokens[:, :width, depth].to(device)  # (mentions, unfinished names)
        values = logits.gather(-1, step[..., None])[..., 0] - torch.logsumexp(logits, dim=-1)
        sums[:, :width] += values.masked_fill((lengths[:, :width] < depth).to(device), 0.0)
        width = int((lengths > depth).sum(dim=1).max())
        if not width:
            break
        slots = np.broadcast_to(np.eye(width, dtype=np.bool_), (len(names), width, width))
        seen = np.concatenate([seen[:, :width], slots], axis=-1)
        logits = state.extend(tokens[:, :width, depth].to(device), torch.from_numpy(seen).to(device), depth)
    return sums.tolist()
