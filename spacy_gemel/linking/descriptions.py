"""How similar a mention's text, or its image, is to the descriptions of entities, by encoders that are not trained."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from spacy_gemel.kb.entity import Entity, description_text
from spacy_gemel.linking.prior import fold
from spacy_gemel.linking.retrievers import Embed, FloatArray, unit
from spacy_gemel.utils.cache import BoundedCache

if TYPE_CHECKING:
    from spacy_gemel.kb.knowledge_base import KnowledgeBase  # imports pyarrow
    from spacy_gemel.models.vision_encoder import JointSpace

SHARPNESS = 0.05
"""Of the similarity of descriptions between entities of one name: one that is so much higher counts e times."""
WORDS = 0.5
"""What the words that text and description share count beside the cosine. Neither was tuned on data."""
_CACHED = 40_000  # vectors of texts, and of entities that have none on disk: 60 MB of a width of 384
_SAME = 0.99  # of one text's vectors by one encoder, rounded to 16 bits
_SHORTEST = 4  # letters of a word that says something
_BLOCK = 2**13  # entities compared at once: their vectors in 32 bits stay in a processor's caches


class TextVectors:
    """The unit vectors of texts, each encoded once while it is cached."""

    def __init__(self, embed: Embed) -> None:
        self.embed = embed
        self._cache: BoundedCache[str, FloatArray] = BoundedCache(_CACHED)

    def __call__(self, texts: Sequence[str]) -> FloatArray:
        """The vectors of at least one text, (texts, width)."""
        known = {text: self._cache.get(text) for text in dict.fromkeys(texts)}
        new = [text for text, vector in known.items() if vector is None]
        if new:
            known |= {t: self._cache.put(t, vector) for t, vector in zip(new, unit(self.embed(new)), strict=True)}
        return np.stack([vector for text in texts if (vector := known[text]) is not None])


class ImageDescriptions:
    """Compares images with "name. description" in the joint space of a CLIP (CLIPPINGS, Arora et al. 2023)."""

    def __init__(self, joint: "JointSpace") -> None:
        self._joint = joint
        self._vectors = TextVectors(joint.encode_texts)

    def similarity(self, features: FloatArray, entities: Sequence[Entity]) -> FloatArray:
        """The cosine of an image, features (d_v,), with each of at least one entity, (entities,)."""
        [image] = unit(self._joint.project(features[None]))
        return self._vectors([description_text(entity) for entity in entities]) @ image


class DescriptionIndex:
    """The vectors of "name. description" of each entity, and of the texts that they are compared with.

    Args:
        embed: A sentence encoder, texts -> vectors (texts, width).
        kb: The knowledge base. What `build-kb --encode-descriptions` left in it is used; without it an entity is
            encoded when it is first a candidate, and none is found by its description alone.
        previous: The index until now. What it has encoded and checked is kept if the encoder is the same.

    Raises:
        ValueError: if the vectors in the knowledge base are not this encoder's.
    """

    def __init__(self, embed: Embed, kb: "KnowledgeBase", previous: "DescriptionIndex | None" = None) -> None:
        self.kb = kb
        self._nearest: BoundedCache[tuple[tuple[str, str], int], list[int]] = BoundedCache(_CACHED)
        same = previous if previous is not None and previous._vectors.embed is embed else None
        self._vectors: TextVectors = TextVectors(embed) if same is None else same._vectors
        if same is None or kb.description_vectors is not same.kb.description_vectors:  # additions keep the array
            self._check()

    def _check(self) -> None:
        """Compare the first entity's vector with the encoder's own: the knowledge base does not say whose they are."""
        vectors = self.kb.description_vectors
        if vectors is None:
            return
        [vector] = self._vectors([description_text(self.kb.entity(0))])
        if vector.shape != vectors[0].shape or vector @ vectors[0].astype(np.float32) < _SAME:
            raise ValueError(
                f"The knowledge base {self.kb.path} has descriptions encoded by another sentence encoder than the "
                "retriever's: build it again with --encode-descriptions and the retriever's encoder, or without."
            )

    def similarity(self, texts: Sequence[str], rows: Sequence[Sequence[int]]) -> list[FloatArray]:
        """The cosine of each text, (its rows,), with the entities in its rows."""
        if not texts:
            return []
        queries = self._vectors(texts)
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
        found = {mention: self._nearest.get((mention, n)) for mention in dict.fromkeys(mentions)}
        if new := [mention for mention, rows in found.items() if rows is None]:
            rows_of_new = self._search(vectors, new, n)
            found |= {m: self._nearest.put((m, n), rows) for m, rows in zip(new, rows_of_new, strict=True)}
        return [found[mention] or [] for mention in mentions]

    def _search(self, vectors: NDArray[np.float16], mentions: Sequence[tuple[str, str]], n: int) -> list[list[int]]:
        """See `nearest`. vectors: (entities, width)."""
        words, texts = zip(*mentions, strict=True)
        queries = self._vectors(words) + self._vectors(texts)  # (mentions, width)
        scores = np.zeros((len(mentions), 0), dtype=np.float32)
        rows = np.zeros((len(mentions), 0), dtype=np.int64)
        for start in range(0, len(vectors), _BLOCK):
            # NumPy takes five times as long to widen them; a copy, as torch takes no memory that is read-only
            block = queries @ torch.from_numpy(np.array(vectors[start : start + _BLOCK])).float().numpy().T
            best = _best(block, n)
            scores = np.concatenate([scores, np.take_along_axis(block, best, 1)], axis=1)
            rows = np.concatenate([rows, best + start], axis=1)
            best = _best(scores, n)
            scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
        return rows.tolist()

    def share(self, text: str, entities: Sequence[Entity]) -> list[float]:
        """How much of their common name's probability each of some entities has, by its description and its count."""
        [query] = self._vectors([text])
        cosines = self._vectors([description_text(entity) for entity in entities]) @ query
        words = np.array([shared_words(text, entity.description) for entity in entities])
        similarity = cosines + WORDS * words
        counts = np.array([entity.count + 1.0 for entity in entities])
        weights = counts * np.exp((similarity - similarity.max()) / SHARPNESS)
        return [float(weight) for weight in weights / weights.sum()]

    def _vectors_of_rows(self, rows: set[int]) -> dict[int, FloatArray]:
        on_disk = () if self.kb.description_vectors is None else self.kb.description_vectors
        vectors = {row: on_disk[row].astype(np.float32) for row in rows if row < len(on_disk)}
        if new := sorted(rows - vectors.keys()):
            texts = [description_text(self.kb.entity(row)) for row in new]
            vectors |= dict(zip(new, self._vectors(texts), strict=True))
        return vectors


def _best(scores: FloatArray, n: int) -> NDArray[np.int64]:
    """The columns of the n highest scores of each row, the highest first, the first of equals first."""
    best = np.tile(np.arange(scores.shape[1]), (len(scores), 1))
    if scores.shape[1] > n:  # a sort of all would take longer than the product
        best = np.sort(np.argpartition(-scores, n - 1, axis=1)[:, :n], axis=1)
    order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
    return np.take_along_axis(best, order, 1)


def shared_words(text: str, description: str | None) -> float:
    """The share of a description's words of four letters or more that the text has, whatever their case.

    Names of fields and things that a vector blurs, "songs" or "bridges", tell the bearers of one name apart.
    """
    words = {word for word in fold(description or "").split() if len(word) >= _SHORTEST}
    return len(words & {*fold(text).split()}) / len(words) if words else 0.0
