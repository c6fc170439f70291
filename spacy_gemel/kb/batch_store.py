"""Results of batches on disk, from which an interrupted build resumes."""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.utils.files import digest, write_whole

Arrays = dict[str, NDArray[Any]]


class BatchStore:
    """The arrays made of each batch of texts, one .npz file each.

    The folder in `work` is named after `kind` and all settings that the batches depend on; folders of this kind with
    other settings are removed. Each file also holds a digest of its texts: the input may have changed, and back again.
    Raises OSError.
    """

    def __init__(self, work: Path, kind: str, settings: Sequence[Any]) -> None:
        self.folder = work / f"{kind}-{digest(settings)[:32]}"
        for folder in work.glob(f"{kind}-*"):
            if folder != self.folder:
                shutil.rmtree(folder)

    def __len__(self) -> int:
        """Number of batches."""
        return sum(1 for _ in self.folder.glob("*.npz"))

    def write(self, index: int, texts: Sequence[str], arrays: Arrays) -> None:
        """Store what was made of `texts`, whole or not at all. Raises OSError."""
        content: dict[str, Any] = {"texts": _texts_digest(texts), **arrays}
        with write_whole(self._path(index)) as partial, partial.open("wb") as file:
            np.savez(file, **content)

    def read(self, index: int, texts: Sequence[str]) -> Arrays | None:
        """What was made of `texts`; None if it is missing, of other texts, or damaged (zip has checksums)."""
        try:
            with np.load(self._path(index), allow_pickle=False) as file:
                arrays = dict(file)
        except Exception:  # the parsers of zip and numpy raise many kinds of errors on damaged bytes
            return None
        return arrays if np.array_equal(arrays.pop("texts", None), _texts_digest(texts)) else None

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:08d}.npz"


def _texts_digest(texts: Sequence[str]) -> NDArray[np.uint8]:
    """A digest (32,) of texts, their order and their lengths."""
    encoded = [text.encode("utf-8") for text in texts]
    lengths = np.array([len(text) for text in encoded], dtype="<i8")
    return np.frombuffer(hashlib.sha256(lengths.tobytes() + b"".join(encoded)).digest(), dtype=np.uint8)
