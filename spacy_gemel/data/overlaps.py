"""Mentions that overlap each other, which entities of one doc cannot: they go into further docs of the same text."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from spacy_gemel.data.datasets.alignment import PLACE_TAKEN, is_free
from spacy_gemel.data.records import Mention, Problem, Record


@dataclass(frozen=True, slots=True)
class Apart:
    """A record as records without overlaps, the first one with the longest mentions; and what was left out."""

    records: list[Record]
    problems: list[Problem]


def apart(record: Record) -> Apart:
    """Split a record whose mentions overlap into further ones of the same text and image.

    A mention at the very place of an earlier one is merged with that where the gold is the same, and a problem where it
    is another.
    """
    if record.mentions is None:  # which is not the same as none
        return Apart([record], [])
    placed: dict[tuple[int, int], Mention] = {}
    problems = []
    merged = record.merged
    for mention in record.mentions:
        first = placed.setdefault((mention.start, mention.end), mention)
        if first is not mention and first.kb_id == mention.kb_id:
            merged += 1
        elif first is not mention:
            surface = record.text[mention.start : mention.end]
            detail = f"{surface!r} is both {first.kb_id!r} and {mention.kb_id!r}"
            problems.append(Problem(record.where, "mention", PLACE_TAKEN, detail))
    layers = [tuple(sorted(layer, key=lambda mention: mention.start)) for layer in _layers(list(placed.values()))]
    first_of_all = replace(record, mentions=layers[0] if layers else (), merged=merged)
    return Apart([first_of_all, *(replace(record, mentions=layer, rows=0, merged=0) for layer in layers[1:])], problems)


def _layers(mentions: Sequence[Mention]) -> list[list[Mention]]:
    """Mentions in as few lists as a simple way finds, none with two that overlap; the longest in the first."""
    layers: list[list[Mention]] = []
    taken: list[list[tuple[int, int]]] = []
    for mention in sorted(mentions, key=lambda mention: (mention.start - mention.end, mention.start)):
        span = (mention.start, mention.end)
        number = next((n for n, spans in enumerate(taken) if is_free(span, spans)), len(layers))
        if number == len(layers):
            layers.append([])
            taken.append([])
        layers[number].append(mention)
        taken[number].append(span)
    return layers
