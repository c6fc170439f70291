"""The rows of a JSON file that is one array or one object of rows."""

import json
from collections.abc import Iterator
from pathlib import Path

from spacy_gemel.data.jsonl import JsonRow


def read_json_rows(path: Path) -> Iterator[JsonRow]:
    """Yield the items of a JSON array, or the values of a JSON object with their keys. The file is read whole.

    Raises:
        ValueError: with file, line and column, if the file is not JSON in UTF-8; if it is neither array nor object.
        OSError: if the file cannot be read.
    """
    content = path.read_bytes()
    try:
        rows = json.loads(content.decode("utf-8").removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise ValueError(f"{path}:{line}:{column}: not UTF-8: {error.reason}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or nested too deep
        raise ValueError(f"{path}: not JSON that Python can read: {error}") from error
    if not isinstance(rows, list | dict):
        raise ValueError(f"{path}: neither a JSON array nor a JSON object, but {type(rows).__name__}")
    items = rows.items() if isinstance(rows, dict) else ((None, value) for value in rows)
    for number, (key, value) in enumerate(items, start=1):
        yield JsonRow(f"{path}, item {number}", value, key)
