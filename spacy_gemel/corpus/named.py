"""From the mentions of a row, given as strings, to documents whose mentions have their places."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spacy_gemel.corpus.alignment import REPEATED, Aligned, Span, align, is_free
from spacy_gemel.corpus.fields import is_name
from spacy_gemel.corpus.records import DEFAULT_LABEL, GIVEN, Mention, Problem, Record
from spacy_gemel.golds import NIL, gold_of

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

    record: the row, as yet without mentions. Yields the problems, the row with its mentions, and, where mentions
    overlap each other (which no doc's entities can), further records of the same text with those that are left. A
    mention of the same string and gold as one that is there already, beyond what the text has of it, is merged with
    that one.
    """
    named = [mention for mention in mentions if isinstance(mention, Named)]
    yield from (mention for mention in mentions if isinstance(mention, Problem))
    placed, unplaced = _given(record.text, named)
    results = align(record.text, [mention.surface for mention in unplaced], list(placed))
    merged = 0
    there = {(mention.surface, mention.kb_id) for mention, _ in placed.values()}
    there |= {(m.surface, m.kb_id) for m, found in zip(unplaced, results, strict=True) if isinstance(found, Aligned)}
    for mention, found in zip(unplaced, results, strict=True):
        if isinstance(found, Aligned):
            placed[found.start, found.end] = (mention, found.rule)
        elif found.reason == REPEATED and (mention.surface, mention.kb_id) in there:
            merged += 1
        else:
            yield Problem(record.where, "mention", NOT_FOUND + found.reason, repr(mention.surface))
    rows = record.rows
    for layer in _layers(list(placed)) or [[]]:
        spans = [_mention(span, *placed[span]) for span in sorted(layer)]
        yield replace(record, mentions=tuple(spans), merged=merged, rows=rows)
        merged = rows = 0


def _given(text: str, named: Sequence[Named]) -> tuple[dict[Span, tuple[Named, str]], list[Named]]:
    """The mentions whose offsets are right, by their span, and all others."""
    placed: dict[Span, tuple[Named, str]] = {}
    others = []
    for mention in named:
        span = mention.span
        right = span is not None and 0 <= span[0] < span[1] and text[span[0] : span[1]] == mention.surface
        if span is not None and right and mention.surface.strip() and _trimmed(text, span) not in placed:
            placed[_trimmed(text, span)] = (mention, GIVEN)
        else:
            others.append(mention)
    return placed, others


def _trimmed(text: str, span: Span) -> Span:
    """Without the blanks at its edges, which belong to no token."""
    surface = text[span[0] : span[1]]
    return span[0] + len(surface) - len(surface.lstrip()), span[1] - len(surface) + len(surface.rstrip())


def _layers(spans: Sequence[Span]) -> list[list[Span]]:
    """Spans in as few lists as a simple way finds, none with two that overlap; the longest in the first."""
    layers: list[list[Span]] = []
    for span in sorted(spans, key=lambda span: (span[0] - span[1], span)):
        layer = next((layer for layer in layers if is_free(span, layer)), None)
        if layer is None:
            layers.append([span])
        else:
            layer.append(span)
    return layers


def _mention(span: Span, named: Named, rule: str) -> Mention:
    return Mention(*span, kb_id=named.kb_id, label=named.label, rule=rule)
