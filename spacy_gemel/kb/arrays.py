"""Plain one-dimensional ``.npy`` arrays: written, and opened memory-mapped without trusting them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from spacy_gemel.kb.errors import KBError


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write one one-dimensional array as ``.npy``, without pickle. Raises OSError."""
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        # np.save does not say of a full disk that it is full
        file.write(array.view(np.uint8).data)


def open_array(path: Path, *dtypes: DTypeLike) -> NDArray[Any]:
    """Memory-map one read-only, one-dimensional array.

    Only the header is read. The result is a plain ndarray over the mapping: slices of ``np.memmap``
    itself cost several times as much as the look-up they serve.

    Raises KBError when the file is missing, truncated, longer than its header says, no ``.npy`` file, or holds
    another dtype than one of ``dtypes`` or another shape.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise KBError(f"The knowledge base lacks {path}: build it again") from None
    except Exception as error:  # damaged bytes make numpy's parser of headers raise this and that
        raise KBError(f"{path} is truncated or no array file ({error}): build the KB again") from error
    if not isinstance(array, np.memmap) or array.ndim != 1 or array.dtype not in [np.dtype(dtype) for dtype in dtypes]:
        wanted = " or ".join(str(np.dtype(dtype)) for dtype in dtypes)
        raise KBError(f"{path} does not hold a one-dimensional {wanted} array: build the KB again")
    # a header that is said to be shorter than it is would shift all numbers
    if array.offset + array.nbytes != path.stat().st_size:
        raise KBError(f"{path} has another size than its header says: build the KB again")
    return np.asarray(array)
