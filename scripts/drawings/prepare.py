"""The drawings as `spacy project run real` uses them: split for training, and with a table of one's own in the KB.

    python scripts/drawings/prepare.py data/real corpus/real [--table MINE.jsonl] [--hold-out fxemoji]

test.jsonl has the drawings of the set that nothing is trained or chosen on. About a twelfth of the other sets' pictures
are dev.jsonl, on which `spacy train` chooses its checkpoint; the rest is train.jsonl, so that all six sets are trained
on. A picture's path alone decides, and all its names stay on one side. entities.jsonl has the readings, then those rows
of the table whose names no reading has.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from spacy_gemel.kb.jsonl import RowProblem, parse_row
from spacy_gemel.utils.files import write_whole

_DEV_SHARE = 12  # one in so many


def is_dev(image: str) -> bool:
    """Whether a training drawing is one of the twelfth that is held out, by the hash of its path."""
    return int(hashlib.sha256(image.encode("utf8")).hexdigest(), 16) % _DEV_SHARE == 0


def prepare(drawings: Path, out: Path, table: Path | None, hold_out: str | None = None) -> dict[str, int]:
    """Write the three splits and the entities; returns how many rows each has.

    With `hold_out`, the name of a training set, its drawings are the test rows in place of the set kept for that.

    Raises:
        ValueError: if the table is not there, a row of it is no entity, or the set to hold out has no drawing.
        OSError: if a file is missing or cannot be written.
    """
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "dev": [], "test": []}
    for name in ("train", "dev"):
        for line in (drawings / f"{name}.jsonl").read_bytes().splitlines():
            row = json.loads(line)
            is_test = name == "dev" if hold_out is None else row["id"].startswith(f"{hold_out}:")
            if hold_out is not None and name == "dev":
                continue
            split = "test" if is_test else "dev" if is_dev(row["image"]) else "train"
            splits[split].append({**row, "image": Path(os.path.relpath(drawings / row["image"], out)).as_posix()})
    if not splits["test"]:
        raise ValueError(f"no drawing in {drawings} is of the set {hold_out!r}")
    readings = (drawings / "entities.jsonl").read_bytes().splitlines()
    entities = [*readings, *([] if table is None else _further_entities(table, readings))]
    files = {
        name: [json.dumps(row, ensure_ascii=False).encode("utf8") for row in rows] for name, rows in splits.items()
    }
    files["entities"] = entities
    for name, lines in files.items():
        with write_whole(out / f"{name}.jsonl") as partial:
            partial.write_bytes(b"".join(line + b"\n" for line in lines))
    return {name: len(lines) for name, lines in files.items()}


def _further_entities(table: Path, readings: list[bytes]) -> Iterator[bytes]:
    """The lines of a table whose names no reading has."""
    if not table.is_file():
        raise ValueError(f"{table}: no such file; real_table is to name JSON lines of entities, or nothing")
    names = {json.loads(line)["name"] for line in readings}
    for number, line in enumerate(table.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if not line.strip():
            continue
        entity = parse_row(line)
        if isinstance(entity, RowProblem):
            raise ValueError(f'{table}:{number}: {entity.message}; a row is like {{"id": "Q1", "name": "Name"}}')
        if entity.name not in names:
            yield line


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("drawings", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--table", default="", help="JSON lines of further entities; none if empty")
    parser.add_argument("--hold-out", metavar="SET", help="a training set to measure settings on, such as fxemoji")
    options = parser.parse_args(arguments)
    table = Path(options.table) if options.table else None
    try:
        numbers = prepare(options.drawings, options.out, table, options.hold_out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: " + ", ".join(f"{name} {number}" for name, number in numbers.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
