"""The entities file as a build reads it: once for its checksum, once in batches; and what is left out of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.errors import KBError
from spacy_gemel.kb.index import hash_id
from spacy_gemel.kb.jsonl import RowProblem, RowReader, shown
from spacy_gemel.kb.meta import Skipped

_EXAMPLES = 5
_HASHES = 4096  # that become an array at once: far smaller than a list of them


@dataclass(frozen=True, slots=True)
class Scan:
    """What the first reading finds: the file's size in bytes and checksum, and hashes of ids that may repeat."""

    size: int
    sha256: str
    repeated: set[int]


@dataclass(slots=True)
class Batch:
    """Some entities with the line and the hash of the id of each."""

    entities: list[Entity] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    hashes: list[int] = field(default_factory=list)


class Skips:
    """Counts and first examples of what is left out of a file, by reason."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._found: dict[str, tuple[int, list[str]]] = {}

    def add(self, line: int, problem: RowProblem) -> None:
        """Count the problem of a line."""
        count, examples = self._found.get(problem.reason, (0, []))
        if len(examples) < _EXAMPLES:
            examples.append(f"{self._source}:{line}: {problem.message}")
        self._found[problem.reason] = (count + 1, examples)

    def first(self) -> str:
        """A sentence that names one of them, for error messages; empty where there is none."""
        examples = [examples[0] for _, examples in self._found.values()]
        return f" The first problem: {examples[0]}" if examples else ""

    def summary(self) -> dict[str, Skipped]:
        """All of them, for meta.json."""
        return {reason: Skipped(count, tuple(examples)) for reason, (count, examples) in sorted(self._found.items())}


def scan_entities(source: Path, progress: bool) -> Scan:
    """Read the whole file once. Raises KBError if it has no entity, and OSError."""
    size = source.stat().st_size
    hashes: list[NDArray[np.uint64]] = []
    some: list[int] = []
    skips = Skips(source.name)
    rows = RowReader(source)
    with _bar("Reading entities", size, progress) as bar:
        for line in rows:
            bar.update(line.size)
            if isinstance(line.content, RowProblem):
                skips.add(line.number, line.content)
                continue
            some.append(hash_id(line.content.kb_id))
            if len(some) == _HASHES:
                hashes.append(np.array(some, dtype=np.uint64))
                some.clear()
    hashes.append(np.array(some, dtype=np.uint64))
    found = np.sort(np.concatenate(hashes))
    if len(found) == 0:
        expected = 'lines like {"id": "Q1", "name": "Name"} are expected.'
        raise KBError(f"{source} has no entity: {expected}{skips.first()}")
    return Scan(size, rows.sha256, set(found[1:][found[1:] == found[:-1]].tolist()))


def read_batches(source: Path, scan: Scan, skips: Skips, rows: int, progress: bool) -> Iterator[Batch]:
    """The entities in batches of ``rows`` (the last may have less), without ids that stand above already.

    What is left out goes to ``skips``. Raises KBError where the file has changed since the scan, and OSError.
    """
    seen: set[str] = set()
    batch = Batch()
    reader = RowReader(source)
    with _bar("Tokenising names", scan.size, progress) as bar:
        for line in reader:
            bar.update(line.size)
            if isinstance(line.content, RowProblem):
                skips.add(line.number, line.content)
                continue
            kb_id = line.content.kb_id
            hashed = hash_id(kb_id)
            if hashed in scan.repeated:
                if kb_id in seen:
                    skips.add(line.number, RowProblem("duplicate_id", f"id {shown(kb_id)} stands above already"))
                    continue
                seen.add(kb_id)
            batch.entities.append(line.content)
            batch.lines.append(line.number)
            batch.hashes.append(hashed)
            if len(batch.entities) == rows:
                yield batch
                batch = Batch()
    if reader.sha256 != scan.sha256:
        raise KBError(f"{source} changed while it was read: build again")
    if batch.entities:
        yield batch


def _bar(what: str, size: int, progress: bool) -> tqdm[NoReturn]:
    bar: tqdm[NoReturn] = tqdm(total=size, desc=what, unit="B", unit_scale=True, file=sys.stderr, disable=not progress)
    return bar
