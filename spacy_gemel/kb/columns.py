"""What a build keeps of all entities in memory: a few numbers each, nothing of their text."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.kb.names import TokenisedNames
from spacy_gemel.kb.trie import TokenArray


@dataclass(slots=True)
class Columns:
    """The numbers of all entities, batch by batch.

    hashes, counts   one number per entity
    tokens           the names that can enter the trie, one after the other
    lengths, rows    tokens and entity row of each of these names
    """

    hashes: list[NDArray[np.uint64]] = field(default_factory=list)
    counts: list[NDArray[np.int64]] = field(default_factory=list)
    tokens: list[TokenArray] = field(default_factory=list)
    lengths: list[NDArray[np.uint8]] = field(default_factory=list)
    rows: list[NDArray[np.int32]] = field(default_factory=list)
    n_entities: int = 0
    n_names: int = 0

    def add(self, hashes: NDArray[np.uint64], counts: NDArray[np.int64], names: TokenisedNames) -> None:
        """Append a batch of entities: the hashes (n,) of their ids, their counts (n,) and their names."""
        self.hashes.append(hashes)
        self.counts.append(counts)
        self.tokens.append(names.tokens)
        self.lengths.append(names.lengths)
        self.rows.append((names.places + self.n_entities).astype(np.int32))
        self.n_entities += len(counts)
        self.n_names += len(names.lengths)
