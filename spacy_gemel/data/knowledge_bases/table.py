"""Entities from a spreadsheet: a CSV or TSV file with a header."""

from __future__ import annotations

import csv
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path

from spacy_gemel.data.knowledge_bases.work import Archive, ImportOptions, Work
from spacy_gemel.kb.entity import Entity
from spacy_gemel.utils.files import check_text

FIELDS = ("id", "name", "description", "count", "aliases")
_ADVICE = "name it with --column {field}=COLUMN, or the delimiter with --delimiter"
BAD_COUNT = "counts that are not a whole number from 0 (the entity is kept)"
_LONGEST_LINE = 2**20
_THOUSANDS = re.compile(r"\d{1,3}(\.\d{3})+")
_SEPARATOR = re.compile(rb"sep=(.)", re.IGNORECASE)
_MAX_LINES = 100  # of one row: a quotation mark that is not closed must not take the rest of the file with it


def read_table(
    sources: Sequence[Path], options: ImportOptions, work: Work, *, advice: str = _ADVICE
) -> Iterator[tuple[str, Entity]]:
    """Yield the rows of some files, in their order, with their locations.

    The header names the columns: id, name and optionally description, count, aliases. `advice` says what to do about a
    header without a column, with {field} for the missing field.
    A first line such as `sep=;`, as Excel has it, names the delimiter.
    Raises ValueError if the header does not have a column that is required or named, or the file is no text in lines.
    """
    names = column_names(options)
    delimiter = "\t" if options.delimiter == r"\t" else options.delimiter
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ValueError(f"the delimiter is {delimiter!r}: give one character, or \\t for a tab")
    for source in sources:
        tabs = {".tsv", ".tab"} & {suffix.lower() for suffix in source.suffixes[-2:]}  # .tsv.gz too
        with work.read(source) as archive:
            rows = _rows(archive, delimiter or ("\t" if tabs else ","), work, named=delimiter is not None)
            number, header = next(rows, (1, []))
            titles = [title.strip() for title in header]
            for field in missing_fields(names, titles):
                raise ValueError(
                    f"{source}:{number}: no column {names[field]!r} in the header, but "
                    f"{', '.join(titles) or 'nothing'}: {advice.format(field=field)}"
                )
            indices = {field: titles.index(name) for field, name in names.items() if name in titles}
            for number, row in rows:
                work.report.read["rows"] += 1
                where = f"{source.name}:{number}"
                if len(row) <= max(indices["id"], indices["name"]) or len(row) > len(header):
                    reason = "rows with another number of columns than the header"
                    numbers = f"{len(row)} instead of {len(header)}"
                    work.report.dropped.add(reason, f"{where}: {numbers}: {','.join(row)[:80]}")
                    continue
                yield where, _entity(row, indices, options.alias_separator, where, work)


def column_names(options: ImportOptions) -> dict[str, str]:
    """The column of each field, by default of its name. Raises ValueError for other options than there are."""
    names = {field: field for field in FIELDS}
    for column in options.column:
        field, sign, name = column.partition("=")
        if field not in FIELDS or not sign or not name:
            raise ValueError(f"--column {column!r}: give FIELD=COLUMN with one of {', '.join(FIELDS)}")
        names[field] = name
    if not options.alias_separator:
        raise ValueError("the separator of aliases is empty: give a character, such as |")
    return names


def missing_fields(names: Mapping[str, str], columns: Container[str]) -> list[str]:
    """The fields without a column, of those that are required and those whose column was named. names: by field."""
    wanted = [field for field, name in names.items() if field in ("id", "name") or name != field]
    return [field for field in wanted if names[field] not in columns]


def _entity(row: Sequence[str], indices: dict[str, int], separator: str, where: str, work: Work) -> Entity:
    values = {field: row[index] if index < len(row) else "" for field, index in indices.items()}
    count, text = 0, values.get("count", "").strip()
    try:
        if _THOUSANDS.fullmatch(text):  # 12.000 may be 12 or 12,000
            raise ValueError
        # a spreadsheet may write 12.0
        number = int(text) if text.isdecimal() and len(text) < 19 else float(text or 0)
        if not 0 <= number < 2**63 or number != int(number):
            raise ValueError
        count = int(number)
    except ValueError:
        work.report.dropped.add(BAD_COUNT, f"{where}: {text[:40]!r}")
    aliases = tuple(values.get("aliases", "").split(separator))
    return Entity(values["id"], values["name"], count, aliases, values.get("description") or None)


def _rows(archive: Archive, delimiter: str, work: Work, *, named: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, with the line on which each begins; lines that are not UTF-8 are reported.

    named: whether the delimiter was asked for, whatever the file itself says.

    A field in quotes may have several lines. A row with other quotation marks ("Weird Al" Yankovic) is its first line.
    """
    lines = archive.lines(_LONGEST_LINE)
    pending: list[tuple[int, bytes | None]] = []  # lines that were read ahead
    while line := pending.pop(0) if pending else next(lines, None):
        number, content = line
        if number == 1 and content is not None:
            check_text(content, archive.path)
            content = content.removeprefix(b"\xef\xbb\xbf")
            if b"\r" in content:
                raise ValueError(f"{archive.path} has line ends of old Macs (CR alone): save it with LF or CRLF")
            if match := _SEPARATOR.fullmatch(content):
                delimiter = delimiter if named else match[1].decode("latin-1")
                continue
        if content is not None and not content.strip():
            continue
        try:
            if content is None:
                raise ValueError(f"of more than {_LONGEST_LINE} bytes")
            row = _quoted(content, pending, lines, delimiter) if b'"' in content else None
            yield number, row or content.decode("utf-8").split(delimiter)
        except ValueError as error:
            is_coding = isinstance(error, UnicodeDecodeError)
            reason = "that are not UTF-8 (save it as UTF-8)" if is_coding else str(error)
            beginning = (content or b"")[:80].decode("utf-8", "backslashreplace")
            work.report.read["rows"] += 1
            work.report.dropped.add(f"rows {reason}", f"{archive.path.name}:{number}: {beginning}")


def _quoted(
    content: bytes, pending: list[tuple[int, bytes | None]], lines: Iterator[tuple[int, bytes | None]], delimiter: str
) -> list[str] | None:
    """The fields of a row with quotation marks, which takes further lines if it needs them; None if it is not CSV."""
    contents, marks = [content], content.count(b'"')
    while marks % 2 and len(contents) <= _MAX_LINES:
        if len(pending) < len(contents):
            pending += [line for line in [next(lines, None)] if line]
        following = pending[len(contents) - 1][1] if len(pending) >= len(contents) else None
        if following is None:
            return None
        contents.append(following)
        marks += following.count(b'"')
    try:
        row = next(csv.reader([b"\n".join(contents).decode("utf-8")], delimiter=delimiter, strict=True))
    except (csv.Error, UnicodeDecodeError):
        return None
    del pending[: len(contents) - 1]
    return row
