"""Which demonstrations a mention is shown: none, random ones, or those with the most similar mentions (Table 6)."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.bounded import BoundedCache
from spacy_gemel.frozen import FrozenModel

Embed = Callable[[Sequence[str]], NDArray[np.float32]]

_CACHED_MENTIONS = 20_000
_CACHED_RANKS = 64
_AT_ONCE = 64


class Retriever(Protocol):
    """Ranks demonstrations by their mention strings; only these are compared, never the texts around them."""

    frozen: FrozenModel[Any] | None

    def load(self, device: str, folder: Path | None = None) -> None:
        """Load the frozen model behind it, if there is one."""
        ...

    def index(self, mentions: Sequence[str]) -> None:
        """Take the mentions of all demonstrations, in their order; called again when they change."""
        ...

    def prepare(self, mentions: Sequence[str], n: int) -> None:
        """Hear of the mentions that will be ranked next, with n each: it may do its work for all of them at once."""
        ...

    def rank(self, mention: str, text: str, n: int) -> list[int]:
        """Up to n demonstrations, most similar first, equals in the order of the store."""
        ...


class NoRetriever:
    """Shows nothing."""

    frozen: FrozenModel[Any] | None = None

    def load(self, device: str, folder: Path | None = None) -> None:
        """See Retriever."""

    def index(self, mentions: Sequence[str]) -> None:
        """See Retriever."""

    def prepare(self, mentions: Sequence[str], n: int) -> None:
        """See Retriever."""

    def rank(self, mention: str, text: str, n: int) -> list[int]:
        """See Retriever."""
        return []


class RandomRetriever(NoRetriever):
    """Shows demonstrations at random, always the same ones for the same mention in the same text."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.size = 0

    def index(self, mentions: Sequence[str]) -> None:
        """See Retriever."""
        self.size = len(mentions)

    def rank(self, mention: str, text: str, n: int) -> list[int]:
        """See Retriever. Seeded by the mention and its text, so that the company of others changes nothing."""
        digest = hashlib.sha256(repr((self.seed, mention, text)).encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        return generator.choice(self.size, size=min(n, self.size), replace=False).tolist()


class SimilarityRetriever(NoRetriever):
    """Ranks by a score per demonstration; keeps the ranks of the mentions it has seen."""

    size = 0

    def __init__(self) -> None:
        self._ranks: BoundedCache[str, NDArray[np.int32]] = BoundedCache(_CACHED_MENTIONS)

    def scores(self, mentions: Sequence[str]) -> NDArray[np.floating]:
        """How similar each demonstration's mention is to each of some, (mentions, demonstrations)."""
        raise NotImplementedError

    def prepare(self, mentions: Sequence[str], n: int) -> None:
        """See Retriever."""
        n = min(n, self.size)
        if n > 0:
            self._rank([mention for mention in dict.fromkeys(mentions) if self._known(mention, n) is None], n)

    def rank(self, mention: str, text: str, n: int) -> list[int]:
        """See Retriever."""
        n = min(n, self.size)
        if n < 1:
            return []
        ranks = self._known(mention, n)
        if ranks is None:
            [ranks] = self._rank([mention], n)
        return ranks[:n].tolist()

    def _known(self, mention: str, n: int) -> NDArray[np.int32] | None:
        ranks = self._ranks.get(mention)
        return None if ranks is None or len(ranks) < n else ranks

    def _rank(self, mentions: Sequence[str], n: int) -> list[NDArray[np.int32]]:
        """The first n of each mention's ranks at least; kept."""
        ranks = []
        for start in range(0, len(mentions), _AT_ONCE):
            some = mentions[start : start + _AT_ONCE]
            for mention, scores in zip(some, self.scores(some), strict=True):
                order = np.argsort(-scores, kind="stable")[: max(n, _CACHED_RANKS)]
                ranks.append(self._ranks.put(mention, order.astype(np.int32)))
        return ranks


class BM25Retriever(SimilarityRetriever):
    """BM25 over the words of the mentions (rank_bm25's BM25Okapi)."""

    def index(self, mentions: Sequence[str]) -> None:
        """See Retriever."""
        from rank_bm25 import BM25Okapi

        self._ranks.clear()
        self.size = len(mentions)
        if mentions:
            self._bm25 = BM25Okapi([_words(mention) for mention in mentions])

    def scores(self, mentions: Sequence[str]) -> NDArray[np.floating]:
        """See SimilarityRetriever."""
        return np.stack([self._bm25.get_scores(_words(mention)) for mention in mentions])


class DenseRetriever(SimilarityRetriever):
    """Cosine similarity of embedded mention strings (the paper's SimCSE).

    frozen: the sentence encoder, mentions -> vectors (mentions, width).
    """

    def __init__(self, frozen: FrozenModel[Any]) -> None:
        super().__init__()
        self.frozen = frozen

    def load(self, device: str, folder: Path | None = None) -> None:
        """See Retriever."""
        assert self.frozen is not None
        self._embed: Embed = self.frozen.load(device, folder)

    def index(self, mentions: Sequence[str]) -> None:
        """See Retriever."""
        self._ranks.clear()
        self.size = len(mentions)
        distinct = list(dict.fromkeys(mentions))
        place = {mention: row for row, mention in enumerate(distinct)}
        self._distinct_of = np.array([place[mention] for mention in mentions], dtype=np.int64)
        if distinct:
            self._vectors = _unit(self._embed(distinct))  # (distinct mentions, width)

    def scores(self, mentions: Sequence[str]) -> NDArray[np.floating]:
        """See SimilarityRetriever."""
        similarity = _unit(self._embed(mentions)) @ self._vectors.T  # (mentions, distinct mentions)
        return similarity[:, self._distinct_of]


def _words(mention: str) -> list[str]:
    return mention.lower().split()


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
