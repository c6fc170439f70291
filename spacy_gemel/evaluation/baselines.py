"""Two peers that look the mention up: the shortcut, and the knowledge base's names and aliases."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from spacy.tokens import Doc

from research.baselines.surfaces import Surfaces, by_count
from research.baselines.training_mentions import TrainingMentions
from spacy_gemel.linking.candidates import Candidate, decide
from spacy_gemel.pipeline.user_data import to_row, write_rows

if TYPE_CHECKING:
    from spacy_gemel.kb.knowledge_base import KnowledgeBase

_LEAST = 1e-9  # the logarithm of an entity that was never counted beside one that was: JSON knows no infinity


class Lookup(Protocol):
    """Answers from the mention's string alone."""

    def candidates(self, mention: str) -> list[Candidate]:
        """What it may mean, best first; empty for NIL."""


class MostFrequentEntity:
    """The most frequent training entity for the same mention, else the entity that has the mention for its name.

    Of equally frequent ones the entity that the knowledge base counts more often, then the earlier one in it. NIL golds
    of the training data are no entities. A candidate's probability is its share of the training mentions.
    """

    def __init__(self, kb: "KnowledgeBase", training: TrainingMentions, surfaces: Surfaces) -> None:
        self._kb = kb
        self._surfaces = surfaces
        self._training: dict[str, Counter[int]] = {}
        for mention, rows in training.rows.items():
            self._training.setdefault(surfaces.key(mention), Counter()).update(rows)

    def candidates(self, mention: str) -> list[Candidate]:
        """The entities of the training mentions, or else those of this name; best first."""
        order = by_count(self._kb)
        times = self._training.get(self._surfaces.key(mention))
        if times is not None:
            rows = sorted(times, key=lambda row: (-times[row], *order(row)))
            return _shared(self._kb, rows, [times[row] for row in rows])
        named, _ = self._surfaces.called(mention)
        rows = sorted(named, key=order)
        return _shared(self._kb, rows, [self._kb.count(row) for row in rows])


class AliasMatch:
    """The entity that bears the mention as name or alias: the most counted, a name before an alias, then the earlier.

    A candidate's probability is its share of the bearers' counts; equal shares where none was ever counted.
    """

    def __init__(self, kb: "KnowledgeBase", surfaces: Surfaces) -> None:
        self._kb = kb
        self._surfaces = surfaces

    def candidates(self, mention: str) -> list[Candidate]:
        """All bearers, best first."""
        named, aliased = self._surfaces.called(mention)
        rows = sorted([*named, *aliased], key=lambda row: -self._kb.count(row))  # stable: names stay first
        return _shared(self._kb, rows, [self._kb.count(row) for row in rows])


def looked_up(lookup: Lookup) -> Callable[[Sequence[Doc]], Iterator[Doc]]:
    """Linking docs by a lookup: the best candidate, or NIL."""

    def link(docs: Sequence[Doc]) -> Iterator[Doc]:
        for doc in docs:
            rows = []
            for ent in doc.ents:
                candidates = lookup.candidates(ent.text)
                kb_id = decide(candidates, None)
                for token in ent:
                    token.ent_kb_id_ = kb_id
                rows.append(to_row(ent.start_char, ent.end_char, candidates))
            write_rows(doc, rows)
            yield doc

    return link


def _shared(kb: "KnowledgeBase", rows: Sequence[int], weights: Sequence[int]) -> list[Candidate]:
    total = sum(weights)
    candidates = []
    for row, weight in zip(rows, weights, strict=True):
        entity = kb.entity(row)
        share = weight / total if total else 1 / len(rows)
        candidates.append(Candidate(entity.kb_id, entity.name, math.log(max(share, _LEAST)), share))
    return candidates
