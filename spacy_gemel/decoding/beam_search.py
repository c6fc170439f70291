"""Constrained beam search with one prefill per mention (paper section 3.3).

The beams of a mention are query tokens of one sequence: they share the prompt's keys and values, and each sees only
its own ancestors. Scores are those of `transformers.generate`: log-softmax over the whole vocabulary before the
constraint picks, no renormalisation, and the sum over a name's tokens and its end divided by their number to the power
of length_penalty. The vocabulary's scores stay on the model's device; each step brings only its few picks to the host.
"""

import bisect
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spacy_gemel.decoding.constraints import BoolArray, Constraint, IntArray
from spacy_gemel.decoding.decoder import DecoderState

NEG_INF = float("-inf")


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A name that the search found."""

    tokens: tuple[int, ...]  # without the name's end
    score: float  # log-probability of name and end / (tokens with end) ** length_penalty
    edge: int  # of the trie, which ends the name; 0 in an unconstrained search


@dataclass
class _Beams:
    """The live beams of all mentions, best first; a beam with a sum of -inf is dead."""

    sums: NDArray[np.float32]  # (mentions, beams)
    nodes: IntArray  # (mentions, beams)
    history: IntArray  # (mentions, beams, depth): their tokens so far
    seen: BoolArray  # (mentions, beams, slots): which appended tokens are theirs


@dataclass
class _Picks:
    """The best continuations of each mention, best first, (mentions, picks) each; a sum of -inf means none."""

    sums: NDArray[np.float32]
    parents: IntArray  # the beam that each continues
    tokens: IntArray
    nodes: IntArray
    ends: BoolArray


def beam_search(
    state: DecoderState, constraint: Constraint, *, beam_size: int, n_names: int, length_penalty: float = 1.0
) -> list[list[Hypothesis]]:
    """The best names after each prompt, best first; ties in the order they were found.

    The paper's search (section 3.3), with the scores of `transformers.generate`.

    Args:
        state: prompts that have been read, with room for `beam_size` beams of `constraint.max_tokens` tokens.
        constraint: the names to choose from.
        beam_size: beams per mention.
        n_names: names per mention, at most `beam_size`. There are fewer if the constraint allows fewer, and none if no
            name ends in time.
        length_penalty: exponent of a name's length.
    """
    n_names = min(n_names, beam_size)
    count, device = len(state.logits), state.logits.device
    beams = _Beams(
        sums=np.zeros((count, 1), dtype=np.float32),
        nodes=np.full((count, 1), constraint.root, dtype=np.int64),
        history=np.zeros((count, 1, 0), dtype=np.int64),
        seen=np.zeros((count, 1, 0), dtype=np.bool_),
    )
    finished: list[list[Hypothesis]] = [[] for _ in range(count)]
    logits = state.logits[:, None]  # (mentions, 1, vocab)
    for depth in range(constraint.max_tokens + 1):
        picks = _pick(logits, beams, constraint, 2 * beam_size)
        for mention, index in np.argwhere(picks.ends[:, :beam_size]):
            name = beams.history[mention, picks.parents[mention, index]]
            score = float(picks.sums[mention, index]) / (depth + 1) ** length_penalty
            hypothesis = Hypothesis(tuple(name.tolist()), score, int(picks.nodes[mention, index]))
            bisect.insort(finished[mention], hypothesis, key=lambda other: -other.score)
            del finished[mention][beam_size:]
        beams = _continue(picks, beams, constraint, beam_size)
        worst = [names[n_names - 1].score if len(names) >= n_names else NEG_INF for names in finished]
        _drop_settled(beams, constraint, np.array(worst), depth + 1, length_penalty)
        width = int((beams.sums > NEG_INF).sum(axis=1).max(initial=0))
        if depth == constraint.max_tokens or not width:
            break
        # Remove the beams that are dead in all mentions, and add a slot for each of the others.
        slots = np.broadcast_to(np.eye(width, dtype=np.bool_), (count, width, width))
        seen = np.concatenate([beams.seen[:, :width], slots], axis=-1)
        beams = _Beams(beams.sums[:, :width], beams.nodes[:, :width], beams.history[:, :width], seen)
        tokens = torch.from_numpy(beams.history[:, :, -1]).to(device)
        logits = state.extend(tokens, torch.from_numpy(seen).to(device), torch.full_like(tokens, depth))
    return [names[:n_names] for names in finished]


def _pick(logits: Tensor, beams: _Beams, constraint: Constraint, size: int) -> _Picks:
    """The best `size` of all children of a mention's beams. logits: (mentions, beams, vocab)."""
    device = logits.device
    tokens, nodes, ends, valid = constraint.expand(beams.nodes)
    fan_out = tokens.shape[-1]
    shape = (*beams.nodes.shape, fan_out)
    # Over the whole vocabulary, before anything is masked.
    total = torch.logsumexp(logits, dim=-1, keepdim=True)  # (mentions, beams, 1)
    sums = torch.from_numpy(beams.sums).to(device)[..., None]
    scores = sums + logits.gather(-1, torch.from_numpy(tokens).to(device).expand(shape)) - total
    scores = scores.masked_fill(~torch.from_numpy(valid).to(device), NEG_INF).flatten(1)  # (mentions, beams * fan-out)
    best, order = (top.cpu().numpy() for top in _top(scores, size))  # (mentions, picks)
    parents, children = np.divmod(order, fan_out)
    indices = (np.arange(len(best))[:, None], parents, children)
    picked: list[Any] = [np.broadcast_to(values, shape)[indices] for values in (tokens, nodes, ends)]
    return _Picks(best, parents, tokens=picked[0], nodes=picked[1], ends=picked[2] & (best > NEG_INF))


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
    beams: _Beams, constraint: Constraint, worst: NDArray[np.float64], depth: int, length_penalty: float
) -> None:
    """End the mentions whose names can no longer change. worst: score of the last of these names, (mentions,).

    Log-probabilities only fall: at best a live beam keeps its sum to the end of the deepest name below it, or of the
    nearest if long names are penalised. depth: tokens of the beams so far.
    """
    nearest = depth + 1
    deepest = np.minimum(depth + constraint.deepest(beams.nodes), constraint.max_tokens + 1).clip(min=nearest)
    sums = beams.sums.astype(np.float64)
    bounds = np.maximum(sums / deepest**length_penalty, sums / nearest**length_penalty).max(axis=1)  # (mentions,)
    beams.sums[worst >= bounds] = NEG_INF
    beams.nodes[worst >= bounds] = constraint.dead


def _top(scores: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Top `size` scores per row and their indices, descending. Ties keep their order."""
    size = min(size, scores.shape[1])
    if scores.shape[1] > 4096:  # a full sort of a whole vocabulary per beam costs more than the model
        narrowed = torch.topk(scores, size).indices.sort(dim=1).values
        best, order = scores.gather(1, narrowed).sort(dim=1, descending=True, stable=True)
        return best, narrowed.gather(1, order)
    best, order = scores.sort(dim=1, descending=True, stable=True)
    return best[:, :size], order[:, :size]
