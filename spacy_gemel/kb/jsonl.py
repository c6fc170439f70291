"""The entities file: JSON lines, each checked on its own, and read twice by a build."""

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from spacy_gemel.kb.entity import Entity, KBError
from spacy_gemel.kb.index import hash_text
from spacy_gemel.kb.meta import Skipped

REASONS = {
    "bad_json": "rows that are not a JSON object (skipped)",
    "bad_field": "rows with a missing or wrong field (skipped)",
    "duplicate_id": "rows that repeat an id (skipped; the first one stays)",
    "empty_name": "entities without a name (kept, but cannot be linked to)",
    "line_break": "names with a line break (kept, but cannot be linked to)",
    "special_token": "names with a special or unknown token (kept, but cannot be linked to)",
    "not_reversible": "names that cannot be decoded from their tokens (kept, but cannot be linked to)",
    "too_long": "names over the token limit (kept, but cannot be linked to)",
}
"""Why a row or name was left out: the key in meta.json, and the words for a report."""

MAX_LINE = 2**24
"""Bytes of the longest line that is read: a file without line breaks must not fill the memory."""

MAX_TEXT = 2**16
"""Bytes of an entity's texts, plus 16 per alias.

Thus a batch of thousands of rows fits the memory, and no Arrow column comes near its limit of 2 GiB."""

MAX_COUNT = 2**63 - 1
"""The largest count, which is an int64 on disk."""

_CHUNK = 2**20
_MAX_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Why a row or name cannot be used: a key of REASONS, and the details.

    meta.json holds the messages: their wording is part of the format.
    """

    reason: str
    message: str


class Line(NamedTuple):
    """One line of the file: its number from 1, its size in bytes, and its content."""

    number: int
    size: int
    content: Entity | RowProblem


class RowReader:
    """Reads an entities file line by line, without blank lines. Raises OSError that names the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sha256 = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """SHA-256, in hex, of the bytes read so far."""
        return self._sha256.hexdigest()

    def __iter__(self) -> Iterator[Line]:
        number = 0
        try:
            with self.path.open("rb") as file:
                while raw := file.readline(MAX_LINE + 1):
                    self._sha256.update(raw)
                    number, size, chunk = number + 1, len(raw), raw
                    while size > MAX_LINE and not chunk.endswith(b"\n") and (chunk := file.readline(_CHUNK)):
                        self._sha256.update(chunk)
                        size += len(chunk)
                    if size > MAX_LINE:
                        message = f"the line is longer than {MAX_LINE} bytes: write one entity per line"
                        yield Line(number, size, RowProblem("bad_json", message))
                        continue
                    raw = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
                    if raw.strip():
                        yield Line(number, size, parse_row(raw))
        except OSError as error:
            raise OSError(f"{self.path} cannot be read: {error}") from error


def parse_row(raw: bytes) -> Entity | RowProblem:
    """Read one row: ``{"id": str, "name": str, "aliases"?: [str], "description"?: str, "count"?: int}``.

    Other fields are ignored, and the name is stripped.
    """
    try:
        row: Any = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return RowProblem("bad_json", str(error))
    if not isinstance(row, dict):
        return RowProblem("bad_json", f"a JSON object is expected, not {type(row).__name__}")
    problem = _field_problem(row)
    if problem is not None:
        return RowProblem("bad_field", problem)
    aliases, description = tuple(row.get("aliases") or ()), row.get("description")
    entity = Entity(row["id"], row["name"].strip(), row.get("count") or 0, aliases, description)
    # only an escape can bring a lone surrogate through the decoder, and a short line can hold no long text
    if b"\\u" in raw or len(raw) > MAX_TEXT // 8:
        try:
            size = sum(len(text.encode("utf-8")) for text in (entity.kb_id, entity.name, *aliases, description or ""))
        except UnicodeEncodeError:
            return RowProblem("bad_field", "half of a surrogate pair, which is no text")
        size += 16 * len(aliases)
        if size > MAX_TEXT:
            texts = f"the texts of {short_repr(entity.kb_id)} have {size} bytes (an alias 16 more)"
            return RowProblem("bad_field", f"{texts}, the limit is {MAX_TEXT}")
    return entity


def short_repr(value: object) -> str:
    """The beginning of a value's repr, for messages that meta.json holds."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _field_problem(row: dict[str, Any]) -> str | None:
    kb_id, name, count, aliases = row.get("id"), row.get("name"), row.get("count"), row.get("aliases")
    if not isinstance(kb_id, str) or not kb_id:
        return '"id" must be a text that is not empty'
    if not isinstance(name, str):
        return f'"name" of {short_repr(kb_id)} must be a text'
    if count is not None and (type(count) is not int or not 0 <= count <= MAX_COUNT):
        return f'"count" of {short_repr(kb_id)} must be a whole number from 0, not {short_repr(count)}'
    if aliases is not None and not (isinstance(aliases, list) and all(isinstance(alias, str) for alias in aliases)):
        return f'"aliases" of {short_repr(kb_id)} must be a list of texts'
    if not isinstance(row.get("description"), str | None):
        return f'"description" of {short_repr(kb_id)} must be a text'
    return None


class SkippedRows:
    """Counts and first examples of what is left out of a file, by reason."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, line: int, problem: RowProblem) -> None:
        """Count the problem of a line."""
        self._counts[problem.reason] = self._counts.get(problem.reason, 0) + 1
        examples = self._examples.setdefault(problem.reason, [])
        if len(examples) < _MAX_EXAMPLES:
            examples.append(f"{self._source}:{line}: {problem.message}")

    def hint(self) -> str:
        """A sentence that names the first problem, for error messages; empty if there is none."""
        return next((f" The first problem: {examples[0]}" for examples in self._examples.values()), "")

    def summary(self) -> dict[str, Skipped]:
        """All of them, for meta.json."""
        return {reason: Skipped(self._counts[reason], tuple(self._examples[reason])) for reason in sorted(self._counts)}


@dataclass(frozen=True, slots=True)
class Scan:
    """What the first reading finds: the file's size in bytes, its SHA-256, and the hashes of ids that may repeat."""

    size: int
    sha256: str
    repeated: set[int]


@dataclass(slots=True)
class Batch:
    """Entities, with the line and the hash of the id of each."""

    entities: list[Entity] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    hashes: list[int] = field(default_factory=list)


def scan_entities(source: Path, progress: bool) -> Scan:
    """Read the whole file once. Raises OSError, and KBError if it has no entity."""
    size, rows, skipped = source.stat().st_size, RowReader(source), SkippedRows(source.name)
    entities = _read(rows, skipped, "Reading entities", size, progress)
    hashes = np.fromiter((hash_text(entity.kb_id) for _, entity in entities), dtype=np.uint64)
    if len(hashes) == 0:
        expected = 'lines like {"id": "Q1", "name": "Name"} are expected.'
        raise KBError(f"{source} has no entity: {expected}{skipped.hint()}")
    hashes.sort()
    return Scan(size, rows.sha256, set(hashes[1:][hashes[1:] == hashes[:-1]].tolist()))


def read_batches(source: Path, scan: Scan, skipped: SkippedRows, rows: int, progress: bool) -> Iterator[Batch]:
    """The entities in batches of `rows` (the last may be smaller), each id once; the rest goes to `skipped`.

    Raises:
        KBError: if the file has changed since the scan.
        OSError: if it cannot be read.
    """
    seen: set[str] = set()
    batch = Batch()
    reader = RowReader(source)
    for number, entity in _read(reader, skipped, "Tokenising names", scan.size, progress):
        hashed = hash_text(entity.kb_id)
        if hashed in scan.repeated:
            if entity.kb_id in seen:
                skipped.add(number, RowProblem("duplicate_id", f"id {short_repr(entity.kb_id)} stands above already"))
                continue
            seen.add(entity.kb_id)
        batch.entities.append(entity)
        batch.lines.append(number)
        batch.hashes.append(hashed)
        if len(batch.entities) == rows:
            yield batch
            batch = Batch()
    if reader.sha256 != scan.sha256:
        raise KBError(f"{source} changed while it was read: build again")
    if batch.entities:
        yield batch


def _read(rows: RowReader, skipped: SkippedRows, title: str, size: int, progress: bool) -> Iterator[tuple[int, Entity]]:
    """The entities of a file with their line numbers, under a progress bar; problems go to `skipped`."""
    with tqdm(total=size, desc=title, unit="B", unit_scale=True, file=sys.stderr, disable=not progress) as bar:
        for number, size, content in rows:
            bar.update(size)
            if isinstance(content, RowProblem):
                skipped.add(number, content)
            else:
                yield number, content
