"""The rows of JSON files, one at a time, each with its line.

Of a file that is one array or object of rows, a window is held and not the whole. A row that is damaged is given up,
and the next place is looked for where a row begins as the data set's rows do. What begins a row cannot stand within a
string of JSON, where its quotes would be escaped, so that a bracket or a quote too many or too few costs one row and
not those behind it. A key that stands twice in an object is two rows.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacy_gemel.data.datasets.json_window import NOT_JSON, NOT_UTF8, Damage, JsonWindow
from spacy_gemel.data.records import Problem

STRING = r'"(?:[^"\\\x00-\x1f]|\\.)*+"'
"""A JSON string, as a regular expression."""
_NESTED = (list, dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One row: where it stands, its key where the file is an object, and what it says."""

    where: str
    value: Any
    key: str | None = None


@dataclass(frozen=True, slots=True)
class RowShape:
    """How the rows of a data set are known: by their beginning, a regular expression, and as values."""

    begins: str
    is_row: Callable[[Any], bool]


def objects_with(field: str) -> RowShape:
    """Rows that are objects and have a certain field, which is a text."""
    # a key begins behind the quote, and not what follows a text that ends in a bracket
    return RowShape(
        r"\{\s*+\"(?=[^\s\",:\[\]{}])", lambda value: isinstance(value, dict) and isinstance(value.get(field), str)
    )


def read_json_rows(path: Path, shape: RowShape) -> Iterator[Row | Problem]:
    """Yield the items of a JSON array, or the values of a JSON object with their keys, and what is damaged.

    A row that cannot be parsed is a Problem, and the next one that begins as the shape says is read. What is wrong
    between rows is a Problem "file" that takes no row with it. Raises ValueError, naming the file, where it is no array
    or object at all, and OSError where it cannot be read.
    """
    with path.open("rb") as file:
        window = JsonWindow(file)
        opening = window.peek()
        if opening not in ("[", "{"):
            begin = window.text[window.index : window.index + 20]
            raise ValueError(f"{path}: neither a JSON array nor a JSON object in UTF-8; it begins with {begin!r}")
        window.move(window.index + 1)
        yield from _Rows(path, window, shape, keyed=opening == "{").read()


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
        return Problem(where, "row", NOT_UTF8, str(error))
    except (ValueError, RecursionError) as error:
        return Problem(where, "row", NOT_JSON, str(error))


class _Rows:
    """The rows of one file, from behind its opening bracket."""

    def __init__(self, path: Path, window: JsonWindow, shape: RowShape, *, keyed: bool) -> None:
        self._path = path
        self._window = window
        self._is_row = shape.is_row
        self._keyed = keyed
        self._closing = "}" if keyed else "]"
        # in an array, what follows a colon is a field of a row
        begins = rf"{STRING}\s*+:\s*+{shape.begins}" if keyed else rf"(?<!:)(?<!: )(?:{shape.begins})"
        self._next = re.compile(begins)

    def read(self) -> Iterator[Row | Problem]:
        window = self._window
        number = 0
        ended, damage = self._close() if window.peek() == self._closing else (False, None)
        if damage is not None:
            yield Problem(str(self._path), "file", NOT_JSON, str(damage))
        while not ended:
            number += 1
            where = f"{self._path}:{window.line}, item {number}"
            try:
                row = self._row(where)
            except Damage as error:
                ended = window.find(self._next) is None
                then = "no further row is found" if ended else f"the next row is read from line {window.line}"
                yield Problem(where, "row", error.reason, f"{error}; {then}")
                continue
            ended, damage = self._step()
            # what has no end as a row has is none, unless it looks like one
            usable = damage is None or self._is_row(row.value)
            if usable:
                yield row
            if damage is not None:
                yield Problem(where, "file" if usable else "row", NOT_JSON, f"behind it {damage}")

    def _row(self, where: str) -> Row:
        """The row at the place, which is then behind it."""
        window = self._window
        key = None
        if self._keyed:
            if window.peek() != '"':
                raise Damage("a key in double quotes is missing", window.line)
            key, end = window.value()
            window.move(end)
            if window.peek() != ":":
                raise Damage("a colon is missing behind the key", window.line)
            window.move(window.index + 1)
            window.peek()
        value, end = window.value()
        if isinstance(value, _NESTED) and self._holds_row(value):
            # what is no row itself and ends as one does is only wrong; else a bracket too many began it
            mark, end = window.behind(end)
            if self._is_row(value) or mark not in (",", self._closing):
                raise Damage("it holds further rows: a bracket is missing or too many", window.line)
        window.move(end)
        return Row(where, value, key)

    def _holds_row(self, value: Any) -> bool:
        """Whether another row stands within one, at any depth: their brackets may match again further on."""
        within: list[Any] = [value]
        while within:
            outer = within.pop()
            inner = [
                item for item in (outer.values() if isinstance(outer, dict) else outer) if isinstance(item, _NESTED)
            ]
            # what has a name in an array's row is a field of it
            if (self._keyed or isinstance(outer, list)) and any(map(self._is_row, inner)):
                return True
            within += inner
        return False

    def _step(self) -> tuple[bool, Damage | None]:
        """Go from the end of a row to the next; whether there is none, and what is wrong between the two."""
        window = self._window
        mark = window.peek()
        if mark == ",":
            window.move(window.index + 1)
            mark = window.peek()
            if mark != self._closing:
                return not mark, None if mark else Damage("the file ends", window.line)
            ended, damage = self._close()
            return ended, damage or Damage("stands a comma and no row", window.line)
        if mark == self._closing:
            return self._close()
        if not mark:
            return True, Damage(f"the file ends without {self._closing!r}", window.line)
        damage = Damage(f"a comma is missing before {window.text[window.index : window.index + 16]!r}", window.line)
        return window.find(self._next, 0) is None, damage

    def _close(self) -> tuple[bool, Damage | None]:
        """Go over the closing bracket, which should be the end."""
        window = self._window
        window.move(window.index + 1)
        if not window.peek():
            return True, None
        damage = Damage(f"the file goes on behind {self._closing!r}", window.line)
        return window.find(self._next, 0) is None, damage
