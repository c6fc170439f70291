"""The best name under the model, and a proof that no other is better: best-first search after a beam search.

Log-probabilities only fall: a name below a node of the trie can at best keep the node's sum to the end of the longest
such name. What the beams have passed by is looked at as long as this bound is above the best name's score. As the beams
find a good name early, hardly a token is scored in vain.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.decoding.beam_search import NEG_INF, BeamSearch, Hypothesis
from spacy_gemel.decoding.constraints import BoolArray, Constraint, IntArray
from spacy_gemel.decoding.decoder import MAX_PASS_LOGITS, DecoderState
from spacy_gemel.decoding.token_tree import Children, TokenTree, score_children

_MAX_PASS_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is known of the names that were not found.

    Attributes:
        exact: whether no name can have a higher score than the best that was found.
        gap: by how much one could, at most.
        passes: forward passes after the prompt was read.
        mass: bounds on the share that the names found have of all names' probability.
    """

    exact: bool
    gap: float
    passes: int
    mass: tuple[float, float]


def exact_search(
    state: DecoderState,
    constraint: Constraint,
    *,
    beam_size: int,
    n_names: int,
    max_tokens: int,
    length_penalty: float = 1.0,
) -> list[tuple[list[Hypothesis], Certificate | None]]:
    """The best names after each prompt, best first, as `beam_search` scores them, and what is known of the others.

    The first is the best of all names if the certificate says `exact`; it is never worse than the beams'. The others
    are the best that were seen.

    Args:
        state: prompts that have been read, with the room of `room_for_beams` and `max_tokens` besides.
        constraint: the names to choose from.
        beam_size: beams per mention at the beginning.
        n_names: names per mention, at most `beam_size`.
        max_tokens: tokens to score for a mention after its beams; then the search gives up.
        length_penalty: exponent of a name's length.

    Returns:
        The names of each mention, and their certificate; None without any name.
    """
    scored: list[tuple[slice, _OnHost]] = []

    def keep(mentions: slice, children: Children) -> None:
        scored.append((mentions, _OnHost.of(children)))

    n_names = min(n_names, beam_size)
    beams = BeamSearch(state, constraint, beam_size, n_names, length_penalty, keep)
    beams.run()
    results = []
    for mention, passes in enumerate(beams.passes.tolist()):
        frontier = _Frontier(beams.tree, mention, constraint, length_penalty)
        for mentions, children in scored:
            if mention in (numbers := range(len(beams.passes))[mentions]):
                frontier.add(children.of_row(numbers.index(mention)))
        passes += frontier.close(max_tokens)
        results.append(frontier.result(n_names, passes))
    return results


class _OnHost(NamedTuple):
    """Children as arrays, (mentions, slots, fan-out) each."""

    log_probs: NDArray[np.float32]
    tokens: IntArray
    nodes: IntArray
    ends: BoolArray

    @classmethod
    def of(cls, children: Children) -> Self:
        arrays: list[Any] = [np.broadcast_to(each, children.log_probs.shape) for each in children[1:]]
        return cls(children.log_probs.cpu().numpy(), *arrays)

    def of_row(self, row: int) -> Self:
        """(slots, fan-out) each."""
        return type(self)(*(array[row] for array in self))


class _Frontier:
    """All that may follow the scored tokens of one mention: names that end there, and open beginnings of others.

    Attributes:
        starts: the first of the entries below each slot, and their number, (slots + 1,).
        parents: slots, (entries,), ascending.
        sums: log-probabilities, (entries,).
        values: the score of a name that ends, or the bound of the scores below a beginning, (entries,).
        ends: whether a name ends, (entries,).
        is_open: whether it is a beginning below which nothing is scored, (entries,).
    """

    def __init__(self, tree: TokenTree, mention: int, constraint: Constraint, length_penalty: float) -> None:
        self.tree, self.mention, self.constraint, self.length_penalty = tree, mention, constraint, length_penalty
        self.starts, self.parents, self.tokens, self.nodes = (np.zeros(size, np.int64) for size in (1, 0, 0, 0))
        self.sums, self.values = np.zeros(0), np.zeros(0)
        self.ends, self.is_open = np.zeros(0, np.bool_), np.zeros(0, np.bool_)

    def add(self, children: _OnHost) -> None:
        """Add the children of the next slots, (slots, fan-out) each."""
        first, known = len(self.starts) - 1, len(self.sums)
        lengths = self.tree.depths[self.mention, first : first + len(children.nodes), None] + 1  # of the children
        is_scored = children.log_probs > NEG_INF
        is_child = is_scored & (children.ends | (lengths <= self.constraint.max_tokens))
        rows, columns = np.nonzero(is_child)
        self.starts = np.concatenate([self.starts, known + is_child.sum(axis=1).cumsum()])
        self.parents = np.concatenate([self.parents, first + rows])
        self.tokens, self.nodes, self.ends = (
            np.concatenate([known_values, values[rows, columns]])
            for known_values, values in zip((self.tokens, self.nodes, self.ends), children[1:], strict=True)
        )
        self.is_open = np.concatenate([self.is_open, ~self.ends[known:]])
        self.sums = np.concatenate([self.sums, children.log_probs[rows, columns]])
        for slot in (first + np.flatnonzero(is_scored.any(axis=1))).tolist():  # all but padding, parents first
            if slot:  # the prompt is no entry
                entry = self._entry(slot)
                self.sums[self.starts[slot] : self.starts[slot + 1]] += self.sums[entry]
                self.is_open[entry] = False
        self.values = np.concatenate([self.values, self._values(known, lengths[rows, 0])])

    def _entry(self, slot: int) -> int:
        """The entry of a slot's own token."""
        start, stop = self.starts[self.tree.parents[self.mention, slot] :][:2]
        is_own = (self.tokens[start:stop] == self.tree.tokens[self.mention, slot]) & ~self.ends[start:stop]
        return int(start + np.flatnonzero(is_own)[0])

    def _values(self, first: int, lengths: IntArray) -> NDArray[np.float64]:
        """See the class; of the entries from one on. lengths: their tokens."""
        left = np.where(self.ends[first:], 0, self.constraint.deepest(self.nodes[first:]))
        longest = np.minimum(lengths + left, self.constraint.max_tokens + 1)
        shortest = np.minimum(lengths + 1, longest)
        sums = self.sums[first:]
        return np.maximum(sums / longest**self.length_penalty, sums / shortest**self.length_penalty)

    def close(self, max_tokens: int) -> int:
        """Score all beginnings whose bound is above the best score, best first. Returns the number of passes."""
        passes, mentions = 0, slice(self.mention, self.mention + 1)
        most = max(min(_MAX_PASS_TOKENS, MAX_PASS_LOGITS // self.tree.state.logits.shape[1]), 1)
        while True:
            entries = np.flatnonzero(self.is_open & (self.values > self.best))
            entries = self._best_of(entries, min(most, max_tokens, self.tree.room(mentions)))
            if not entries.size:
                return passes
            logits = self.tree.append(mentions, self.tokens[None, entries], self.parents[None, entries])
            self.add(_OnHost.of(score_children(self.constraint, self.nodes[None, entries], logits)).of_row(0))
            max_tokens -= len(entries)
            passes += 1

    @property
    def best(self) -> float:
        """The best score of a name so far."""
        return float(self.values[self.ends].max(initial=NEG_INF))

    def result(self, n_names: int, passes: int) -> tuple[list[Hypothesis], Certificate | None]:
        """The best names, and what is known of all others."""
        finished = np.flatnonzero(self.ends)
        if not finished.size:
            return [], None
        best = self._best_of(finished, n_names)
        hypotheses = [
            Hypothesis(
                self.tree.name(self.mention, int(self.parents[entry])),
                float(self.values[entry]),
                int(self.nodes[entry]),
            )
            for entry in best
        ]
        gap = max(float(self.values[self.is_open].max(initial=NEG_INF)) - self.best, 0.0)
        found, all_found, all_names = (
            np.logaddexp.reduce(self.sums[which]) for which in (best, finished, self.ends | self.is_open)
        )
        mass = float(np.exp(found - all_names)), float(np.exp(found - all_found))
        return hypotheses, Certificate(gap == 0, gap, passes, mass)

    def _best_of(self, entries: IntArray, count: int) -> IntArray:
        """So many of some entries with the highest values, best first."""
        if len(entries) > count:  # a full sort of thousands costs more than their scores
            entries = entries[np.argpartition(-self.values[entries], count)[:count]]
        return entries[np.argsort(-self.values[entries], kind="stable")]
