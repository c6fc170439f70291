"""Memory-mapped arrays, and the hash indexes made of them: of entity ids, and of names and aliases."""

import hashlib
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from spacy_gemel.kb.entity import Entity, KBError


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write a one-dimensional array as ``.npy``, without pickle. Raises OSError."""
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        write_header(file, array.shape, array.dtype)
        # np.save does not report a full disk as such
        file.write(array.view(np.uint8).data)


def write_header(file: BinaryIO, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Begin an ``.npy`` file, whose numbers follow in rows. Raises OSError."""
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})


def open_array(path: Path, *dtypes: DTypeLike, ndim: int = 1) -> NDArray[Any]:
    """Memory-map a read-only array of one or two dimensions; only its header is read.

    The result is a plain ndarray over the mapping: slices of ``np.memmap`` itself cost several times as much.

    Raises:
        KBError: if the file is missing, truncated, too long or not ``.npy``, or has another shape or dtype.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise KBError(f"{path} is missing: build the KB again") from None
    except Exception as error:  # numpy's header parser raises many kinds of errors on damaged bytes
        raise KBError(f"{path} is truncated or not an array file ({error}): build the KB again") from error
    kinds = [np.dtype(dtype) for dtype in dtypes]
    if not isinstance(array, np.memmap) or array.ndim != ndim or array.dtype not in kinds:
        expected = f"{ndim}-D {' or '.join(map(str, kinds))} array"
        raise KBError(f"{path} does not hold a {expected}: build the KB again")
    # a header with a wrong length of its own would shift all numbers
    if array.offset + array.nbytes != path.stat().st_size:
        raise KBError(f"{path} has another size than its header gives: build the KB again")
    return np.asarray(array)


def hash_text(text: str) -> int:
    """A 64-bit hash that is the same on every machine."""
    # surrogatepass: no text in the KB has lone surrogates, but a query may
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def surface_key(text: str) -> str:
    """What all spellings of one title share: underscores count as spaces, the first letter's case does not count."""
    text = " ".join(unicodedata.normalize("NFC", text).replace("_", " ").split())
    return text[:1].upper() + text[1:]


def surface_hashes(entity: Entity) -> list[int]:
    """The distinct hashes of an entity's name and aliases."""
    keys = dict.fromkeys(surface_key(text) for text in (entity.name, *entity.aliases))
    return [hash_text(key) for key in keys if key]


@dataclass
class HashIndex:
    """Entity rows by the hash of a text: an id, or the key of a name or alias.

    Attributes:
        name: "ids" or "surfaces", with which the files' names begin.
        hashes: (n,) uint64, ascending.
        rows: (n,) int32, ascending among equal hashes.
        n_entities: no row is as large.
    """

    name: str
    hashes: NDArray[np.uint64]
    rows: NDArray[np.int32]
    n_entities: int

    @staticmethod
    def files(name: str) -> tuple[str, str]:
        """The files of an index: hashes and rows."""
        return f"{name}_hash.npy", f"{name}_row.npy"

    @classmethod
    def open(cls, folder: Path, name: str, n_entities: int) -> Self:
        """Memory-map an index. Raises KBError, also if the arrays differ in length."""
        hash_file, row_file = cls.files(name)
        hashes, rows = open_array(folder / hash_file, np.uint64), open_array(folder / row_file, np.int32)
        if len(hashes) != len(rows):
            raise KBError(f"{hash_file} and {row_file} differ in length: build the KB again")
        return cls(name, hashes, rows, n_entities)

    @classmethod
    def save(cls, folder: Path, name: str, hashes: NDArray[np.uint64], rows: NDArray[np.int32]) -> None:
        """Write the index of rows[i], ascending, under hashes[i]; both (n,). Raises OSError."""
        order = np.argsort(hashes, kind="stable")
        hash_file, row_file = cls.files(name)
        save_array(folder / hash_file, hashes[order])
        save_array(folder / row_file, rows[order])

    def candidates(self, text: str) -> list[int]:
        """Rows that may have this text, ascending; hashes can collide, so compare the texts. Raises KBError."""
        needle = np.uint64(hash_text(text))
        first, stop = (int(np.searchsorted(self.hashes, needle, side=side)) for side in ("left", "right"))
        rows: list[int] = self.rows[first:stop].tolist()
        if not all(0 <= row < self.n_entities for row in rows):
            raise KBError(f"{self.name}_row.npy is corrupt (python -m spacy_gemel check-kb KB_DIR): build the KB again")
        return rows
