"""From names with scores to entities: candidates, their probabilities, and the answer."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.resolve import NIL

if TYPE_CHECKING:
    from spacy_gemel.decoding.exact_search import Certificate  # imports torch
    from spacy_gemel.kb.knowledge_base import KnowledgeBase  # imports pyarrow
    from spacy_gemel.linking.mention import Mention


class Candidate(NamedTuple):
    """An entity that a mention may mean.

    score: the normalised log-probability of its name; with a `prior_weight` the combined score, which adds
        prior_weight * log P(entity | mention) (`spacy_gemel.linking.prior.combine`); with a fitted decision its
        features' weighted sum.
    probability: softmax of the scores over the mention's names, divided among the entities of a name; with a
        `prior_weight`, entities that the prior tells apart have a score each. With a fitted decision, the decision's.
    """

    kb_id: str
    name: str
    score: float
    probability: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a mention is linked to: its candidates, best first, and the probability that none of them is right.

    `nil` is 0 unless a decision was fitted on mentions without an entity. `reason` tells why there is no candidate.
    `certificate` is that of an exact search.
    """

    candidates: Sequence[Candidate] = ()
    nil: float = 0.0
    reason: str | None = None
    certificate: "Certificate | None" = None


class ScoredName(NamedTuple):
    """A name, its score, the entities that bear it, best first, with their rows, and how it was found."""

    name: str
    score: float
    entities: Sequence[Entity]
    rows: Sequence[int] = ()
    tokens: int = 0  # of the name, without its end
    searched: bool = True  # False for a name that was scored although the search did not find it


@dataclass(frozen=True, slots=True)
class Options:
    """What one mention may mean: entities, each with its name. Several may share one."""

    mention: "Mention"
    entities: Sequence[Entity]
    rows: Sequence[int]
    names: Sequence[ScoredName]
    demonstrated: frozenset[str] = frozenset()  # ids of the entities in the demonstrations of its prompt
    reason: str | None = None  # why there is none
    certificate: "Certificate | None" = None  # of an exact search

    @property
    def distinct_names(self) -> list[ScoredName]:
        """Each name once, in their order."""
        return [*{id(name): name for name in self.names}.values()]


def score_name(
    kb: "KnowledgeBase", rows: Sequence[int], score: float, tokens: int, *, searched: bool = True
) -> ScoredName:
    """The name that the entities in `rows` (at least one, in the knowledge base's order) share, with its score."""
    # The knowledge base gives the best first already; sorting puts added entities among them.
    pairs = sorted(((kb.entity(row), row) for row in rows), key=lambda pair: -pair[0].count)
    entities, rows = zip(*pairs, strict=True)
    return ScoredName(entities[0].name, score, entities, rows, tokens, searched)


Share = Callable[[ScoredName], Sequence[float]]
"""How much of a name's probability each of its entities has."""


def share_by_count(name: ScoredName) -> list[float]:
    """By how often each entity was linked; equal parts if none ever was."""
    counts = sum(entity.count for entity in name.entities)
    return [entity.count / counts if counts else 1 / len(name.entities) for entity in name.entities]


def to_candidates(names: Sequence[ScoredName], share: Share = share_by_count) -> list[Candidate]:
    """The entities of all names, in the order of the names; those of one name by their share."""
    if not names:
        return []
    best = max(name.score for name in names)
    weights = [math.exp(name.score - best) for name in names]
    total = sum(weights)
    candidates = []
    for name, weight in zip(names, weights, strict=True):
        shares = share(name) if len(name.entities) > 1 else [1.0]
        pairs = sorted(zip(name.entities, shares, strict=True), key=lambda pair: -pair[1])
        candidates += [Candidate(each.kb_id, name.name, name.score, weight / total * part) for each, part in pairs]
    return candidates


def answer_id(answer: Answer, threshold: float | None) -> str:
    """The best candidate's id; NIL if there is none, if NIL is more probable, or if it is below the threshold."""
    if not answer.candidates:
        return NIL
    best = answer.candidates[0]
    too_low = threshold is not None and best.probability < threshold
    return NIL if too_low or best.probability < answer.nil else best.kb_id
