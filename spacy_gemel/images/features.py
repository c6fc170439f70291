"""The features of images as documents hold them; one bad image never takes down the others."""

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

_CACHE_BYTES = 256 * 2**20  # 65,000 images of 1,024 numbers, so that a training's images are encoded once
_CHUNK = 32  # images decoded at once


class FeatureReader:
    """Encodes the images that are neither cached nor stored; `store` holds features of the same encoder on disk.

    Beyond `cache_bytes` the least recently used features go. Pickling leaves out the cache.
    """

    def __init__(
        self, encoder: VisionEncoder, cache_bytes: int = _CACHE_BYTES, store: FeatureStore | None = None
    ) -> None:
        self.encoder = encoder
        self.store = store
        self._cache = BoundedCache[str | bytes, NDArray[np.float32]](cache_bytes, lambda row: row.nbytes)

    def __reduce__(self) -> tuple[object, tuple[VisionEncoder, int, FeatureStore | None]]:
        return FeatureReader, (self.encoder, self._cache.limit, self.store)

    def read(self, sources: Sequence[Any]) -> list[NDArray[np.float32] | ImageError | None]:
        """For each source (None: no image) its features (d_v,), None, or the error that says what is wrong."""
        chunks = (sources[start : start + _CHUNK] for start in range(0, len(sources), _CHUNK))
        return [result for chunk in chunks for result in self._read_chunk(chunk)]

    def _read_chunk(self, sources: Sequence[Any]) -> list[NDArray[np.float32] | ImageError | None]:
        """`read` for sources that may be decoded all at once."""
        results: list[NDArray[np.float32] | ImageError | None] = [None] * len(sources)
        keys: dict[int, str | bytes] = {}
        images: dict[str | bytes, Any] = {}
        rows: dict[str | bytes, NDArray[np.float32]] = {}
        for index, source in enumerate(sources):
            if source is None:
                continue
            try:
                key, image = _cache_key(source), None
                if key is None:  # a PIL image, known by its pixels
                    image = read_image(source)
                    key = content_key(np.asarray(image)) or b""
                row = self._cache.get(key)
                if row is None and self.store is not None and (content := content_key(source)) is not None:
                    row = self.store.find(content)
                    if row is not None:
                        self._cache.put(key, row)
                if row is not None:
                    rows[key] = row
                elif key not in images:
                    images[key] = image or read_image(source)
            except ImageError as error:
                results[index] = error
                continue
            keys[index] = key
        for key, row in zip(images, self.encoder.encode(list(images.values())), strict=True):
            # A copy: a row is a view, which would hold the features of the whole batch.
            rows[key] = self._cache.put(key, row.copy())
        return [rows[keys[index]] if index in keys else result for index, result in enumerate(results)]


def check_features(features: Any, width: int) -> NDArray[np.float32]:
    """Features that a doc holds instead of an image, as (width,) in fp32. Raises ImageError if they do not fit."""
    array = np.asarray(features)
    if array.dtype.kind != "f" or array.shape != (width,):
        shape = f"({width},), as this pipe's vision encoder returns them"
        raise ImageError(f"image_features must be floats of shape {shape}, not {array.dtype} of shape {array.shape}")
    if not np.isfinite(array).all():
        raise ImageError("image_features must be finite numbers")
    return array.astype(np.float32)


def _cache_key(source: Any) -> str | bytes | None:
    """A key by which images differ; None for one that must be decoded first."""
    if isinstance(source, (str, os.PathLike)):
        try:
            status = Path(source).stat()
        except (OSError, ValueError):
            return None
        return f"path {os.fspath(source)} {status.st_mtime_ns} {status.st_size}"
    return content_key(source)
