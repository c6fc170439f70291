"""Mentions that overlap: entities of one doc cannot, so they go into further docs of the same text."""

from collections.abc import Sequence
from dataclasses import replace

from spacy_gemel.data.records import SAME_SPAN, MentionSpan, Problem, Record

Span = tuple[int, int]
"""Start and end in characters."""


def is_free(span: Span, taken: Sequence[Span]) -> bool:
    """Whether a span shares no character with any of the taken ones."""
    return all(span[1] <= start or end <= span[0] for start, end in taken)


def split_overlaps(record: Record) -> tuple[list[Record], list[Problem]]:
    """Split a record whose mentions overlap into several of the same text and image, the longest mentions first.

    Two mentions of the same span are merged if they have the same gold; else the second one is a problem.
    """
    if record.mentions is None:  # not annotated, which is not the same as no mentions
        return [record], []
    by_span: dict[Span, MentionSpan] = {}
    problems = []
    merged = record.merged
    for mention in record.mentions:
        first = by_span.setdefault((mention.start, mention.end), mention)
        if first is mention:
            continue
        if first.kb_id == mention.kb_id:
            merged += 1
        else:
            surface = record.text[mention.start : mention.end]
            detail = f"{surface!r} is both {first.kb_id!r} and {mention.kb_id!r}"
            problems.append(Problem(record.where, "mention", SAME_SPAN, detail))
    layers: list[dict[Span, MentionSpan]] = []
    for span in sorted(by_span, key=lambda span: (span[0] - span[1], span[0])):
        layer = next((layer for layer in layers if is_free(span, list(layer))), None)
        if layer is None:
            layer = {}
            layers.append(layer)
        layer[span] = by_span[span]
    mentions = [tuple(layer[span] for span in sorted(layer)) for layer in layers] or [()]
    first_record = replace(record, mentions=mentions[0], merged=merged)
    return [first_record, *(replace(record, mentions=further, rows=0, merged=0) for further in mentions[1:])], problems
