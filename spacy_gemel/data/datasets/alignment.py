"""Finds the mentions of a row, given as strings, in its text.

A mention that is in the text as whole words is always found there. Else the rules of `fuzzy_alignment.py` are asked,
and a part of a longer word ("Iceland" in "Icelandic") is taken if no strict rule has a match. No two mentions get the
same span: the k-th mention of a string gets its k-th occurrence, and none that occurs as whole words gets a further
span inside another word. Whole words overlap only if the data set has it so, as with "Quist" and "Lena Quist" in "Otto
and Lena Quist"; a part of a word takes the span that remains, and may overlap them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from spacy_gemel.data.datasets.fuzzy_alignment import (
    AMBIGUOUS,
    LOOSE_RULES,
    STRICT_RULES,
    Match,
    Rule,
    best_match,
    why_not_found,
)
from spacy_gemel.data.datasets.words import Word, fit_of, split_words
from spacy_gemel.data.fields import is_text
from spacy_gemel.data.overlaps import Span, is_free
from spacy_gemel.data.records import DEFAULT_LABEL, SAME_SPAN, MentionSpan, Problem, Record
from spacy_gemel.kb.resolve import NIL, gold_of

VERBATIM = "verbatim"
PART_OF_WORD = "part of a longer word"
REPEATED = "listed more often than it occurs"
BLANK = "the mention is blank"

NOT_FOUND = "not found: "
"""Prefix of the reason of a mention that is not in the text."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """A span of the text, in characters, and the rule that found it."""

    start: int
    end: int
    rule: str


@dataclass(frozen=True, slots=True)
class Unaligned:
    """Why a mention was not found."""

    reason: str


@dataclass(frozen=True, slots=True)
class NamedMention:
    """A mention as a string, its gold id, its label, and the offsets that the data set gives, right or wrong."""

    surface: str
    kb_id: str = ""
    label: str = DEFAULT_LABEL
    span: Span | None = None


def parse_mention(
    where: str, surface: Any, gold: Any, *, label: Any = None, start: Any = None, end: Any = None, empty: str = NIL
) -> NamedMention | Problem:
    """A mention from unchecked values, ignoring offsets that are not numbers; `empty`: what an empty gold means."""
    if not is_text(surface):
        return Problem(where, "mention", "the mention is not a string", repr(surface))
    if gold is not None and not is_text(gold):
        return Problem(where, "mention", "the gold entity is not a string", repr(gold))
    span = (start, end) if type(start) is int and type(end) is int else None
    label = label if is_text(label) and label else DEFAULT_LABEL
    return NamedMention(surface, gold_of(gold, missing=empty), label, span)


def add_mentions(record: Record, mentions: Sequence[NamedMention | Problem]) -> Iterator[Record | Problem]:
    """Find the mentions of a row in its text.

    Yields the problems, then the record with its mentions, which may overlap. A mention is merged with an earlier one
    of the same gold if both have the same offsets, or the same string and the text does not have it once more.
    """
    by_span: dict[Span, MentionSpan] = {}
    known: set[tuple[str, str]] = set()
    unplaced: list[NamedMention] = []
    merged = 0
    for mention in mentions:
        if isinstance(mention, Problem):
            yield mention
        elif (span := _given_span(record.text, mention)) is None:
            unplaced.append(mention)
        elif span not in by_span:
            by_span[span] = MentionSpan(*span, mention.kb_id, mention.label)
            known.add((mention.surface, mention.kb_id))
        elif by_span[span].kb_id == mention.kb_id:
            merged += 1
        else:
            yield Problem(record.where, "mention", SAME_SPAN, repr(mention.surface))
    results = align(record.text, [mention.surface for mention in unplaced], list(by_span))
    for mention, result in zip(unplaced, results, strict=True):
        if isinstance(result, Aligned):
            span = (result.start, result.end)
            by_span[span] = MentionSpan(*span, mention.kb_id, mention.label, result.rule)
            known.add((mention.surface, mention.kb_id))
    for mention, result in zip(unplaced, results, strict=True):
        if isinstance(result, Unaligned) and result.reason == REPEATED and (mention.surface, mention.kb_id) in known:
            merged += 1
        elif isinstance(result, Unaligned):
            yield Problem(record.where, "mention", NOT_FOUND + result.reason, repr(mention.surface))
    yield replace(record, mentions=tuple(by_span[span] for span in sorted(by_span)), merged=merged)


def _given_span(text: str, mention: NamedMention) -> Span | None:
    """The offsets that the data set gives, without blanks at the edges; None if the mention is not there."""
    start, end = mention.span or (-1, -1)
    surface = mention.surface
    if not 0 <= start < end or text[start:end] != surface or not surface.strip():
        return None
    return start + len(surface) - len(surface.lstrip()), end - len(surface) + len(surface.rstrip())


def align(text: str, mentions: Sequence[str], taken: Sequence[Span] = ()) -> list[Aligned | Unaligned]:
    """Find each mention in the text. Never raises.

    Args:
        text: The text.
        mentions: Strings; blanks around them are ignored.
        taken: Spans that other mentions have already.

    Returns:
        One result per mention, in their order.
    """
    aligner = _Aligner(text, [mention.strip() for mention in mentions], taken)
    occurrences = {surface: _occurrences(text, surface) for surface in aligner.surfaces if surface}
    aligner.use_occurrences({surface: whole for surface, (whole, _) in occurrences.items()}, VERBATIM)
    if len(aligner.results) < len(mentions):
        aligner.use_rules(STRICT_RULES)
        aligner.use_occurrences({surface: partial for surface, (_, partial) in occurrences.items()}, PART_OF_WORD)
        aligner.use_rules(LOOSE_RULES)
    return aligner.all_results()


class _Aligner:
    """The mentions of one text, of which `results` has those that are decided, and `taken` their spans."""

    def __init__(self, text: str, surfaces: Sequence[str], taken: Sequence[Span]) -> None:
        self.text = text
        self.surfaces = surfaces
        self.taken = list(taken)
        self.results: dict[int, Aligned | Unaligned] = {
            index: Unaligned(BLANK) for index, surface in enumerate(surfaces) if not surface
        }

    @cached_property
    def words(self) -> list[Word]:
        return split_words(self.text)

    def undecided(self) -> list[int]:
        return [index for index in range(len(self.surfaces)) if index not in self.results]

    def use_occurrences(self, occurrences: Mapping[str, list[Span]], rule: str) -> None:
        """Give undecided mentions the occurrences of their string; of these the best come first."""
        groups: dict[str, list[int]] = {}
        for index in self.undecided():
            if occurrences[self.surfaces[index]]:
                groups.setdefault(self.surfaces[index], []).append(index)
        # a string occurs at least as often as one that contains it: the rarer first, or "York" takes it from "New York"
        for surface in sorted(groups, key=lambda surface: (len(occurrences[surface]), -len(surface))):
            indices = groups[surface]
            spans = self._choose(occurrences[surface], len(indices))
            self.taken += spans
            self.results.update((index, Aligned(*span, rule)) for index, span in zip(indices, spans, strict=False))
            self.results.update((index, Unaligned(REPEATED)) for index in indices[len(spans) :])

    def _choose(self, occurrences: Sequence[Span], number: int) -> list[Span]:
        """Up to `number` occurrences in the order of the text, preferring those that overlap nothing."""
        chosen: list[Span] = []
        for span in occurrences:
            if len(chosen) < number and is_free(span, self.taken) and is_free(span, chosen):
                chosen.append(span)
        further = [span for span in occurrences if span not in self.taken and span not in chosen]
        return sorted(chosen + further[: number - len(chosen)])

    def use_rules(self, rules: Mapping[str, Rule]) -> None:
        """Ask the rules for the undecided mentions."""
        # the strictest rule first, for all mentions: none shall lose its span to one that fits less well
        for name, rule in rules.items():
            for index in self.undecided():
                surface = self.surfaces[index]
                mention = split_words(surface)
                matches = rule(mention, self.words) if mention else []
                if matches:
                    self._take_best(index, [self._with_edges(surface, match) for match in matches], name)

    def _take_best(self, index: int, matches: Sequence[Match], rule: str) -> None:
        untaken = [match for match in matches if (match.start, match.end) not in self.taken]
        free = [match for match in untaken if is_free((match.start, match.end), self.taken)]
        best = best_match(free or untaken)
        if best is not None:
            self.taken.append((best.start, best.end))
            self.results[index] = Aligned(best.start, best.end, rule)
        elif untaken:
            self.results[index] = Unaligned(AMBIGUOUS)
        else:
            surface = self.surfaces[index]
            is_repeated = any(isinstance(r, Aligned) and self.surfaces[i] == surface for i, r in self.results.items())
            self.results[index] = Unaligned(REPEATED if is_repeated else SAME_SPAN)

    def _with_edges(self, surface: str, match: Match) -> Match:
        """Extend a match over marks that the mention and the text both have at its edge, as the dot of "Jr."."""
        marks = "".join({char for char in surface if not char.isalnum()})
        head = surface[: len(surface) - len(surface.lstrip(marks))] if marks else ""
        tail = surface[len(surface.rstrip(marks)) :] if marks else ""
        start = match.start - len(head) if self.text.endswith(head, 0, match.start) else match.start
        end = match.end + len(tail) if self.text.startswith(tail, match.end) else match.end
        return replace(match, start=start, end=end)

    def all_results(self) -> list[Aligned | Unaligned]:
        for index in self.undecided():
            self.results[index] = Unaligned(why_not_found(split_words(self.surfaces[index]), self.words))
        return [self.results[index] for index in range(len(self.surfaces))]


def _occurrences(text: str, surface: str) -> tuple[list[Span], list[Span]]:
    """Where a string occurs as whole words, and where as a part of one; the best fit first, then in order."""
    starts = []
    start = text.find(surface)
    while start >= 0:
        starts.append(start)
        start = text.find(surface, start + 1)
    fits = sorted((fit_of(text, start, start + len(surface)), (start, start + len(surface))) for start in starts)
    return [span for fit, span in fits if fit.is_whole], [span for fit, span in fits if not fit.is_whole]
