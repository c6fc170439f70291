"""What `link` reads, row by row: JSON lines, tables and docs; a file, a folder of them, or stdin."""

import csv
import gzip
import hashlib
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from spacy.tokens import Doc
from spacy.vocab import Vocab

from spacy_gemel.data.jsonl import JsonRow, parse_line, parse_row
from spacy_gemel.data.reader import read_docs
from spacy_gemel.data.records import Problem, Record, bad_text
from spacy_gemel.utils.files import MAX_LINE, read_lines, unpacked_limit, visible_files
from spacy_gemel.utils.messages import excerpt
from spacy_gemel.utils.values import optional_value

PIPE = Path("-")
"""stdin as input, stdout as output."""
TABLES = (".csv", ".parquet")
_PARTS = (".jsonl", ".jsonl.gz", ".spacy", ".csv.gz", *TABLES)


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row of the input.

    Attributes:
        place: Its line, or its number, from 1; in a folder also its file.
        location: The same for messages.
        content: What it is known by when a run goes on.
        read: Gives its record or doc, and what was left out of it; it may raise anything.
    """

    place: dict[str, Any]
    location: str
    content: bytes
    read: Callable[[], Sequence[Record | Doc | Problem]]


def kind_of(path: Path) -> str:
    """The suffix that says what a file is, without that of gzip; `.jsonl` for any that is not known."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    return suffix if suffix in (".spacy", *TABLES) else ".jsonl"


def read_rows(source: Path, vocab: Vocab) -> Iterator[SourceRow]:
    """The rows of a file, of the files in a folder by name, or of stdin.

    Raises OSError for a file, ValueError for a folder without any, and for a table or a .spacy file that is damaged.
    """
    if source == PIPE:
        yield from _lines(sys.stdin.buffer, "stdin", Path.cwd(), {})
        return
    files = parts_in(source) if source.is_dir() else [source]
    for file in files:
        place = {"file": file.relative_to(source).as_posix()} if source.is_dir() else {}
        kind = kind_of(file)
        if kind == ".spacy":
            yield from _docs(file, vocab, place)
        elif kind in TABLES:
            for number, columns in enumerate(table_rows(file), start=1):
                yield table_row(columns, f"{file}, row {number}", file.parent, {**place, "line": number})
        else:
            with open_bytes(file) as lines:
                yield from _lines(lines, str(file), file.parent, place)


def parts_in(folder: Path) -> list[Path]:
    """The files in a folder that can be linked, sorted; hidden ones are none. Raises ValueError without any."""
    parts = visible_files(folder, _PARTS)
    if not parts:
        raise ValueError(f"{folder}: no file in this folder ends in one of {', '.join(_PARTS)}")
    return parts


def open_bytes(path: Path) -> IO[bytes]:
    """A file to read, unpacked if its name ends in .gz."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _lines(lines: IO[bytes], name: str, folder: Path, place: Mapping[str, Any]) -> Iterator[SourceRow]:
    try:
        for number, line in enumerate(read_lines(lines, json_lines=True), start=1):
            if line.strip():
                location = f"{name}:{number}"
                read = partial(parse_line, line, location, folder)
                yield SourceRow({**place, "line": number}, location, line, read)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{name}: cut off or damaged, or no gzip at all: {error}") from error


def _docs(file: Path, vocab: Vocab, place: Mapping[str, Any]) -> Iterator[SourceRow]:
    for number, doc in enumerate(read_docs(file, vocab), start=1):
        spans = [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]
        known = [doc.text, spans, *(str(doc.user_data.get(key))[:1000] for key in ("id", "image"))]
        content = json.dumps(known).encode()
        yield SourceRow({**place, "line": number}, f"{file}, doc {number}", content, partial(list, [doc]))


# Tables


def table_rows(file: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a CSV or Parquet file; of one that is no CSV the error, under None.

    Raises OSError, and ValueError if the file is neither.
    """
    if kind_of(file) == ".parquet":
        with _table_errors(file):
            for batch in parquet_batches(file):
                yield from batch.to_pylist()
        return
    with _table_errors(file), open_bytes(file) as raw:
        rows = csv.DictReader(_decoded(raw), delimiter=delimiter_of(file))
        _ = rows.fieldnames  # an error in the header is one of the file
        while True:
            try:
                yield next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield {None: error}  # type: ignore[dict-item]


def columns_of(file: Path) -> list[str]:
    """The columns of a table. Raises OSError, and ValueError for a file that is none or has a column twice."""
    if kind_of(file) == ".parquet":
        names = list(parquet_schema(file).names)
    else:
        with _table_errors(file), open_bytes(file) as raw:
            names = next(csv.reader(_decoded(raw), delimiter=delimiter_of(file)), [])
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{file}: it has two columns {twice!r}: rename one")
    if "text" not in names:
        raise ValueError(f"{file}: it has no column 'text', only {', '.join(map(repr, names)) or 'none'}")
    return names


def delimiter_of(file: Path) -> str:
    """What separates the columns of a CSV file: of comma, semicolon and tab the most frequent in its header."""
    with open_bytes(file) as raw:
        header = next(_decoded(raw), "")
    return max(",;\t", key=header.count)


def _decoded(raw: IO[bytes]) -> Iterator[str]:
    """The lines of a CSV file; bytes that are no UTF-8 fail the row that they stand in."""
    csv.field_size_limit(MAX_LINE)
    for number, line in enumerate(read_lines(raw)):
        yield line.decode("utf-8-sig" if number == 0 else "utf-8", errors="surrogateescape")


@contextmanager
def _table_errors(file: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ValueError(f"{file}: not a {kind_of(file)} file that can be read: {error}") from error


def parquet_schema(file: Path) -> Any:
    """The columns of a Parquet file with their types. Raises OSError, and ValueError if it is none."""
    from pyarrow import parquet

    with _table_errors(file):
        return parquet.read_schema(file)


def parquet_batches(file: Path) -> Iterator[Any]:
    """The record batches of a Parquet file. Raises OSError, and ValueError if it is none, or too large."""
    from pyarrow import parquet

    with _table_errors(file), parquet.ParquetFile(file) as table:
        groups = (table.metadata.row_group(index) for index in range(table.num_row_groups))
        size = max((group.total_byte_size for group in groups), default=0)
        limit = unpacked_limit(file.stat().st_size)
        if size > limit:
            raise ValueError(f"{file}: rows that unpack to {size} bytes, more than {limit}: write smaller row groups")
        yield from table.iter_batches(batch_size=1024)


def table_row(columns: Mapping[str, Any], location: str, folder: Path, place: dict[str, Any]) -> SourceRow:
    """A row of a table: its columns `text` and `image`, and `start` and `end`, or else `mention`, or neither."""
    fields = {name: optional_value(columns.get(name)) for name in ("id", "text", "image", "mention", "start", "end")}
    image = hashlib.sha256(str(fields["image"]).encode(errors="surrogatepass")).hexdigest()  # it may be bytes
    content = json.dumps({**fields, "image": image}, default=str).encode()
    return SourceRow(place, location, content, partial(_parse_columns, columns, fields, location, folder))


def _parse_columns(
    columns: Mapping[str, Any], fields: Mapping[str, Any], location: str, folder: Path
) -> list[Record | Problem]:
    if None in columns:
        extra: Any = columns[None]  # type: ignore[index]
        reason = "not CSV" if isinstance(extra, csv.Error) else "more fields than the header has columns"
        return [Problem(location, "row", reason, excerpt(str(extra)))]
    text, mention, start, end = (fields[name] for name in ("text", "mention", "start", "end"))
    value: dict[str, Any] = {name: fields[name] for name in ("id", "text", "image") if fields[name] is not None}
    if bad_text(text):
        return parse_row(JsonRow(location, value), folder)  # which says why
    if "start" in columns and "end" in columns:
        try:
            start, end = (int(each) for each in (start, end) if each == int(each) or isinstance(each, str))
            value["mentions"] = [{"start": start, "end": end}]
        except (TypeError, ValueError):
            return [Problem(location, "row", "start or end is not a whole number", f"{start!r}, {end!r}")]
        surface = text[start:end]
        if mention is not None and surface.strip() != str(mention).strip():
            return [Problem(location, "row", "the mention is not what stands there", f"{mention!r}, {surface!r}")]
    elif mention is not None:
        at = find_mention(text, str(mention))
        if at is None:
            return [Problem(location, "row", "the mention does not stand in the text", repr(mention))]
        value["mentions"] = [{"start": at, "end": at + len(str(mention))}]
    return parse_row(JsonRow(location, value), folder)


def find_mention(text: str, mention: str) -> int | None:
    """Where a mention begins: the first time it stands there as whole words, else the first time; None if nowhere."""
    whole = re.search(rf"(?<!\w){re.escape(mention)}(?!\w)", text)
    at = text.find(mention) if whole is None else whole.start()
    return None if at < 0 or not mention.strip() else at
