"""Choosing a mention's demonstrations: none, random ones, or those with the most similar mentions (Table 6)."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.linking.mention import Mention
from spacy_gemel.models.frozen import FrozenModel
from spacy_gemel.utils.cache import BoundedCache
from spacy_gemel.utils.messages import ModelWarning, excerpt, warn_once

FloatArray = NDArray[np.float32]
Embed = Callable[[Sequence[str]], FloatArray]

_CACHED_MENTIONS = 20_000
_CACHED_VECTORS = 4_000  # whose keys are the vectors themselves: 12 MB of a width of 768
_CACHED_RANKS = 64
_BATCH_SIZE = 64
# A mention's vectors before and after rounding, in fp16 too, have a larger cosine.
_SAME_VECTOR = 0.999


@dataclass(frozen=True, slots=True)
class Query:
    """A mention in its text: what demonstrations are chosen by."""

    mention: str
    text: str = ""
    vector: FloatArray | None = None  # its vector there, (width,), if `wants_vectors` is set and there is one
    features: FloatArray | None = None  # of its doc's image, (d_v,), if images are used; they break ties


class Retriever(Protocol):
    """Ranks demonstrations by their mentions."""

    frozen: FrozenModel[Any] | None = None  # the model behind it
    wants_vectors: bool = False  # whether it compares the vectors that the pipeline's transformer gave the mentions
    compares_strings: bool = False  # whether demonstrations of the same mention string are equally near to any query

    def load(self, device: str, folder: Path | None = None) -> None:
        """Load the frozen model, if there is one, for the next `index`."""
        return

    def index(self, mentions: Sequence[str], vectors: FloatArray | None = None) -> None:
        """Index the mentions of all demonstrations, in order; again if they change. vectors: a DemonstrationStore's."""
        return

    def prepare(self, queries: Sequence[Query], n: int) -> None:
        """Announce the queries that will be ranked next, with n each, so that work can be batched."""
        return

    def rank(self, query: Query, n: int) -> list[int]:
        """Indices of up to n demonstrations, most similar first; ties keep the order of the store."""
        ...


class NoRetriever(Retriever):
    """Shows no demonstrations."""

    def rank(self, query: Query, n: int) -> list[int]:
        """See Retriever."""
        return []


class RandomRetriever(Retriever):
    """Random demonstrations (paper Table 6), always the same ones for the same mention in the same text."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.size = 0

    def index(self, mentions: Sequence[str], vectors: FloatArray | None = None) -> None:
        """See Retriever."""
        self.size = len(mentions)

    def rank(self, query: Query, n: int) -> list[int]:
        """See Retriever. Seeded by mention and text, so that the other queries of a batch change nothing."""
        digest = hashlib.sha256(repr((self.seed, query.mention, query.text)).encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        return generator.choice(self.size, size=min(n, self.size), replace=False).tolist()


class SimilarityRetriever(Retriever):
    """Ranks by a score per demonstration, and caches the ranks by the part of a query that is compared."""

    size = 0

    def __init__(self, cache_size: int = _CACHED_MENTIONS) -> None:
        self._ranks: BoundedCache[Any, NDArray[np.int32]] = BoundedCache(cache_size)

    def key(self, query: Query) -> Any:
        """The part of a query that is compared, by default its mention; None if there is nothing to compare."""
        return query.mention

    def scores(self, keys: Sequence[Any]) -> NDArray[np.floating]:
        """Similarity of each demonstration to each key, (keys, demonstrations)."""
        raise NotImplementedError

    def prepare(self, queries: Sequence[Query], n: int) -> None:
        """See Retriever."""
        n = min(n, self.size)
        keys = dict.fromkeys(self.key(query) for query in queries) if n > 0 else {}
        new = [key for key in keys if key is not None and self._cached(key, n) is None]
        for start in range(0, len(new), _BATCH_SIZE):
            batch = new[start : start + _BATCH_SIZE]
            for key, scores in zip(batch, self.scores(batch), strict=True):
                self._put(key, scores, n)

    def rank(self, query: Query, n: int) -> list[int]:
        """See Retriever."""
        n = min(n, self.size)
        key = self.key(query) if n > 0 else None
        if key is None:
            return []
        ranks = self._cached(key, n)
        if ranks is None:
            ranks = self._put(key, self.scores([key])[0], n)
        return ranks[:n].tolist()

    def _cached(self, key: Any, n: int) -> NDArray[np.int32] | None:
        ranks = self._ranks.get(key)
        return None if ranks is None or len(ranks) < n else ranks

    def _put(self, key: Any, scores: NDArray[np.floating], n: int) -> NDArray[np.int32]:
        """Cache at least the first n ranks, and return them. scores: (demonstrations,)."""
        order = np.argsort(-scores, kind="stable")[: min(max(n, _CACHED_RANKS), self.size)]
        return self._ranks.put(key, order.astype(np.int32))


class BM25Retriever(SimilarityRetriever):
    """BM25 over the words of the mentions (paper Table 6; Robertson and Zaragoza 2009, as rank_bm25's BM25Okapi)."""

    compares_strings = True

    def index(self, mentions: Sequence[str], vectors: FloatArray | None = None) -> None:
        """See Retriever."""
        from rank_bm25 import BM25Okapi

        self._ranks.clear()
        self.size = len(mentions)
        if mentions:
            self._bm25 = BM25Okapi([_words(mention) for mention in mentions])

    def scores(self, keys: Sequence[str]) -> NDArray[np.floating]:
        """See SimilarityRetriever."""
        return np.stack([self._bm25.get_scores(_words(mention)) for mention in keys])


class VectorRetriever(SimilarityRetriever):
    """Cosine similarity of vectors, all of length 1."""

    @property
    def vectors(self) -> FloatArray:
        """Of the demonstrations, (demonstrations, width); zeros if one has none."""
        raise NotImplementedError

    def vectors_of(self, keys: Sequence[Any]) -> FloatArray:
        """Of some keys, (keys, width)."""
        raise NotImplementedError


class DenseRetriever(VectorRetriever):
    """Cosine similarity of embedded mention strings (the paper's, Table 6, with SimCSE, Gao et al. 2021).

    frozen: the sentence encoder, mentions -> vectors (mentions, width).
    """

    compares_strings = True

    def __init__(self, frozen: FrozenModel[Any]) -> None:
        super().__init__()
        self.frozen = frozen
        self._embed: Embed | None = None
        self._next_embed: Embed | None = None  # for the next index
        self._vectors = np.zeros((0, 0), dtype=np.float32)  # (distinct mentions, width)
        self._rows: dict[str, int] = {}  # row in _vectors by distinct mention

    def load(self, device: str, folder: Path | None = None) -> None:
        """See Retriever."""
        assert self.frozen is not None
        self._next_embed = self.frozen.load(device, folder)
        if self._embed is None:
            self._embed = self._next_embed

    @property
    def loaded(self) -> Embed | None:
        """The sentence encoder of the next `index`; the linker checks its files before it bundles them."""
        return self._next_embed

    def index(self, mentions: Sequence[str], vectors: FloatArray | None = None) -> None:
        """See Retriever. Embeds only the mentions that it has not embedded before."""
        assert self._next_embed is not None
        known = self._rows if self._next_embed is self._embed else {}
        old = [mention for mention in dict.fromkeys(mentions) if mention in known]
        new = [mention for mention in dict.fromkeys(mentions) if mention not in known]
        rows = [self._vectors[[known[mention] for mention in old]]] if old else []
        rows += [unit(self._next_embed(new))] if new else []
        self._vectors = np.concatenate(rows) if rows else self._vectors
        self._embed = self._next_embed
        self._rows = {mention: row for row, mention in enumerate([*old, *new])}
        self._distinct_of = np.array([self._rows[mention] for mention in mentions], dtype=np.int64)
        self.size = len(mentions)
        self._ranks.clear()

    @property
    def vectors(self) -> FloatArray:
        """See VectorRetriever."""
        return self._vectors[self._distinct_of]

    def vectors_of(self, keys: Sequence[str]) -> FloatArray:
        """See VectorRetriever."""
        assert self._embed is not None
        return unit(self._embed(keys))

    def scores(self, keys: Sequence[str]) -> NDArray[np.floating]:
        """See SimilarityRetriever."""
        similarity = self.vectors_of(keys) @ self._vectors.T  # (mentions, distinct mentions)
        return similarity[:, self._distinct_of]


class TransformerRetriever(VectorRetriever):
    """Cosine similarity of the vectors that the pipeline's own transformer gave the mentions in their texts.

    A demonstration without a vector is never shown; a query without one gets no demonstrations.
    """

    wants_vectors = True

    def __init__(self) -> None:
        super().__init__(_CACHED_VECTORS)

    def index(self, mentions: Sequence[str], vectors: FloatArray | None = None) -> None:
        """See Retriever."""
        self._ranks.clear()
        vectors = np.zeros((len(mentions), 0), dtype=np.float32) if vectors is None else vectors
        present = np.isfinite(vectors).all(axis=1) & (vectors.shape[1] > 0)
        self._absent = np.flatnonzero(~present)
        self._vectors = unit(np.where(present[:, None], vectors, 0).astype(np.float32))  # (mentions, width)
        self.size = int(present.sum())

    def key(self, query: Query) -> bytes | None:
        """The vector as bytes. Raises ValueError if it has another width than the demonstrations'."""
        if query.vector is None:
            return None
        width, expected = len(query.vector), self._vectors.shape[1]
        if width != expected:
            raise ValueError(
                f"retriever: the pipeline's transformer gives {query.mention!r} a vector of width {width}, the "
                f"demonstrations' are of width {expected}: they come from another transformer. Put back the one that "
                "the linker was trained with, or train the linker again."
            )
        return query.vector.astype(np.float32).tobytes()

    @property
    def vectors(self) -> FloatArray:
        """See VectorRetriever."""
        return self._vectors

    def vectors_of(self, keys: Sequence[bytes]) -> FloatArray:
        """See VectorRetriever."""
        return unit(np.frombuffer(b"".join(keys), dtype=np.float32).reshape(len(keys), -1))

    def scores(self, keys: Sequence[bytes]) -> NDArray[np.floating]:
        """See SimilarityRetriever."""
        # Rounded, so that ties keep the order of the store whatever else is in the batch.
        similarity = np.round(self.vectors_of(keys) @ self._vectors.T, 6)  # (keys, mentions)
        similarity[:, self._absent] = -np.inf  # behind all others: `rank` returns `size` at most
        return similarity


def _words(mention: str) -> list[str]:
    return mention.lower().split()


def unit(vectors: FloatArray) -> FloatArray:
    """Each row of (rows, width) at length 1; a row of zeros stays."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def warn_changed_vectors(
    owner: object,
    mentions: Sequence[Mention],
    vectors: FloatArray | None,
    demonstrations_of: Mapping[tuple[str, str], Iterable[int]],
) -> None:
    """Warn `owner` once if the transformer no longer gives a training mention the vector of its demonstration.

    vectors: of the demonstrations, (demonstrations, width); demonstrations_of: their indices by (mention, text).
    """
    for mention in mentions:
        vector = mention.vector
        if vector is None or vectors is None or vector.shape != vectors.shape[1:]:  # another width: `key` raises
            continue
        rows = [vectors[index] for index in demonstrations_of.get((mention.mention, mention.text), ())]
        cosine = max((_cosine(vector, row) for row in rows if np.isfinite(row).all()), default=1.0)
        if cosine < _SAME_VECTOR:
            message = (
                "gemel_linker: the pipeline's transformer has changed since the demonstrations were collected "
                f"({mention.mention!r} in {excerpt(mention.text)}: a cosine of {cosine:.3f} with its vector at that "
                "time), so the choice of demonstrations becomes arbitrary. Train the transformer with its NER "
                "beforehand, and name it in frozen_components while the linker is trained. This warning is given once."
            )
            warn_once(owner, message, ModelWarning, "changed vectors")
            return


def _cosine(first: FloatArray, second: FloatArray) -> float:
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / norm if norm else 1.0
