"""The output of `link` in its final form: JSON lines, packed or not, or a table."""

import csv
import gzip
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from spacy.language import Language

from spacy_gemel.bulk.link_block import link_block
from spacy_gemel.bulk.sources import (
    TABLES,
    columns_of,
    delimiter_of,
    kind_of,
    parquet_schema,
    parts_in,
    table_row,
    table_rows,
)
from spacy_gemel.pipeline.loaded_pipeline import linker_of
from spacy_gemel.utils.files import write_whole

T = TypeVar("T")
ANSWER = ("kb_id", "name", "probability", "reason")
"""The columns that a table gets: of its row's mention, and why there is no answer."""
_PLACE = ("file", "line")
_MENTION = {"file": "string", "line": "int64", "id": "string", "text": "string", "image": "string"}
_MENTION |= {"start": "int64", "end": "int64", "mention": "string"}
_TYPES = {"kb_id": "string", "name": "string", "probability": "float64", "reason": "string"}


def check_columns(source: Path) -> None:
    """Raise ValueError, before anything is linked, if a table of tables could not be written."""
    files = parts_in(source) if source.is_dir() else [source]
    if not all(kind_of(file) in TABLES for file in files):
        return
    first = columns_of(files[0])
    for file in files:
        if columns_of(file) != first:
            raise ValueError(f"{file}: it has other columns than {files[0]}: link each to a table of its own")
    if own := [name for name in ANSWER if name in first]:
        raise ValueError(f"{files[0]}: it has a column {own[0]!r}, which the answers need: rename it")


def write_output(partial: Path, failed: Path, source: Path, out: Path) -> None:
    """Make `out` of the lines of a run that has ended.

    A table of a table has its rows and columns, and those of ANSWER; a table of anything else a row for each mention.
    Raises OSError for the files, ValueError if the source has changed meanwhile.
    """
    if kind_of(out) not in TABLES:
        if out.suffix != ".gz":
            partial.replace(out)
            return
        with (
            write_whole(out) as path,
            partial.open("rb") as lines,
            path.open("wb") as file,
            gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,  # the same bytes each time
        ):
            shutil.copyfileobj(lines, packed)
        return
    files = parts_in(source) if source.is_dir() else [source]
    if all(kind_of(file) in TABLES for file in files):
        rows, types = _answered(files, source, partial, failed), _types_of(files[0])
        delimiter = "," if kind_of(files[0]) == ".parquet" else delimiter_of(files[0])
    else:
        rows, types, delimiter = _mentions(partial), dict(_MENTION), ","
    with write_whole(out) as path:
        _write_table(rows, types | _TYPES, path, out, delimiter)


def _answered(files: Iterable[Path], source: Path, partial: Path, failed: Path) -> Iterator[dict[str, Any]]:
    lines, failures = _read_lines(partial), _read_lines(failed)
    line, failure = next(lines, None), next(failures, None)
    for file in files:
        for number, columns in enumerate(table_rows(file), start=1):
            place = {"file": file.relative_to(source).as_posix() if source.is_dir() else None, "line": number}
            if line is not None and _place_of(line) == place:
                yield {**columns, **answer_of(line)}
                line = next(lines, None)
            elif failure is not None and _place_of(failure) == place:
                yield {**columns, **answer_of(failure)}
                failure = next(failures, None)
            else:
                raise ValueError(f"{file}: its row {number} was not there when it was linked")


def answer_of(line: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of ANSWER for a line of the output, or of what failed."""
    mention = next(iter(line.get("mentions", ())), {"reason": line.get("reason", "no mention was found")})
    return {name: mention.get(name) for name in ANSWER}


def _mentions(partial: Path) -> Iterator[dict[str, Any]]:
    for line in _read_lines(partial):
        whole = {name: line.get(name) for name in ("file", "line", "id", "text", "image")}
        whole["id"] = None if whole["id"] is None else str(whole["id"])
        for mention in line["mentions"]:
            edges = {"start": mention["start"], "end": mention["end"], "mention": mention["text"]}
            yield {**whole, **edges, **{name: mention.get(name) for name in ANSWER}}


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:
        for line in lines:
            yield json.loads(line)


def _place_of(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: line.get(name) for name in _PLACE}


def _types_of(file: Path) -> dict[str, Any]:
    """The columns of a table with their Arrow types; in a CSV file all are strings."""
    if kind_of(file) == ".parquet":
        return {field.name: field.type for field in parquet_schema(file)}
    return dict.fromkeys(columns_of(file), "string")


def _write_table(
    rows: Iterator[dict[str, Any]], types: Mapping[str, Any], path: Path, out: Path, delimiter: str
) -> None:
    """Write rows to a CSV or Parquet file; `out` says which, and whether it is packed."""
    if kind_of(out) == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        schema = pa.schema([(name, pa.type_for_alias(t) if isinstance(t, str) else t) for name, t in types.items()])
        with parquet.ParquetWriter(path, schema) as writer:
            while some := list(islice(rows, 1024)):
                writer.write_table(pa.Table.from_pylist(some, schema=schema))
        return
    opened = gzip.open if out.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.DictWriter(file, list(types), extrasaction="ignore", delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


# In memory


def link_table(
    table: T,
    nlp: Language,
    *,
    text: str = "text",
    image: str = "image",
    mention: str = "mention",
    start: str = "start",
    end: str = "end",
    batch_size: int = 0,
) -> T:
    """Link each row of a table in memory; returns it with the columns `kb_id`, `name`, `probability` and `reason`.

    Args:
        table: A pandas DataFrame, or an Arrow table.
        nlp: The pipeline.
        text: The column of the texts.
        image: The column of paths, or of the images' bytes; it may be missing.
        mention: The column of the words to link, if there are none of offsets. Without either the first entity that the
            pipeline's own NER finds is linked.
        start: The column of the mention's first character.
        end: The column of the character behind it.
        batch_size: Rows that are linked together; 0 for the pipeline's own.

    Raises:
        ValueError: if the pipeline has no linker, or the table no column of texts.
    """
    linker_of(nlp)
    columns = {"text": text, "image": image, "mention": mention, "start": start, "end": end}
    is_arrow = hasattr(table, "to_pylist")
    records: list[dict[str, Any]] = table.to_pylist() if is_arrow else table.to_dict("records")  # type: ignore[attr-defined]
    if records and text not in records[0]:
        raise ValueError(f"the table has no column {text!r}: name that of the texts, link_table(..., text=...)")
    named = ({name: row[column] for name, column in columns.items() if column in row} for row in records)
    rows = (table_row(row, f"row {number}", Path(), {"line": number}) for number, row in enumerate(named))
    answers: list[dict[str, Any]] = [{}] * len(records)
    while block := list(islice(rows, batch_size or nlp.batch_size)):
        linked = link_block(nlp, block, Path())
        for line in [*linked.lines, *linked.failed]:
            answers[line["line"]] = answer_of(line)
    values = {name: [answer[name] for answer in answers] for name in ANSWER}
    if not is_arrow:
        return table.assign(**values)  # type: ignore[attr-defined]
    import pyarrow as pa

    for name, column in values.items():
        typed = pa.array(column, pa.type_for_alias(_TYPES[name]))
        table = table.append_column(name, typed)  # type: ignore[attr-defined]
    return table
