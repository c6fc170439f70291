"""The URLs of images in a file, and the index of a folder of fetched images, JSON lines that are only appended.

{"url": "https://example.org/a.jpg", "file": "0f3c...e1.jpg", "bytes": 48213}
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

INDEX = "index.jsonl"
# A folder from somebody else must not name files outside itself.
_NAME = re.compile(r"[0-9a-f]{32}\.[a-z0-9]{2,5}")


@dataclass(frozen=True, slots=True)
class Failure:
    """A URL that was not fetched. where: its location in the source, if it was refused there; tries: requests made."""

    url: str
    reason: str
    detail: str = ""
    where: str = ""
    tries: int = 0


def read_urls(source: Path, field: str = "image") -> tuple[list[str], list[Failure]]:
    """Read the URLs of a file, without repetitions, and the rows that have none.

    The file is a .txt with one URL per line (blank lines and lines that begin with # are skipped), JSON lines, or one
    JSON list or object of rows. The field of a row holds a URL or a list of URLs; a number counts from 0 if the rows
    are lists.

    Raises ValueError if the file does not exist or has no URL, and OSError if it cannot be read.
    """
    if not source.is_file():
        raise ValueError(f"{source}: no such file; give a file with one URL per line, or JSON rows with a URL field")
    urls: dict[str, None] = {}
    failures: list[Failure] = []
    for where, row in _rows(source):
        if isinstance(row, list) and field.isdecimal():
            value = row[int(field)] if int(field) < len(row) else None
        else:
            value = row.get(field) if isinstance(row, dict) else row if source.suffix == ".txt" else None
        for url in value if isinstance(value, list) else [value]:
            if not url or not isinstance(url, str):
                detail = row if isinstance(row, str) else f"the field {field!r} is missing, empty or not a string"
                failures.append(Failure("", "no URL in the row", detail, where))
            elif reason := problem_of(url.strip()):
                failures.append(Failure(url, reason, where=where))
            else:
                urls[url.strip()] = None
    if not urls:
        first = [f"; the first problem: {item.where}: {item.reason} {item.detail}".rstrip() for item in failures[:1]]
        raise ValueError(f"{source}: no URL to fetch{''.join(first)}. Name the field that holds the URLs with --field")
    return list(urls), failures


def problem_of(url: str) -> str | None:
    """Why a URL is not requested, or None: only http and https, no credentials."""
    try:
        if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", url):  # control characters, half surrogates
            return "malformed URL"
        split = urlsplit(url)
        _ = split.port  # raises ValueError if it is not a number
    except ValueError:
        return "malformed URL"
    if split.scheme not in ("http", "https") or not split.hostname:
        return "not an http or https URL"
    return None if split.username is None and split.password is None else "URL with a user name or password"


def host_of(url: str) -> str:
    """The host of a URL, in lower case, without its port and the final dot of a full name."""
    return (urlsplit(url).hostname or "").rstrip(".")


def _rows(source: Path) -> Iterator[tuple[str, Any]]:
    """Yield each row with its location; a line that is not JSON is the error's text."""
    text = source.read_text(encoding="utf-8-sig", errors="surrogateescape")  # only the URLs need be UTF-8
    if source.suffix == ".json":
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            pass  # JSON lines under another name, or damaged: the lines tell
        else:
            if not isinstance(content, dict):
                content = dict(enumerate(content if isinstance(content, list) else [content]))
            yield from ((f"{source}, row {key}", row) for key, row in content.items())
            return
    for number, line in enumerate(text.split("\n"), start=1):
        row = line.strip()
        if row and not row.startswith("#"):
            if source.suffix != ".txt":
                try:
                    row = json.loads(row)
                except (ValueError, RecursionError) as error:
                    row = f"not JSON: {error}"
            yield f"{source}:{number}", row


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
