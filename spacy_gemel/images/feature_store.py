"""Features of images on disk: encoded once by `encode-images`, looked up by the images' content.

A folder holds meta.json and shards NNNNN.keys.npy (images, 16) uint8 and NNNNN.rows.npy (images, d_v) float32, both
memory-mapped. A shard counts once meta.json lists it, so that an interrupt leaves only whole shards.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.images.image import MAX_BYTES, to_plain
from spacy_gemel.models.frozen import FrozenModel
from spacy_gemel.models.vision_encoder import VisionEncoder
from spacy_gemel.utils.files import read_regular, resolve, write_json, write_whole
from spacy_gemel.utils.messages import DataWarning, warn

_FORMAT = "spacy-gemel-features"
_VERSION = 1
_META = "meta.json"
_KEY_BYTES = 16
_SHARD_ROWS = 4096
_SHARD_SECONDS = 60.0
# Machines round differently, and convolutions on a GPU may run in TF32; other pixels make far larger differences.
_TOLERANCE = 5e-3
_HALF_PRECISION_TOLERANCE = 5e-2

Features = NDArray[np.float32]


class FeatureStoreError(ValueError):
    """A folder of features that cannot be used; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class EncoderFingerprint:
    """Tells the features of one vision encoder from those of another."""

    name: str  # this and the settings are for messages only, since a model may lie in several folders
    settings: dict[str, Any]
    width: int  # d_v
    weights: str  # digest of its parameters
    probe: list[float]  # features of a fixed picture, which differ if the pixels are prepared in another way
    tolerance: float  # how far the probe may differ between machines, relative to its largest number

    @classmethod
    def of(cls, encoder: VisionEncoder, name: str, settings: Sequence[tuple[str, Any]] = ()) -> "EncoderFingerprint":
        """The fingerprint of a loaded encoder; the first call reads all of its weights."""
        if encoder not in _FINGERPRINTS:
            from PIL import Image

            # fine and coarse patterns, neither square nor small: crops and resizing show in the picture's features
            y, x, channel = np.indices((173, 251, 3))
            picture = Image.fromarray(((x * 7 + y * 13 + x * y // 31 + channel * 85) % 256).astype(np.uint8))
            dtypes = {str(tensor.dtype) for tensor in encoder.model.parameters()}
            tolerance = _TOLERANCE if dtypes == {"torch.float32"} else _HALF_PRECISION_TOLERANCE
            probe = encoder.encode([picture])[0].tolist()
            _FINGERPRINTS[encoder] = _weights_digest(encoder.model), probe, tolerance
        return cls(name, dict(settings), encoder.width, *_FINGERPRINTS[encoder])

    def __str__(self) -> str:
        settings = [f"{key} {value!r}" for key, value in self.settings.items() if value not in (None, False)]
        return f"{self.name!r} ({', '.join([*settings, f'width {self.width}'])})"

    def difference(self, other: "EncoderFingerprint") -> str | None:
        """How the encoders differ, or None if their features are the same."""
        if self.width != other.width or len(self.probe) != len(other.probe):
            return "another width"
        if self.weights != other.weights:
            return "other weights"
        probe = np.array(self.probe)
        limit = max(self.tolerance, other.tolerance) * np.abs(probe).max(initial=0.0)
        same = np.abs(probe - np.array(other.probe)).max(initial=0.0) <= limit
        return None if same else "other pixels made of the same image"


_FINGERPRINTS: "WeakKeyDictionary[VisionEncoder, tuple[str, list[float], float]]" = WeakKeyDictionary()


def _weights_digest(model: Any) -> str:
    """The same for the same numbers, whatever a library's version calls the tensors that hold them."""
    import torch

    digests = []
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            digest = hashlib.blake2b(f"{tensor.dtype} {tuple(tensor.shape)}".encode(), digest_size=16)
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
            digests.append(digest.hexdigest())
    return hashlib.blake2b("".join(sorted(digests)).encode(), digest_size=16).hexdigest()


def content_key(source: Any) -> bytes | None:
    """A hash of an image file's bytes, of encoded bytes, or of an array: its key in any folder. None for others."""
    try:
        source = to_plain(source)
        if isinstance(source, str):
            source = read_regular(source, MAX_BYTES)
    except Exception:  # a path object may raise anything
        return None
    digest = hashlib.blake2b(digest_size=_KEY_BYTES)
    if isinstance(source, np.ndarray) and source.dtype == np.uint8:
        digest.update(f"array {source.shape}".encode())
        source = np.ascontiguousarray(source)
    elif not isinstance(source, bytes):
        return None
    digest.update(source)
    return digest.digest()


@dataclass(frozen=True, slots=True)
class _Shard:
    rows: int
    keys_bytes: int
    rows_bytes: int
    keys_sum: str
    rows_sum: str


class FeatureStore:
    """The features in a folder, for reading. Raises FeatureStoreError if it holds none, or is damaged.

    `verify` reads everything and compares the checksums; otherwise only sizes, shapes and keys are checked.
    """

    def __init__(self, folder: Path, *, verify: bool = False) -> None:
        self.path = folder
        self.encoder, self._shards = _read_meta(folder)
        shards, width = list(enumerate(self._shards)), self.encoder.width
        keys = [_read_array(folder, n, "keys", shard, _KEY_BYTES, verify=True) for n, shard in shards]
        self._rows = [_read_array(folder, n, "rows", shard, width, verify=verify) for n, shard in shards]
        self._starts = np.cumsum([0, *(shard.rows for shard in self._shards)])
        halves = np.concatenate([np.zeros((0, _KEY_BYTES), np.uint8), *keys]).view("<u8")  # (images, 2)
        self._order = np.lexsort((halves[:, 1], halves[:, 0]))
        self._first, self._second = halves[self._order, 0], halves[self._order, 1]

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return FeatureStore, (self.path,)  # another process maps the files itself

    def __len__(self) -> int:
        return int(self._starts[-1])

    def find(self, key: bytes) -> Features | None:
        """A copy of the features (d_v,) of the image with this key, or None."""
        first, second = np.frombuffer(key, "<u8")
        for position in range(*(int(np.searchsorted(self._first, first, side)) for side in ("left", "right"))):
            if self._second[position] == second:
                index = int(self._order[position])
                shard = int(np.searchsorted(self._starts, index, side="right")) - 1
                return np.array(self._rows[shard][index - self._starts[shard]], dtype=np.float32)
        return None

    def check_encoder(self, encoder: EncoderFingerprint) -> None:
        """Raise FeatureStoreError if these are another encoder's features."""
        if (difference := self.encoder.difference(encoder)) is not None:
            encoders = f"another vision encoder, {self.encoder}; this one is {encoder}: {difference}"
            advice = "Encode the images into another folder with python -m spacy_gemel encode-images"
            raise FeatureStoreError(f"{self.path} holds the features of {encoders}. {advice}")


def open_features(
    name: str | None,
    frozen: FrozenModel[VisionEncoder],
    encoder: VisionEncoder,
    *,
    last: Path | None = None,
    strict: bool,
) -> FeatureStore | None:
    """The features in the folder `name`, a pipe's setting `image_features`, checked to be this encoder's.

    `last` is the folder's path when the pipe was saved. If the features cannot be used, `strict` (which verifies the
    checksums too) raises FeatureStoreError; otherwise a warning is enough, since they only save time.
    """
    if name is None:
        return None
    folder = last if last is not None and last.is_dir() else resolve(name)
    try:
        store = FeatureStore(folder, verify=strict)
        store.check_encoder(EncoderFingerprint.of(encoder, frozen.name, frozen.settings))
    except FeatureStoreError as error:
        if strict:
            raise FeatureStoreError(f"gemel_linker: image_features: {error}, or set image_features = null.") from error
        warn(f"gemel_linker: image_features are not used, images are encoded instead: {error}.", DataWarning)
        return None
    return store


class FeatureWriter:
    """Adds features to a folder, which may be new. However the with block ends, the features so far are written.

    Raises FeatureStoreError if the folder is damaged or holds another encoder's features.
    """

    def __init__(self, folder: Path, encoder: EncoderFingerprint) -> None:
        self.folder = folder
        self._encoder = encoder
        self._store: FeatureStore | None = None
        self._shards: list[_Shard] = []
        if (folder / _META).exists():
            self._store = FeatureStore(folder)
            self._store.check_encoder(encoder)
            self._encoder, self._shards = self._store.encoder, list(self._store._shards)
        elif folder.exists() and not folder.is_dir():
            raise FeatureStoreError(f"{folder} is a file: give a folder")
        self._new: set[bytes] = set()
        self._pending: list[tuple[bytes, Features]] = []
        self._flushed = time.monotonic()

    def __enter__(self) -> "FeatureWriter":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError):  # a full disk would only fail again
            self.flush()

    def __contains__(self, key: bytes) -> bool:
        return key in self._new or (self._store is not None and self._store.find(key) is not None)

    def add(self, key: bytes, row: Features) -> None:
        """Add the features (d_v,) of an image that is not in the folder yet; they are flushed every minute."""
        self._new.add(key)
        self._pending.append((key, row))
        if len(self._pending) >= _SHARD_ROWS or time.monotonic() - self._flushed > _SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the pending features as one more shard, then meta.json, which makes it count."""
        self._flushed = time.monotonic()
        if self._pending:
            keys, rows = zip(*self._pending, strict=True)
            key_array = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, _KEY_BYTES)
            files: list[tuple[int, str]] = []
            for what, array in (("keys", key_array), ("rows", np.stack(rows).astype(np.float32))):
                with write_whole(self.folder / f"{len(self._shards):05}.{what}.npy") as partial:
                    with partial.open("wb") as file:
                        np.save(file, array, allow_pickle=False)
                    files.append((partial.stat().st_size, _file_digest(partial)))
            (keys_bytes, keys_sum), (rows_bytes, rows_sum) = files
            self._shards.append(_Shard(len(keys), keys_bytes, rows_bytes, keys_sum, rows_sum))
            self._pending = []
        shards = [asdict(shard) for shard in self._shards]
        content = {"format": _FORMAT, "version": _VERSION, "encoder": asdict(self._encoder), "shards": shards}
        write_json(self.folder / _META, {**content, "checksum": _checksum(content)})


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_KEY_BYTES)).hexdigest()


def _checksum(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode("ascii"), digest_size=_KEY_BYTES).hexdigest()


def _read_array(folder: Path, number: int, what: str, shard: _Shard, width: int, *, verify: bool) -> NDArray[Any]:
    path = folder / f"{number:05}.{what}.npy"
    size, digest = (shard.keys_bytes, shard.keys_sum) if what == "keys" else (shard.rows_bytes, shard.rows_sum)
    try:
        if path.stat().st_size != size:
            raise ValueError("it has the wrong size")
        if verify and _file_digest(path) != digest:
            raise ValueError("it does not match its checksum")
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.shape != (shard.rows, width) or array.dtype != (np.uint8 if what == "keys" else np.float32):
            raise ValueError("it has the wrong shape")
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(folder, f"{path.name} cannot be read: {error}") from error
    return array


def _read_meta(folder: Path) -> tuple[EncoderFingerprint, list[_Shard]]:
    command = f"write them with: python -m spacy_gemel encode-images CORPUS.spacy --config CONFIG --output {folder}"
    try:
        content: Any = json.loads((folder / _META).read_text(encoding="utf8"))
    except (FileNotFoundError, NotADirectoryError):
        raise FeatureStoreError(f"{folder} holds no image features (no {_META}): {command}") from None
    except OSError as error:
        raise FeatureStoreError(f"{folder / _META} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(folder, f"{_META} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise FeatureStoreError(f"{folder} holds no image features: its {_META} is of something else; {command}")
    if (version := content.get("version")) != _VERSION:
        versions = f"format version {version}, this spacy-gemel reads {_VERSION}"
        raise FeatureStoreError(f"{folder} has {versions}: delete it and {command}")
    if content.pop("checksum", None) != _checksum(content):
        raise _damaged(folder, f"{_META} does not match its own checksum")
    return EncoderFingerprint(**content["encoder"]), [_Shard(**shard) for shard in content["shards"]]


def _damaged(folder: Path, problem: str) -> FeatureStoreError:
    return FeatureStoreError(f"{folder} is damaged: {problem}. Delete the folder and run encode-images again")
