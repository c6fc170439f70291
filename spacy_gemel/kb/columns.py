"""What a build keeps of all entities in memory: a few numbers each, nothing of their text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.name_tokens import TokenisedNames
from spacy_gemel.kb.surfaces import surface_hashes
from spacy_gemel.kb.trie import TokenArray


@dataclass(slots=True)
class Columns:
    """The numbers of all entities, batch by batch, each batch a one-dimensional array.

    hashes, counts   one number per entity
    tokens           the names that can enter the trie, one after the other
    lengths, rows    tokens and entity row of each of these names
    surfaces         hash of each name and alias of the entities, and the entity's row
    """

    hashes: list[NDArray[np.uint64]] = field(default_factory=list)
    counts: list[NDArray[np.int64]] = field(default_factory=list)
    tokens: list[TokenArray] = field(default_factory=list)
    lengths: list[NDArray[np.uint8]] = field(default_factory=list)
    rows: list[NDArray[np.int32]] = field(default_factory=list)
    surfaces: list[NDArray[np.uint64]] = field(default_factory=list)
    surface_rows: list[NDArray[np.int32]] = field(default_factory=list)
    n_entities: int = 0
    n_names: int = 0

    def add(self, hashes: Sequence[int], entities: Sequence[Entity], names: TokenisedNames) -> None:
        """Append a batch of entities, n of them, with the hashes of their ids (n) and their tokenised names."""
        self.hashes.append(np.array(hashes, dtype=np.uint64))
        self.counts.append(np.array([entity.count for entity in entities], dtype=np.int64))
        surfaces = [(index, hashed) for index, some in surface_hashes(entities) for hashed in some]
        self.surfaces.append(np.array([hashed for _, hashed in surfaces], dtype=np.uint64))
        self.surface_rows.append(np.array([index for index, _ in surfaces], dtype=np.int32) + np.int32(self.n_entities))
        self.tokens.append(names.tokens)
        self.lengths.append(names.lengths)
        self.rows.append((names.indices + self.n_entities).astype(np.int32))
        self.n_entities += len(entities)
        self.n_names += len(names.lengths)
