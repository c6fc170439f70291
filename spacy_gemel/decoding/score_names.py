"""Scores of given names: those that the search would have given them, had it found them."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from spacy_gemel.decoding.decoder import MAX_PASS_LOGITS, DecoderState
from spacy_gemel.decoding.token_tree import TokenTree

Name = Sequence[int]


def score_names(
    state: DecoderState, names: Sequence[Sequence[Name]], end_id: int, *, length_penalty: float = 1.0
) -> list[list[float]]:
    """The scores of each mention's names, in their order, as `beam_search` defines them.

    All tokens of a mention's names follow its prompt in one pass, each seeing only those of its own name before it;
    names that begin alike share these. There are several passes if the state has no room for all at once.

    Args:
        state: The prompts that were read; what follows them is dropped.
        names: For each mention, token ids without the end, not empty; a mention may have none.
        end_id: The token that ends a name.
        length_penalty: The power of the number of tokens that a sum is divided by.
    """
    mentions, vocab = state.logits.shape
    most = max(min(state.room, MAX_PASS_LOGITS // (mentions * vocab)), 1)
    waiting = [[*range(len(row))] for row in names]
    scores = [[0.0] * len(row) for row in names]
    while any(waiting):
        beginnings = [_Beginnings() for _ in names]
        chosen: list[list[int]] = [[] for _ in names]
        for row, queue, own, taken in zip(names, waiting, beginnings, chosen, strict=True):
            while queue and (not taken or len(own.tokens) + len(row[queue[0]]) <= most):
                taken.append(queue.pop(0))
                own.add(row[taken[-1]])
        for mention, sums in enumerate(_sums(state, names, chosen, beginnings, end_id)):
            for index, total in zip(chosen[mention], sums, strict=True):
                scores[mention][index] = total / (len(names[mention][index]) + 1) ** length_penalty
    return scores


class _Beginnings:
    """Beginnings of a mention's names, each once, in slots from 1 on, a parent before its children; 0 is the prompt."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.paths: list[list[int]] = []  # of each name: the slots of its beginnings
        self._children: dict[tuple[int, int], int] = {}

    def add(self, name: Name) -> None:
        path = [0]
        for token in name:
            slot = self._children.setdefault((path[-1], token), len(self.tokens) + 1)
            if slot > len(self.tokens):
                self.tokens.append(token)
                self.parents.append(path[-1])
            path.append(slot)
        self.paths.append(path)


def _sums(
    state: DecoderState,
    names: Sequence[Sequence[Name]],
    chosen: Sequence[Sequence[int]],
    beginnings: Sequence[_Beginnings],
    end_id: int,
) -> list[list[float]]:
    """Log-probability of each chosen name and its end, from one pass over the tokens of all."""
    tokens, parents = (np.zeros((len(names), max(len(each.tokens) for each in beginnings)), np.int64) for _ in range(2))
    for row, each in enumerate(beginnings):
        tokens[row, : len(each.tokens)], parents[row, : len(each.tokens)] = each.tokens, each.parents
    extended = TokenTree(state).append(slice(None), tokens, parents)
    sums = []
    for mention, each in enumerate(beginnings):
        before = [slot for path in each.paths for slot in path]
        after = [token for index in chosen[mention] for token in (*names[mention][index], end_id)]
        values = _log_probabilities(state.logits[mention], extended[mention, : len(each.tokens)], before, after)
        ends = np.cumsum([0, *(len(path) for path in each.paths)]).tolist()
        sums.append([float(values[start:stop].sum()) for start, stop in pairwise(ends)])
    return sums


def _log_probabilities(root: Tensor, slots: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    """Of each token `after` the slot `before` it, 0 for the prompt. root: logits (vocab,), slots: (slots, vocab)."""
    indices = torch.tensor(before, dtype=torch.long, device=root.device)
    tokens = torch.tensor(after, dtype=torch.long, device=root.device)
    slot, is_first = (indices - 1).clamp(min=0), indices == 0
    logits = torch.where(is_first, root[tokens], slots[slot, tokens])
    return logits - torch.where(is_first, torch.logsumexp(root, dim=-1), torch.logsumexp(slots, dim=-1)[slot])
