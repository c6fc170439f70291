"""P(entity | mention) from training examples, names and aliases, and the score that combines it with the search's."""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from spacy_gemel.kb.index import surface_key
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.linking.candidates import ScoredName
from spacy_gemel.utils.cache import BoundedCache

# SURFACE, ALIAS and UNKNOWN were chosen on WikiDiverse's training docs, by five-fold cross-validation: the most
# accurate of the values whose log loss is near the minimum (docs/decision.md).
SURFACE = 2.0
"""Training examples that a mention counts as for being the name of an entity."""
ALIAS = 0.1
"""Weight of an alias relative to a name: in training examples, and in its bearer's share beside bearers of the name."""
UNKNOWN = 0.1
"""Training examples that count for the entities without evidence."""
FLOOR = 0.01
"""Added to each probability, so that an entity without evidence can still win. Not tuned on data."""
MAX_KNOWN = 10
"""The prior's best entities that are scored for each mention besides those of the search. Not tuned on data."""

_CACHE_SIZE = 65536
_POSSESSIVE = re.compile(r"(?:['’ʼ]s|(?<=s)['’ʼ])$", re.IGNORECASE)
_DASHES = re.compile(r"[-‐-―/]+")


class MentionPrior:
    """What a mention means in the training examples and in the knowledge base, whatever its context.

    It is what Milne and Witten (2008) call commonness, smoothed; names and aliases stand in for missing links. For an
    entity e and a mention m that occurs c(m) times in training, c(m, e) of them for e::

        P(e | m) = (c(m, e) + s(m) * share(e | m)) / (c(m) + s(m) + UNKNOWN)

    s(m): SURFACE if m is the name of an entity, SURFACE * ALIAS if it is only an alias, else 0.
    share(e | m): e's share among the bearers of m as a name or alias, by count + 1, so that an entity that was never
    counted has a little; the bearer of an alias weighs ALIAS times that. The rest of the probability, up to 1, is left
    to the entities without evidence.
    Two mentions are the same if their ``surface_key`` is. If there is no evidence for a mention so, case, punctuation
    and a possessive do not count either (`fold`). Training ids that the knowledge base lacks are no evidence.
    """

    def __init__(self, training: Iterable[tuple[str, str]], kb: KnowledgeBase) -> None:
        self.kb = kb
        self._exact: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._folded: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for mention, kb_id in training:
            self._exact[surface_key(mention)][kb_id] += 1
            self._folded[fold(mention)][kb_id] += 1
        self._cache: BoundedCache[str, dict[str, float]] = BoundedCache(_CACHE_SIZE)

    def of(self, mention: str) -> dict[str, float]:
        """P(e | mention) of each entity with evidence, best first; ties by count, then by row. May raise KBError."""
        cached = self._cache.get(mention)
        return dict(self._cache.put(mention, self._compute(mention)) if cached is None else cached)

    def known_names(self, mention: str) -> list[str]:
        """The names of the mention's MAX_KNOWN most probable entities, each once."""
        rows = [self.kb.row(kb_id) for kb_id in [*self.of(mention)][:MAX_KNOWN]]
        return [*dict.fromkeys(self.kb.entity(row).name for row in rows if row is not None)]

    def _compute(self, mention: str) -> dict[str, float]:
        key, folded = surface_key(mention), fold(mention)
        if key and (exact := self._probabilities(self._exact.get(key), [mention])):
            return exact
        return self._probabilities(self._folded.get(folded), spellings(mention)) if folded else {}

    def _probabilities(self, counts: Counter[str] | None, surfaces: Iterable[str]) -> dict[str, float]:
        """P of the entities that training counts and of the bearers of some surfaces, best first."""
        rows_of_ids = ((self.kb.row(kb_id), count) for kb_id, count in (counts or {}).items())
        examples = {row: count for row, count in rows_of_ids if row is not None}
        shares, surface = self._shares(surfaces)
        total = sum(examples.values()) + surface + UNKNOWN
        rows = sorted(examples.keys() | shares.keys())
        probabilities = {row: (examples.get(row, 0) + surface * shares.get(row, 0.0)) / total for row in rows}
        rows.sort(key=lambda row: (-probabilities[row], -self.kb.count(row), row))
        return {self.kb.entity(row).kb_id: probabilities[row] for row in rows}

    def _shares(self, surfaces: Iterable[str]) -> tuple[dict[int, float], float]:
        """share(e | m) by row for the bearers of some surfaces, and s(m)."""
        weights: dict[int, float] = {}
        best = 0.0
        for surface in surfaces:
            for rows, weight in zip(self.kb.rows_by_surface(surface), (1.0, ALIAS), strict=True):
                for row in rows:
                    weights[row] = max(weights.get(row, 0.0), weight * (self.kb.count(row) + 1))
                    best = max(best, weight)
        total = sum(weights.values())
        return {row: weight / total for row, weight in weights.items()}, SURFACE * best


def combine(score: float, probability: float, weight: float) -> float:
    """The search's score of a name and P(entity | mention), 0 without evidence, as one score."""
    return score + weight * math.log(probability + FLOOR)


def rerank(
    names: Sequence[ScoredName], prior: Mapping[str, float], weight: float, limit: int, bearers: Collection[str] = ()
) -> list[ScoredName]:
    """At most `limit` of a mention's names by the combined score of their entities, best first, and those of `bearers`.

    `prior` is P(entity | mention) of the entities with evidence; without any, the names are returned as they are.
    Entities of one name that the prior tells apart become entries of their own, each with its score.
    """
    if not prior:
        return [*names]
    reranked = []
    for name in names:
        by_probability: dict[float, list[int]] = {}
        for index, entity in enumerate(name.entities):
            by_probability.setdefault(prior.get(entity.kb_id, 0.0), []).append(index)
        for probability, indices in by_probability.items():
            entities, rows = [name.entities[index] for index in indices], [name.rows[index] for index in indices]
            score = combine(name.score, probability, weight)
            reranked.append(name._replace(score=score, entities=entities, rows=rows))
    reranked.sort(key=lambda name: -name.score)  # stable: ties keep their order
    best = [*dict.fromkeys(name.name for name in reranked)][:limit]
    return [name for name in reranked if name.name in best or name.name in bearers]


def fold(mention: str) -> str:
    """What spellings of one mention share: no case, no possessive at the end, no punctuation; dashes are blanks."""
    text = _DASHES.sub(" ", strip_possessive(mention).casefold())
    return " ".join("".join(char for char in text if not _is_punctuation(char)).split())


def spellings(mention: str) -> list[str]:
    """Spellings of names that fold to the same, for an index that knows exact spellings only.

    Without possessive and outer punctuation, then without any; each as it is, in lower case, in capitals, capitalised.
    """
    text = strip_possessive(mention)
    inner = [index for index, char in enumerate(text) if not _is_punctuation(char)]
    bare = text[inner[0] : inner[-1] + 1] if inner else ""
    words = "".join(char for char in _DASHES.sub(" ", bare) if not _is_punctuation(char))
    cased = [
        spelling
        for text in (" ".join(bare.split()), " ".join(words.split()))
        for spelling in (text, text.lower(), text.upper(), " ".join(word.capitalize() for word in text.split()))
    ]
    return [spelling for spelling in dict.fromkeys(cased) if spelling]


def strip_possessive(mention: str) -> str:
    """The mention without 's, or the apostrophe after an s, at its end."""
    return _POSSESSIVE.sub("", " ".join(unicodedata.normalize("NFC", mention).split()))


def _is_punctuation(char: str) -> bool:
    return unicodedata.category(char).startswith("P")
