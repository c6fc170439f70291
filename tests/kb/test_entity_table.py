"""The table of entities is only ever a view of its file: what would have to be unpacked is refused."""

import random
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from spacy_gemel.kb.entity import Entity, KBError
from spacy_gemel.kb.knowledge_base import ENTITIES_FILE, SCHEMA, EntityTable, record_batch

ENTITIES = [
    Entity(f"Q{row}", f"näme {row}", row, ("alias",) * (row % 3), None if row % 2 else "d") for row in range(10)
]


def write(folder: Path, batches: list[pa.RecordBatch], **options: Any) -> None:
    file = str(folder / ENTITIES_FILE)
    with pa.OSFile(file, "wb") as sink, pa.ipc.new_file(sink, SCHEMA, options=pa.ipc.IpcWriteOptions(**options)) as out:
        for batch in batches:
            out.write_batch(batch)


def batches_of(entities: list[Entity]) -> list[pa.RecordBatch]:
    return [record_batch(entities[start : start + 4]) for start in range(0, len(entities), 4)]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path, batches_of(ENTITIES))
    before = pa.total_allocated_bytes()
    table = EntityTable(tmp_path, 10, 4)
    assert [table.entity(row) for row in range(10)] == ENTITIES
    assert pa.total_allocated_bytes() - before < 100_000


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
@pytest.mark.parametrize("version", ["V4", "V5"])
def test_compressed_batches_are_refused(compression: str, version: str, tmp_path: Path) -> None:
    """A few kilobytes of zeros unpack to any size."""
    bomb = [record_batch([Entity("Q1", "x" * 50_000_000)])]
    write(tmp_path, bomb, compression=compression, metadata_version=pa.ipc.MetadataVersion[version])
    del bomb
    assert (tmp_path / ENTITIES_FILE).stat().st_size < 300_000
    pa.default_memory_pool().release_unused()
    before = pa.total_allocated_bytes()
    with pytest.raises(KBError, match="holds compressed batches"):
        EntityTable(tmp_path, 1, 4096)
    assert pa.total_allocated_bytes() - before < 1_000_000


def test_the_batches_that_are_checked_are_those_that_are_read(tmp_path: Path) -> None:
    """The index at the end of the file may lead anywhere."""
    write(tmp_path, batches_of(ENTITIES))
    file = tmp_path / ENTITIES_FILE
    data = bytearray(file.read_bytes())
    size = struct.unpack_from("<i", data, len(data) - 10)[0]
    data[-10 - size : -10] = bytes(size)
    file.write_bytes(data)
    table = EntityTable(tmp_path, 10, 4)
    assert [table.entity(row) for row in range(10)] == ENTITIES


def test_damage_is_a_kb_error(tmp_path: Path) -> None:
    """Or another value; never a crash, as of a first message that is no schema."""
    write(tmp_path, batches_of(ENTITIES))
    file = tmp_path / ENTITIES_FILE
    whole = file.read_bytes()
    generator = random.Random(0)
    places = [37, 0, 8, *(generator.randrange(len(whole)) for _ in range(500))]
    refused = 0
    for place in places:
        file.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        try:
            table = EntityTable(tmp_path, 10, 4)
            assert len([table.entity(row) for row in range(10)]) == 10
        except KBError:
            refused += 1
    assert refused > 50
