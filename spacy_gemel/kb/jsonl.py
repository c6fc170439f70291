"""The entities file: JSON lines, each checked on its own, and read twice by a build."""

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from tqdm import tqdm

from spacy_gemel.kb.entity import Entity, KBError
from spacy_gemel.kb.index import hash_text
from spacy_gemel.kb.meta import Skipped
from spacy_gemel.utils.files import MAX_LINE, check_text
from spacy_gemel.utils.values import whole_number

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

MAX_TEXT = 2**16  # bytes of an entity's texts, plus 16 per alias: a batch must fit the memory and Arrow's 2 GiB
MAX_COUNT = 2**63 - 1  # an int64 on disk
_CHUNK = 2**20
_MAX_EXAMPLES = 5
_FURTHER = fields(Entity)[2:]  # count, aliases, description, and what may follow


class RowProblem(NamedTuple):
    """Why a row or name cannot be used: a key of REASONS, and the words for meta.json, which are part of the format."""

    reason: str
    message: str


def parse_row(raw: bytes) -> Entity | RowProblem:
    """Read one row: an object of `Entity`'s fields, with "id" for kb_id; only "id" and "name" are required.

    Other fields are ignored, and the name is stripped.
    """
    try:
        row: Any = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return RowProblem("bad_json", str(error))
    if not isinstance(row, dict):
        return RowProblem("bad_json", f"a JSON object is expected, not {type(row).__name__}")
    row |= {field.name: whole_number(row.get(field.name)) for field in _FURTHER}
    if (problem := _field_problem(row)) is not None:
        return RowProblem("bad_field", problem)
    values = {field.name: value for field in _FURTHER if (value := row.get(field.name)) is not None}
    aliases = tuple(values.pop("aliases", ()))
    entity = Entity(row["id"], row["name"].strip(), aliases=aliases, **values)
    # only an escape can bring a lone surrogate through the decoder, and a short line can hold no long text
    if b"\\u" in raw or len(raw) > MAX_TEXT // 8:
        try:
            texts = [text for text in (*astuple(entity), *aliases) if isinstance(text, str)]
            size = sum(len(text.encode("utf-8")) for text in texts) + 16 * len(aliases)
        except UnicodeEncodeError:
            return RowProblem("bad_field", "half of a surrogate pair, which is no text")
        if size > MAX_TEXT:
            problem = f"the texts of {short_repr(entity.kb_id)} have {size} bytes (an alias 16 more)"
            return RowProblem("bad_field", f"{problem}, the limit is {MAX_TEXT}")
    return entity


def short_repr(value: object) -> str:
    """The beginning of a value's repr, for messages that meta.json holds."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _field_problem(row: dict[str, Any]) -> str | None:
    kb_id, name, count, aliases = row.get("id"), row.get("name"), row.get("count"), row.get("aliases")
    if not isinstance(kb_id, str) or not kb_id:
        return f'"id" must be a text that is not empty, not {short_repr(kb_id)}'
    if not isinstance(name, str):
        return f'"name" of {short_repr(kb_id)} must be a text'
    if count is not None and (type(count) is not int or not 0 <= count <= MAX_COUNT):
        return f'"count" of {short_repr(kb_id)} must be a whole number from 0, not {short_repr(count)}'
    if aliases is not None and not (isinstance(aliases, list) and all(isinstance(alias, str) for alias in aliases)):
        return f'"aliases" of {short_repr(kb_id)} must be a list of texts'
    for field in _FURTHER[2:]:  # scalars
        if not isinstance(row.get(field.name), cast(Any, field.type) | None):
            kind = "a text" if field.type == str | None else field.type
            return f'"{field.name}" of {short_repr(kb_id)} must be {kind}'
    return None


class SkippedRows:
    """Counts and first examples of what is left out of a file, by reason."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._skipped: dict[str, Skipped] = {}

    def add(self, line: int, problem: RowProblem) -> None:
        """Count the problem of a line."""
        count, examples = astuple(self._skipped.get(problem.reason, Skipped(0, ())))
        examples = (*examples, f"{self._source}:{line}: {problem.message}")[:_MAX_EXAMPLES]
        self._skipped[problem.reason] = Skipped(count + 1, examples)

    def hint(self) -> str:
        """A sentence that names the first problem, for error messages; empty if there is none."""
        return next((f" The first problem: {item.examples[0]}" for item in self._skipped.values()), "")

    def summary(self) -> dict[str, Skipped]:
        """All of them, for meta.json."""
        return dict(sorted(self._skipped.items()))


class Scan(NamedTuple):
    """What the first reading finds: the file's size in bytes, its SHA-256, and the hashes of ids that may repeat."""

    size: int
    sha256: str
    repeated: set[int]


def scan_entities(source: Path, progress: bool) -> Scan:
    """Read the whole file once. Raises OSError, and KBError if it has no entity."""
    size, sha256, skipped = source.stat().st_size, hashlib.sha256(), SkippedRows(source.name)
    entities = read_entities(source, sha256, skipped, "Reading entities", size, progress)
    hashes = np.fromiter((hash_text(entity.kb_id) for _, entity in entities), dtype=np.uint64)
    if len(hashes) == 0:
        expected = 'lines like {"id": "Q1", "name": "Name"} are expected.'
        raise KBError(f"{source} has no entity: {expected}{skipped.hint()}")
    hashes.sort()
    return Scan(size, sha256.hexdigest(), set(hashes[1:][hashes[1:] == hashes[:-1]].tolist()))


def read_batches(
    source: Path, scan: Scan, skipped: SkippedRows, rows: int, progress: bool
) -> Iterator[list[tuple[int, int, Entity]]]:
    """The entities in batches of `rows` (the last may be smaller), each id once; the rest goes to `skipped`.

    Each comes with its line and the hash of its id. Raises OSError, and KBError if the file has changed since the scan.
    """
    seen: set[str] = set()
    batch: list[tuple[int, int, Entity]] = []
    sha256 = hashlib.sha256()
    for number, entity in read_entities(source, sha256, skipped, "Tokenising names", scan.size, progress):
        hashed = hash_text(entity.kb_id)
        if hashed in scan.repeated:
            if entity.kb_id in seen:
                skipped.add(number, RowProblem("duplicate_id", f"id {short_repr(entity.kb_id)} stands above already"))
                continue
            seen.add(entity.kb_id)
        batch.append((number, hashed, entity))
        if len(batch) == rows:
            yield batch
            batch = []
    if sha256.hexdigest() != scan.sha256:
        raise KBError(f"{source} changed while it was read: build again")
    if batch:
        yield batch


def read_entities(
    source: Path, sha256: "hashlib._Hash", skipped: SkippedRows, title: str, size: int, progress: bool
) -> Iterator[tuple[int, Entity]]:
    """The entities of a file of `size` bytes with their line numbers from 1, under a progress bar.

    Problems go to `skipped`, all bytes to `sha256`. Raises OSError that names the file, and ValueError if it is no
    text, or a JSON array.
    """
    bar = tqdm(total=size, desc=title, unit="B", unit_scale=True, file=sys.stderr, disable=not progress)
    number = 0
    try:
        with bar, source.open("rb") as file:
            while raw := file.readline(MAX_LINE + 1):
                if number == 0:
                    check_text(raw, source, json_lines=True)
                sha256.update(raw)
                number, n_bytes, chunk = number + 1, len(raw), raw
                while n_bytes > MAX_LINE and not chunk.endswith(b"\n") and (chunk := file.readline(_CHUNK)):
                    sha256.update(chunk)
                    n_bytes += len(chunk)
                bar.update(n_bytes)
                raw = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
                if n_bytes > MAX_LINE:
                    message = f"the line is longer than {MAX_LINE} bytes: write one entity per line"
                    skipped.add(number, RowProblem("bad_json", message))
                elif raw.strip():
                    content = parse_row(raw)
                    if isinstance(content, Entity):
                        yield number, content
                    else:
                        skipped.add(number, content)
    except OSError as error:
        raise OSError(f"{source} cannot be read: {error}") from error
