"""The tables of a MySQL dump, streamed: rows by the block, from INSERT statements of any length."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.data.knowledge_bases.archive import BLOCK, Archive, CutOffError
from spacy_gemel.data.knowledge_bases.literals import column_names, integer, row_pattern, rows_pattern, text
from spacy_gemel.data.knowledge_bases.report import ImportReport

_LONGEST_ROW = 2**22
"""Bytes. What does not become a row within that is taken for damage."""

_NAME = rb"(?:[`\"]?\w+[`\"]?\s*\.\s*)?[`\"]?(\w+)[`\"]?"
_STATEMENT = re.compile(
    rb"(?:^|(?<=;))[ \t]*(?:CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?" + _NAME + rb"\s*\("
    rb"|(?:INSERT|REPLACE)\s+(?:IGNORE\s+)?INTO\s+" + _NAME + rb"\s*(?:\(([^()]*)\)\s*)?VALUES\s*)",
    re.IGNORECASE | re.MULTILINE,
)
_END_OF_CREATE = re.compile(rb"\)[^;)]*;")
_LONGEST_HEADER = 2**16
_AFTER_DAMAGE = re.compile(rb"\)\s*,\s*(?=\()|\)\s*;[ \t]*\r?\n|\)\s*;\s*\Z")
_END_OF_INSERT = re.compile(rb"\s*;")


@dataclass(frozen=True, slots=True)
class Column:
    """A column to be read: one of these names (tables change), as "int" or "text"; may_lack: it need not be there."""

    names: tuple[str, ...]
    type: str = "text"
    may_lack: bool = False


def _nothing(token: bytes) -> None:
    return None


def _optional_integer(token: bytes) -> int | None:
    return None if token in (b"NULL", b"null") else integer(token)


_FUNCTIONS: dict[tuple[str, bool], Callable[[bytes], Any]] = {
    ("int", False): integer,
    ("int", True): _optional_integer,
    ("text", False): text,
    ("text", True): text,
}


class _Table:
    """How the rows of a table are read. wanted[i] is the place of column i among the table's columns, or None."""

    def __init__(self, name: str, columns: Sequence[str], wanted: Sequence[Column], where: str) -> None:
        self.name = name
        self.width = len(columns)
        self.indices: list[int | None] = []
        for column in wanted:
            found = [columns.index(option) for option in column.names if option in columns]
            if not found and not column.may_lack:
                raise ValueError(
                    f"{where}: the table {name} has no column {' or '.join(column.names)}, "
                    f"but {', '.join(columns) or 'none'}"
                )
            self.indices.append(found[0] if found else None)
        kept = sorted(index for index in self.indices if index is not None)
        self.row = row_pattern(self.width, kept)
        self.rows = rows_pattern(self.width)
        # (group of the row's match, what makes a value of it) for each wanted column
        self.convert: list[tuple[int, Callable[[Any], Any]]] = [
            (0, _nothing) if index is None else (kept.index(index), _FUNCTIONS[column.type, column.may_lack])
            for column, index in zip(wanted, self.indices, strict=True)
        ]
        self.only_integers = all(
            column.type == "int" for column, index in zip(wanted, self.indices, strict=True) if index is not None
        )
        # findall gives a value, not a tuple, where there is only one group
        self.alone = len(kept) == 1


@dataclass(frozen=True, slots=True)
class Block:
    """Some whole rows of one table, as they stand in the dump, and the line on which they begin.

    integers: all values (rows, columns of the table) where only integers were wanted and there is nothing else.
    """

    table: _Table
    content: bytes
    line: int
    integers: NDArray[np.int64] | None = None

    @property
    def name(self) -> str:
        """The table's name."""
        return self.table.name

    def rows(self, report: ImportReport, source: str) -> Iterator[tuple[int, list[Any]]]:
        """Each row's number in the block, and its wanted values.

        None stands for a column that the table lacks, and for NULL in a text or where a column may lack.
        Rows that are no UTF-8, or have no number where one is wanted, are reported and left out.
        """
        table = self.table
        convert = table.convert
        for number, tokens in enumerate(table.row.findall(self.content)):
            row = (tokens,) if table.alone else tokens
            try:
                yield number, [function(row[group]) for group, function in convert]
            except ValueError as error:
                what = "{} rows that are no UTF-8" if isinstance(error, UnicodeDecodeError) else "malformed {} rows"
                report.drop(what.format(table.name), partial(self.where, source, number))

    def where(self, source: str, row: int) -> str:
        """Where a row stands: file, line, and how it begins."""
        for number, found in enumerate(self.table.row.finditer(self.content)):
            if number == row:
                line = self.line + self.content.count(b"\n", 0, found.start())
                return f"{source}:{line}: {found[0][:80].decode('utf-8', 'backslashreplace')}"
        return f"{source}:{self.line}"


class SqlDump:
    """The rows of some tables of a dump; wanted: for each table the columns to be read.

    Other tables are passed over.
    """

    def __init__(self, archive: Archive, wanted: Mapping[str, Sequence[Column]], report: ImportReport) -> None:
        self._archive = archive
        self._wanted = wanted
        self._report = report
        self._columns: dict[str, tuple[str, ...]] = {}
        self._buffer = b""
        self._at = 0
        self._line = 1
        self._ended = False
        self._source = archive.blocks()

    def blocks(self) -> Iterator[Block]:
        """Whole rows by the block, in the dump's order.

        Raises CutOffError where the dump ends within a statement, ValueError where a wanted column is not there.
        """
        while header := self._next_statement():
            if header[1]:
                self._create(header)
                continue
            name = header[2].decode("utf-8", "replace")
            if name in self._wanted:
                yield from self._insert(name, header[3])

    def _fill(self) -> bool:
        """Read one block more, and forget what is done with; False at the end."""
        block = next(self._source, b"")
        self._line += self._buffer.count(b"\n", 0, self._at)
        self._buffer = self._buffer[self._at :] + block
        self._at = 0
        self._ended = not block
        return bool(block)

    def _here(self) -> int:
        return self._line + self._buffer.count(b"\n", 0, self._at)

    def _next_statement(self) -> re.Match[bytes] | None:
        while True:
            found = _STATEMENT.search(self._buffer, self._at)
            # a header at the end of the buffer may go on
            if found and (self._ended or found.end() < len(self._buffer)):
                self._at = found.end()
                return found
            if self._ended:
                return None
            # a line of an unwanted table may be longer than memory should be
            least = max(self._at, len(self._buffer) - _LONGEST_HEADER)
            last = self._buffer.rfind(b"\n", self._at, least)
            self._at = least if last < 0 else last
            self._fill()

    def _create(self, header: re.Match[bytes]) -> None:
        while not (end := _END_OF_CREATE.search(self._buffer, self._at)):
            if len(self._buffer) - self._at > BLOCK or not self._fill():
                raise self._archive.cut_off(f"line {self._here()}: a CREATE TABLE that does not end")
        name = header[1].decode("utf-8", "replace")
        self._columns[name] = column_names(self._buffer[self._at : end.start()])
        self._at = end.end()

    def _insert(self, name: str, columns: bytes | None) -> Iterator[Block]:
        where = f"{self._archive.path.name}:{self._here()}"
        names = column_names(_quoted(columns)) if columns else self._columns.get(name)
        if not names:
            raise ValueError(f"{where}: no CREATE TABLE {name} before its rows, so that their columns are not known")
        table = _Table(name, names, self._wanted[name], where)
        while True:
            if table.only_integers and (block := self._integers(table)):
                yield block
                self._at += len(block.content)
            elif (rows := table.rows.match(self._buffer, self._at)) and rows.end() > self._at:
                yield Block(table, rows[0], self._here())
                self._at = rows.end()
            if end := _END_OF_INSERT.match(self._buffer, self._at):
                self._at = end.end()
                return
            if not self._ended and len(self._buffer) - self._at < _LONGEST_ROW:
                self._fill()
            elif not self._pass_damage(table):
                return

    def _integers(self, table: _Table) -> Block | None:
        """The whole rows in the buffer, where they hold nothing but integers from 0."""
        stop = self._buffer.find(b";", self._at)
        if stop < 0:
            stop = self._buffer.rfind(b")", self._at) + 1
        content = self._buffer[self._at : stop]
        # ",(" at the beginning of what goes on a block, newlines between rows
        rows = content.lstrip(b", \t\r\n").rstrip()
        if not rows or b",," in rows or b"(," in rows or b",)" in rows:
            return None
        structure = rows.translate(None, b"0123456789")
        row = b"(" + b"," * (table.width - 1) + b")"
        number = structure.count(b"(")
        if structure not in (b",".join([row] * number), b",\n".join([row] * number)):
            return None
        values = np.fromstring(rows.translate(None, b"()"), dtype=np.int64, sep=",")
        if len(values) != number * table.width or values.max() >= 10**18:
            return None
        return Block(table, content, self._here(), values.reshape(number, table.width))

    def _pass_damage(self, table: _Table) -> bool:
        """Go on where a row begins again; False where the statement ends first.

        Raises CutOffError at the file's end.
        """
        start = self._at
        if self._ended and not self._buffer[start:].strip(b", \t\r\n"):
            raise self._archive.cut_off(f"line {self._here()}: the rows of {table.name} go on beyond its end")

        def shown() -> str:
            content = self._buffer[start : start + 80].lstrip(b", \t\r\n").decode("utf-8", "backslashreplace")
            return f"{self._archive.path.name}:{self._here()}: {content}"

        for found in _AFTER_DAMAGE.finditer(self._buffer, start):
            goes_on = b";" not in found[0]
            if not goes_on or table.row.match(self._buffer, found.end()):
                self._report.drop(f"malformed {table.name} rows", shown)
                self._at = found.end()
                return goes_on
        if self._ended:
            raise self._archive.cut_off(f"{shown()}: ends within a row of {table.name}")
        # nothing in four megabytes: drop all but the end of it, where a row may begin
        self._report.drop(f"malformed {table.name} rows", shown)
        self._at = len(self._buffer) - _LONGEST_HEADER
        return True


def first_table(archive: Archive) -> tuple[str, tuple[str, ...]] | None:
    """The first table of a dump and its columns, none where its rows come first; None where this is no SQL.

    Reads the file's beginning. Raises as `Archive.blocks` does.
    """
    content = b""
    try:
        for block in archive.blocks():
            content += block
            if len(content) >= _LONGEST_HEADER:
                break
    except CutOffError:
        if not content:
            raise
    header = _STATEMENT.search(content)
    if header is None:
        return None
    end = _END_OF_CREATE.search(content, header.end())
    columns = column_names(content[header.end() : end.start()]) if header[1] and end else ()
    return (header[1] or header[2]).decode("utf-8", "replace"), columns


def _quoted(columns: bytes) -> bytes:
    """The column list of an INSERT, with every name in quotes."""
    return b",".join(b"`" + name.strip().strip(b'`"') + b"`" for name in columns.split(b","))
