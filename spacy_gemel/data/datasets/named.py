"""From the mentions of a row, given as strings, to a record whose mentions have their places."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spacy_gemel.data.datasets.alignment import PLACE_TAKEN, REPEATED, Aligned, Span, align
from spacy_gemel.data.fields import is_name
from spacy_gemel.data.records import DEFAULT_LABEL, GIVEN, Mention, Problem, Record
from spacy_gemel.kb.resolve import NIL, gold_of

NOT_FOUND = "not found: "
"""What the reason of a mention begins with that has no place in the text."""


@dataclass(frozen=True, slots=True)
class Named:
    """A mention as a string, its gold, and the offsets that the data set gives for it, right or wrong."""

    surface: str
    kb_id: str = ""
    label: str = DEFAULT_LABEL
    span: Span | None = None


def pair(where: str, surfaces: Sequence[Any], golds: Sequence[Any], *, missing: str = NIL) -> list[Named | Problem]:
    """Pair mentions with their golds, both of one length; what an empty gold means is `missing`, as for `gold_of`."""
    return [
        named_of(f"{where}, mention {number}", surface, gold, missing=missing)
        for number, (surface, gold) in enumerate(zip(surfaces, golds, strict=True), start=1)
    ]


def named_of(
    where: str, surface: Any, gold: Any, *, label: Any = None, start: Any = None, end: Any = None, missing: str = NIL
) -> Named | Problem:
    """A mention from unchecked values. Offsets that are none are left off: the text is asked then."""
    if not is_name(surface):
        return Problem(where, "mention", "the mention is not a string", repr(surface))
    if gold is not None and not is_name(gold):
        return Problem(where, "mention", "the gold entity is not a string", repr(gold))
    offsets = (start, end) if type(start) is int and type(end) is int else None
    return Named(surface, gold_of(gold, missing=missing), label if is_name(label) and label else DEFAULT_LABEL, offsets)


def records_of(record: Record, mentions: Sequence[Named | Problem]) -> Iterator[Record | Problem]:
    """Give a row's mentions their places in its text.

    record: the row, as yet without mentions. Yields the problems, and the row with its mentions, which may overlap each
    other. A mention of the same string and gold as one that is there already, beyond what the text has of it, is merged
    with that one, and so is one with the same offsets.
    """
    placed: dict[Span, tuple[Named, str]] = {}
    unplaced = []
    merged = 0
    for mention in mentions:
        span = None if isinstance(mention, Problem) else _given(record.text, mention)
        if isinstance(mention, Problem):
            yield mention
        elif span is None:
            unplaced.append(mention)
        elif span not in placed:
            placed[span] = (mention, GIVEN)
        elif placed[span][0].kb_id == mention.kb_id:
            merged += 1
        else:
            yield Problem(record.where, "mention", PLACE_TAKEN, repr(mention.surface))
    results = align(record.text, [mention.surface for mention in unplaced], list(placed))
    there = {(mention.surface, mention.kb_id) for mention, _ in placed.values()}
    there |= {(m.surface, m.kb_id) for m, found in zip(unplaced, results, strict=True) if isinstance(found, Aligned)}
    for mention, found in zip(unplaced, results, strict=True):
        if isinstance(found, Aligned):
            placed[found.start, found.end] = (mention, found.rule)
        elif found.reason == REPEATED and (mention.surface, mention.kb_id) in there:
            merged += 1
        else:
            yield Problem(record.where, "mention", NOT_FOUND + found.reason, repr(mention.surface))
    spans = tuple(_mention(span, *placed[span]) for span in sorted(placed))
    yield replace(record, mentions=spans, merged=merged)


def _given(text: str, mention: Named) -> Span | None:
    """The offsets that the data set gives, without blanks at the edges; None where they are not the mention's."""
    span = mention.span
    right = span is not None and 0 <= span[0] < span[1] and text[span[0] : span[1]] == mention.surface
    return _trimmed(text, span) if span is not None and right and mention.surface.strip() else None


def _trimmed(text: str, span: Span) -> Span:
    """Without the blanks at its edges, which belong to no token."""
    surface = text[span[0] : span[1]]
    return span[0] + len(surface) - len(surface.lstrip()), span[1] - len(surface) + len(surface.rstrip())


def _mention(span: Span, named: Named, rule: str) -> Mention:
    return Mention(*span, kb_id=named.kb_id, label=named.label, rule=rule)
