"""The features of images as documents hold them; one bad image never takes down those beside it."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.images.feature_store import FeatureStore, content_key
from spacy_gemel.images.image import ImageError, read_image
from spacy_gemel.models.vision_encoder import VisionEncoder
from spacy_gemel.utils.cache import BoundedCache

_KEPT_BYTES = 256 * 2**20  # 65,000 images of 1,024 numbers, so that a training's images are encoded once
_DECODED_AT_ONCE = 32


class FeatureReader:
    """Reads and encodes images; those it has seen are not encoded again.

    kept_bytes: of features that are kept, beyond which those not used for longest go.
    store: features of the same encoder that were written to disk; an image that is not there is encoded.
    Another process gets it with nothing kept.
    """

    def __init__(
        self, encoder: VisionEncoder, kept_bytes: int = _KEPT_BYTES, store: FeatureStore | None = None
    ) -> None:
        self.encoder = encoder
        self.store = store
        self._kept: BoundedCache[str, NDArray[np.float32]] = BoundedCache(kept_bytes, _bytes_of)

    def __reduce__(self) -> tuple[object, tuple[VisionEncoder, int, FeatureStore | None]]:
        return FeatureReader, (self.encoder, self._kept.limit, self.store)

    def read(self, sources: Sequence[Any]) -> list[NDArray[np.float32] | ImageError | None]:
        """For each source (None: no image) its features (d_v,), None, or the error that says what is wrong."""
        results: list[NDArray[np.float32] | ImageError | None] = [None] * len(sources)
        for start in range(0, len(sources), _DECODED_AT_ONCE):
            self._read_chunk(sources[start : start + _DECODED_AT_ONCE], start, results)
        return results

    def _read_chunk(
        self, sources: Sequence[Any], start: int, results: list[NDArray[np.float32] | ImageError | None]
    ) -> None:
        """Read some sources into their places, `start` and following; only their images are decoded at once."""
        keys: dict[int, str] = {}
        images: dict[str, Any] = {}
        rows: dict[str, NDArray[np.float32]] = {}
        for index, source in enumerate(sources, start):
            if source is None:
                continue
            key = _key(source)
            kept = None if key is None else self._kept.get(key)
            if key is not None and kept is not None:
                rows[key] = kept
            elif key is not None and (stored := self._stored(source)) is not None:
                rows[key] = self._kept.put(key, stored)
            elif key is None or key not in images:
                try:
                    image = read_image(source)
                except ImageError as error:
                    results[index] = error
                    continue
                key = key or _key(np.asarray(image)) or ""
                images[key] = image
            keys[index] = key
        for name, row in zip(images, self.encoder.encode(list(images.values())), strict=True):
            # A copy: a row is a view that would hold the features of all images beside it.
            rows[name] = self._kept.put(name, row.copy())
        for index, key in keys.items():
            results[index] = rows[key]

    def _stored(self, source: Any) -> NDArray[np.float32] | None:
        content = None if self.store is None else content_key(source)
        return None if self.store is None or content is None else self.store.find(content)


def check_features(features: Any, width: int) -> NDArray[np.float32]:
    """Features that a user gives instead of an image, as (d_v,) in fp32. Raises ImageError if they do not fit."""
    array = np.asarray(features)
    if array.dtype.kind != "f" or array.shape != (width,):
        raise ImageError(
            f"image_features must be floats of shape ({width},), as this pipe's vision encoder gives them, "
            f"not {array.dtype} of shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ImageError("image_features must be finite numbers")
    return array.astype(np.float32)


def _bytes_of(row: NDArray[np.float32]) -> int:
    return row.nbytes


def _key(source: Any) -> str | None:
    """What tells one image from another, or None where that cannot be told without decoding it."""
    if isinstance(source, (str, os.PathLike)):
        try:
            status = Path(source).stat()
        except (OSError, ValueError):
            return None
        return f"path {os.fspath(source)} {status.st_mtime_ns} {status.st_size}"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "bytes " + hashlib.blake2b(source).hexdigest()
    if isinstance(source, np.ndarray) and source.dtype != object:
        shape = f"{source.dtype} {source.shape}"
        return f"array {shape} " + hashlib.blake2b(np.ascontiguousarray(source).tobytes()).hexdigest()
    return None
