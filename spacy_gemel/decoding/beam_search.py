"""Constrained beam search with one prefill per mention (paper section 3.3).

The beams of a mention are query tokens of one sequence: they share the prompt's keys and values, and each sees only
its own ancestors. Scores are those of `transformers.generate`: log-softmax over the whole vocabulary before the
constraint picks, no renormalisation, and the sum over a name's tokens and its end divided by their number to the power
of length_penalty. The vocabulary's scores stay on the model's device; each step brings only its few picks to the host.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spacy_gemel.decoding.constraints import BoolArray, Constraint, IntArray
from spacy_gemel.decoding.decoder import DecoderState

ItemT = TypeVar("ItemT", bound=np.generic)

NEG_INF = float("-inf")


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A name that the search found.

    tokens: the name's token ids, without its end.
    score: log-probability of name and end / (tokens with end) ** length_penalty.
    edge: the trie's edge that ends the name; 0 in an unconstrained search.
    """

    tokens: tuple[int, ...]
    score: float
    edge: int


class BeamHypotheses:
    """The best `size` names of one mention so far, best first; ties in the order they were found."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.hypotheses: list[Hypothesis] = []

    def add(self, hypothesis: Hypothesis) -> None:
        """Add a name if it is among the best."""
        bisect.insort(self.hypotheses, hypothesis, key=lambda known: -known.score)
        del self.hypotheses[self.size :]

    def score_of(self, rank: int) -> float:
        """The score at a rank, from 1; -inf if there are fewer names."""
        return self.hypotheses[rank - 1].score if len(self.hypotheses) >= rank else NEG_INF


class PromptReader(Protocol):
    """What `beam_search` needs of a decoder."""

    def prefill(self, prompts: Sequence[Tensor], *, beams: int, tokens: int) -> DecoderState:
        """See Decoder.prefill."""
        ...


@dataclass
class _Beams:
    """The live beams of all mentions, best first; a beam with a sum of -inf is dead."""

    sums: NDArray[np.float32]  # (mentions, beams)
    nodes: IntArray  # (mentions, beams)
    history: IntArray  # (mentions, beams, depth): their tokens so far
    seen: BoolArray  # (mentions, beams, slots): which appended tokens are theirs

    @property
    def alive(self) -> int:
        """The largest number of live beams of any mention."""
        return int((self.sums > NEG_INF).sum(axis=1).max(initial=0))


@dataclass
class _Picks:
    """The best continuations of each mention, best first, (mentions, picks) each; a sum of -inf means none."""

    sums: NDArray[np.float32]
    parents: IntArray  # the beam that each continues
    tokens: IntArray
    nodes: IntArray
    ends: BoolArray


def beam_search(
    decoder: PromptReader,
    prompts: Sequence[Tensor],
    constraint: Constraint,
    *,
    beam_size: int,
    n_names: int,
    length_penalty: float = 1.0,
) -> list[list[Hypothesis]]:
    """The best names after each embedded prompt, best first.

    The paper's search (section 3.3), with the scores of `transformers.generate`.

    Args:
        decoder: reads the prompts.
        prompts: embedded prompts, (tokens, width) each.
        constraint: the names to choose from.
        beam_size: beams per mention.
        n_names: names per mention, at most `beam_size`. There are fewer if the constraint allows fewer, and none if no
            name ends in time.
        length_penalty: exponent of a name's length.
    """
    state = decoder.prefill(prompts, beams=beam_size, tokens=constraint.max_tokens)
    return search_after(state, constraint, beam_size=beam_size, n_names=n_names, length_penalty=length_penalty)


def search_after(
    state: DecoderState, constraint: Constraint, *, beam_size: int, n_names: int, length_penalty: float = 1.0
) -> list[list[Hypothesis]]:
    """`beam_search` after prompts that have been read, with room for `beam_size` beams of the longest name."""
    n_names = min(n_names, beam_size)
    count = len(state.logits)
    beams = _Beams(
        sums=np.zeros((count, 1), dtype=np.float32),
        nodes=np.full((count, 1), constraint.root, dtype=np.int64),
        history=np.zeros((count, 1, 0), dtype=np.int64),
        seen=np.zeros((count, 1, 0), dtype=np.bool_),
    )
    finished = [BeamHypotheses(beam_size) for _ in range(count)]
    logits = state.logits[:, None]  # (mentions, 1, vocab)
    for depth in range(constraint.max_tokens + 1):
        picks = _pick(logits, beams, constraint, 2 * beam_size)
        _finish(picks, beams.history, finished, beam_size, depth + 1, length_penalty)
        beams = _continue(picks, beams, constraint, beam_size)
        _drop_settled(beams, constraint, finished, n_names, depth + 1, length_penalty)
        if depth == constraint.max_tokens or not beams.alive:
            break
        beams = _narrow(beams)
        logits = state.extend(
            torch.from_numpy(beams.history[:, :, -1]).to(logits.device),
            torch.from_numpy(beams.seen).to(logits.device),
            depth,
        )
    return [best.hypotheses[:n_names] for best in finished]


def _pick(logits: Tensor, beams: _Beams, constraint: Constraint, size: int) -> _Picks:
    """The best `size` of all children of a mention's beams. logits: (mentions, beams, vocab)."""
    device = logits.device
    count, width, _ = logits.shape
    tokens, nodes, ends, valid = constraint.expand(beams.nodes)
    fan_out = tokens.shape[-1]
    shape = (count, width, fan_out)
    # Over the whole vocabulary, before anything is masked.
    total = torch.logsumexp(logits, dim=-1, keepdim=True)  # (mentions, beams, 1)
    sums = torch.from_numpy(beams.sums).to(device)[..., None]
    scores = sums + logits.gather(-1, torch.from_numpy(tokens).to(device).expand(shape)) - total
    scores = scores.masked_fill(~torch.from_numpy(valid).to(device), NEG_INF).flatten(1)  # (mentions, beams * fan-out)
    best, order = _top(scores, size)  # (mentions, picks)
    picked, parents, children = best.cpu().numpy(), *np.divmod(order.cpu().numpy(), fan_out)
    indices = (np.arange(count)[:, None], parents, children)
    return _Picks(
        sums=picked,
        parents=parents,
        tokens=_at(tokens, shape, indices),
        nodes=_at(nodes, shape, indices),
        ends=_at(ends, shape, indices) & (picked > NEG_INF),
    )


def _at(values: NDArray[ItemT], shape: tuple[int, ...], indices: tuple[NDArray[Any], ...]) -> NDArray[ItemT]:
    """The picked elements of an array from `Constraint.expand`, (mentions, picks)."""
    picked: NDArray[ItemT] = np.broadcast_to(values, shape)[indices]
    return picked


def _finish(
    picks: _Picks,
    history: IntArray,
    finished: Sequence[BeamHypotheses],
    beam_size: int,
    length: int,
    length_penalty: float,
) -> None:
    """Add the names that end among the first beam_size picks. length: their tokens, the end included."""
    for mention, index in np.argwhere(picks.ends[:, :beam_size]):
        name = history[mention, picks.parents[mention, index]]
        score = float(picks.sums[mention, index]) / length**length_penalty
        finished[mention].add(Hypothesis(tuple(name.tolist()), score, int(picks.nodes[mention, index])))


def _continue(picks: _Picks, beams: _Beams, constraint: Constraint, beam_size: int) -> _Beams:
    """The best beam_size picks that do not end, as beams."""
    sums = np.where(picks.ends, np.float32(NEG_INF), picks.sums)
    keep = np.argsort(-sums, axis=1, kind="stable")[:, :beam_size]
    rows = np.arange(len(sums))[:, None]
    sums, parents = sums[rows, keep], picks.parents[rows, keep]
    return _Beams(
        sums=sums,
        nodes=np.where(sums > NEG_INF, picks.nodes[rows, keep], constraint.dead),
        history=np.concatenate([beams.history[rows, parents], picks.tokens[rows, keep][..., None]], axis=-1),
        seen=beams.seen[rows, parents],
    )


def _drop_settled(
    beams: _Beams,
    constraint: Constraint,
    finished: Sequence[BeamHypotheses],
    n_names: int,
    depth: int,
    length_penalty: float,
) -> None:
    """End the mentions whose first n_names can no longer change. depth: tokens of the beams so far.

    Log-probabilities only fall: at best a live beam keeps its sum to the end of the deepest name below it, or of the
    nearest if long names are penalised.
    """
    nearest = depth + 1
    deepest = np.minimum(depth + constraint.deepest(beams.nodes), constraint.max_tokens + 1).clip(min=nearest)
    sums = beams.sums.astype(np.float64)
    bounds = np.maximum(sums / deepest**length_penalty, sums / nearest**length_penalty).max(axis=1)  # (mentions,)
    settled = np.array([best.score_of(n_names) for best in finished]) >= bounds
    beams.sums[settled] = NEG_INF
    beams.nodes[settled] = constraint.dead


def _narrow(beams: _Beams) -> _Beams:
    """Remove the beams that are dead in all mentions, and add a slot for each of the others."""
    width = beams.alive
    slots = np.broadcast_to(np.eye(width, dtype=np.bool_), (len(beams.sums), width, width))
    return _Beams(
        sums=beams.sums[:, :width],
        nodes=beams.nodes[:, :width],
        history=beams.history[:, :width],
        seen=np.concatenate([beams.seen[:, :width], slots], axis=-1),
    )


def _top(scores: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Top `size` scores per row and their indices, descending. Ties keep their order."""
    size = min(size, scores.shape[1])
    if scores.shape[1] > 4096:  # a full sort of a whole vocabulary per beam costs more than the model
        narrowed = torch.topk(scores, size).indices.sort(dim=1).values
        best, order = scores.gather(1, narrowed).sort(dim=1, descending=True, stable=True)
        return best, narrowed.gather(1, order)
    best, order = scores.sort(dim=1, descending=True, stable=True)
    return best[:, :size], order[:, :size]
