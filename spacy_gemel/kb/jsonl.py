"""The rows of an entities file: JSON lines, each read and checked on its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from spacy_gemel.kb.entity import Entity

REASONS = {
    "bad_json": "rows that are no JSON object (skipped)",
    "bad_field": "rows with a missing or wrong field (skipped)",
    "duplicate_id": "rows that repeat an id (skipped, the first one stays)",
    "empty_name": "entities without a name (kept, but cannot be linked to)",
    "line_break": "names with a line break (kept, but cannot be linked to)",
    "special_token": "names with a special or unknown token (kept, but cannot be linked to)",
    "not_reversible": "names that their tokens do not give back (kept, but cannot be linked to)",
    "too_long": "names over the token limit (kept, but cannot be linked to)",
}
"""Why something was left out, as counted in meta.json, and in words."""

MAX_LINE = 2**24
"""Bytes of the longest line that is read: a file without line breaks must not fill the memory."""

MAX_TEXT = 2**16
"""Bytes of one entity's texts, each alias counted with 16 bytes more.

A batch of a build, which has thousands of rows, then fits the memory, and no column of it comes near the 2 GiB that one
of Arrow's can hold."""

_PART = 2**20
_SHOWN = 100
MAX_COUNT = 2**63 - 1
"""The largest count, which is an int64 on disk."""


@dataclass(frozen=True, slots=True)
class RowProblem:
    """A row that is no entity: the reason (a key of REASONS) and what exactly is wrong."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the file: its number from 1, its size in bytes and what it holds."""

    number: int
    size: int
    content: Entity | RowProblem


class RowReader:
    """An entities file, read line by line; blank lines are passed over. Raises OSError that names it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """SHA-256 of what was read so far, hexadecimal."""
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[Line]:
        try:
            with self.path.open("rb") as file:
                for number, (size, raw) in enumerate(self._lines(file), 1):
                    if size > MAX_LINE:
                        message = f"the line is longer than {MAX_LINE} bytes: write one entity per line"
                        yield Line(number, size, RowProblem("bad_json", message))
                        continue
                    if number == 1:
                        raw = raw.removeprefix(b"\xef\xbb\xbf")
                    if raw.strip():
                        yield Line(number, size, parse_row(raw))
        except OSError as error:
            raise OSError(f"{self.path} cannot be read: {error}") from error

    def _lines(self, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        """The size of each line, and its bytes; none of a line that is too long."""
        while raw := file.readline(MAX_LINE + 1):
            self._digest.update(raw)
            size = len(raw)
            if size > MAX_LINE:
                ended, raw = raw.endswith(b"\n"), b""
                while not ended and (part := file.readline(_PART)):
                    self._digest.update(part)
                    size += len(part)
                    ended = part.endswith(b"\n")
            yield size, raw


def parse_row(raw: bytes) -> Entity | RowProblem:
    """Read one row: ``{"id": str, "name": str, "aliases"?: [str], "description"?: str, "count"?: int}``.

    Further fields are ignored; spaces around the name are taken off.
    """
    try:
        row: Any = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return RowProblem("bad_json", str(error))
    if not isinstance(row, dict):
        return RowProblem("bad_json", f"a JSON object is expected, not {type(row).__name__}")
    wrong = _wrong_field(row)
    if wrong is not None:
        return RowProblem("bad_field", wrong)
    entity = Entity(
        kb_id=row["id"],
        name=row["name"].strip(),
        count=row.get("count") or 0,
        aliases=tuple(row.get("aliases") or ()),
        description=row.get("description"),
    )
    # only an escape can smuggle half a surrogate pair past the decoder
    if b"\\u" in raw and not _encodable(entity):
        return RowProblem("bad_field", "half of a surrogate pair, which is no text")
    # an alias takes 3 bytes of a line at least: short lines need no look
    if len(raw) > MAX_TEXT // 8 and (size := _size(entity)) > MAX_TEXT:
        message = f"the texts of {shown(entity.kb_id)} have {size} bytes (an alias 16 more), the limit is {MAX_TEXT}"
        return RowProblem("bad_field", message)
    return entity


def shown(value: object) -> str:
    """A value in a message: not more of it than one wants to read."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _wrong_field(row: dict[str, Any]) -> str | None:
    kb_id, name, count, aliases = row.get("id"), row.get("name"), row.get("count"), row.get("aliases")
    if not isinstance(kb_id, str) or not kb_id:
        return '"id" must be a text that is not empty'
    if not isinstance(name, str):
        return f'"name" of {shown(kb_id)} must be a text'
    if count is not None and (type(count) is not int or not 0 <= count <= MAX_COUNT):
        return f'"count" of {shown(kb_id)} must be a whole number from 0, not {shown(count)}'
    if aliases is not None and not _is_texts(aliases):
        return f'"aliases" of {shown(kb_id)} must be a list of texts'
    if not isinstance(row.get("description"), str | None):
        return f'"description" of {shown(kb_id)} must be a text'
    return None


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _size(entity: Entity) -> int:
    """Bytes of an entity's texts, and what each of its aliases costs besides."""
    texts = (entity.kb_id, entity.name, *entity.aliases, entity.description or "")
    return sum(len(text.encode("utf-8")) for text in texts) + 16 * len(entity.aliases)


def _encodable(entity: Entity) -> bool:
    try:
        "".join((entity.kb_id, entity.name, *entity.aliases, entity.description or "")).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
