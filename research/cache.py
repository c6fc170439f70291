"""Files and folders cached by key, each written whole or not at all, and digests of what a key depends on."""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spacy_gemel.utils.files import files_in, sha256_of, write_json

STATE = "trial.json"
"""In a cached folder: its key, and the seconds it took."""


def digest(*values: Any) -> str:
    """SHA-256 of plain values; not the one of `utils.files`, because cached trials have keys of these bytes."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} if there is none, or if the file cannot be read or is cut off."""
    try:
        content = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def seconds_in(content: Any, name: str = "seconds") -> float | None:
    """A number of seconds in what was read; None if there is none."""
    value = content.get(name) if isinstance(content, Mapping) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
        return None
    return float(value)


def cached(path: Path, key: str, *needed: Path) -> dict[str, Any] | None:
    """What was written at `path` under this key; None if there is nothing, or a path of `needed` is gone."""
    content = read_object(path)
    return content if content.get("key") == key and all(other.exists() for other in needed) else None


def cached_json(path: Path, key: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """The content of a JSON file, made by `make` unless it is cached under this key."""
    content = cached(path, key)
    if content is None:
        content = {"key": key, **make()}
        write_json(path, content)
    return content


def folder_seconds(folder: Path, key: str, needed: str) -> float | None:
    """The seconds that a folder of `cached_folder` took; None if it is not cached under this key."""
    return seconds_in(cached(folder / STATE, key, folder / needed))


def cached_folder(folder: Path, key: str, needed: str, make: Callable[[Path], None]) -> float:
    """Build `folder` with `make` unless a build with the same key is cached. Returns the build time in seconds.

    Args:
        folder: Where the result lies.
        key: Changes with everything that the result depends on.
        needed: A file or folder that a complete result has.
        make: Gets another folder beside it, which takes its place at the end.
    """
    seconds = folder_seconds(folder, key, needed)
    if seconds is None:
        partial = folder.with_name(folder.name + ".partial")
        for old in (folder, partial):
            shutil.rmtree(old, ignore_errors=True)
        partial.mkdir(parents=True)
        start = time.perf_counter()
        make(partial)
        seconds = round(time.perf_counter() - start, 1)
        write_json(partial / STATE, {"key": key, "seconds": seconds})
        partial.rename(folder)
    return seconds


class Digests:
    """SHA-256 of files, cached in a file while their size and date stay the same."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._corpora: dict[Path, str] = {}
        self._known = {name: known for name, known in read_object(path).items() if _is_known(known)}
        self._changed = False

    def file(self, path: Path) -> str:
        """Of one file's bytes; "" if there is no such file."""
        try:
            stat = path.stat()
        except OSError:
            return ""
        name, state = str(path.resolve()), [stat.st_size, stat.st_mtime_ns]
        known = self._known.get(name)
        if known is None or known[:2] != state:
            known = self._known[name] = [*state, sha256_of(path)]
            self._changed = True
        return str(known[2])

    def tree(self, path: Path) -> str:
        """Of a file, or of all files below a folder with their names."""
        return digest({name: self.file(path / name) for name in files_in(path)}) if path.is_dir() else self.file(path)

    def corpus(self, path: Path) -> str:
        """Of a .spacy file, or a folder of them, and of the images that its docs name."""
        if path not in self._corpora:
            files = sorted(path.rglob("*.spacy")) if path.is_dir() else [path]
            images = [self.file(image) for image in _images(path)]
            self._corpora[path] = digest([self.file(file) for file in files], images)
        return self._corpora[path]

    def save(self) -> None:
        """Write the digests to their file."""
        if self._changed:
            write_json(self._path, self._known)
            self._changed = False


def _is_known(known: Any) -> bool:
    """[size, date, digest]."""
    return isinstance(known, list) and [type(value) for value in known] == [int, int, str]


def _images(path: Path) -> list[Path]:
    """The image files of a corpus, in its order."""
    from spacy.vocab import Vocab

    from spacy_gemel.data.reader import read_docs
    from spacy_gemel.pipeline.user_data import IMAGE_KEY

    named = (doc.user_data.get(IMAGE_KEY) for doc in read_docs(path, Vocab()))
    return [Path(image) for image in named if isinstance(image, str)]
