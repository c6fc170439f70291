"""The URLs of images that a file names: one a line, or in a field of JSON rows."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

NO_URL = "no URL in the row"
NOT_HTTP = "not an http or https URL"


@dataclass(frozen=True, slots=True)
class Refused:
    """A place of the source that gives no URL to ask for, and why; url is "" where there is none."""

    where: str
    url: str
    reason: str
    detail: str = ""


@dataclass(slots=True)
class UrlList:
    """Each URL once, in the order of the source, and what gives none. rows: lines or rows read."""

    urls: list[str] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    rows: int = 0


def read_urls(source: Path, field_name: str = "image") -> UrlList:
    """The URLs of a file; one that cannot be asked for takes none of the others with it.

    source: .txt with one URL a line (blank lines and lines that begin with # are left out), JSON lines, or one JSON
        list or object of rows, as data sets are released.
    field_name: the rows' field that holds a URL or a list of URLs; a number counts from 0 in rows that are lists.
    Raises ValueError where there is not a single URL, OSError where the file cannot be read.
    """
    if not source.is_file():
        raise ValueError(f"{source}: no such file; it must hold URLs, one a line, or JSON rows with a field of URLs")
    found = UrlList()
    seen: set[str] = set()
    pairs = _text_lines(source) if source.suffix == ".txt" else _field_of_rows(source, field_name)
    for where, value in pairs:
        found.rows += 1
        for url in value if isinstance(value, list) else [value]:
            refusal = _refusal(where, url, field_name)
            if refusal is not None:
                found.refused.append(refusal)
            elif url.strip() not in seen:
                seen.add(url.strip())
                found.urls.append(url.strip())
    if not found.urls:
        first = found.refused[0] if found.refused else None
        why = (
            f"; the first: {first.where}: {first.reason}{': ' + first.detail if first.detail else ''}" if first else ""
        )
        raise ValueError(
            f"{source}: not one URL to fetch in {found.rows} rows{why}. Name the field that holds them with --field"
        )
    return found


def problem_of(url: str) -> str | None:
    """Why a URL cannot be asked for, or None. Only http and https are: no file://, no credentials."""
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in url):
        return "the URL holds control characters"
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError for a port that is no number
    except ValueError:
        return "the URL is malformed"
    if parts.scheme.lower() not in ("http", "https"):
        return NOT_HTTP
    if not parts.hostname:
        return "the URL names no host"
    if parts.username is not None or parts.password is not None:
        return "the URL holds a user name or password"
    return None


def host_of(url: str) -> str:
    """The host that a URL asks, in lower case, without its port and the dot of a full name."""
    return (urlsplit(url).hostname or "").lower().rstrip(".")


def _refusal(where: str, url: Any, field_name: str) -> Refused | None:
    if isinstance(url, Refused):
        return url
    if url is None or url == "":
        return Refused(where, "", NO_URL, f"the field {field_name!r} is missing or empty")
    if not isinstance(url, str):
        return Refused(where, "", NO_URL, f"the field {field_name!r} holds {type(url).__name__}, no string")
    problem = problem_of(url.strip())
    return None if problem is None else Refused(where, url, problem)


def _text_lines(source: Path) -> Iterator[tuple[str, Any]]:
    with source.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{source}:{number}"
            try:
                text = line.decode("utf-8-sig").strip()
            except UnicodeDecodeError as error:
                yield where, Refused(where, "", "not UTF-8", str(error))
                continue
            if text and not text.startswith("#"):
                yield where, text


def _field_of_rows(source: Path, name: str) -> Iterator[tuple[str, Any]]:
    for where, row in _rows(source):
        if isinstance(row, Refused):
            yield where, row
        elif isinstance(row, dict):
            yield where, row.get(name)
        elif isinstance(row, list) and name.isdecimal():
            yield where, row[int(name)] if int(name) < len(row) else None
        else:
            yield where, Refused(where, "", NO_URL, f"a row that is {type(row).__name__} has no field {name!r}")


def _rows(source: Path) -> Iterator[tuple[str, Any]]:
    if source.suffix == ".json":
        try:
            whole = json.loads(source.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError):
            pass  # JSON lines under another name, or broken: the lines say which
        else:
            rows = (
                whole.items() if isinstance(whole, dict) else enumerate(whole if isinstance(whole, list) else [whole])
            )
            yield from ((f"{source}, row {key}", row) for key, row in rows)
            return
    with source.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{source}:{number}"
            if not line.strip():
                continue
            try:
                yield where, json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                yield where, Refused(where, "", "not UTF-8", str(error))
            except (ValueError, RecursionError) as error:
                yield where, Refused(where, "", "not JSON", str(error))
