"""Entities from a spreadsheet: a CSV or TSV file with a header."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from spacy_gemel.data.knowledge_bases.archive import Archive
from spacy_gemel.data.knowledge_bases.options import ImportOptions
from spacy_gemel.data.knowledge_bases.work import Work
from spacy_gemel.kb.entity import Entity

FIELDS = ("id", "name", "description", "count", "aliases")
_NEEDED = ("id", "name")
_ADVICE = "name it with --column {field}=COLUMN, or the delimiter with --delimiter"
_LONGEST_LINE = 2**20
_LONGEST_ROW = 100
"""Lines that one row may have: a quotation mark that is not closed must not take the rest of the file with it."""

_TABS = frozenset({".tsv", ".tab"})
_PACKED = frozenset({".gz", ".bz2", ".xz"})


def read_table(
    sources: Sequence[Path], options: ImportOptions, work: Work, *, advice: str = _ADVICE
) -> Iterator[tuple[str, Entity]]:
    """The rows of some files, in their order. The header names the columns: id, name and as wanted description, count,
    aliases (between alias_separator); `column` says "field=column" where one is named otherwise.
    advice: what to do about a header that lacks a column, with {field} for what it should hold.

    Raises ValueError where the header lacks a column that is needed or named, or a file is no UTF-8 at all.
    """
    named = _named(options.column)
    if not options.alias_separator:
        raise ValueError("the separator of aliases is empty: give a sign, such as |")
    delimiter = "\t" if options.delimiter == r"\t" else options.delimiter
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ValueError(f"the delimiter is {delimiter!r}: give one sign, or \\t for a tab")
    for source in sources:
        with work.read(source) as archive:
            rows = iter(_Rows(archive, delimiter or delimiter_of(source), work))
            number, header = next(rows, (1, []))
            indices = _places(source, number, header, named, advice)
            for number, row in rows:
                work.report.read["rows"] += 1
                where = f"{source.name}:{number}"
                if len(row) <= max(indices["id"], indices["name"]) or len(row) > len(header):
                    reason = "rows with another number of columns than the header"
                    work.report.drop(reason, f"{where}: {len(row)} in place of {len(header)}: {','.join(row)[:80]}")
                    continue
                yield where, _entity(row, indices, options.alias_separator, where, work)


def delimiter_of(path: Path) -> str:
    """What stands between columns, by the file's name without what it is packed with."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return "\t" if suffixes and suffixes[-1] in _TABS else ","


def _named(columns: Sequence[str]) -> dict[str, str]:
    named = {}
    for column in columns:
        field, sign, name = column.partition("=")
        if field not in FIELDS or not sign or not name:
            raise ValueError(f"--column {column!r}: give FIELD=COLUMN with one of {', '.join(FIELDS)}")
        named[field] = name
    return named


def _places(source: Path, line: int, header: Sequence[str], named: dict[str, str], advice: str) -> dict[str, int]:
    """The place of each field in a row."""
    titles = [title.strip() for title in header]
    indices = {}
    for field in FIELDS:
        title = named.get(field, field)
        if title in titles:
            indices[field] = titles.index(title)
        elif field in named or field in _NEEDED:
            raise ValueError(
                f"{source}:{line}: no column {title!r} in the header, but {', '.join(titles) or 'nothing'}: "
                + advice.format(field=field)
            )
    return indices


def _entity(row: Sequence[str], indices: dict[str, int], separator: str, where: str, work: Work) -> Entity:
    values = {field: row[index] if index < len(row) else "" for field, index in indices.items()}
    count, given = 0, values.get("count", "").strip()
    if given:
        try:
            count = _count(given)
        except ValueError:
            work.report.drop("counts that are no whole number from 0 (the entity is kept)", f"{where}: {given[:40]!r}")
    return Entity(
        kb_id=values["id"],
        name=values["name"],
        count=count,
        aliases=tuple(values.get("aliases", "").split(separator)),
        description=values.get("description") or None,
    )


def _count(text: str) -> int:
    """A whole number, also as a spreadsheet writes it, 12.0."""
    count = int(text) if text.isdecimal() and len(text) < 19 else float(text)
    if not 0 <= count < 2**63 or count != int(count):
        raise ValueError(text)
    return int(count)


class _Rows:
    """The rows of a file with the line on which each begins; a field in quotes may go on over lines.

    A row whose quotation marks are not as CSV has them ("Weird Al" Yankovic) is read as it stands, up to the end of its
    first line. Lines that are no UTF-8 are reported.
    """

    def __init__(self, archive: Archive, delimiter: str, work: Work) -> None:
        self._archive = archive
        self._lines = archive.lines(_LONGEST_LINE)
        self._again: list[tuple[int, bytes | None]] = []
        self._delimiter = delimiter
        self._report = work.report

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        while line := self._next():
            number, content = line
            if number == 1 and content is not None:
                content = self._without_mark(content)
            if content is not None and not content.strip():
                continue
            try:
                if content is None:
                    raise ValueError(f"of more than {_LONGEST_LINE} bytes")
                row = self._quoted(content) if b'"' in content else None
                row = row or content.decode("utf-8").split(self._delimiter)
            except ValueError as error:
                what = "that are no UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
                shown = (content or b"")[:80].decode("utf-8", "backslashreplace")
                self._report.read["rows"] += 1
                self._report.drop(f"rows {what}", f"{self._archive.path.name}:{number}: {shown}")
                continue
            yield number, row

    def _next(self) -> tuple[int, bytes | None] | None:
        return self._again.pop() if self._again else next(self._lines, None)

    def _without_mark(self, content: bytes) -> bytes:
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise ValueError(f"{self._archive.path} is UTF-16: save it as UTF-8")
        return content.removeprefix(b"\xef\xbb\xbf")

    def _quoted(self, content: bytes) -> list[str] | None:
        """The fields of a row with quotes, with as many lines as it takes; None where it is no such row."""
        taken: list[tuple[int, bytes | None]] = []
        parts, marks = [content], content.count(b'"')
        while marks % 2 and len(taken) < _LONGEST_ROW and (following := self._next()):
            taken.append(following)
            if following[1] is None:
                break
            parts.append(following[1])
            marks += following[1].count(b'"')
        try:
            if marks % 2 == 0:
                text = b"\n".join(parts).decode("utf-8")
                return next(csv.reader([text], delimiter=self._delimiter, strict=True))
        except (csv.Error, UnicodeDecodeError):
            pass
        self._again.extend(reversed(taken))
        return None
