"""Beam search over allowed names with one prefill per mention (paper section 3.3).

The beams of a mention are query tokens of one sequence: they share the prompt's keys and values, and a mask
lets each see its own ancestors only. Scores are those of `transformers.generate`: log-softmax over the whole
vocabulary before the names are picked out, no renormalisation, the sum over a name's tokens and its end
divided by their number to the power of length_penalty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from spacy_gemel.language.causal_lm import Prefilled
from spacy_gemel.search.names import AllowedNames

NEVER = float("-inf")


class LanguageModel(Protocol):
    """What the search asks of a language model."""

    def prefill(self, prompts: Sequence[Tensor]) -> Prefilled:
        """See CausalLM.prefill."""
        ...

    def extend(self, state: Prefilled, tokens: Tensor, seen: Tensor, depth: int) -> Tensor:
        """See CausalLM.extend."""
        ...


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A name the search found.

    tokens: the name's token ids, its end left out.
    score: log-probability of name and end / (tokens with end) ** length_penalty.
    edge: the trie's edge that ends the name; 0 where the search was free.
    """

    tokens: tuple[int, ...]
    score: float
    edge: int


@dataclass
class _Beams:
    """The live beams of all mentions, (mentions, beams) each; a beam whose sum is -inf is dead."""

    sums: Tensor
    nodes: np.ndarray
    tokens: Tensor
    history: Tensor  # (mentions, beams, depth)
    seen: Tensor  # (mentions, beams, slots)


class _Finished:
    """The best finished names of each mention so far, best first."""

    def __init__(self, mentions: int, size: int, device: torch.device) -> None:
        self.size = size
        self.scores = torch.full((mentions, size), NEVER, device=device)
        self.edges = torch.zeros((mentions, size), dtype=torch.long, device=device)
        self.names: list[list[tuple[int, ...]]] = [[() for _ in range(size)] for _ in range(mentions)]

    def add(self, scores: Tensor, edges: Tensor, names: Tensor) -> None:
        """Merge names of one length: scores and edges (mentions, n), names (mentions, n, depth)."""
        if not torch.isfinite(scores).any():
            return
        merged = torch.cat([self.scores, scores], dim=1)
        self.scores, order = _best(merged, self.size)
        self.edges = torch.cat([self.edges, edges], dim=1).gather(1, order)
        found = names.tolist()
        for mention, picks in enumerate(order.tolist()):
            old, new = self.names[mention], found[mention]
            self.names[mention] = [old[pick] if pick < self.size else tuple(new[pick - self.size]) for pick in picks]

    def hypotheses(self, wanted: int) -> list[list[Hypothesis]]:
        rows = zip(self.names, self.scores.tolist(), self.edges.tolist(), strict=True)
        return [
            [
                Hypothesis(name, score, edge)
                for name, score, edge in zip(names, scores, edges, strict=True)
                if score != NEVER
            ][:wanted]
            for names, scores, edges in rows
        ]


def beam_search(
    model: LanguageModel,
    prompts: Sequence[Tensor],
    names: AllowedNames,
    *,
    beam_size: int,
    n_names: int,
    length_penalty: float = 1.0,
) -> list[list[Hypothesis]]:
    """The best names after each embedded prompt, best first; at most n_names, which is at most beam_size.

    prompts: (tokens, width) each.
    A mention gets fewer names where fewer are allowed, and none where no allowed name ends in time.
    """
    n_names = min(n_names, beam_size)
    state = model.prefill(prompts)
    device = state.logits.device
    count = len(prompts)
    beams = _Beams(
        sums=torch.zeros((count, 1), device=device),
        nodes=np.full((count, 1), names.root, dtype=np.int64),
        tokens=torch.zeros((count, 1), dtype=torch.long, device=device),
        history=torch.zeros((count, 1, 0), dtype=torch.long, device=device),
        seen=torch.zeros((count, 1, 0), dtype=torch.bool, device=device),
    )
    finished = _Finished(count, beam_size, device)
    logits = state.logits[:, None]  # (mentions, 1, vocab)
    for depth in range(names.max_tokens + 1):
        beams = _step(beams, logits, names, finished, beam_size, depth, length_penalty)
        _drop_settled(beams, names, finished, n_names, depth + 1, length_penalty)
        if depth == names.max_tokens or not torch.isfinite(beams.sums).any():
            break
        own = torch.eye(beam_size, dtype=torch.bool, device=device).expand(count, -1, -1)
        beams.seen = torch.cat([beams.seen, own], dim=-1)
        logits = model.extend(state, beams.tokens, beams.seen, depth)
    return finished.hypotheses(n_names)


def _step(
    beams: _Beams,
    logits: Tensor,
    names: AllowedNames,
    finished: _Finished,
    beam_size: int,
    depth: int,
    length_penalty: float,
) -> _Beams:
    """Pick the best 2 x beams continuations; the names that end among the first `beams` finish."""
    device = logits.device
    tokens, nodes, ends, valid = (torch.as_tensor(np.array(a), device=device) for a in names.expand(beams.nodes))
    fan_out = tokens.shape[-1]
    # Over the whole vocabulary, before anything is masked.
    total = torch.logsumexp(logits, dim=-1, keepdim=True)  # (mentions, beams, 1)
    scores = beams.sums[..., None] + logits.gather(-1, tokens) - total  # (mentions, beams, fan-out)
    scores = scores.masked_fill(~valid, NEVER).flatten(1)
    best, picks = _best(scores, 2 * beam_size)  # (mentions, 2 x beams)
    picks = picks.clamp(max=scores.shape[1] - 1)  # where there are fewer than 2 x beams, padded with dead ones
    parents = picks // fan_out
    picked_tokens = tokens.flatten(1).gather(1, picks)
    picked_nodes = nodes.flatten(1).gather(1, picks)
    picked_ends = ends.flatten(1).gather(1, picks)

    history = _rows(beams.history, parents)  # (mentions, 2 x beams, depth)
    may_finish = picked_ends & (torch.arange(2 * beam_size, device=device) < beam_size)
    finished.add((best / (depth + 1) ** length_penalty).masked_fill(~may_finish, NEVER), picked_nodes, history)

    sums, keep = _best(best.masked_fill(picked_ends, NEVER), beam_size)
    parents = parents.gather(1, keep)
    kept_tokens = picked_tokens.gather(1, keep)
    kept_nodes = picked_nodes.gather(1, keep).masked_fill(sums == NEVER, names.dead)
    return _Beams(
        sums=sums,
        nodes=kept_nodes.cpu().numpy(),
        tokens=kept_tokens,
        history=torch.cat([_rows(history, keep), kept_tokens[..., None]], dim=-1),
        seen=_rows(beams.seen, parents),
    )


def _drop_settled(
    beams: _Beams, names: AllowedNames, finished: _Finished, n_names: int, depth: int, length_penalty: float
) -> None:
    """End the mentions whose first n_names can no longer change.

    Log-probabilities only fall: a live beam can at best keep its sum to the end of the deepest name below it.
    """
    deepest = torch.as_tensor(depth + names.deepest(beams.nodes), device=beams.sums.device)
    bound = (beams.sums / deepest.clamp(min=1) ** length_penalty).amax(dim=1)  # (mentions,)
    settled = finished.scores[:, n_names - 1] >= bound
    beams.sums = beams.sums.masked_fill(settled[:, None], NEVER)
    beams.nodes = np.where(settled.cpu().numpy()[:, None], names.dead, beams.nodes)


def _best(scores: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The best `size` of each row, best first, the first of equals first; padded with -inf."""
    if scores.shape[1] < size:
        scores = torch.nn.functional.pad(scores, (0, size - scores.shape[1]), value=NEVER)
    if scores.shape[1] > 4096:  # a full sort of a whole vocabulary per beam costs more than the model
        narrowed = torch.topk(scores, size).indices.sort(dim=1).values
        best, order = scores.gather(1, narrowed).sort(dim=1, descending=True, stable=True)
        return best, narrowed.gather(1, order)
    best, order = scores.sort(dim=1, descending=True, stable=True)
    return best[:, :size], order[:, :size]


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """values (mentions, beams, n) picked by index (mentions, m): (mentions, m, n)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
