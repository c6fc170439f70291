"""Beam search over allowed names with one prefill per mention (paper section 3.3).

The beams of a mention are query tokens of one sequence: they share the prompt's keys and values, and each sees its
own ancestors only. Scores are those of `transformers.generate`: log-softmax over the whole vocabulary before the
names are picked out, no renormalisation, the sum over a name's tokens and its end divided by their number to the
power of length_penalty.

The vocabulary's scores stay where the model is; of each step only the few continuations that are picked come to the
host, and all else happens there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spacy_gemel.decoding.constraints import BoolArray, Constraint, IntArray
from spacy_gemel.decoding.decoder import DecoderState
from spacy_gemel.decoding.finished import NEG_INF, BeamHypotheses, Hypothesis

ItemT = TypeVar("ItemT", bound=np.generic)


class LanguageModel(Protocol):
    """What the search asks of a language model."""

    def prefill(self, prompts: Sequence[Tensor], *, beams: int, tokens: int) -> DecoderState:
        """See CausalLM.prefill."""
        ...


@dataclass
class _Beams:
    """The live beams of all mentions, best first; a beam whose sum is -inf is dead."""

    sums: NDArray[np.float32]  # (mentions, beams)
    nodes: IntArray  # (mentions, beams)
    history: IntArray  # (mentions, beams, depth): their tokens so far
    seen: BoolArray  # (mentions, beams, slots): of all appended tokens, those that are theirs

    @property
    def alive(self) -> int:
        """Live beams of the mention that has most."""
        return int((self.sums > NEG_INF).sum(axis=1).max(initial=0))


@dataclass
class _Picks:
    """The best continuations of each mention, best first, (mentions, picks) each; a sum of -inf: there is none."""

    sums: NDArray[np.float32]
    parents: IntArray  # the beam that each goes on
    tokens: IntArray
    nodes: IntArray
    ends: BoolArray


def beam_search(
    model: LanguageModel,
    prompts: Sequence[Tensor],
    names: Constraint,
    *,
    beam_size: int,
    n_names: int,
    length_penalty: float = 1.0,
) -> list[list[Hypothesis]]:
    """The best names after each embedded prompt, best first; at most n_names, which is at most beam_size.

    The paper's search (section 3.3), with the scores of `transformers.generate`.
    prompts: (tokens, width) each.
    A mention gets fewer names where fewer are allowed, and none where no allowed name ends in time.
    """
    state = model.prefill(prompts, beams=beam_size, tokens=names.max_tokens)
    return search_after(state, names, beam_size=beam_size, n_names=n_names, length_penalty=length_penalty)


def search_after(
    state: DecoderState, names: Constraint, *, beam_size: int, n_names: int, length_penalty: float = 1.0
) -> list[list[Hypothesis]]:
    """`beam_search` after prompts that have been read, with room for so many beams of the longest name."""
    n_names = min(n_names, beam_size)
    count = len(state.logits)
    beams = _Beams(
        sums=np.zeros((count, 1), dtype=np.float32),
        nodes=np.full((count, 1), names.root, dtype=np.int64),
        history=np.zeros((count, 1, 0), dtype=np.int64),
        seen=np.zeros((count, 1, 0), dtype=np.bool_),
    )
    finished = [BeamHypotheses(beam_size) for _ in range(count)]
    logits = state.logits[:, None]  # (mentions, 1, vocab)
    for depth in range(names.max_tokens + 1):
        picks = _pick(logits, beams, names, 2 * beam_size)
        _finish(picks, beams.history, finished, beam_size, depth + 1, length_penalty)
        beams = _go_on(picks, beams, names, beam_size)
        _drop_settled(beams, names, finished, n_names, depth + 1, length_penalty)
        if depth == names.max_tokens or not beams.alive:
            break
        beams = _narrow(beams)
        logits = state.extend(
            torch.from_numpy(beams.history[:, :, -1]).to(logits.device),
            torch.from_numpy(beams.seen).to(logits.device),
            depth,
        )
    return [found.hypotheses[:n_names] for found in finished]


def _pick(logits: Tensor, beams: _Beams, names: Constraint, size: int) -> _Picks:
    """The best `size` of all children of a mention's beams. logits: (mentions, beams, vocab)."""
    device = logits.device
    count, width, _ = logits.shape
    tokens, nodes, ends, valid = names.expand(beams.nodes)
    fan_out = tokens.shape[-1]
    shape = (count, width, fan_out)
    # Over the whole vocabulary, before anything is masked.
    total = torch.logsumexp(logits, dim=-1, keepdim=True)  # (mentions, beams, 1)
    sums = torch.from_numpy(beams.sums).to(device)[..., None]
    scores = sums + logits.gather(-1, torch.from_numpy(tokens).to(device).expand(shape)) - total
    scores = scores.masked_fill(~torch.from_numpy(valid).to(device), NEG_INF).flatten(1)
    best, order = _best(scores, size)  # (mentions, picks)
    picked, parents, children = best.cpu().numpy(), *np.divmod(order.cpu().numpy(), fan_out)
    where = (np.arange(count)[:, None], parents, children)
    return _Picks(
        sums=picked,
        parents=parents,
        tokens=_at(tokens, shape, where),
        nodes=_at(nodes, shape, where),
        ends=_at(ends, shape, where) & (picked > NEG_INF),
    )


def _at(values: NDArray[ItemT], shape: tuple[int, ...], where: tuple[NDArray[Any], ...]) -> NDArray[ItemT]:
    """Some of what names.expand returned, (mentions, picks)."""
    picked: NDArray[ItemT] = np.broadcast_to(values, shape)[where]
    return picked


def _finish(
    picks: _Picks,
    history: IntArray,
    finished: Sequence[BeamHypotheses],
    beam_size: int,
    length: int,
    length_penalty: float,
) -> None:
    """Take in the names that end among the first beam_size picks. length: their tokens, the end included."""
    for mention, index in np.argwhere(picks.ends[:, :beam_size]):
        name = history[mention, picks.parents[mention, index]]
        score = float(picks.sums[mention, index]) / length**length_penalty
        finished[mention].add(Hypothesis(tuple(name.tolist()), score, int(picks.nodes[mention, index])))


def _go_on(picks: _Picks, beams: _Beams, names: Constraint, beam_size: int) -> _Beams:
    """The best beam_size picks that do not end, as beams."""
    sums = np.where(picks.ends, np.float32(NEG_INF), picks.sums)
    keep = np.argsort(-sums, axis=1, kind="stable")[:, :beam_size]
    rows = np.arange(len(sums))[:, None]
    sums, parents = sums[rows, keep], picks.parents[rows, keep]
    return _Beams(
        sums=sums,
        nodes=np.where(sums > NEG_INF, picks.nodes[rows, keep], names.dead),
        history=np.concatenate([beams.history[rows, parents], picks.tokens[rows, keep][..., None]], axis=-1),
        seen=beams.seen[rows, parents],
    )


def _drop_settled(
    beams: _Beams,
    names: Constraint,
    finished: Sequence[BeamHypotheses],
    n_names: int,
    depth: int,
    length_penalty: float,
) -> None:
    """End the mentions whose first n_names can no longer change. depth: tokens of the beams so far.

    Log-probabilities only fall: a live beam can at best keep its sum to the end of a name below it, the deepest one,
    or the nearest where long names are punished.
    """
    nearest = depth + 1
    deepest = np.minimum(depth + names.deepest(beams.nodes), names.max_tokens + 1).clip(min=nearest)
    sums = beams.sums.astype(np.float64)
    bounds = np.maximum(sums / deepest**length_penalty, sums / nearest**length_penalty).max(axis=1)  # (mentions,)
    settled = np.array([found.score_of(n_names) for found in finished]) >= bounds
    beams.sums[settled] = NEG_INF
    beams.nodes[settled] = names.dead


def _narrow(beams: _Beams) -> _Beams:
    """Without the beams that are dead in all mentions, and with a slot for each that is left."""
    width = beams.alive
    count = len(beams.sums)
    own = np.broadcast_to(np.eye(width, dtype=np.bool_), (count, width, width))
    return _Beams(
        sums=beams.sums[:, :width],
        nodes=beams.nodes[:, :width],
        history=beams.history[:, :width],
        seen=np.concatenate([beams.seen[:, :width], own], axis=-1),
    )


def _best(scores: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The best `size` of each row, or all where there are fewer, best first, the first of equals first."""
    size = min(size, scores.shape[1])
    if scores.shape[1] > 4096:  # a full sort of a whole vocabulary per beam costs more than the model
        narrowed = torch.topk(scores, size).indices.sort(dim=1).values
        best, order = scores.gather(1, narrowed).sort(dim=1, descending=True, stable=True)
        return best, narrowed.gather(1, order)
    best, order = scores.sort(dim=1, descending=True, stable=True)
    return best[:, :size], order[:, :size]
