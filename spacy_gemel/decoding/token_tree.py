"""What follows the prompts in a search: tokens in slots, and those that it is likely to need next."""

import heapq
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spacy_gemel.decoding.constraints import BoolArray, Constraint, IntArray
from spacy_gemel.decoding.decoder import DecoderState

_MAX_FAN_OUT = 32
"""Children of a token that is looked beyond: of more, hardly any is needed."""


def with_room(array: Any, *sizes: int, fill: float = 0) -> Any:
    """The array if it has at least these sizes behind its first; else a larger one, (first, ...), that begins with it.

    It then has twice its size, so that there are few copies.
    """
    if all(size <= old for size, old in zip(sizes, array.shape[1:], strict=True)):
        return array
    larger = [old if size <= old else max(size, 2 * old) for size, old in zip(sizes, array.shape[1:], strict=True)]
    copy = np.full((len(array), *larger), fill, dtype=array.dtype)
    copy[tuple(map(slice, array.shape))] = array
    return copy


class TokenTree:
    """Tokens after each prompt of a state, each beginning of a name once; what followed the prompts before is dropped.

    A mention's slots are numbered in the order in which they were appended. Slot 0 is its prompt.

    Attributes:
        tokens: the token in each slot, (mentions, at least slots).
        parents: the slot that it follows, likewise.
        depths: tokens of a name up to each slot, its own included, likewise.
        used: the slots of each mention, (mentions,).
    """

    def __init__(self, state: DecoderState) -> None:
        self.state = state
        count = len(state.logits)
        self.tokens, self.parents, self.depths = (np.zeros((count, 1), dtype=np.int64) for _ in range(3))
        self.used = np.ones(count, dtype=np.int64)
        self._seen = np.zeros((count, 1, 0), dtype=np.bool_)  # ancestors and itself, (mentions, slots, slots - 1)

    def next_slot(self, mentions: slice) -> int:
        """The slot of the next token behind some mentions, which have had all passes in common."""
        return int(self.used[mentions][0])

    def room(self, mentions: slice) -> int:
        """Tokens that may still be appended behind each of some mentions."""
        return self.state.room + 1 - self.next_slot(mentions)

    def append(self, mentions: slice, tokens: IntArray, parents: IntArray) -> Tensor:
        """Append tokens to some mentions in one forward pass, from `next_slot` on.

        Args:
            mentions: so many as `tokens` has rows.
            tokens: (mentions, new).
            parents: the slots that they follow, also new ones before their own, (mentions, new).

        Returns:
            The logits after each, (mentions, new, vocab).
        """
        first = self.next_slot(mentions)
        stop = first + tokens.shape[1]
        self.tokens, self.parents, self.depths = (
            with_room(array, stop) for array in (self.tokens, self.parents, self.depths)
        )
        self._seen = with_room(self._seen, stop, stop - 1)
        self.tokens[mentions, first:stop], self.parents[mentions, first:stop] = tokens, parents
        self.used[mentions] = stop
        rows = np.arange(len(tokens))
        seen, depths = self._seen[mentions], self.depths[mentions]  # views
        for slot, parent in enumerate(parents.T, first):
            seen[:, slot] = seen[rows, parent]
            seen[:, slot, slot - 1] = True
            depths[:, slot] = depths[rows, parent] + 1
        arrays = tokens, seen[:, first:stop, : stop - 1], depths[:, first:stop] - 1
        inputs = [torch.from_numpy(array).to(self.state.logits.device) for array in arrays]
        return self.state.extend(inputs[0], inputs[1], inputs[2], mentions)

    def name(self, mention: int, slot: int) -> tuple[int, ...]:
        """The tokens from the prompt to a slot."""
        tokens = []
        while slot:
            tokens.append(int(self.tokens[mention, slot]))
            slot = int(self.parents[mention, slot])
        return tuple(reversed(tokens))


class Children(NamedTuple):
    """What may follow some slots, (mentions, slots, fan-out) each, or of a shape that broadcasts to it.

    log_probs: over the whole vocabulary; -inf if it is no child.
    """

    log_probs: Tensor
    tokens: IntArray
    nodes: IntArray
    ends: BoolArray


def score_children(constraint: Constraint, nodes: IntArray, logits: Tensor) -> Children:
    """The children of nodes, (mentions, slots). logits: after each, (mentions, slots, vocab)."""
    tokens, children, ends, valid = constraint.expand(nodes)
    indices, is_child = (torch.from_numpy(array).to(logits.device) for array in (tokens, valid))
    # Over the whole vocabulary, before anything is masked.
    total = torch.logsumexp(logits, dim=-1, keepdim=True)  # (mentions, slots, 1)
    log_probs = logits.gather(-1, indices.expand(*nodes.shape, tokens.shape[-1])) - total
    return Children(log_probs.masked_fill(~is_child, float("-inf")), tokens, children, ends)


class Beginning(NamedTuple):
    """A beginning of a name that is scored, or may be.

    Attributes:
        node: the constraint's.
        token: its last token.
        parent: the slot of the token before.
        length: its tokens.
        value: its log-probability, or a guess of it.
    """

    node: int
    token: int
    parent: int
    length: int
    value: float


def look_ahead(
    constraint: Constraint, needed: Sequence[Beginning], likely: Sequence[Beginning], first: int, most: int
) -> list[Beginning]:
    """Up to `most` beginnings of names to score in the same pass as those needed, the most probable first.

    They are some of the `likely` ones, and such as go on from those needed or from each other, of which nothing is
    known but how many share the probability: a chain of forced tokens is taken for as probable as its first.

    Args:
        constraint: the names.
        needed: what takes the first new slots.
        likely: beginnings that follow slots that are scored.
        first: the first new slot.
        most: limit.
    """
    number = itertools.count()
    waiting: list[tuple[float, int, Beginning]] = []  # the most probable first, then in the order found

    def add(beginning: Beginning) -> None:
        heapq.heappush(waiting, (-beginning.value, next(number), beginning))

    def add_children(parent: Beginning, slot: int) -> None:
        children = constraint.children(parent.node, _MAX_FAN_OUT) if parent.length < constraint.max_tokens else ()
        for token, node, ends in children:
            if not ends:
                add(Beginning(node, token, slot, parent.length + 1, parent.value - math.log(len(children))))

    if most < 1:
        return []
    for beginning in likely:
        add(beginning)
    for slot, beginning in enumerate(needed, first):
        add_children(beginning, slot)
    result: list[Beginning] = []
    while waiting and len(result) < most:
        result.append(heapq.heappop(waiting)[2])
        add_children(result[-1], first + len(needed) + len(result) - 1)
    return result
