"""JSON lines of one's own, and of the mini world.

    {"id": "17", "text": "Jaguar at dusk", "image": "images/17.jpg",
     "mentions": [{"start": 0, "end": 6, "kb_id": "Jaguar_Cars", "label": "ORG"}]}

Offsets are in characters; `id`, `image`, `label` and `kb_id` may be left out; `kb_id` "NIL" says that the
KB has no such entity. Mentions may overlap. An image is a path, relative to the file, or the URL it is published at.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from spacy_gemel.data.datasets import json_rows
from spacy_gemel.data.fields import bad_text, is_unicode, is_url
from spacy_gemel.data.records import DEFAULT_LABEL, Mention, Problem, Record
from spacy_gemel.kb.resolve import NIL


def read_jsonl(path: Path) -> Iterator[Record | Problem]:
    """Yield a Record for each usable line, and a Problem for each line or mention that is not.

    Raises FileNotFoundError (OSError) where the file is not there. Never raises for what is inside it.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield from parse_line(line, where=f"{path}:{number}", folder=path.parent)


def parse_line(line: bytes, *, where: str, folder: Path) -> Iterable[Record | Problem]:
    """Parse one line; `folder` is what an image path is relative to."""

    def bad(reason: str, detail: str = "") -> list[Record | Problem]:
        return [Problem(where, "row", reason, detail)]

    parsed_line = json_rows.parse_line(line, where)
    if isinstance(parsed_line, Problem):
        return [parsed_line]
    row = parsed_line.value
    if not isinstance(row, dict):
        return bad("not an object", type(row).__name__)
    if (wrong := bad_text(row.get("text"))) is not None:
        return bad(*wrong)
    text = row["text"]
    image = row.get("image")
    if image is not None and not (isinstance(image, str) and image and is_unicode(image)):
        return bad("image is not a path", repr(image))
    identity = row.get("id")
    if identity is not None and (not isinstance(identity, str | int) or not is_unicode(str(identity))):
        return bad("id is neither a string nor a whole number", repr(identity))
    mentions = row.get("mentions")
    if mentions is not None and not isinstance(mentions, list):
        return bad("mentions is not a list", type(mentions).__name__)
    parsed = [_parse_mention(m, text, f"{where}, mention {i}") for i, m in enumerate(mentions or [])]
    url = image.strip() if image is not None and is_url(image) else None
    record = Record(
        where=where,
        text=text,
        id=None if identity is None else str(identity),
        image=image if url is None else None,
        image_url=url,
        folder=folder,
        mentions=None if mentions is None else tuple(m for m in parsed if isinstance(m, Mention)),
    )
    return [*(m for m in parsed if isinstance(m, Problem)), record]


def _parse_mention(mention: Any, text: str, where: str) -> Mention | Problem:
    def bad(reason: str, detail: str = "") -> Problem:
        return Problem(where, "mention", reason, detail)

    if not isinstance(mention, dict):
        return bad("not an object", type(mention).__name__)
    start, end = mention.get("start"), mention.get("end")
    # type() and not isinstance(): True is an int to Python, and no offset
    if type(start) is not int or type(end) is not int:
        return bad("start or end is not a whole number", f"{start!r}, {end!r}")
    if not 0 <= start < end <= len(text):
        return bad("start and end are not inside the text", f"{start} to {end} of {len(text)} characters")
    surface = text[start:end]
    if not surface.strip():
        return bad("the mention is blank", f"{start} to {end}")
    kb_id, label = mention.get("kb_id"), mention.get("label")
    if kb_id is not None and not (isinstance(kb_id, str) and is_unicode(kb_id)):
        return bad("kb_id is not a string", repr(kb_id))
    if label is not None and not (isinstance(label, str) and is_unicode(label)):
        return bad("label is not a string", repr(label))
    # blanks at the edges belong to no token, and expanding to tokens would stumble over them
    start += len(surface) - len(surface.lstrip())
    end -= len(surface) - len(surface.rstrip())
    return Mention(start, end, _gold(kb_id), label or DEFAULT_LABEL)


def _gold(kb_id: str | None) -> str:
    """As it stands, since a knowledge base of one's own may have any ids; but "nil" is "NIL" in any spelling."""
    return NIL if (kb_id or "").strip().casefold() == NIL.casefold() else kb_id or ""
