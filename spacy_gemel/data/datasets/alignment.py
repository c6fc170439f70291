"""Finds the mentions of a row, given as strings, in its text.

A mention that is in the text as whole words is always found there. Else the rules of `fuzzy_alignment.py` are asked,
and a part of a longer word ("Iceland" in "Icelandic") is taken if no strict rule has a match. No two mentions get the
same span: the k-th mention of a string gets its k-th occurrence, and none that occurs as whole words gets a further
span inside another word. Whole words overlap only if the data set has it so, as with "Quist" and "Lena Quist" in "Otto
and Lena Quist"; a part of a word takes the span that remains, and may overlap them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from spacy_gemel.data.datasets.fuzzy_alignment import LOOSE_RULES, STRICT_RULES, Match, Rule, why_not_found
from spacy_gemel.data.datasets.words import Fit, Word, fit_of, split_words
from spacy_gemel.data.records import DEFAULT_LABEL, SAME_SPAN, MentionSpan, Problem, Record, Span, is_free, is_text
from spacy_gemel.kb.resolve import NIL, gold_of

VERBATIM = "verbatim"
PART_OF_WORD = "part of a longer word"
REPEATED = "listed more often than it occurs"
BLANK = "the mention is blank"
AMBIGUOUS = "more than one place fits as well"

NOT_FOUND = "not found: "  # the prefix of the reasons of `align`


@dataclass(frozen=True, slots=True)
class NamedMention:
    """A mention as a string, its gold id, its label, and the offsets that the data set gives, right or wrong."""

    surface: str
    kb_id: str = ""
    label: str = DEFAULT_LABEL
    span: Span | None = None


def parse_mention(
    location: str, surface: Any, gold: Any, *, label: Any = None, start: Any = None, end: Any = None, empty: str = NIL
) -> NamedMention | Problem:
    """A mention from unchecked values, ignoring offsets that are not numbers; `empty`: what an empty gold means."""
    if not is_text(surface):
        return Problem(location, "mention", "the mention is not a string", repr(surface))
    if gold is not None and not is_text(gold):
        return Problem(location, "mention", "the gold entity is not a string", repr(gold))
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
            yield Problem(record.location, "mention", SAME_SPAN, repr(mention.surface))
    results = align(record.text, [mention.surface for mention in unplaced], list(by_span))
    for mention, result in zip(unplaced, results, strict=True):
        if isinstance(result, MentionSpan):
            by_span[result.start, result.end] = replace(result, kb_id=mention.kb_id, label=mention.label)
            known.add((mention.surface, mention.kb_id))
    for mention, result in zip(unplaced, results, strict=True):
        if result == REPEATED and (mention.surface, mention.kb_id) in known:
            merged += 1
        elif isinstance(result, str):
            yield Problem(record.location, "mention", NOT_FOUND + result, repr(mention.surface))
    yield replace(record, mentions=tuple(by_span[span] for span in sorted(by_span)), merged=merged)


def _given_span(text: str, mention: NamedMention) -> Span | None:
    """The offsets that the data set gives, without blanks at the edges; None if the mention is not there."""
    start, end = mention.span or (-1, -1)
    surface = mention.surface
    if not 0 <= start < end or text[start:end] != surface or not surface.strip():
        return None
    return start + len(surface) - len(surface.lstrip()), end - len(surface) + len(surface.rstrip())


def align(text: str, mentions: Sequence[str], taken: Sequence[Span] = ()) -> list[MentionSpan | str]:
    """Return the span of each mention, or the reason why it is not found; blanks around the strings are ignored.

    Other mentions have the spans in `taken`. Never raises.
    """
    aligner = _Aligner(text, [mention.strip() for mention in mentions], taken)
    occurrences = {surface: _occurrences(text, surface) for surface in aligner.surfaces if surface}
    aligner.use_occurrences({surface: whole for surface, (whole, _) in occurrences.items()}, VERBATIM)
    if aligner.undecided():
        aligner.use_rules(STRICT_RULES)
        aligner.use_occurrences({surface: partial for surface, (_, partial) in occurrences.items()}, PART_OF_WORD)
        aligner.use_rules(LOOSE_RULES)
    for index in aligner.undecided():
        aligner.results[index] = why_not_found(split_words(aligner.surfaces[index]), aligner.words)
    return [aligner.results[index] for index in range(len(mentions))]


class _Aligner:
    """The mentions of one text, of which `results` has those that are decided, and `taken` their spans."""

    def __init__(self, text: str, surfaces: Sequence[str], taken: Sequence[Span]) -> None:
        self.text, self.surfaces, self.taken = text, surfaces, list(taken)
        self.results: dict[int, MentionSpan | str] = {i: BLANK for i, s in enumerate(surfaces) if not s}

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
            chosen: list[Span] = []
            for span in occurrences[surface]:
                if len(chosen) < len(indices) and is_free(span, [*self.taken, *chosen]):
                    chosen.append(span)
            # those that overlap a taken span only if there are not enough others
            further = [span for span in occurrences[surface] if span not in self.taken and span not in chosen]
            chosen = sorted(chosen + further[: len(indices) - len(chosen)])
            self.taken += chosen
            spans = [MentionSpan(*span, rule=rule) for span in chosen]
            self.results.update(zip(indices, [*spans, *[REPEATED] * (len(indices) - len(spans))], strict=True))

    def use_rules(self, rules: Mapping[str, Rule]) -> None:
        """Ask the rules for the undecided mentions."""
        # the strictest rule first, for all mentions: none shall lose its span to one that fits less well
        for name, rule in rules.items():
            for index in self.undecided():
                mention = split_words(self.surfaces[index])
                matches = [self._with_edges(index, match) for match in rule(mention, self.words)] if mention else []
                if matches:
                    self.results[index] = self._take_best(index, matches, name)

    def _take_best(self, index: int, matches: Sequence[Match], rule: str) -> MentionSpan | str:
        """Take the match that skips the fewest words, the first of equal ones, if all such matches read alike."""
        untaken = [match for match in matches if match.span not in self.taken]
        candidates = [match for match in untaken if is_free(match.span, self.taken)] or untaken
        if not candidates:
            same = [i for i, surface in enumerate(self.surfaces) if surface == self.surfaces[index]]
            return REPEATED if any(isinstance(self.results.get(i), MentionSpan) for i in same) else SAME_SPAN
        fewest = min(match.skipped for match in candidates)
        nearest = [match for match in candidates if match.skipped == fewest]
        if len({match.words for match in nearest}) > 1:
            return AMBIGUOUS
        self.taken.append(nearest[0].span)
        return MentionSpan(*nearest[0].span, rule=rule)

    def _with_edges(self, index: int, match: Match) -> Match:
        """Extend a match over marks that the mention and the text both have at its edge, as the dot of "Jr."."""
        surface, (start, end) = self.surfaces[index], match.span
        marks = "".join({char for char in surface if not char.isalnum()})
        head = surface[: len(surface) - len(surface.lstrip(marks))] if marks else ""
        tail = surface[len(surface.rstrip(marks)) :] if marks else ""
        start -= len(head) if self.text.endswith(head, 0, start) else 0
        end += len(tail) if self.text.startswith(tail, end) else 0
        return replace(match, span=(start, end))


def _occurrences(text: str, surface: str) -> tuple[list[Span], list[Span]]:
    """The spans of a string as whole words, and those as a part of one; the best fit first, then in order."""
    starts = [match.start() for match in re.finditer(f"(?={re.escape(surface)})", text)]
    fits = sorted((fit_of(text, start, start + len(surface)), (start, start + len(surface))) for start in starts)
    return [span for fit, span in fits if fit <= Fit.JOINED], [span for fit, span in fits if fit > Fit.JOINED]
