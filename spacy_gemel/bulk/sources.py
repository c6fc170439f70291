"""What `link` reads, row by row: JSON lines, tables and docs; a file, a folder of them, or stdin."""

import csv
import gzip
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from spacy.tokens import Doc
from spacy.vocab import Vocab

from spacy_gemel.data.jsonl import JsonRow, parse_line, parse_row
from spacy_gemel.data.reader import read_docs
from spacy_gemel.data.records import Problem, Record
from spacy_gemel.utils.files import read_lines, unpacked_limit, visible_files
from spacy_gemel.utils.values import optional_value

STDIN = Path("-")
TABLES = (".csv", ".parquet")
_PARTS = (".jsonl", ".jsonl.gz", ".spacy", *TABLES)


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row of the input.

    Attributes:
        place: Its line, or its number, from 1; in a folder also its file.
        content: What it is known by when a run goes on.
        read: Gives its record or doc, and what was left out of it; it may raise anything.
        image: The image's bytes, if the row has them.
    """

    place: dict[str, Any]
    content: bytes
    read: Callable[[], Sequence[Record | Doc | Problem]]
    image: bytes | None = None


def kind_of(path: Path) -> str:
    """The suffix that says what a file is, without that of gzip; `.jsonl` for any that is not known."""
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    return suffixes[-1] if suffixes and suffixes[-1] in (".spacy", *TABLES) else ".jsonl"


def read_rows(source: Path, vocab: Vocab) -> Iterator[SourceRow]:
    """The rows of a file, of the files in a folder by name, or of stdin.

    Raises OSError for a file, ValueError for a folder without any, and for a table or a .spacy file that is damaged.
    """
    if source == STDIN:
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
    for number, line in enumerate(read_lines(lines), start=1):
        if line.strip():
            yield SourceRow({**place, "line": number}, line, partial(parse_line, line, f"{name}:{number}", folder))


def _docs(file: Path, vocab: Vocab, place: Mapping[str, Any]) -> Iterator[SourceRow]:
    for number, doc in enumerate(read_docs(file, vocab), start=1):
        spans = [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]
        content = json.dumps([doc.text, spans, str(doc.user_data.get("image"))[:1000]]).encode()
        yield SourceRow({**place, "line": number}, content, partial(list, [doc]))


# Tables


def table_rows(file: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a CSV or Parquet file. Raises OSError, and ValueError if it is neither."""
    if kind_of(file) == ".parquet":
        for batch in parquet_batches(file):
            yield from batch.to_pylist()
        return
    with open_bytes(file) as raw:
        text = (line.decode("utf-8-sig" if number == 0 else "utf-8") for number, line in enumerate(read_lines(raw)))
        try:
            yield from csv.DictReader(text, strict=True)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: not CSV in UTF-8: {error}") from error


def parquet_batches(file: Path) -> Iterator[Any]:
    """The record batches of a Parquet file. Raises OSError, and ValueError if it is none."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as table:
            groups = (table.metadata.row_group(index) for index in range(table.num_row_groups))
            size, limit = (
                max((group.total_byte_size for group in groups), default=0),
                unpacked_limit(file.stat().st_size),
            )
            if size > limit:
                raise ValueError(
                    f"{file}: rows that unpack to {size} bytes, more than {limit}: write smaller row groups"
                )
            yield from table.iter_batches(batch_size=1024)
    except pa.ArrowException as error:
        raise ValueError(f"{file}: not a Parquet file that can be read: {error}") from error


def table_row(columns: Mapping[str, Any], location: str, folder: Path, place: dict[str, Any]) -> SourceRow:
    """A row of a table: its columns `text` and `image`, and `start` and `end`, or else `mention`, or neither."""
    image = columns.get("image")
    image = image.get("bytes") or image.get("path") if isinstance(image, Mapping) else image  # as `datasets` has it
    packed = image if isinstance(image, bytes) else None
    fields = {name: optional_value(columns.get(name)) for name in ("id", "text", "mention", "start", "end")}
    fields["image"] = None if packed is not None else image or None
    content = json.dumps({**fields, "bytes": hashlib.sha256(packed or b"").hexdigest()}, default=str).encode()
    return SourceRow(place, content, partial(_parse_columns, columns, fields, location, folder), packed)


def _parse_columns(
    columns: Mapping[str, Any], fields: Mapping[str, Any], location: str, folder: Path
) -> list[Record | Problem]:
    text, mention, start, end = (fields[name] for name in ("text", "mention", "start", "end"))
    value: dict[str, Any] = {name: fields[name] for name in ("id", "text", "image") if fields[name] is not None}
    if "start" in columns and "end" in columns:
        try:
            value["mentions"] = [{"start": int(start), "end": int(end)}]
        except (TypeError, ValueError):
            return [Problem(location, "row", "start or end is not a whole number", f"{start!r}, {end!r}")]
        surface = text[int(start) : int(end)] if isinstance(text, str) else None
        if mention is not None and surface is not None and surface.strip() != str(mention).strip():
            return [Problem(location, "row", "the mention is not what stands there", f"{mention!r}, {surface!r}")]
    elif "mention" in columns and isinstance(text, str):
        at = None if mention is None else find_mention(text, str(mention))
        if at is None:
            return [Problem(location, "row", "the mention does not stand in the text", repr(mention))]
        value["mentions"] = [{"start": at, "end": at + len(str(mention))}]
    return parse_row(JsonRow(location, value), folder)


def find_mention(text: str, mention: str) -> int | None:
    """Where a mention begins: the first time it stands there as whole words, else the first time; None if nowhere."""
    whole = re.search(rf"(?<!\w){re.escape(mention)}(?!\w)", text)
    at = text.find(mention) if whole is None else whole.start()
    return None if at < 0 or not mention.strip() else at
