"""A candidate's score from the language model's and from what its mention usually means."""

import math
from collections.abc import Mapping, Sequence

from spacy_gemel.linking.candidates import FoundName

FLOOR = 0.01
"""Added to each probability, so that an entity without evidence can still win: about what is left for each of the few
that a text suggests. Not tuned on data."""


def combined(score: float, probability: float, weight: float) -> float:
    """A candidate's score. score: the search's, of its name. probability: P(entity | mention), 0 without evidence."""
    return score + weight * math.log(probability + FLOOR)


def weigh(found: Sequence[FoundName], prior: Mapping[str, float], weight: float, limit: int) -> list[FoundName]:
    """The names with their entities by the combined score, the best first; of so many names at most.

    prior: P(entity | mention) of those that there is evidence of. Where there is none, the names are returned as they
    are. Entities of one name that the prior tells apart stand apart, each with its score; the others of the name
    together, with one score that their counts share.
    """
    if not prior:
        return [*found]
    parts = []
    for name in found:
        alike: dict[float, list[tuple[str, int]]] = {}
        for kb_id, count in name.entities:
            alike.setdefault(prior.get(kb_id, 0.0), []).append((kb_id, count))
        parts += [
            FoundName(name.name, combined(name.score, probability, weight), bearers, name.searched)
            for probability, bearers in alike.items()
        ]
    parts.sort(key=lambda part: -part.score)  # the first of equals stays first
    kept = [*dict.fromkeys(part.name for part in parts)][:limit]
    return [part for part in parts if part.name in kept]
