"""The index of a folder of fetched images: JSON lines that are only appended.

{"url": "https://example.org/a.jpg", "file": "0f3c...e1.jpg", "bytes": 48213}
"""

import json
import os
import re
from functools import lru_cache
from pathlib import Path

INDEX = "index.jsonl"
# A folder from somebody else must not name files outside itself.
_NAME = re.compile(r"[0-9a-f]{32}\.[a-z0-9]{2,5}")


def read_index(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """The images of a folder by URL, if they have the size in the index; damaged lines are skipped."""
    images: dict[str, Path] = {}
    folder = Path(folder)
    for line in (folder / INDEX).read_bytes().splitlines() if (folder / INDEX).exists() else []:
        try:
            row = json.loads(line)
            url, name, size = row["url"], row["file"], row["bytes"]
            if isinstance(url, str) and _NAME.fullmatch(name) and (folder / name).stat().st_size == size:
                images[url] = folder / name
        except (ValueError, KeyError, TypeError, OSError, RecursionError):  # interrupted, edited, or without its file
            continue
    return images


def add_to_index(folder: Path, url: str, file: str, size: int) -> None:
    """Append an image that is in the folder by now. Raises OSError."""
    line = json.dumps({"url": url, "file": file, "bytes": size}).encode("ascii") + b"\n"
    with (folder / INDEX).open("ab+") as index:
        if index.tell():
            index.seek(-1, os.SEEK_END)
            if index.read(1) != b"\n":  # an interrupt cut the last line off
                line = b"\n" + line
        index.write(line)


def local_image(url: str, folder: str | os.PathLike[str]) -> Path | None:
    """The image of a URL in a folder that `fetch-images` filled, or None. The index is cached until it changes."""
    index = Path(folder, INDEX)
    if not index.exists():
        return None
    return _cached_index(index.parent, index.stat().st_mtime_ns, index.stat().st_size).get(url.strip())


@lru_cache(maxsize=4)
def _cached_index(folder: Path, _changed: int, _size: int) -> dict[str, Path]:
    return read_index(folder)
