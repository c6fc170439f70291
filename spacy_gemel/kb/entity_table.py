"""The entities as an Arrow IPC file: batches of a build, read memory-mapped."""

from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from spacy_gemel.kb.entity import Entity, KBError

ENTITIES_FILE = "entities.arrow"
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("aliases", pa.list_(pa.string()), nullable=False),
        pa.field("description", pa.string()),
    ]
)


def record_batch(entities: Sequence[Entity]) -> pa.RecordBatch:
    """Entities as a batch of ``SCHEMA``."""
    columns = zip(*map(attrgetter("kb_id", "name", "count", "aliases", "description"), entities), strict=True)
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.record_batch(arrays, schema=SCHEMA)


class EntityTable:
    """Entities by row, read from the mapped file on demand.

    Raises:
        KBError: if the file is missing or damaged, or does not have `rows` rows in batches of `batch_rows`.
    """

    def __init__(self, folder: Path, rows: int, batch_rows: int) -> None:
        self._path = folder / ENTITIES_FILE
        try:
            self._reader = pa.ipc.open_file(pa.memory_map(str(self._path), "r"))
        except (OSError, pa.ArrowException) as error:
            raise KBError(f"{self._path} cannot be read ({error}): build the KB again") from error
        self._rows = rows
        self._batch_rows = batch_rows
        self._batches: dict[int, Any] = {}
        self.n_batches = -(-rows // batch_rows)
        if not self._reader.schema.equals(SCHEMA) or self._reader.num_record_batches != self.n_batches:
            raise KBError(f"{self._path} does not have the columns or batches that meta.json gives: build the KB again")

    def batch(self, index: int) -> Any:
        """One record batch, a view of the mapping. Raises KBError if it is damaged."""
        batch = self._batches.get(index)
        if batch is None:
            try:
                batch = self._reader.get_batch(index)
                # Arrow trusts offsets: without this check, damaged ones would be read outside of the mapping
                batch.validate(full=True)
            except (OSError, pa.ArrowException) as error:
                raise KBError(f"{self._path} is damaged ({error}): build the KB again") from error
            if batch.num_rows != min(self._batch_rows, self._rows - index * self._batch_rows):
                raise KBError(f"{self._path} is damaged (batch {index}): build the KB again")
            self._batches[index] = batch
        return batch

    def value(self, row: int, column: str) -> Any:
        """One cell as a Python value. Raises IndexError if the row does not exist, KBError if its batch is damaged."""
        if not 0 <= row < self._rows:
            raise IndexError(f"Row {row} is outside the knowledge base's {self._rows}")
        index, offset = divmod(row, self._batch_rows)
        return self.batch(index).column(column)[offset].as_py()

    def entity(self, row: int) -> Entity:
        """The entity of a row. Raises as ``value`` does."""
        kb_id, name, count, aliases, description = (self.value(row, column) for column in SCHEMA.names)
        return Entity(kb_id, name, count, tuple(aliases), description)
