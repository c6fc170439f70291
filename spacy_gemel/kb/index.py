"""Entity ids to rows: a sorted array of 64-bit hashes, memory-mapped, so that nothing is loaded whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.kb.arrays import open_array, save_array
from spacy_gemel.kb.errors import KBError

HASH_FILE = "ids_hash.npy"
ROW_FILE = "ids_row.npy"


def hash_id(kb_id: str) -> int:
    """A 64-bit hash of an id that is the same on every machine."""
    # surrogatepass: an id that cannot be in the KB is still one that can be asked for
    digest = hashlib.blake2b(kb_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


class IdIndex:
    """Rows of n entities by the hash of their id. Hashes can collide: the caller compares the ids themselves.

    hashes (n,) uint64 ascending, rows (n,) int32. Raises KBError if they differ in length.
    """

    def __init__(self, hashes: NDArray[np.uint64], rows: NDArray[np.int32]) -> None:
        if len(hashes) != len(rows):
            raise KBError(f"{HASH_FILE} and {ROW_FILE} differ in length: build the KB again")
        self.hashes = hashes
        self.rows = rows

    @classmethod
    def build(cls, hashes: NDArray[np.uint64]) -> IdIndex:
        """Index row i under hashes[i]: hashes (n,), n below 2**31."""
        order = np.argsort(hashes, kind="stable")
        return cls(hashes[order], order.astype(np.int32))

    @classmethod
    def open(cls, folder: Path) -> IdIndex:
        """Memory-map the index of a folder (raises KBError)."""
        return cls(open_array(folder / HASH_FILE, np.uint64), open_array(folder / ROW_FILE, np.int32))

    def save(self, folder: Path) -> None:
        """Write both arrays into a folder. Raises OSError."""
        save_array(folder / HASH_FILE, self.hashes)
        save_array(folder / ROW_FILE, self.rows)

    def candidates(self, kb_id: str) -> Iterator[int]:
        """Rows whose id has the same hash: nearly always none or one. Raises KBError for a corrupt row."""
        needle = np.uint64(hash_id(kb_id))
        index = int(np.searchsorted(self.hashes, needle))
        while index < len(self.hashes) and self.hashes[index] == needle:
            row = int(self.rows[index])
            if not 0 <= row < len(self.rows):
                raise KBError(f"{ROW_FILE} is corrupt (python -m spacy_gemel check-kb KB_DIR): build the KB again")
            yield row
            index += 1
