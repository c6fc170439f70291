"""The rows of JSON files, one at a time, each with its line.

The text of a file is held whole, what it says is not: a row is parsed when its turn comes, so that an array of a
million rows takes no more memory than its text. A key that stands twice in an object is two rows.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from json.decoder import JSONDecoder
from pathlib import Path
from typing import Any

from spacy_gemel.corpus.records import Problem

_BLANKS = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: where it stands, its key where the file is an object, and what it says."""

    where: str
    value: Any
    key: str | None = None


def read_json_rows(path: Path) -> Iterator[Row]:
    """Yield the items of a JSON array, or the values of a JSON object with their keys.

    Raises ValueError, naming file and line, where the file is no such JSON; the rows before that line come first.
    """
    text = _text_of(path)
    decoder = JSONDecoder()
    place = _skip(text, 0)
    opening = text[place : place + 1]
    if opening not in ("[", "{"):
        raise ValueError(f"{path}: neither a JSON array nor a JSON object; it begins with {text[place : place + 20]!r}")
    closing = "]" if opening == "[" else "}"
    place, number, line, counted = _skip(text, place + 1), 0, 1, 0
    try:
        while text[place : place + 1] != closing or number:
            number += 1
            line, counted = line + text.count("\n", counted, place), place
            key = None
            if opening == "{":
                if text[place : place + 1] != '"':
                    raise json.JSONDecodeError("Expecting a key in double quotes", text, place)
                key, place = decoder.raw_decode(text, place)
                place = _expect(text, place, ":")
            value, place = decoder.raw_decode(text, place)
            yield Row(f"{path}:{line}, item {number}", value, key)
            place = _skip(text, place)
            if text[place : place + 1] == closing:
                break
            place = _expect(text, place, ",")
        rest = _skip(text, place + 1)
        if rest < len(text):
            raise json.JSONDecodeError("Extra data", text, rest)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON: {error.msg} (column {error.colno})") from error
    except RecursionError as error:
        raise ValueError(f"{path}:{line}: not JSON: nested too deep") from error


def read_json_lines(path: Path) -> Iterator[Row | Problem]:
    """Yield each line that is not blank as a Row, or as a Problem where it is no JSON."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield parse_line(line, f"{path}:{number}")


def parse_line(line: bytes, where: str) -> Row | Problem:
    """One line of JSON; never raises."""
    try:
        return Row(where, json.loads(line.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        return Problem(where, "row", "not UTF-8", str(error))
    except (ValueError, RecursionError) as error:
        return Problem(where, "row", "not JSON", str(error))


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error}") from error


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in _BLANKS:
        place += 1
    return place


def _expect(text: str, place: int, mark: str) -> int:
    place = _skip(text, place)
    if text[place : place + 1] != mark:
        raise json.JSONDecodeError(f"Expecting {mark!r}", text, place)
    return _skip(text, place + 1)
