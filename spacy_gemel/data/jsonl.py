"""Rows of JSON files, and the project's own form of JSON lines, which the mini world has too.

    {"id": "17", "text": "Jaguar at dusk", "image": "images/17.jpg",
     "mentions": [{"start": 0, "end": 6, "kb_id": "Jaguar_Cars", "label": "ORG"}]}

Offsets are in characters; a mention may have its words as `text`, by which offsets in other units are repaired. `id`,
`image`, `label` and `kb_id` are optional; `kb_id` "NIL" says that the KB has no such entity. Mentions may overlap. An
image is a path relative to the file, the URL where it is published, or a data URI.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacy_gemel.data.records import DEFAULT_LABEL, GIVEN_OFFSETS, MentionSpan, Problem, Record, bad_object, is_text
from spacy_gemel.kb.resolve import NIL
from spacy_gemel.utils.files import MAX_LINE, read_lines
from spacy_gemel.utils.messages import excerpt
from spacy_gemel.utils.values import optional_value

_URL = re.compile(r"\s*[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # of any scheme, and so no path of a file


@dataclass(frozen=True, slots=True)
class JsonRow:
    """A row of a JSON file: file and line for messages, its value, and its key if the file is an object of rows."""

    location: str
    value: Any
    key: str | None = None


def read_json_lines(path: Path) -> Iterator[JsonRow | Problem]:
    """Yield each line that is not blank as a row, or as a Problem if it is not JSON.

    Raises OSError for the file, and ValueError if it is no text, or a JSON array.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(read_lines(lines, json_lines=True), start=1):
            if line.strip():
                yield _decode_line(line, f"{path}:{number}")


def _decode_line(line: bytes, location: str) -> JsonRow | Problem:
    if len(line) > MAX_LINE:
        return Problem(location, "row", f"the line is longer than {MAX_LINE} bytes")
    try:
        return JsonRow(location, json.loads(line.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        return Problem(location, "row", "not UTF-8", str(error))
    except (ValueError, RecursionError) as error:
        return Problem(location, "row", "not JSON", str(error))


def read_json_rows(path: Path) -> Iterator[JsonRow]:
    """Yield the items of a JSON array, or the values of a JSON object with their keys. The file is read whole.

    Raises OSError, and ValueError with the location if the file is not JSON in UTF-8, or neither array nor object.
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


def read_jsonl(path: Path) -> Iterator[Record | Problem]:
    """Yield a Record or Problem for each line, and a Problem for each bad mention. Raises OSError for the file."""
    for row in read_json_lines(path):
        yield from [row] if isinstance(row, Problem) else parse_row(row, path.parent)


def parse_line(line: bytes, location: str, folder: Path) -> list[Record | Problem]:
    """A Record, or a Problem in its place, of a line that is not blank, and a Problem for each bad mention."""
    row = _decode_line(line, location)
    return [row] if isinstance(row, Problem) else parse_row(row, folder)


def parse_row(row: JsonRow, folder: Path) -> list[Record | Problem]:
    """As `parse_line`, of an object that was read already."""

    def bad(reason: str, detail: str = "") -> list[Record | Problem]:
        return [Problem(row.location, "row", reason, detail)]

    if (problem := bad_object(row.value)) is not None:
        return bad(*problem)
    text = row.value["text"]
    image, doc_id, mentions = (optional_value(row.value.get(key)) for key in ("image", "id", "mentions"))
    try:
        image, picture = _split_image(image)
    except ValueError:
        return bad("image is no data URI in base64", excerpt(image))
    if image is not None and not is_text(image):
        return bad("image is not a path", repr(image))
    if doc_id is not None and not (isinstance(doc_id, str | int) and is_text(str(doc_id))):
        return bad("id is neither a string nor a whole number", repr(doc_id))
    if mentions is not None and not isinstance(mentions, list):
        return bad("mentions is not a list", type(mentions).__name__)
    parsed = [_parse_mention(item, text, f"{row.location}, mention {i}") for i, item in enumerate(mentions or [])]
    url = image.strip() if image is not None and _URL.match(image) else None
    spans = None if mentions is None else tuple(item for item in parsed if isinstance(item, MentionSpan))
    doc_id = None if doc_id is None else str(doc_id)
    record = Record(row.location, text, doc_id, None if url else image, folder, spans, url, picture=picture)
    return [*(item for item in parsed if isinstance(item, Problem)), record]


def _split_image(image: Any) -> tuple[Any, bytes | None]:
    """An image's path or URL, or its bytes: those of a table, of {bytes, path} as `datasets` has it, or of a data URI.

    Raises ValueError for a data URI without bytes in base64.
    """
    if isinstance(image, Mapping):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, str) and image.startswith("data:"):
        image = base64.b64decode(image.partition(";base64,")[2], validate=True)
        if not image:
            raise ValueError("no bytes")
    return (None, image) if isinstance(image, bytes) else (image, None)


def _parse_mention(value: Any, text: str, location: str) -> MentionSpan | Problem:
    def bad(reason: str, detail: str = "") -> Problem:
        return Problem(location, "mention", reason, detail)

    if not isinstance(value, dict):
        return bad("not an object", type(value).__name__)
    start, end, kb_id, label, words = (
        optional_value(value.get(key)) for key in ("start", "end", "kb_id", "label", "text")
    )
    # type() and not isinstance(): True is an int in Python, but no offset
    if type(start) is not int or type(end) is not int:
        return bad("start or end is not a whole number", f"{start!r}, {end!r}")
    place = _place(text, start, end, words)
    if place is None and isinstance(words, str):
        return bad(
            "its offsets and its words differ", f"{excerpt(text[max(start, 0) : max(end, 0)])}, {excerpt(words)}"
        )
    if place is None:
        return bad("start and end are not inside the text", f"{start} to {end} of {len(text)} characters")
    start, end, rule = place
    surface = text[start:end]
    if not surface.strip():
        return bad("the mention is blank", f"{start} to {end}")
    if kb_id is not None and not is_text(kb_id):
        return bad("kb_id is not a string", repr(kb_id))
    if label is not None and not is_text(label):
        return bad("label is not a string", repr(label))
    # blanks at the edges belong to no token
    start += len(surface) - len(surface.lstrip())
    end -= len(surface) - len(surface.rstrip())
    # a KB may have any ids, so only "nil" has several spellings
    kb_id = NIL if (kb_id or "").strip().casefold() == NIL.casefold() else kb_id or ""
    return MentionSpan(start, end, kb_id, label or DEFAULT_LABEL, rule)


def _place(text: str, start: int, end: int, words: Any) -> tuple[int, int, str] | None:
    """Where a mention stands, and by which rule; its words, if the row has them, must stand there.

    If they do not, the offsets may count units of UTF-16 or bytes; else the only place of the words is taken.
    """

    def folded(words: str) -> list[str]:
        return words.casefold().split()

    def fits(start: int, end: int) -> bool:
        is_inside = 0 <= start < end <= len(text)
        return is_inside and (not isinstance(words, str) or folded(text[start:end]) == folded(words))

    if fits(start, end):
        return start, end, GIVEN_OFFSETS
    if not isinstance(words, str) or not words.strip():
        return None
    for encoding, size in (("utf-16-le", 2), ("utf-8", 1)):
        units = text.encode(encoding)
        first, last = (len(units[: max(at, 0) * size].decode(encoding, "ignore")) for at in (start, end))
        if fits(first, last):
            return first, last, f"offsets in units of {encoding.removesuffix('-le').upper()}"
    if text.count(words.strip()) == 1:
        at = text.index(words.strip())
        return at, at + len(words.strip()), "the only place of its words"
    return None
