"""The features of images as documents hold them; one bad image never takes down the others."""

import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.images.feature_store import FeatureStore, content_key
from spacy_gemel.images.image import ImageError, as_image_error, read_image, to_plain
from spacy_gemel.models.memory import is_out_of_memory
from spacy_gemel.models.vision_encoder import BATCH, VisionEncoder
from spacy_gemel.utils.cache import BoundedCache

if TYPE_CHECKING:
    import torch

_CACHE_BYTES = 256 * 2**20  # 65,000 images of 1,024 numbers, so that a training's images are encoded once
_CHUNK = 32  # images held at once, as the encoder takes them; they are decoded one by one


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
        """`read` for sources whose pixels may be held at once."""
        results: list[NDArray[np.float32] | ImageError | None] = [None] * len(sources)
        keys: dict[int, str | bytes] = {}
        pixels: dict[str | bytes, torch.Tensor] = {}
        rows: dict[str | bytes, NDArray[np.float32] | ImageError] = {}
        for index, source in enumerate(sources):
            if source is None:
                continue
            try:
                source, image = to_plain(source), None
                key = _cache_key(source)
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
                elif key not in pixels:
                    pixels[key] = self.encoder.preprocess(image or read_image(source))
            except Exception as error:  # whatever one source raises, the others are read
                results[index] = as_image_error(error)
                continue
            keys[index] = key
        encoded = dict(zip(pixels, encode_each(self.encoder, [*pixels.values()]), strict=True))
        for key, features in encoded.items():
            # A copy: they are a view, which would hold the features of the whole batch.
            rows[key] = features if isinstance(features, ImageError) else self._cache.put(key, features.copy())
        return [rows[keys[index]] if index in keys else result for index, result in enumerate(results)]


def encode_each(encoder: VisionEncoder, pixels: "Sequence[torch.Tensor]") -> list[NDArray[np.float32] | ImageError]:
    """The features (d_v,) of each image, as `preprocess` returns it, or why there are none."""
    results: list[NDArray[np.float32] | ImageError] = []
    for start in range(0, len(pixels), BATCH):
        batch = pixels[start : start + BATCH]
        try:
            rows = [*encoder.encode_pixels(batch)]
        except Exception as error:
            if is_out_of_memory(error):
                raise
            if len(pixels) == 1:
                return [as_image_error(error)]
            results += (row for each in batch for row in encode_each(encoder, [each]))
            continue
        missing = ImageError("the encoder gives no finite numbers for it")
        results += (row if np.isfinite(row).all() else missing for row in rows)
    return results


def check_features(features: Any, width: int) -> NDArray[np.float32]:
    """Features that a doc holds instead of an image, as (width,) in fp32. Raises ImageError if they do not fit."""
    array = np.asarray(to_plain(features))
    if array.dtype.kind != "f" or array.shape != (width,):
        shape = f"({width},), as this pipe's vision encoder returns them"
        raise ImageError(f"image_features must be floats of shape {shape}, not {array.dtype} of shape {array.shape}")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise ImageError("image_features must be finite numbers, also in 32 bits")
    return array


def _cache_key(source: Any) -> str | bytes | None:
    """A key by which images differ; None for one that must be decoded first."""
    if isinstance(source, str):
        try:
            status = Path(source).stat()
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return f"path {Path(source).absolute()} {status.st_ino} {status.st_mtime_ns} {status.st_size}"
    return content_key(source)
