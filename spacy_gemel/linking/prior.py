"""P(entity | mention), from the training examples and from the names and aliases of the knowledge base."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from spacy_gemel.kb.index import surface_key
from spacy_gemel.linking.spelling import fold, spellings
from spacy_gemel.utils.cache import BoundedCache

if TYPE_CHECKING:
    from spacy_gemel.kb.knowledge_base import KnowledgeBase

SURFACE = 2.0
"""Training examples that a mention's being the name of an entity counts as."""
ALIAS = 0.1
"""What an alias is worth of a name: of training examples, and of its bearer's share where names bear it too."""
UNKNOWN = 0.1
"""Training examples that count for entities there is no evidence of. All three were chosen on WikiDiverse's training
docs, each fifth told by the rest: the most accurate of those whose log loss is near the least (docs/prior.md)."""

_KEPT = 65536


class MentionPrior:
    """What mentions mean to those who wrote the training examples and the knowledge base.

    It is what Milne and Witten (2008) call commonness, smoothed, with names and aliases for the links that are lacking.

    For an entity e and a mention m that occurs c(m) times in training, c(m, e) of them for e::

        P(e | m) = (c(m, e) + s(m) * share(e | m)) / (c(m) + s(m) + UNKNOWN)

    s(m): SURFACE where m is the name of an entity, SURFACE * ALIAS where it is nothing but an alias, else 0.
    share(e | m): of those that have m for a name or an alias, by their counts and one more, so that one that was never
    counted has a little; an alias's bearer weighs ALIAS times that. What the probabilities lack of 1 is left to the
    entities without evidence.

    Two mentions are the same if the knowledge base takes them for one title (``surface_key``: blanks and the first
    letter's case do not count). Where there is no evidence for a mention so, case, punctuation and a possessive do not
    count either (`spelling.fold`).

    training: (mention, kb_id) of each example; an id that the knowledge base lacks is no evidence.
    """

    def __init__(self, training: Iterable[tuple[str, str]], kb: "KnowledgeBase") -> None:
        self.kb = kb
        self._exact: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._folded: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for mention, kb_id in training:
            self._exact[surface_key(mention)][kb_id] += 1
            self._folded[fold(mention)][kb_id] += 1
        self._known: BoundedCache[str, dict[str, float]] = BoundedCache(_KEPT)

    def of(self, mention: str) -> dict[str, float]:
        """P(e | mention) of each entity that there is evidence of, the best first; empty for an unknown mention.

        Equals are in the order of the knowledge base: the counted first, then by row. Raises KBError where it is
        damaged.
        """
        known = self._known.get(mention)
        return dict(self._known.put(mention, self._compute(mention)) if known is None else known)

    def best(self, mention: str) -> str | None:
        """The entity that the mention most probably means, None where there is no evidence. Raises as `of`."""
        return next(iter(self.of(mention)), None)

    def _compute(self, mention: str) -> dict[str, float]:
        key, folded = surface_key(mention), fold(mention)
        exact = self._weigh(self._exact.get(key), [mention]) if key else {}
        if exact:
            return exact
        return self._weigh(self._folded.get(folded), spellings(mention)) if folded else {}

    def _weigh(self, counted: Counter[str] | None, written: Iterable[str]) -> dict[str, float]:
        """P of the entities that training counts, and of those that bear one of some names."""
        examples = {}
        for kb_id, times in (counted or {}).items():
            row = self.kb.row(kb_id)
            if row is not None:
                examples[row] = times
        shares, surface = self._shares(written)
        total = sum(examples.values()) + surface + UNKNOWN
        rows = sorted(examples.keys() | shares.keys())
        weighed = {row: (examples.get(row, 0) + surface * shares.get(row, 0.0)) / total for row in rows}
        rows.sort(key=lambda row: (-weighed[row], -self.kb.count(row), row))
        return {self.kb.entity(row).kb_id: weighed[row] for row in rows}

    def _shares(self, written: Iterable[str]) -> tuple[dict[int, float], float]:
        """How those that bear one of some names share it, by row, and the examples that this counts as, in all."""
        weights: dict[int, float] = {}
        best = 0.0
        for text in written:
            named, aliased = self.kb.rows_by_surface(text)
            for rows, weight in ((named, 1.0), (aliased, ALIAS)):
                for row in rows:
                    weights[row] = max(weights.get(row, 0.0), weight * (self.kb.count(row) + 1))
                    best = max(best, weight)
        total = sum(weights.values())
        return {row: weight / total for row, weight in weights.items()}, SURFACE * best
