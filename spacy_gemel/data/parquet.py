"""Rows of Parquet files, and of the data sets that Hugging Face's `datasets` saves to disk, which are Arrow files."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spacy_gemel.utils.files import visible_files


def read_parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (location, row) of a Parquet file, of all in a folder, or of a folder that `save_to_disk` wrote.

    Raises OSError, and ValueError if it is none of these or damaged.
    """
    from spacy_gemel.bulk.sources import table_rows

    if not path.is_dir():
        files = [path] if path.suffix in (".parquet", ".arrow") else []
    elif (state := path / "state.json").is_file():
        try:
            files = [path / Path(file["filename"]).name for file in json.loads(state.read_text())["_data_files"]]
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(f"{state}: not what save_to_disk writes ({error})") from error
    elif splits := sorted(state.parent.name for state in path.glob("*/state.json")):
        raise ValueError(f"{path}: a data set of several splits: give one of its folders, {', '.join(splits)}")
    else:
        files = visible_files(path, (".parquet",))
    if not files:
        raise ValueError(f"{path}: neither a .parquet file, nor a folder of them, nor one that save_to_disk wrote")
    for file in files:
        for number, row in enumerate(_arrow_rows(file) if file.suffix == ".arrow" else table_rows(file), start=1):
            yield f"{file}, row {number}", dict(row)


def _arrow_rows(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a stream of Arrow; compressed batches, which may unpack to any size, are refused."""
    import pyarrow as pa

    from spacy_gemel.kb.knowledge_base import read_plain_stream

    try:
        schema, messages = read_plain_stream(pa.memory_map(str(file)))
        for message in messages:
            batch = pa.ipc.read_record_batch(message, schema)
            batch.validate(full=True)
            yield from batch.to_pylist()
    except (OSError, ValueError, EOFError, struct.error, pa.ArrowException) as error:
        raise ValueError(f"{file}: not an Arrow file that can be read ({error}); save the data set again") from error
