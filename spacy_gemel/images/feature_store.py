"""Features of images on disk: encoded once by `encode-images`, found again by the images' content.

A folder holds meta.json and shards NNNNN.keys.npy (images, 16) uint8 and NNNNN.rows.npy (images, d_v) float32, both
memory-mapped. A shard counts once meta.json names it, so that an interrupt leaves whole shards only.
"""

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.utils.files import write_whole

FORMAT = "spacy-gemel-features"
VERSION = 1
META = "meta.json"
KEY_BYTES = 16
_SHARD_ROWS = 4096
_SHARD_SECONDS = 60.0

Row = NDArray[np.float32]


class FeatureStoreError(ValueError):
    """A folder of features that cannot be used, why, and what to do."""


@dataclass(frozen=True, slots=True)
class EncoderFingerprint:
    """What tells the features of one encoder from those of another.

    name, settings: as a config names the encoder, for messages alone: a model may lie in several places.
    width: d_v. weights: digest of its parameters. probe: the features of a fixed picture, which tell other ways of
    preparing the pixels. tolerance: how far they may differ between machines, relative to the largest.
    """

    name: str
    settings: dict[str, Any]
    width: int
    weights: str
    probe: list[float]
    tolerance: float

    def __str__(self) -> str:
        message = [f"{key} {value!r}" for key, value in self.settings.items() if value not in (None, False)]
        return f"{self.name!r} ({', '.join([*message, f'width {self.width}'])})"

    def difference(self, other: "EncoderFingerprint") -> str | None:
        """In what the encoders differ, or None where their features are the same."""
        if self.width != other.width:
            return "another width"
        if self.weights != other.weights:
            return "other weights"
        mine, theirs = np.array(self.probe), np.array(other.probe)
        if mine.shape != theirs.shape:
            return "another width"
        limit = max(self.tolerance, other.tolerance) * np.abs(mine).max(initial=0.0)
        return None if np.abs(mine - theirs).max(initial=0.0) <= limit else "other pixels made of the same image"


@dataclass(frozen=True, slots=True)
class _Shard:
    rows: int
    keys_bytes: int
    rows_bytes: int
    keys_sum: str
    rows_sum: str


def content_key(source: Any) -> bytes | None:
    """The key of an image: a hash of a file's bytes, of encoded bytes, or of an array. None for what has none.

    The same bytes have the same key wherever they lie.
    """
    if isinstance(source, (str, os.PathLike)):
        try:
            source = Path(source).read_bytes()
        except (OSError, ValueError):
            return None
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    if isinstance(source, np.ndarray) and source.dtype == np.uint8:
        digest.update(f"array {source.shape}".encode())
        source = np.ascontiguousarray(source)
    elif not isinstance(source, (bytes, bytearray, memoryview)):
        return None
    digest.update(source)
    return digest.digest()


class FeatureStore:
    """The features of a folder, for reading. Raises FeatureStoreError for a folder that holds none or is damaged.

    verify: read all of it and compare the checksums; else sizes, shapes and the keys are.
    """

    def __init__(self, folder: Path, *, verify: bool = False) -> None:
        self.path = folder
        self.encoder, shards = _read_meta(folder)
        keys, self._rows = [], []
        for number, shard in enumerate(shards):
            keys.append(_read_array(folder, number, "keys", shard, check=True))
            self._rows.append(_read_array(folder, number, "rows", shard, check=verify))
            if keys[-1].shape != (shard.rows, KEY_BYTES) or keys[-1].dtype != np.uint8:
                raise _damaged(folder, f"{_name(number, 'keys')} has another shape than it should")
            if self._rows[-1].shape != (shard.rows, self.encoder.width) or self._rows[-1].dtype != np.float32:
                raise _damaged(folder, f"{_name(number, 'rows')} has another shape than it should")
        self._starts = np.cumsum([0, *(shard.rows for shard in shards)])
        halves = np.concatenate([np.zeros((0, KEY_BYTES), np.uint8), *keys]).view("<u8")  # (images, 2)
        self._order = np.lexsort((halves[:, 1], halves[:, 0]))
        self._first, self._second = halves[self._order, 0], halves[self._order, 1]

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return FeatureStore, (self.path,)  # another process maps the files itself

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and self._place(key) is not None

    def find(self, key: bytes) -> Row | None:
        """The features of the image of this key, (d_v,), as an array of one's own; None if they are not here."""
        index = self._place(key)
        if index is None:
            return None
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return np.array(self._rows[shard][index - self._starts[shard]], dtype=np.float32)

    def check_encoder(self, encoder: EncoderFingerprint) -> None:
        """Raise FeatureStoreError where the features are another encoder's."""
        _check_encoder(self.path, self.encoder, encoder)

    def _place(self, key: bytes) -> int | None:
        first, second = np.frombuffer(key, "<u8")
        for index in range(*(int(np.searchsorted(self._first, first, side)) for side in ("left", "right"))):
            if self._second[index] == second:
                return int(self._order[index])
        return None


class FeatureWriter:
    """Adds features to a folder, which may be new; what was added is kept however the with block ends.

    Raises FeatureStoreError where the folder is damaged or holds another encoder's features, OSError where it cannot
    be written.
    """

    def __init__(self, folder: Path, encoder: EncoderFingerprint) -> None:
        self.folder = folder
        self._kept: FeatureStore | None = None
        self._shards: list[_Shard] = []
        self._encoder = encoder
        if (folder / META).exists():
            self._kept = FeatureStore(folder)
            self._kept.check_encoder(encoder)
            self._encoder, self._shards = _read_meta(folder)
        elif folder.exists() and not folder.is_dir():
            raise FeatureStoreError(f"{folder} is a file: give a folder")
        self._new: set[bytes] = set()
        self._pending: list[tuple[bytes, Row]] = []
        self._flushed = time.monotonic()

    def __enter__(self) -> "FeatureWriter":
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __contains__(self, key: object) -> bool:
        return key in self._new or (self._kept is not None and key in self._kept)

    def __len__(self) -> int:
        return len(self._new) + (0 if self._kept is None else len(self._kept))

    def add(self, key: bytes, row: Row) -> None:
        """Keep the features (d_v,) of an image that is not in the folder yet; every minute all are on disk."""
        self._new.add(key)
        self._pending.append((key, row))
        if len(self._pending) >= _SHARD_ROWS or time.monotonic() - self._flushed > _SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added as one more shard, then meta.json, which makes it count."""
        self._flushed = time.monotonic()
        if self._pending:
            arrays: dict[str, NDArray[Any]] = {
                "keys": np.frombuffer(b"".join(key for key, _ in self._pending), np.uint8).reshape(-1, KEY_BYTES),
                "rows": np.stack([row for _, row in self._pending]).astype(np.float32),
            }
            sizes, sums = {}, {}
            for what, array in arrays.items():
                path = self.folder / _name(len(self._shards), what)
                with write_whole(path) as partial:
                    with partial.open("wb") as file:
                        np.save(file, array, allow_pickle=False)
                    sizes[what], sums[what] = partial.stat().st_size, _sum_of(partial)
            self._shards.append(_Shard(len(self._pending), sizes["keys"], sizes["rows"], sums["keys"], sums["rows"]))
            self._pending = []
        _write_meta(self.folder, self._encoder, self._shards)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, OSError):  # a full disk would only fail again
            self.flush()


def _name(number: int, what: str) -> str:
    return f"{number:05}.{what}.npy"


def _sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=KEY_BYTES)).hexdigest()


def _read_array(folder: Path, number: int, what: str, shard: _Shard, *, check: bool) -> NDArray[Any]:
    path = folder / _name(number, what)
    size, digest = (shard.keys_bytes, shard.keys_sum) if what == "keys" else (shard.rows_bytes, shard.rows_sum)
    try:
        if path.stat().st_size != size:
            raise _damaged(folder, f"{path.name} is not as long as it was")
        if check and _sum_of(path) != digest:
            raise _damaged(folder, f"{path.name} does not match its checksum")
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FeatureStoreError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(folder, f"{path.name} cannot be read: {error}") from error
    return array


def _write_meta(folder: Path, encoder: EncoderFingerprint, shards: list[_Shard]) -> None:
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "encoder": asdict(encoder),
        "shards": [asdict(shard) for shard in shards],
    }
    content["checksum"] = _digest(content)
    with write_whole(folder / META) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")


def _read_meta(folder: Path) -> tuple[EncoderFingerprint, list[_Shard]]:
    make = f"make it with: python -m spacy_gemel encode-images CORPUS.spacy --config CONFIG --output {folder}"
    try:
        content: Any = json.loads((folder / META).read_text(encoding="utf8"))
    except (FileNotFoundError, NotADirectoryError):
        raise FeatureStoreError(f"{folder} holds no image features (no {META}): {make}") from None
    except OSError as error:
        raise FeatureStoreError(f"{folder / META} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(folder, f"{META} is no JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FeatureStoreError(f"{folder} holds no image features: its {META} is something else's; {make}")
    if content.get("version") != VERSION:
        version = content.get("version")
        raise FeatureStoreError(
            f"{folder} has format version {version}, this spacy-gemel reads {VERSION}: delete it and {make}"
        )
    if content.pop("checksum", None) != _digest(content):
        raise _damaged(folder, f"{META} does not match its own checksum")
    return EncoderFingerprint(**content["encoder"]), [_Shard(**shard) for shard in content["shards"]]


def _check_encoder(folder: Path, kept: EncoderFingerprint, wanted: EncoderFingerprint) -> None:
    difference = kept.difference(wanted)
    if difference is not None:
        raise FeatureStoreError(
            f"{folder} holds the features of another vision encoder, {kept}; this one is {wanted}: {difference}. "
            "Encode the images into another folder with python -m spacy_gemel encode-images"
        )


def _damaged(folder: Path, what: str) -> FeatureStoreError:
    return FeatureStoreError(f"{folder} is damaged: {what}. Delete the folder and run encode-images again")


def _digest(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode("ascii"), digest_size=KEY_BYTES).hexdigest()
