"""What a folder of fetched images holds: a file of JSON lines that is only ever appended to.

{"url": "https://example.org/a.jpg", "file": "0f3c...e1.jpg", "bytes": 48213}
"""

import errno
import json
import os
import re
from functools import lru_cache
from pathlib import Path
from types import TracebackType

INDEX = "index.jsonl"
# A name in the index is no path: a folder that came from elsewhere cannot name files outside itself.
_NAME = re.compile(r"[0-9a-f]{32}\.[a-z0-9]{2,5}")


def fetched(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """The images of a folder that `fetch-images` filled, by their URL.

    Only files that are there in the size they were written with; a line of the index that cannot be read counts for
    nothing. Empty where the folder has no index. Raises OSError.
    """
    found: dict[str, Path] = {}
    folder = Path(folder)
    try:
        lines = (folder / INDEX).read_bytes().splitlines()
    except FileNotFoundError:
        return found
    for line in lines:
        try:
            row = json.loads(line)
            url, name, size = row["url"], row["file"], row["bytes"]
            if isinstance(url, str) and _NAME.fullmatch(name) and (folder / name).stat().st_size == size:
                found[url] = folder / name
        # an interrupted write, an edit by hand, a file that was taken away
        except (ValueError, KeyError, TypeError, OSError, RecursionError):
            continue
    return found


def local_image(url: str, folder: str | os.PathLike[str]) -> Path | None:
    """Where the image of a URL lies in a folder that `fetch-images` filled; None if it is not there.

    The index is read again only when it has changed. Raises OSError.
    """
    path = Path(folder) / INDEX
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return _known(str(Path(folder)), status.st_mtime_ns, status.st_size).get(url.strip())


@lru_cache(maxsize=4)
def _known(folder: str, _changed: int, _size: int) -> dict[str, Path]:
    return fetched(folder)


class IndexWriter:
    """Appends to a folder's index, one whole line at a time; a line that an interrupt tore is taken off first."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / INDEX

    def __enter__(self) -> "IndexWriter":
        self._file = self._path.open("ab", buffering=0)
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._file.truncate(whole)
        self._size = whole
        return self

    def add(self, url: str, file: str, size: int) -> None:
        """Say that the image of a URL is in a file, which must be there by now. Raises OSError."""
        line = json.dumps({"url": url, "file": file, "bytes": size}).encode("ascii") + b"\n"
        if self._file.write(line) != len(line):  # a disk that fills up takes a part of it, without an error
            self._file.truncate(self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._size += len(line)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
