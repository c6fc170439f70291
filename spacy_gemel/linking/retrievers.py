"""Which demonstrations a mention is shown: none, random ones, or those with the most similar mentions (Table 6)."""

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.models.frozen import FrozenModel
from spacy_gemel.utils.cache import BoundedCache

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
Vectors = NDArray[np.float32]
KeyT = TypeVar("KeyT", bound=Hashable)

_CACHED_MENTIONS = 20_000
_CACHED_VECTORS = 4_000  # whose keys are the vectors themselves: 12 MB of a width of 768
_CACHED_RANKS = 64
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for: a mention, the text it stands in, and the vector it has there.

    vector: (width,), None where the retriever does not want it (`wants_vectors`), or there is none.
    """

    mention: str
    text: str = ""
    vector: Vectors | None = None


class Retriever(Protocol):
    """Ranks demonstrations by their mentions.

    wants_vectors: whether these are compared by the vectors that the pipeline's transformer gave them.
    """

    frozen: FrozenModel[Any] | None
    wants_vectors: bool

    def load(self, device: str, folder: Path | None = None) -> None:
        """Load the frozen model behind it, if there is one, for the next `index`."""
        ...

    def index(self, mentions: Sequence[str], vectors: Vectors | None = None) -> None:
        """Take the mentions of all demonstrations, in their order; called again when they change.

        vectors: (mentions, width), a row of NaN for a mention that has none; None where no mention has.
        """
        ...

    def prepare(self, queries: Sequence[Query], n: int) -> None:
        """Hear of what will be ranked next, with n each: it may do its work for all of it at once."""
        ...

    def rank(self, query: Query, n: int) -> list[int]:
        """Up to n demonstrations, most similar first, equals in the order of the store."""
        ...


class NoRetriever:
    """Shows nothing."""

    frozen: FrozenModel[Any] | None = None
    wants_vectors = False

    def load(self, device: str, folder: Path | None = None) -> None:
        """See Retriever."""

    def index(self, mentions: Sequence[str], vectors: Vectors | None = None) -> None:
        """See Retriever."""

    def prepare(self, queries: Sequence[Query], n: int) -> None:
        """See Retriever."""

    def rank(self, query: Query, n: int) -> list[int]:
        """See Retriever."""
        return []


class RandomRetriever(NoRetriever):
    """Shows demonstrations at random (paper Table 6), always the same ones for the same mention in the same text."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.size = 0

    def index(self, mentions: Sequence[str], vectors: Vectors | None = None) -> None:
        """See Retriever."""
        self.size = len(mentions)

    def rank(self, query: Query, n: int) -> list[int]:
        """See Retriever. Seeded by the mention and its text, so that the company of others changes nothing."""
        digest = hashlib.sha256(repr((self.seed, query.mention, query.text)).encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        return generator.choice(self.size, size=min(n, self.size), replace=False).tolist()


class SimilarityRetriever(NoRetriever, Generic[KeyT]):
    """Ranks by a score per demonstration; keeps the ranks of what it has seen, under what it compares of a query."""

    size = 0

    def __init__(self, cached: int = _CACHED_MENTIONS) -> None:
        self._ranks: BoundedCache[KeyT, NDArray[np.int32]] = BoundedCache(cached)

    def key(self, query: Query) -> KeyT | None:
        """All that is compared of a query; None where there is nothing to compare."""
        raise NotImplementedError

    def scores(self, keys: Sequence[KeyT]) -> NDArray[np.floating]:
        """How similar each demonstration is to each of some keys, (keys, demonstrations)."""
        raise NotImplementedError

    def prepare(self, queries: Sequence[Query], n: int) -> None:
        """See Retriever."""
        n = min(n, self.size)
        if n > 0:
            keys = [key for query in queries if (key := self.key(query)) is not None]
            self._rank([key for key in dict.fromkeys(keys) if self._known(key, n) is None], n)

    def rank(self, query: Query, n: int) -> list[int]:
        """See Retriever."""
        n = min(n, self.size)
        key = self.key(query) if n > 0 else None
        if key is None:
            return []
        ranks = self._known(key, n)
        if ranks is None:
            [ranks] = self._rank([key], n)
        return ranks[:n].tolist()

    def _known(self, key: KeyT, n: int) -> NDArray[np.int32] | None:
        ranks = self._ranks.get(key)
        return None if ranks is None or len(ranks) < n else ranks

    def _rank(self, keys: Sequence[KeyT], n: int) -> list[NDArray[np.int32]]:
        """The first n of each key's ranks at least; kept."""
        ranks = []
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            for key, scores in zip(some, self.scores(some), strict=True):
                order = np.argsort(-scores, kind="stable")[: min(max(n, _CACHED_RANKS), self.size)]
                ranks.append(self._ranks.put(key, order.astype(np.int32)))
        return ranks


class MentionRetriever(SimilarityRetriever[str]):
    """Compares mention strings, never the texts around them."""

    def key(self, query: Query) -> str:
        """See SimilarityRetriever."""
        return query.mention


class BM25Retriever(MentionRetriever):
    """BM25 over the words of the mentions (paper Table 6; Robertson and Zaragoza 2009, as rank_bm25's BM25Okapi)."""

    def index(self, mentions: Sequence[str], vectors: Vectors | None = None) -> None:
        """See Retriever."""
        from rank_bm25 import BM25Okapi

        self._ranks.clear()
        self.size = len(mentions)
        if mentions:
            self._bm25 = BM25Okapi([_words(mention) for mention in mentions])

    def scores(self, keys: Sequence[str]) -> NDArray[np.floating]:
        """See SimilarityRetriever."""
        return np.stack([self._bm25.get_scores(_words(mention)) for mention in keys])


class DenseRetriever(MentionRetriever):
    """Cosine similarity of embedded mention strings (the paper's, Table 6, with SimCSE, Gao et al. 2021).

    frozen: the sentence encoder, mentions -> vectors (mentions, width).
    """

    def __init__(self, frozen: FrozenModel[Any]) -> None:
        super().__init__()
        self.frozen = frozen
        self._embed: Embed | None = None
        self._loaded: Embed | None = None  # what the next index is made by
        self._vectors = np.zeros((0, 0), dtype=np.float32)  # (distinct mentions, width)
        self._places: dict[str, int] = {}  # of each distinct mention its row there

    def load(self, device: str, folder: Path | None = None) -> None:
        """See Retriever."""
        assert self.frozen is not None
        self._loaded = self.frozen.load(device, folder)
        if self._embed is None:
            self._embed = self._loaded

    @property
    def loaded(self) -> Embed | None:
        """The sentence encoder that made the vectors; None before it is loaded."""
        return self._embed

    def index(self, mentions: Sequence[str], vectors: Vectors | None = None) -> None:
        """See Retriever. Embeds those mentions alone that it did not have before."""
        assert self._loaded is not None
        known = self._places if self._loaded is self._embed else {}
        distinct = dict.fromkeys(mentions)
        kept = [mention for mention in distinct if mention in known]
        new = [mention for mention in distinct if mention not in known]
        rows = [self._vectors[[known[mention] for mention in kept]]] if kept else []
        if new:
            rows.append(_unit(self._loaded(new)))
        if rows:
            self._vectors = np.concatenate(rows)
        self._embed = self._loaded
        self._places = {mention: row for row, mention in enumerate([*kept, *new])}
        self._distinct_of = np.array([self._places[mention] for mention in mentions], dtype=np.int64)
        self.size = len(mentions)
        self._ranks.clear()

    def scores(self, keys: Sequence[str]) -> NDArray[np.floating]:
        """See SimilarityRetriever."""
        assert self._embed is not None
        similarity = _unit(self._embed(keys)) @ self._vectors.T  # (mentions, distinct mentions)
        return similarity[:, self._distinct_of]


class TransformerRetriever(SimilarityRetriever[bytes]):
    """Cosine similarity of the vectors that the pipeline's own transformer gave the mentions in their texts.

    A demonstration without a vector is never shown; a query without one is shown nothing.
    """

    wants_vectors = True

    def __init__(self) -> None:
        super().__init__(_CACHED_VECTORS)
        self._vectors = np.zeros((0, 0), dtype=np.float32)

    def index(self, mentions: Sequence[str], vectors: Vectors | None = None) -> None:
        """See Retriever."""
        self._ranks.clear()
        if vectors is None:
            vectors = np.full((len(mentions), 0), np.nan, dtype=np.float32)
        there = np.isfinite(vectors).all(axis=1) & (vectors.shape[1] > 0)
        self._absent = np.flatnonzero(~there)
        self._vectors = _unit(np.where(there[:, None], vectors, 0).astype(np.float32))  # (mentions, width)
        self.size = int(there.sum())

    def key(self, query: Query) -> bytes | None:
        """See SimilarityRetriever. Raises ValueError for a vector of another width than the demonstrations'."""
        if query.vector is None:
            return None
        width = self._vectors.shape[1]
        if len(query.vector) != width:
            raise ValueError(
                f"retriever: the pipeline's transformer gives {query.mention!r} a vector of width {len(query.vector)}, "
                f"the demonstrations' are of width {width}: they were made by another transformer. Put back the one "
                "that the linker was trained behind, or train the linker again."
            )
        return query.vector.astype(np.float32).tobytes()

    def scores(self, keys: Sequence[bytes]) -> NDArray[np.floating]:
        """See SimilarityRetriever."""
        vectors = np.frombuffer(b"".join(keys), dtype=np.float32).reshape(len(keys), -1)
        # rounded, so that the order of equals is the store's, whatever company a query is computed in
        similarity = np.round(_unit(vectors) @ self._vectors.T, 6)  # (keys, mentions)
        similarity[:, self._absent] = -np.inf  # behind all others, where no rank that is given out reaches
        return similarity


def _words(mention: str) -> list[str]:
    return mention.lower().split()


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
