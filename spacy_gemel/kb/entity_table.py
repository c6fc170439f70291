"""The entities as an Arrow IPC file: written batch by batch, read memory-mapped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.errors import KBError

ENTITIES_FILE = "entities.arrow"
BATCH_ROWS = 4096
"""Entities that a build holds in memory at once, and that a first look at one of them has Arrow check.

The text of a batch is bounded because that of a row is (``rows.MAX_TEXT``): at most 256 MiB."""

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("aliases", pa.list_(pa.string()), nullable=False),
        pa.field("description", pa.string()),
    ]
)


class EntityWriter:
    """Writes entities.arrow; every batch but the last must have ``BATCH_ROWS`` rows. Raises OSError."""

    def __init__(self, folder: Path) -> None:
        self._sink = pa.OSFile(str(folder / ENTITIES_FILE), "wb")
        self._writer = pa.ipc.new_file(self._sink, SCHEMA)

    def __enter__(self) -> EntityWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:  # else the file goes away, and a full disk would only raise again
                self._writer.close()
        finally:
            self._sink.close()

    def write(self, entities: Sequence[Entity]) -> None:
        """Append one batch. Raises OSError."""
        columns = [
            [entity.kb_id for entity in entities],
            [entity.name for entity in entities],
            [entity.count for entity in entities],
            [list(entity.aliases) for entity in entities],
            [entity.description for entity in entities],
        ]
        arrays = [pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        self._writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))


class EntityTable:
    """Entities by row, read from the mapping when asked for.

    Raises KBError if the file is missing, damaged, or not ``rows`` rows in batches of ``batch_rows``.
    """

    def __init__(self, folder: Path, rows: int, batch_rows: int) -> None:
        path = folder / ENTITIES_FILE
        try:
            self._reader = pa.ipc.open_file(pa.memory_map(str(path), "r"))
        except (OSError, pa.ArrowException) as error:
            raise KBError(f"{path} cannot be read ({error}): build the KB again") from error
        self._path = path
        self._rows = rows
        self._batch_rows = batch_rows
        self._batches: dict[int, Any] = {}
        wanted = -(-rows // batch_rows)
        if not self._reader.schema.equals(SCHEMA) or self._reader.num_record_batches != wanted:
            raise KBError(f"{path} has other columns or batches than meta.json says: build the KB again")

    def __len__(self) -> int:
        return self._rows

    def batch(self, index: int) -> Any:
        """One record batch, a view of the mapping, checked when first read (raises KBError)."""
        batch = self._batches.get(index)
        if batch is None:
            try:
                batch = self._reader.get_batch(index)
                # Arrow trusts its offsets: without this, damaged ones would read outside of the mapping
                batch.validate(full=True)
            except (OSError, pa.ArrowException) as error:
                raise KBError(f"{self._path} is damaged ({error}): build the KB again") from error
            if batch.num_rows != min(self._batch_rows, self._rows - index * self._batch_rows):
                raise KBError(f"{self._path} is damaged (batch {index}): build the KB again")
            self._batches[index] = batch
        return batch

    @property
    def n_batches(self) -> int:
        """Number of record batches."""
        return int(self._reader.num_record_batches)

    def value(self, row: int, column: str) -> Any:
        """One cell as a Python value; raises IndexError for a row outside the table, KBError for a damaged batch."""
        if not 0 <= row < self._rows:
            raise IndexError(f"Row {row} is outside the knowledge base's {self._rows}")
        index, place = divmod(row, self._batch_rows)
        return self.batch(index).column(column)[place].as_py()

    def entity(self, row: int) -> Entity:
        """The entity of a row; raises as ``value`` does."""
        return Entity(
            kb_id=self.value(row, "id"),
            name=self.value(row, "name"),
            count=self.value(row, "count"),
            aliases=tuple(self.value(row, "aliases")),
            description=self.value(row, "description"),
        )
