"""A few fixed sets of demonstrations, so that a language model reads each once and not with every mention."""

import warnings
from collections.abc import Sequence

import numpy as np

from spacy_gemel.linking.demonstrations import DemonstrationStore
from spacy_gemel.linking.retrievers import FloatArray, Query, VectorRetriever, unit
from spacy_gemel.utils.cache import BoundedCache

_CACHED_MENTIONS = 20_000
_ITERATIONS = 20
_SEED = 0


class DemonstrationSets:
    """The training mentions in clusters by their vectors (k-means), and demonstrations from the middle of each.

    The paper retrieves demonstrations for each mention (section 3.2); this trades some of their likeness for speed.

    Args:
        store: all demonstrations.
        retriever: has their vectors, and gives those of queries.
        count: clusters; there are fewer if there are fewer different vectors.
        size: demonstrations in a set. No two are of one entity.
    """

    def __init__(self, store: DemonstrationStore, retriever: VectorRetriever, count: int, size: int) -> None:
        self.retriever = retriever
        self._nearest: BoundedCache[object, int] = BoundedCache(_CACHED_MENTIONS)
        vectors = retriever.vectors  # (demonstrations, width)
        present = np.flatnonzero(vectors.any(axis=1))
        self.centres = unit(_centres(vectors[present], count))  # (sets, width)
        self.sets: list[list[int]] = []
        for similarity in self.centres @ vectors[present].T:  # (demonstrations,)
            of_entity: dict[str, int] = {}
            for position in np.argsort(-similarity, kind="stable"):
                of_entity.setdefault(store[present[position]].kb_id, int(present[position]))
                if len(of_entity) >= size:
                    break
            self.sets.append([*of_entity.values()])

    def prepare(self, queries: Sequence[Query]) -> None:
        """Find the sets of the queries that are ranked next, in one batch."""
        keys = dict.fromkeys(self.retriever.key(query) for query in queries) if self.sets else {}
        new = [key for key in keys if key is not None and self._nearest.get(key) is None]
        if new:
            for key, nearest in zip(new, (self.retriever.vectors_of(new) @ self.centres.T).argmax(1), strict=True):
                self._nearest.put(key, int(nearest))

    def rank(self, query: Query) -> list[int]:
        """The set whose centre is nearest to a query, as indices in the store, nearest to its centre first."""
        self.prepare([query])
        nearest = self._nearest.get(self.retriever.key(query))
        return [] if nearest is None else self.sets[nearest]


def _centres(vectors: FloatArray, count: int) -> FloatArray:
    """The centres of clusters, (at most count, width), of vectors, (n, width)."""
    from scipy.cluster.vq import kmeans2

    distinct = np.unique(vectors, axis=0)
    if len(distinct) <= count:
        return distinct
    first = distinct[np.random.default_rng(_SEED).choice(len(distinct), count, replace=False)]
    with warnings.catch_warnings(action="ignore"):  # of clusters that nothing is nearest to: they keep their centres
        centres, _ = kmeans2(vectors, first, iter=_ITERATIONS, minit="matrix")
    return np.asarray(centres, dtype=np.float32)
