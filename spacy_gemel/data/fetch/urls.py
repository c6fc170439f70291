"""The URLs of images in a file: one per line, or in a field of JSON rows."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


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

    Args:
        source: .txt with one URL per line (blank lines and lines that begin with # are skipped), JSON lines, or one
            JSON list or object of rows.
        field: the field of the rows that holds a URL or a list of URLs; a number counts from 0 if the rows are lists.

    Raises:
        ValueError: if the file does not exist or has no URL.
        OSError: if the file cannot be read.
    """
    if not source.is_file():
        raise ValueError(f"{source}: no such file; give a file with one URL per line, or JSON rows with a URL field")
    urls: dict[str, None] = {}
    failures: list[Failure] = []
    for where, value in _text_lines(source) if source.suffix == ".txt" else _field_values(source, field):
        for url in value if isinstance(value, list) else [value]:
            if isinstance(url, Failure):
                failures.append(url)
            elif not url or not isinstance(url, str):
                problem = "is missing or empty" if not url else f"holds {type(url).__name__}, not a string"
                failures.append(Failure("", "no URL in the row", f"the field {field!r} {problem}", where))
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
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in url):
        return "URL with control characters"
    try:
        split = urlsplit(url)
        _ = split.port  # raises ValueError if it is not a number
    except ValueError:
        return "malformed URL"
    if split.scheme.lower() not in ("http", "https"):
        return "not an http or https URL"
    if not split.hostname:
        return "URL without a host"
    return None if split.username is None and split.password is None else "URL with a user name or password"


def host_of(url: str) -> str:
    """The host of a URL, in lower case, without its port and the final dot of a full name."""
    return (urlsplit(url).hostname or "").lower().rstrip(".")


def _text_lines(source: Path) -> Iterator[tuple[str, Any]]:
    with source.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{source}:{number}"
            try:
                text = line.decode("utf-8-sig").strip()
            except UnicodeDecodeError as error:
                yield where, Failure("", "not UTF-8", str(error), where)
                continue
            if text and not text.startswith("#"):
                yield where, text


def _field_values(source: Path, field: str) -> Iterator[tuple[str, Any]]:
    for where, row in _json_rows(source):
        if isinstance(row, list) and field.isdecimal():
            yield where, row[int(field)] if int(field) < len(row) else None
        else:
            yield where, row.get(field) if isinstance(row, dict) else row if isinstance(row, Failure) else None


def _json_rows(source: Path) -> Iterator[tuple[str, Any]]:
    if source.suffix == ".json":
        try:
            content = json.loads(source.read_text(encoding="utf-8-sig"))
            rows = content.items() if isinstance(content, dict) else enumerate(content)
        except (ValueError, TypeError, RecursionError):
            pass  # JSON lines under another name, or damaged: the lines tell
        else:
            yield from ((f"{source}, row {key}", row) for key, row in rows)
            return
    for where, line in _text_lines(source):
        try:
            yield where, line if isinstance(line, Failure) else json.loads(line)
        except (ValueError, RecursionError) as error:
            yield where, Failure("", "not JSON", str(error), where)
