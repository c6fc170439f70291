"""From names with scores to entities: candidates, their probabilities, and the decision."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from spacy_gemel.kb.resolve import NIL

if TYPE_CHECKING:
    from spacy_gemel.kb.knowledge_base import KnowledgeBase  # imports pyarrow


class Candidate(NamedTuple):
    """An entity that a mention may mean.

    score: the normalised log-probability of its name; with a `prior_weight` the combined score, which adds
        prior_weight * log P(entity | mention) (`spacy_gemel.linking.prior.combine`).
    probability: softmax of score / temperature over the mention's names, shared by count among the entities of a name;
        with a `prior_weight`, entities that the prior tells apart have a score each.
    """

    kb_id: str
    name: str
    score: float
    probability: float


class ScoredName(NamedTuple):
    """A name, its score, the entities that bear it as (id, count), best first, and whether the search found it."""

    name: str
    score: float
    entities: Sequence[tuple[str, int]]
    searched: bool = True


def score_name(kb: "KnowledgeBase", rows: Sequence[int], score: float, *, searched: bool = True) -> ScoredName:
    """The name that the entities in `rows` (at least one, in the knowledge base's order) share, with its score."""
    # The knowledge base gives the best first already; sorting puts added entities among them.
    entities = sorted((kb.entity(row) for row in rows), key=lambda entity: -entity.count)
    return ScoredName(entities[0].name, score, [(entity.kb_id, entity.count) for entity in entities], searched)


def to_candidates(names: Sequence[ScoredName], temperature: float = 1.0) -> list[Candidate]:
    """The entities of all names, in the order of the names."""
    if not names:
        return []
    best = max(name.score for name in names)
    weights = [math.exp((name.score - best) / temperature) for name in names]
    total = sum(weights)
    candidates = []
    for name, weight in zip(names, weights, strict=True):
        counts = sum(count for _, count in name.entities)
        for kb_id, count in name.entities:
            share = count / counts if counts else 1 / len(name.entities)
            candidates.append(Candidate(kb_id, name.name, name.score, weight / total * share))
    return candidates


def decide(candidates: Sequence[Candidate], threshold: float | None) -> str:
    """The best candidate's id; NIL if there is none or its probability is below the threshold."""
    if not candidates or (threshold is not None and candidates[0].probability < threshold):
        return NIL
    return candidates[0].kb_id
