"""What the linker reads from a doc's user_data and writes there: image, candidates, a flag for unreadable images."""

from collections.abc import Sequence
from dataclasses import asdict
from numbers import Integral
from typing import TYPE_CHECKING, Any

from spacy_gemel.linking.candidates import Candidate

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span

    from spacy_gemel.decoding.exact_search import Certificate

IMAGE_KEY = "image"
FEATURES_KEY = "image_features"
IMAGE_KEYS = (IMAGE_KEY, FEATURES_KEY)
UNREADABLE_KEY = "gemel_unreadable_image"
CANDIDATES_KEY = "gemel_candidates"
SEARCH_KEY = "gemel_search"
REASONS_KEY = "gemel_reasons"
# A key in the form of spaCy's custom attributes, with the first and last character of the linked text. spaCy moves its
# positions when a span becomes a doc of its own, but leaves the rows under our own keys as they are.
_TEXT_KEY = ("._.", "gemel_text")


def doc_id(doc: "Doc") -> str | int | None:
    """The doc's id as JSON can hold it, whatever a corpus made it of; None if it has none."""
    value = doc.user_data.get("id")
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return int(value) if isinstance(value, Integral) else str(value)


def has_image(doc: "Doc") -> bool:
    """Whether the doc has an image or the features of one, readable or not."""
    return any(doc.user_data.get(key) is not None for key in IMAGE_KEYS)


def has_unreadable_image(doc: "Doc") -> bool:
    """Whether a linker could not read the doc's image, and linked its mentions from the text alone."""
    return bool(doc.user_data.get(UNREADABLE_KEY))


def flag_unreadable_image(doc: "Doc", unreadable: bool, *, keep: bool = False) -> None:
    """Set or remove the flag that `has_unreadable_image` reads; `keep` never removes it."""
    if unreadable:
        doc.user_data[UNREADABLE_KEY] = True
    elif not keep and UNREADABLE_KEY in doc.user_data:
        del doc.user_data[UNREADABLE_KEY]


def image_in(doc: "Doc", fallback_doc: "Doc | None" = None) -> dict[str, Any]:
    """A doc's image and features by their keys; a key that the doc lacks is taken from the fallback."""
    images = {} if fallback_doc is None else {key: fallback_doc.user_data.get(key) for key in IMAGE_KEYS}
    return images | {key: doc.user_data[key] for key in IMAGE_KEYS if key in doc.user_data}


def to_row(start_char: int, end_char: int, candidates: Sequence[Candidate]) -> list[Any]:
    """A mention's candidates as plain lists, with which a Doc can be serialised."""
    return [start_char, end_char, *([*candidate] for candidate in candidates)]


def certificate_row(start_char: int, end_char: int, certificate: "Certificate") -> list[Any]:
    """What an exact search knows of a mention, as `to_row` has its candidates."""
    return [start_char, end_char, asdict(certificate) | {"mass": [*certificate.mass]}]


def write_rows(
    doc: "Doc", rows: Sequence[list[Any]], certificates: Sequence[list[Any]] = (), *, keep_others: bool = False
) -> None:
    """Write the candidates of a doc's mentions to its user_data, in place of earlier ones; without rows, no key.

    Likewise the certificates of an exact search. `keep_others` keeps the earlier rows of the doc's other entities,
    which keep the ids of an earlier linker.
    """
    user_data: dict[Any, Any] = doc.user_data
    rows_by_key = {CANDIDATES_KEY: [*rows], SEARCH_KEY: [*certificates]}
    if keep_others:
        remaining = {(ent.start_char, ent.end_char) for ent in doc.ents} - {(row[0], row[1]) for row in rows}
        cut = _cut(user_data)
        for key, new in rows_by_key.items():
            old = [[row[0] + cut, row[1] + cut, *row[2:]] for row in user_data.get(key, ())]
            new += (row for row in old if (row[0], row[1]) in remaining)
            new.sort(key=lambda row: int(row[0]))
    for key in [key for key in user_data if key in rows_by_key or _is_text_key(key)]:
        del user_data[key]
    user_data.update((key, new) for key, new in rows_by_key.items() if new)
    if CANDIDATES_KEY in user_data:
        user_data[*_TEXT_KEY, 0, len(doc.text)] = True


def write_reasons(doc: "Doc", reasons: Sequence[list[Any]]) -> None:
    """Write why mentions have no candidates, [start, end, reason] in characters; without any, no key."""
    doc.user_data.pop(REASONS_KEY, None)
    if reasons:
        doc.user_data[REASONS_KEY] = list(reasons)


def reasons_in(doc: "Doc") -> dict[tuple[int, int], str]:
    """Why mentions of a doc have no candidates, by their character offsets."""
    return {(start, end): reason for start, end, reason in doc.user_data.get(REASONS_KEY, ())}


def span_candidates(span: "Span") -> list[Candidate]:
    """The getter of `span._.gemel_candidates`: the candidates of the span, best first; none if it was not linked.

    `span.as_doc(copy_user_data=True)` keeps them; `Doc.from_docs` and `span.as_doc()` keep only the ids.
    """
    return [Candidate(*each) for each in _row_of(span, CANDIDATES_KEY)]


def span_search(span: "Span") -> dict[str, Any] | None:
    """The getter of `span._.gemel_search`: what an exact search knows of the span; None after any other.

    `exact`, `gap`, `passes` and `mass`, as in `spacy_gemel.decoding.exact_search.Certificate`.
    """
    return next(iter(_row_of(span, SEARCH_KEY)), None)


def _row_of(span: "Span", key: str) -> list[Any]:
    """What lies under a key for a span."""
    user_data = span.doc.user_data
    position = (span.start_char - _cut(user_data), span.end_char - _cut(user_data))
    return next((row[2:] for row in user_data.get(key, ()) if (row[0], row[1]) == position), [])


def candidate_rows(doc: "Doc") -> dict[tuple[int, int], list[dict[str, Any]]]:
    """The candidates of each linked span of a doc, best first, by its character offsets."""
    return {
        (row[0], row[1]): [Candidate(*each)._asdict() for each in row[2:]]
        for row in doc.user_data.get(CANDIDATES_KEY, ())
    }


def probability_of(kb_id: str, candidates: Sequence[dict[str, Any]]) -> float | None:
    """The probability of the chosen candidate; None for NIL or an id that is not among them."""
    return next((c["probability"] for c in candidates if c["kb_id"] == kb_id), None)


def _image_of(doc: "Doc") -> Any:  # a function, as another process is sent it
    return doc.user_data.get(IMAGE_KEY)


def _set_image(doc: "Doc", image: Any) -> None:
    doc.user_data[IMAGE_KEY] = image


def install_extension() -> None:
    """Register `span._.gemel_candidates`, `span._.gemel_search`, and `doc._.image` for `doc.user_data["image"]`."""
    from spacy.tokens import Doc, Span

    if not Doc.has_extension(IMAGE_KEY):
        Doc.set_extension(IMAGE_KEY, getter=_image_of, setter=_set_image)
    for key, getter in ((CANDIDATES_KEY, span_candidates), (SEARCH_KEY, span_search)):
        if not Span.has_extension(key):
            Span.set_extension(key, getter=getter)


def _cut(user_data: dict[Any, Any]) -> int:
    """The offset to add to the rows' positions: negative by the characters that `span.as_doc` cut off in front."""
    return next((int(key[2]) for key in user_data if _is_text_key(key)), 0)


def _is_text_key(key: Any) -> bool:
    return isinstance(key, tuple) and key[:2] == _TEXT_KEY
