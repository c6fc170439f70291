"""How similar a mention's text is to the descriptions of entities, by the retriever's own sentence encoder."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from spacy_gemel.kb.entity import Entity, description_text
from spacy_gemel.linking.prior import fold
from spacy_gemel.linking.retrievers import Embed, FloatArray, unit
from spacy_gemel.utils.cache import BoundedCache

if TYPE_CHECKING:
    from spacy_gemel.kb.knowledge_base import KnowledgeBase  # imports pyarrow

SHARPNESS = 0.05
"""Of the similarity of descriptions between entities of one name: one that is so much higher counts e times."""
WORDS = 0.5
"""What the words that text and description share count beside the cosine. Neither was tuned on data."""
_CACHED = 20_000  # vectors of texts, and of entities that have none on disk: 30 MB each of a width of 384
_SAME = 0.99  # of one text's vectors by one encoder, rounded to 16 bits
_SHORTEST = 4  # letters of a word that says something
_BLOCK = 2**18  # entities compared at once


class DescriptionIndex:
    """The vectors of "name. description" of each entity, and of the texts that they are compared with.

    Args:
        embed: A sentence encoder, texts -> vectors (texts, width).
        kb: The knowledge base. What `build-kb --encode-descriptions` left in it is used; without it an entity is
            encoded when it is first a candidate, and none is found by its description alone.

    Raises:
        ValueError: if the vectors in the knowledge base are not this encoder's.
    """

    def __init__(self, embed: Embed, kb: "KnowledgeBase") -> None:
        self.kb = kb
        self._embed = embed
        self._check()
        self._texts: BoundedCache[str, FloatArray] = BoundedCache(_CACHED)
        self._entities: BoundedCache[int, FloatArray] = BoundedCache(_CACHED)

    def _check(self) -> None:
        """Compare the first entity's vector with the encoder's own: the knowledge base does not say whose they are."""
        vectors = self.kb.description_vectors
        if vectors is None:
            return
        vector = unit(self._embed([description_text(self.kb.entity(0))]))[0]
        if vector.shape != vectors[0].shape or vector @ vectors[0].astype(np.float32) < _SAME:
            raise ValueError(
                f"The knowledge base {self.kb.path} has descriptions encoded by another sentence encoder than the "
                "retriever's: build it again with --encode-descriptions and the retriever's encoder, or without."
            )

    def similarity(self, texts: Sequence[str], rows: Sequence[Sequence[int]]) -> list[FloatArray]:
        """The cosine of each text, (its rows,), with the entities in its rows."""
        if not texts:
            return []
        queries = self._vectors_of_texts(texts)
        entities = self._vectors_of_rows({row for each in rows for row in each})
        return [
            np.array([query @ entities[row] for row in each], dtype=np.float32)
            for query, each in zip(queries, rows, strict=True)
        ]

    def between(self, first: Sequence[int], second: Sequence[int]) -> FloatArray:
        """The cosines of entities with each other, (first, second)."""
        entities = self._vectors_of_rows({*first, *second})
        return np.stack([entities[row] for row in first]) @ np.stack([entities[row] for row in second]).T

    def nearest(self, mentions: Sequence[tuple[str, str]], n: int) -> list[list[int]]:
        """The rows of the n entities on disk that are most similar to each mention and its text together.

        None without vectors on disk. The vectors of both are added: of WikiDiverse's gold entities 88 % are among the
        first ten so, 87 % by the mention alone, 67 % by the text alone.
        """
        vectors = self.kb.description_vectors
        if vectors is None or not mentions:
            return [[] for _ in mentions]
        distinct = [*dict.fromkeys(mentions)]
        words, texts = zip(*distinct, strict=True)
        queries = self._vectors_of_texts(words) + self._vectors_of_texts(texts)  # (mentions, width)
        scores = np.zeros((len(distinct), 0), dtype=np.float32)
        rows = np.zeros((len(distinct), 0), dtype=np.int64)
        for start in range(0, len(vectors), _BLOCK):
            block = queries @ vectors[start : start + _BLOCK].astype(np.float32).T
            scores = np.concatenate([scores, block], axis=1)
            rows = np.concatenate([rows, np.tile(np.arange(start, start + block.shape[1]), (len(distinct), 1))], axis=1)
            if scores.shape[1] > n:  # a sort of all would take longer than the product
                best = np.sort(np.argpartition(-scores, n - 1, axis=1)[:, :n], axis=1)
                scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
            order = np.argsort(-scores, axis=1, kind="stable")
            scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
        nearest = dict(zip(distinct, rows.tolist(), strict=True))
        return [nearest[mention] for mention in mentions]

    def share(self, text: str, entities: Sequence[Entity]) -> list[float]:
        """How much of their common name's probability each of some entities has, by its description and its count."""
        [query] = self._vectors_of_texts([text])
        cosines = unit(self._embed([description_text(entity) for entity in entities])) @ query
        words = np.array([shared_words(text, entity.description) for entity in entities])
        similarity = cosines + WORDS * words
        counts = np.array([entity.count + 1.0 for entity in entities])
        weights = counts * np.exp((similarity - similarity.max()) / SHARPNESS)
        return [float(weight) for weight in weights / weights.sum()]

    def _vectors_of_texts(self, texts: Sequence[str]) -> FloatArray:
        known = {text: self._texts.get(text) for text in dict.fromkeys(texts)}
        new = [text for text, vector in known.items() if vector is None]
        if new:
            vectors = unit(self._embed(new))
            known |= {text: self._texts.put(text, vector) for text, vector in zip(new, vectors, strict=True)}
        return np.stack([vector for text in texts if (vector := known[text]) is not None])

    def _vectors_of_rows(self, rows: set[int]) -> dict[int, FloatArray]:
        on_disk = self.kb.description_vectors
        size = 0 if on_disk is None else len(on_disk)
        known = {row: on_disk[row].astype(np.float32) for row in rows if row < size} if on_disk is not None else {}
        known |= {row: vector for row in rows if row >= size and (vector := self._entities.get(row)) is not None}
        new = sorted(rows - known.keys())
        if new:
            vectors = unit(self._embed([description_text(self.kb.entity(row)) for row in new]))
            known |= {row: self._entities.put(row, vector) for row, vector in zip(new, vectors, strict=True)}
        return known


def shared_words(text: str, description: str | None) -> float:
    """The share of a description's words of four letters or more that the text has, whatever their case.

    Names of fields and things that a vector blurs, "songs" or "bridges", tell the bearers of one name apart.
    """
    words = {word for word in fold(description or "").split() if len(word) >= _SHORTEST}
    return len(words & {*fold(text).split()}) / len(words) if words else 0.0
