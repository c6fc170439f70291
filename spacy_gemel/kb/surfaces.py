"""Names and aliases to rows: a sorted array of 64-bit hashes, memory-mapped, so that nothing is loaded whole."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.kb.arrays import open_array, save_array
from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.errors import KBError
from spacy_gemel.kb.index import hash_id

SURFACE_HASH_FILE = "surfaces_hash.npy"
SURFACE_ROW_FILE = "surfaces_row.npy"


def surface_key(text: str) -> str:
    """What two spellings of one title share: underscores are spaces, and the first letter's case does not count."""
    text = " ".join(unicodedata.normalize("NFC", text).replace("_", " ").split())
    return text[:1].upper() + text[1:]


def surface_hashes(entities: Iterable[Entity]) -> Iterator[tuple[int, list[int]]]:
    """For each entity its place and the hashes of its name and aliases, each once."""
    for index, entity in enumerate(entities):
        keys = dict.fromkeys(surface_key(text) for text in (entity.name, *entity.aliases))
        yield index, [hash_id(key) for key in keys if key]


class SurfaceIndex:
    """Rows of the entities by the hash of their names and aliases. Hashes collide: the caller compares the texts.

    hashes (n,) uint64 ascending, rows (n,) int32, of equal hashes ascending. Raises KBError where their lengths differ.
    """

    def __init__(self, hashes: NDArray[np.uint64], rows: NDArray[np.int32]) -> None:
        if len(hashes) != len(rows):
            raise KBError(f"{SURFACE_HASH_FILE} and {SURFACE_ROW_FILE} differ in length: build the KB again")
        self.hashes = hashes
        self.rows = rows

    @classmethod
    def build(cls, hashes: NDArray[np.uint64], rows: NDArray[np.int32]) -> SurfaceIndex:
        """Index rows[i], ascending, under hashes[i]; both (n,)."""
        order = np.argsort(hashes, kind="stable")
        return cls(hashes[order], rows[order])

    @classmethod
    def open(cls, folder: Path) -> SurfaceIndex:
        """Memory-map the index of a folder (raises KBError)."""
        return cls(open_array(folder / SURFACE_HASH_FILE, np.uint64), open_array(folder / SURFACE_ROW_FILE, np.int32))

    def save(self, folder: Path) -> None:
        """Write both arrays into a folder. Raises OSError."""
        save_array(folder / SURFACE_HASH_FILE, self.hashes)
        save_array(folder / SURFACE_ROW_FILE, self.rows)

    def candidates(self, key: str) -> list[int]:
        """Rows that may have a name or alias with this ``surface_key``, ascending."""
        needle = np.uint64(hash_id(key))
        first, stop = (int(np.searchsorted(self.hashes, needle, side=side)) for side in ("left", "right"))
        return self.rows[first:stop].tolist()
