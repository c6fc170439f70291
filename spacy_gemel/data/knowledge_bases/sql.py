"""The tables of a MySQL dump, streamed: rows by the block, from INSERT statements of any length."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.data.knowledge_bases.work import CHUNK, Archive, CutOffError, ImportReport

Columns = Mapping[str, Callable[[bytes], Any]]
_LONGEST_ROW = 2**22  # bytes; anything longer that is not a row is damage
_LONGEST_HEADER = 2**16

_NAME = rb"(?:[`\"]?\w+[`\"]?\s*\.\s*)?[`\"]?(\w+)[`\"]?"
_STATEMENT = re.compile(
    rb"(?:^|(?<=;))[ \t]*(?:CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?" + _NAME + rb"\s*\("
    rb"|(?:INSERT|REPLACE)\s+(?:IGNORE\s+)?INTO\s+" + _NAME + rb"\s*(?:\(([^()]*)\)\s*)?VALUES\s*)",
    re.IGNORECASE | re.MULTILINE,
)
_END_OF_CREATE = re.compile(rb"\)[^;)]*;")
_END_OF_INSERT = re.compile(rb"\s*;")
_AFTER_DAMAGE = re.compile(rb"\)\s*,\s*(?=\()|\)\s*;[ \t]*\r?\n|\)\s*;\s*\Z")

# Possessive patterns: a row that does not fit is given up at once.
_STRING = rb"(?>(?:_binary\s++)?'(?>[^'\\]++|\\.|'')*+')"
_VALUE = rb"(?>" + _STRING + rb"|[-+]?[0-9.][0-9.eE+-]*+(?![\w])|NULL|null|0[xX][0-9A-Fa-f]++)"
_COLUMN = re.compile(rb"(?:^|,)\s*[`\"]([^`\"]+)[`\"]")
_BRACKETS = re.compile(_STRING + rb"|\((?>[^()']++|" + _STRING + rb")*+\)", re.DOTALL)  # and strings: not columns
_ESCAPED = re.compile(rb"\\(.)|''", re.DOTALL)
_ESCAPES = {b"0": b"\0", b"b": b"\b", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"Z": b"\x1a"}


def text(token: bytes) -> str | None:
    """The text of a literal, None for NULL. Raises UnicodeDecodeError if it is not UTF-8."""
    token = token.removeprefix(b"_binary").lstrip()
    if token.startswith(b"'"):
        content = token[1:-1]
        return (_ESCAPED.sub(_unescape, content) if b"\\" in content or b"''" in content else content).decode("utf-8")
    if token[:2] in (b"0x", b"0X"):  # of mysqldump --hex-blob
        return bytes.fromhex(token[2:].decode("ascii")).decode("utf-8")
    return None if token in (b"NULL", b"null") else token.decode("utf-8")


def _unescape(match: re.Match[bytes]) -> bytes:
    escaped = match[1]
    if escaped is None:
        return b"'"
    # MySQL keeps the backslash of these two, which have a meaning only in patterns
    return b"\\" + escaped if escaped in b"%_" else _ESCAPES.get(escaped, escaped)


def integer(token: bytes) -> int:
    """The number of a literal, which may be in quotes. Raises ValueError if it is not one of up to 18 digits."""
    number = int(token.strip(b"'"))
    if abs(number) >= 10**18:
        raise ValueError(f"{number} has more than 18 digits")
    return number


def optional_integer(token: bytes) -> int | None:
    """The number of a literal, None for NULL. Raises ValueError as `integer` does."""
    return None if token in (b"NULL", b"null") else integer(token)


class Table:
    """How to read the rows of a table with these `columns`: those of `requested`, with the conversion of each.

    A column with a question mark after its name may be missing. `indices` has the index of each requested column among
    all columns, or None. Raises ValueError if another column is missing.
    """

    def __init__(self, name: str, columns: Sequence[str], requested: Columns, where: str) -> None:
        self.name = name
        self.width = len(columns)
        for column in requested:
            if column not in columns and not column.endswith("?"):
                existing = ", ".join(columns) or "none"
                raise ValueError(f"{where}: the table {name} has no column {column}, but {existing}")
        names = (column.removesuffix("?") for column in requested)
        self.indices = [columns.index(name) if name in columns else None for name in names]
        groups = sorted(index for index in self.indices if index is not None)
        values = [b"(" + _VALUE + b")" if index in groups else _VALUE for index in range(self.width)]
        row = rb"\(\s*+" + rb"\s*+,\s*+".join([_VALUE] * self.width) + rb"\s*+\)"
        self.row = re.compile(rb"\(\s*+" + rb"\s*+,\s*+".join(values) + rb"\s*+\)", re.DOTALL)
        self.rows = re.compile(rb"(?:[\s,]*+" + row + rb")*+", re.DOTALL)
        # for each requested column the group of the row's match, or None, and the conversion of its value
        self.convert = [
            (None if index is None else groups.index(index) + 1, convert)
            for index, convert in zip(self.indices, requested.values(), strict=True)
        ]
        self.only_integers = all(convert is not text for group, convert in self.convert if group is not None)


@dataclass(frozen=True, slots=True)
class Block:
    """Some whole rows of a table; the name of the file, and the line on which they begin.

    integers: int64 (rows, columns of the table), if the rows are plain integers and only integers are requested.
    """

    source: str
    table: Table
    content: bytes
    line: int
    integers: NDArray[np.int64] | None = None

    def rows(self, report: ImportReport) -> Iterator[tuple[re.Match[bytes], list[Any]]]:
        """Yield each row and its requested values.

        None stands for a missing column, and for NULL in a text or an optional integer. Rows that are not UTF-8, or
        have no number in a column of numbers, are reported and skipped.
        """
        convert = self.table.convert
        for row in self.table.row.finditer(self.content):
            try:
                yield row, [None if group is None else function(row[group]) for group, function in convert]
            except ValueError as error:
                reason = "{} rows that are not UTF-8" if isinstance(error, UnicodeDecodeError) else "malformed {} rows"
                report.dropped.add(reason.format(self.table.name), partial(self.where, row))

    def where(self, row: re.Match[bytes]) -> str:
        """The location of a row: file, line, and its first characters."""
        line = self.line + self.content.count(b"\n", 0, row.start())
        return f"{self.source}:{line}: {row[0][:80].decode('utf-8', 'backslashreplace')}"


class SqlDump:
    """The requested columns of one table of a dump; other tables are skipped."""

    def __init__(self, archive: Archive, table: str, requested: Columns, report: ImportReport) -> None:
        self._archive, self._table, self._requested, self._report = archive, table, requested, report
        self._columns: tuple[str, ...] = ()
        self._source = archive.chunks()
        self._buffer, self._ended = b"", False
        self._index, self._line = 0, 1  # what is before the index was read; the buffer begins on the line

    def row_blocks(self) -> Iterator[Block]:
        """Yield whole rows by the block, in the dump's order.

        Skips and reports damaged rows. Raises CutOffError if the dump ends too early, ValueError without the columns.
        """
        while header := self._next_statement():
            if header[1] == self._table.encode():
                while not (end := _END_OF_CREATE.search(self._buffer, self._index)):
                    if len(self._buffer) - self._index > CHUNK or self._ended:
                        raise self._archive.cut_off(f"line {self._current_line()}: a CREATE TABLE that does not end")
                    self._fill()
                self._columns = _column_names(self._buffer[self._index : end.start()])
                self._index = end.end()
            elif header[2] == self._table.encode():
                yield from self._insert(header[3])

    def _fill(self) -> None:
        """Read another chunk and forget what was used."""
        chunk = next(self._source, b"")
        self._line = self._current_line()
        self._buffer, self._index, self._ended = self._buffer[self._index :] + chunk, 0, not chunk

    def _current_line(self) -> int:
        return self._line + self._buffer.count(b"\n", 0, self._index)

    def _next_statement(self) -> re.Match[bytes] | None:
        while True:
            match = _STATEMENT.search(self._buffer, self._index)
            if match and (self._ended or match.end() < len(self._buffer)):  # at the buffer's end it may go on
                self._index = match.end()
                return match
            if self._ended:
                return None
            # a line of another table may be longer than memory should be
            least = max(self._index, len(self._buffer) - _LONGEST_HEADER)
            last = self._buffer.rfind(b"\n", self._index, least)
            self._index = least if last < 0 else last
            self._fill()

    def _insert(self, columns: bytes | None) -> Iterator[Block]:
        where, name = f"{self._archive.path.name}:{self._current_line()}", self._table
        names = self._columns
        if columns:
            names = tuple(column.strip().strip(b'`"').decode("utf-8", "replace") for column in columns.split(b","))
        if not names:
            raise ValueError(f"{where}: no CREATE TABLE {name} before its rows, so their columns are unknown")
        table = Table(name, names, self._requested, where)
        while True:
            if table.only_integers and (block := self._integers(table)):
                yield block
                self._index += len(block.content)
            elif (rows := table.rows.match(self._buffer, self._index)) and rows.end() > self._index:
                yield Block(self._archive.path.name, table, rows[0], self._current_line())
                self._index = rows.end()
            if end := _END_OF_INSERT.match(self._buffer, self._index):
                self._index = end.end()
                return
            if not self._ended and len(self._buffer) - self._index < _LONGEST_ROW:
                self._fill()
            elif not self._skip_damage(table):
                return

    def _skip_damage(self, table: Table) -> bool:
        """Report what is not a row and go to the next row; False if the statement ends first. Raises CutOffError."""
        beginning = self._buffer[self._index :][:80].lstrip(b", \t\r\n").decode("utf-8", "backslashreplace")
        matches = _AFTER_DAMAGE.finditer(self._buffer, self._index)
        end = next((m for m in matches if b";" in m[0] or table.row.match(self._buffer, m.end())), None)
        if end is None and self._ended:
            raise self._archive.cut_off(f"line {self._current_line()}: not a row of {table.name}: {beginning!r}")
        where = f"{self._archive.path.name}:{self._current_line()}: {beginning}"
        self._report.dropped.add(f"malformed {table.name} rows", where)
        self._index = end.end() if end else len(self._buffer) - _LONGEST_HEADER  # the last bytes may begin a row
        return end is None or b";" not in end[0]

    def _integers(self, table: Table) -> Block | None:
        """The whole rows in the buffer, if they have nothing but integers from 0."""
        end = self._buffer.find(b";", self._index)
        content = self._buffer[self._index : end if end >= 0 else self._buffer.rfind(b")", self._index) + 1]
        rows = content.lstrip(b", \t\r\n").rstrip()  # a block may begin with ",("
        if not rows or b",," in rows or b"(," in rows or b",)" in rows:
            return None
        structure, row = rows.translate(None, b"0123456789"), b"(" + b"," * (table.width - 1) + b")"
        number = structure.count(b"(")
        if structure not in (b",".join([row] * number), b",\n".join([row] * number)):
            return None
        values = np.fromstring(rows.translate(None, b"()"), dtype=np.int64, sep=",")
        if len(values) != number * table.width or values.max() >= 10**18:
            return None
        return Block(self._archive.path.name, table, content, self._current_line(), values.reshape(number, table.width))


def first_table(archive: Archive) -> tuple[str, tuple[str, ...]] | None:
    """The first table of a dump and its columns (empty if its rows come first), or None if the file is not SQL."""
    content, chunks = b"", archive.chunks()
    try:
        while len(content) < _LONGEST_HEADER and (chunk := next(chunks, b"")):
            content += chunk
    except CutOffError:
        if not content:
            raise
    header = _STATEMENT.search(content)
    if header is None:
        return None
    end = _END_OF_CREATE.search(content, header.end())
    columns = _column_names(content[header.end() : end.start()]) if header[1] and end else ()
    return (header[1] or header[2]).decode("utf-8", "replace"), columns


def _column_names(definitions: bytes) -> tuple[str, ...]:
    while (shorter := _BRACKETS.sub(b"", definitions)) != definitions:  # from the innermost brackets
        definitions = shorter
    return tuple(name.decode("utf-8", "replace") for name in _COLUMN.findall(definitions))
