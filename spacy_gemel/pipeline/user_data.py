"""What the linker reads from a doc's user_data and writes there: image, candidates, a flag for unreadable images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span

    from spacy_gemel.linking.candidates import Candidate

IMAGE_KEY = "image"
FEATURES_KEY = "image_features"
IMAGE_KEYS = (IMAGE_KEY, FEATURES_KEY)
UNREADABLE_KEY = "gemel_unreadable_image"
CANDIDATES_KEY = "gemel_candidates"
CANDIDATES_EXTENSION = "gemel_candidates"
# A key in the form of spaCy's custom attributes, with the first and last character of the linked text. spaCy moves its
# positions when a span becomes a doc of its own, but leaves the rows under CANDIDATES_KEY as they are.
_TEXT_KEY = ("._.", "gemel_text")


def has_image(doc: "Doc") -> bool:
    """Whether the doc has an image, or the features of one; whether they can be read nobody has tried."""
    return any(doc.user_data.get(key) is not None for key in IMAGE_KEYS)


def has_unreadable_image(doc: "Doc") -> bool:
    """Whether a linker that wanted the doc's image could not use it, and so linked its mentions from the text alone."""
    return bool(doc.user_data.get(UNREADABLE_KEY))


def image_in(doc: "Doc", other: "Doc | None" = None) -> dict[str, Any]:
    """A doc's image and features by their keys; those of another doc for a key that it does not have at all."""
    found = {} if other is None else {key: other.user_data.get(key) for key in IMAGE_KEYS}
    return found | {key: doc.user_data[key] for key in IMAGE_KEYS if key in doc.user_data}


def to_row(start_char: int, end_char: int, candidates: "Sequence[Candidate]") -> list[Any]:
    """A mention's candidates as plain lists, with which a Doc can be serialised."""
    return [start_char, end_char, *([*candidate] for candidate in candidates)]


def write_rows(doc: "Doc", rows: Sequence[list[Any]], *, keep_others: bool = False) -> None:
    """Write the candidates of a doc's mentions to its user_data, in place of earlier ones; without rows, no key.

    keep_others: keep the earlier rows of the doc's other entities, which keep the ids of an earlier linker.
    """
    user_data: dict[Any, Any] = doc.user_data
    if keep_others:
        others = {(ent.start_char, ent.end_char) for ent in doc.ents} - {(row[0], row[1]) for row in rows}
        cut = _cut(user_data)
        old = [[row[0] + cut, row[1] + cut, *row[2:]] for row in user_data.get(CANDIDATES_KEY, ())]
        rows = sorted([*rows, *(row for row in old if (row[0], row[1]) in others)], key=lambda row: int(row[0]))
    for key in [key for key in user_data if key == CANDIDATES_KEY or _is_text_key(key)]:
        del user_data[key]
    if rows:
        user_data[CANDIDATES_KEY] = list(rows)
        user_data[*_TEXT_KEY, 0, len(doc.text)] = True


def span_candidates(span: "Span") -> "list[Candidate]":
    """The getter of `span._.gemel_candidates`: the candidates of the span, best first; none if it was not linked.

    `span.as_doc(copy_user_data=True)` keeps them; `Doc.from_docs` and `span.as_doc()` keep only the ids.
    """
    from spacy_gemel.linking.candidates import Candidate

    user_data = span.doc.user_data
    cut = _cut(user_data)
    for start, end, *candidates in user_data.get(CANDIDATES_KEY, ()):
        if (start + cut, end + cut) == (span.start_char, span.end_char):
            return [Candidate(*candidate) for candidate in candidates]
    return []


def _cut(user_data: dict[Any, Any]) -> int:
    """The offset to add to the rows' positions: negative by the characters that `span.as_doc` cut off in front."""
    return next((int(key[2]) for key in user_data if _is_text_key(key)), 0)


def _is_text_key(key: Any) -> bool:
    return isinstance(key, tuple) and key[:2] == _TEXT_KEY


def install_extension() -> None:
    """Register `span._.gemel_candidates`."""
    from spacy.tokens import Span

    if not Span.has_extension(CANDIDATES_EXTENSION):
        Span.set_extension(CANDIDATES_EXTENSION, getter=span_candidates)
