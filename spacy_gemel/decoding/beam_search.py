"""Constrained beam search with one prefill per mention (paper section 3.3).

The beams of a mention are query tokens of one sequence: they share the prompt's keys and values, and each sees only
its own ancestors. Scores are those of `transformers.generate`: log-softmax over the whole vocabulary before the
constraint picks, no renormalisation, and the sum over a name's tokens and its end divided by their number to the power
of length_penalty. The vocabulary's scores stay on the model's device; each pass brings only its few picks to the host.

A pass also scores tokens that later steps are likely to need, as many as it takes at little cost: most of a trie's
branches are chains. The steps of a mention are then replayed as far as its scores reach, and pick the same.
"""

import bisect
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spacy_gemel.decoding.constraints import BoolArray, Constraint, IntArray
from spacy_gemel.decoding.decoder import FREE_SLOTS, DecoderState
from spacy_gemel.decoding.token_tree import Beginning, Children, TokenTree, look_ahead, score_children, with_room

NEG_INF = float("-inf")
_UNSCORED = -1


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A name that the search found."""

    tokens: tuple[int, ...]  # without the name's end
    score: float  # log-probability of name and end / (tokens with end) ** length_penalty
    edge: int  # of the trie, which ends the name; 0 in an unconstrained search


@dataclass
class _Continuations:
    """The best continuations of each slot, best first, (mentions, slots, picks) or more.

    Log-probabilities of -inf are none.
    """

    log_probs: NDArray[np.float32]
    tokens: IntArray
    nodes: IntArray
    ends: BoolArray
    slots: IntArray  # that they have themselves; _UNSCORED before their pass

    @classmethod
    def empty(cls, count: int) -> "_Continuations":
        """No slot of so many mentions."""
        dtypes = np.float32, np.int64, np.int64, np.bool_, np.int64
        return cls(*(np.zeros((count, 0, 0), dtype=dtype) for dtype in dtypes))

    @classmethod
    def of(cls, children: Children, size: int) -> "_Continuations":
        """The best `size` of each slot's children."""
        best, order = (top.cpu().numpy() for top in _top(children.log_probs, size))  # (mentions, slots, picks)
        arrays = children.tokens, children.nodes, children.ends
        picked: list[Any] = [
            np.take_along_axis(np.broadcast_to(values, children.log_probs.shape), order, axis=-1) for values in arrays
        ]
        return cls(best, picked[0], picked[1], picked[2], np.full_like(order, _UNSCORED))

    def put(self, mentions: slice, first: int, new: "_Continuations") -> None:
        """Those of new slots of some mentions, from a slot on."""
        stop, size = first + new.tokens.shape[1], new.tokens.shape[2]
        for field in fields(self):
            fill = NEG_INF if field.name == "log_probs" else 0
            array = with_room(getattr(self, field.name), stop, size, fill=fill)
            array[mentions, first:stop, :size] = getattr(new, field.name)
            setattr(self, field.name, array)


def beam_search(
    state: DecoderState, constraint: Constraint, *, beam_size: int, n_names: int, length_penalty: float = 1.0
) -> list[list[Hypothesis]]:
    """The best names after each prompt, best first; ties in the order they were found.

    The paper's search (section 3.3), with the scores of `transformers.generate`.

    Args:
        state: prompts that have been read, with the room of `room_for_beams`.
        constraint: the names to choose from.
        beam_size: beams per mention.
        n_names: names per mention, at most `beam_size`. There are fewer if the constraint allows fewer, and none if no
            name ends in time.
        length_penalty: exponent of a name's length.
    """
    return BeamSearch(state, constraint, beam_size, min(n_names, beam_size), length_penalty).run()


def room_for_beams(beam_size: int, max_tokens: int) -> int:
    """The room that a state needs for a search: that of all beams' names, and for what is scored ahead."""
    return beam_size * max_tokens + FREE_SLOTS


class BeamSearch:
    """A search that can be followed: see `beam_search`.

    `on_scored` gets what may follow the next slots of some mentions, after each pass.

    A beam is a continuation of a slot, by its rank there; the best of a mention is first.

    Attributes:
        sums: log-probabilities, (mentions, beams); -inf if a beam is dead.
        parents: slots, (mentions, beams).
        ranks: which of its parent's continuations a beam is, (mentions, beams).
        lengths: tokens of each mention's beams, (mentions,).
        tree: the tokens that were scored.
        passes: in which a mention's tokens were scored, (mentions,).
    """

    def __init__(
        self,
        state: DecoderState,
        constraint: Constraint,
        beam_size: int,
        n_names: int,
        length_penalty: float,
        on_scored: Callable[[slice, Children], None] = lambda *_: None,
    ) -> None:
        self.constraint, self.beam_size, self.n_names = constraint, beam_size, n_names
        self.length_penalty = length_penalty
        self.tree = TokenTree(state)
        count = len(state.logits)
        root = np.full((count, 1), constraint.root, dtype=np.int64)
        self._on_scored = on_scored
        self.continuations = _Continuations.empty(count)
        self._add(slice(None), 0, root, state.logits[:, None])
        self.sums = np.full((count, beam_size), NEG_INF, dtype=np.float32)
        self.sums[:, 0] = 0.0  # the empty name
        self.parents, self.ranks = (np.zeros((count, beam_size), dtype=np.int64) for _ in range(2))
        self.lengths, self.passes = (np.zeros(count, dtype=np.int64) for _ in range(2))
        self.finished: list[list[Hypothesis]] = [[] for _ in range(count)]

    def run(self) -> list[list[Hypothesis]]:
        """The names of each mention, best first."""
        while self.live.any():
            slots = self.slots()
            scored = self.live.any(axis=1) & ~(self.live & (slots == _UNSCORED)).any(axis=1)
            if scored.any():
                self.step(np.flatnonzero(scored), slots[scored])
            else:
                self.score(slots)
        return [names[: self.n_names] for names in self.finished]

    @property
    def live(self) -> BoolArray:
        """Which beams are live, (mentions, beams)."""
        return self.sums > NEG_INF

    def slots(self) -> IntArray:
        """Each beam's own slot, _UNSCORED if it has none yet, (mentions, beams)."""
        slots = self.continuations.slots[np.arange(len(self.sums))[:, None], self.parents, self.ranks]
        return np.where(self.lengths[:, None], slots, 0)

    def step(self, mentions: IntArray, slots: IntArray) -> None:
        """Continue the beams of some mentions by a token. slots: of their beams, (mentions, beams)."""
        rows, each = mentions[:, None], np.arange(len(mentions))[:, None]
        slots = slots[:, : int(self.live[mentions].sum(axis=1).max())]
        log_probs = self.continuations.log_probs[rows, slots]  # (mentions, beams, continuations)
        sums = (self.sums[mentions, : slots.shape[1], None] + log_probs).reshape(len(mentions), -1)
        order = np.argsort(-sums, axis=1, kind="stable")[:, : 2 * self.beam_size]
        sums = sums[each, order]  # (mentions, picks), best first
        beams, ranks = np.divmod(order, log_probs.shape[-1])
        parents = slots[each, beams]
        ends = self.continuations.ends[rows, parents, ranks] & (sums > NEG_INF)
        self.lengths[mentions] += 1
        for row, pick in np.argwhere(ends[:, : self.beam_size]).tolist():
            self._finish(int(mentions[row]), float(sums[row, pick]), int(parents[row, pick]), int(ranks[row, pick]))
        sums = np.where(ends, np.float32(NEG_INF), sums)
        keep = np.argsort(-sums, axis=1, kind="stable")[:, : self.beam_size]
        self.sums[mentions] = NEG_INF
        self.sums[mentions, : keep.shape[1]] = sums[each, keep]
        self.parents[mentions, : keep.shape[1]] = parents[each, keep]
        self.ranks[mentions, : keep.shape[1]] = ranks[each, keep]
        self._drop_settled(mentions)

    def _finish(self, mention: int, total: float, parent: int, rank: int) -> None:
        """Note a name that ends, if it is among the best."""
        edge = int(self.continuations.nodes[mention, parent, rank])
        score = total / int(self.lengths[mention]) ** self.length_penalty
        hypothesis = Hypothesis(self.tree.name(mention, parent), score, edge)
        names = self.finished[mention]
        bisect.insort(names, hypothesis, key=lambda other: -other.score)
        del names[self.beam_size :]

    def _drop_settled(self, mentions: IntArray) -> None:
        """End those of some mentions whose names can no longer change, or whose beams are as long as names may be.

        Log-probabilities only fall: at best a live beam keeps its sum to the end of the deepest name below it, or of
        the nearest if long names are penalised.
        """
        sums, lengths = self.sums[mentions].astype(np.float64), self.lengths[mentions][:, None]
        nearest = lengths + 1
        deepest = (lengths + self._tokens_left(mentions)).clip(min=nearest)
        bounds = np.maximum(sums / deepest**self.length_penalty, sums / nearest**self.length_penalty).max(axis=1)
        worst = np.full(len(mentions), NEG_INF)
        for row, mention in enumerate(mentions.tolist()):
            if len(names := self.finished[mention]) >= self.n_names:
                worst[row] = names[self.n_names - 1].score
        self.sums[mentions[(worst >= bounds) | (lengths[:, 0] > self.constraint.max_tokens)]] = NEG_INF

    def _tokens_left(self, mentions: IntArray) -> IntArray:
        """Tokens that may follow each beam of some mentions, the end included, (mentions, beams)."""
        nodes = self.continuations.nodes[mentions[:, None], self.parents[mentions], self.ranks[mentions]]
        left = self.constraint.deepest(np.where(self.live[mentions], nodes, self.constraint.dead))
        return np.minimum(left, self.constraint.max_tokens + 1 - self.lengths[mentions][:, None])

    def score(self, slots: IntArray) -> None:
        """Score the live beams that have no slot, and what may be needed next. slots: of the beams.

        In one pass, or in several if finished mentions, which it would carry along, would cost more than another one.
        """
        unscored = self.live & (slots == _UNSCORED)
        waiting = np.flatnonzero(unscored.any(axis=1))
        idle = (np.diff(waiting) - 1) * self.beam_size > self.tree.state.free_slots
        for group in np.split(waiting, np.flatnonzero(idle) + 1):
            self._score(slice(int(group[0]), int(group[-1]) + 1), unscored, slots)
        self.passes += unscored.any(axis=1)

    def _score(self, mentions: slice, unscored: BoolArray, slots: IntArray) -> None:
        """One pass of `score`, for neighbouring mentions."""
        numbers, first = np.arange(len(unscored))[mentions], self.tree.next_slot(mentions)
        needed = int(unscored[mentions].sum(axis=1).max())
        # The rest of the search keeps its room.
        spare = self.tree.room(mentions) - self.beam_size * int(self._tokens_left(numbers).max())
        most = needed + max(0, min(self.tree.state.free_slots // len(numbers) - needed, spare))
        columns: list[list[Beginning]] = []
        for mention in numbers.tolist():
            beams = unscored[mention]
            own = self._beginnings(
                mention, *(each[mention, beams] for each in (self.parents, self.ranks, self.sums)), more=0
            )
            if 0 < len(own) < most:
                likely = self._likely(mention, slots[mention])
                own += look_ahead(self.constraint, own, likely, first, most - len(own))
            columns.append(own)
        width = max(map(len, columns))
        padding = Beginning(self.constraint.dead, 0, 0, 0, NEG_INF)
        padded = [[*own, *repeat(padding, width - len(own))] for own in columns]
        nodes, tokens, parents = (np.array([[each[field] for each in own] for own in padded]) for field in range(3))
        self._add(mentions, first, nodes, self.tree.append(mentions, tokens, parents))
        # The new slots are their parents' continuations, if these are among the best.
        rows, known = numbers[:, None], self.continuations
        matches = known.tokens[rows, parents] == tokens[..., None]  # (mentions, new, continuations)
        matches &= ~known.ends[rows, parents] & (nodes != self.constraint.dead)[..., None]
        row, index, rank = np.nonzero(matches)
        known.slots[numbers[row], parents[row, index], rank] = first + index

    def _add(self, mentions: slice, first: int, nodes: IntArray, logits: Tensor) -> None:
        """Take up what may follow new slots of some mentions, from a slot on."""
        children = score_children(self.constraint, nodes, logits)
        self._on_scored(mentions, children)
        self.continuations.put(mentions, first, _Continuations.of(children, 2 * self.beam_size))

    def _likely(self, mention: int, slots: IntArray) -> list[Beginning]:
        """What may follow the scored beams of a mention and has no slot. slots: of its beams, (beams,)."""
        if self.lengths[mention] == self.constraint.max_tokens:
            return []
        scored = np.flatnonzero(self.live[mention] & (slots != _UNSCORED))
        parents, continuations = slots[scored], self.continuations
        sums = self.sums[mention, scored, None] + continuations.log_probs[mention, parents]  # (beams, continuations)
        is_open = (continuations.slots[mention, parents] == _UNSCORED) & ~continuations.ends[mention, parents]
        beams, ranks = np.nonzero(is_open & (sums > NEG_INF))
        return self._beginnings(mention, parents[beams], ranks, sums[beams, ranks], more=1)

    def _beginnings(
        self, mention: int, parents: IntArray, ranks: IntArray, values: NDArray[np.float32], *, more: int
    ) -> list[Beginning]:
        """Continuations of some slots, (n,) each, by their ranks there; with so many more tokens than the beams."""
        length = int(self.lengths[mention]) + more
        index = mention, parents, ranks
        columns = self.continuations.nodes[index], self.continuations.tokens[index], parents, values
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [Beginning(node, token, parent, length, value) for node, token, parent, value in rows]


def _top(scores: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Top `size` scores of the last dimension and their indices, descending. Ties keep their order."""
    size = min(size, scores.shape[-1])
    if scores.shape[-1] > 4096:  # a full sort of a whole vocabulary costs more than the model
        narrowed = torch.topk(scores, size).indices.sort(dim=-1).values
        best, order = scores.gather(-1, narrowed).sort(dim=-1, descending=True, stable=True)
        return best, narrowed.gather(-1, order)
    best, order = scores.sort(dim=-1, descending=True, stable=True)
    return best[..., :size], order[..., :size]
