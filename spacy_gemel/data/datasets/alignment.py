"""Where in a text a mention stands that the data set gives as a string alone.

A mention that is there as whole words is always found there; one that is not, by the rules of `corpus/tolerant.py`, as
part of a longer word ("Iceland" in "Icelandic") where no strict one of these fits, or it is reported. No two mentions
get the same span: the k-th mention of a string gets the k-th of its places, and none that has a place as whole words
gets a further one inside another word. Those of whole words overlap only where the data set wants it so, as with
"Quist" and "Lena Quist" in "Otto and Lena Quist"; one inside a word takes what is left, and may overlap them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spacy_gemel.data.datasets.boundaries import fit_of
from spacy_gemel.data.datasets.fuzzy_alignment import (
    AMBIGUOUS,
    OTHER_RULES,
    STRICT_RULES,
    Candidate,
    Rule,
    best_of,
    why_not,
)
from spacy_gemel.data.datasets.words import Word, words_of

VERBATIM = "verbatim"
PART_OF_WORD = "part of a longer word"
REPEATED = "listed more often than it occurs"
PLACE_TAKEN = "another mention has its place"
BLANK = "the mention is blank"

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Aligned:
    """A span of the text, in characters, and the rule it was found by."""

    start: int
    end: int
    rule: str


@dataclass(frozen=True, slots=True)
class Unaligned:
    """Why a mention was not found."""

    reason: str


Found = dict[int, Aligned | Unaligned]


def align(text: str, mentions: Sequence[str], taken: Sequence[Span] = ()) -> list[Aligned | Unaligned]:
    """Find each mention in the text; one result for each, in their order.

    taken: spans of the text that other mentions have already. Blanks around a mention are left off. Never raises.
    """
    wanted = [mention.strip() for mention in mentions]
    found: Found = {index: Unaligned(BLANK) for index, mention in enumerate(wanted) if not mention}
    spans = list(taken)
    indices = {mention: _places(text, mention) for mention in wanted if mention}
    _align_verbatim(wanted, {mention: whole for mention, (whole, _) in indices.items()}, VERBATIM, spans, found)
    if len(found) < len(wanted):
        words = words_of(text)
        of_mention = {index: words_of(mention) for index, mention in enumerate(wanted) if index not in found}
        _align_tolerantly(text, wanted, of_mention, words, STRICT_RULES, spans, found)
        _align_verbatim(wanted, {mention: parts for mention, (_, parts) in indices.items()}, PART_OF_WORD, spans, found)
        _align_tolerantly(text, wanted, of_mention, words, OTHER_RULES, spans, found)
        for index, mention_words in of_mention.items():
            found.setdefault(index, Unaligned(why_not(mention_words, words)))
    return [found[index] for index in range(len(wanted))]


def is_free(span: Span, taken: Sequence[Span]) -> bool:
    """Whether a span shares no character with any of some others."""
    return all(span[1] <= start or end <= span[0] for start, end in taken)


def _align_verbatim(
    wanted: Sequence[str], places: dict[str, list[Span]], rule: str, taken: list[Span], found: Found
) -> None:
    """Give the mentions that have none yet the places of their string, the best first in each list."""
    groups: dict[str, list[int]] = {}
    for index, mention in enumerate(wanted):
        if index not in found and places[mention]:
            groups.setdefault(mention, []).append(index)
    # a string occurs at least as often as one that it is part of: the rarer first, or "York" takes "New York"'s place
    for mention in sorted(groups, key=lambda mention: (len(places[mention]), -len(mention))):
        indices = groups[mention]
        spans = sorted(_choose(places[mention], taken, len(indices)))
        taken += spans
        found.update((index, Aligned(*span, rule)) for index, span in zip(indices, spans, strict=False))
        found.update((index, Unaligned(REPEATED)) for index in indices[len(spans) :])


def _choose(indices: Sequence[Span], taken: Sequence[Span], wanted: int) -> list[Span]:
    """So many of some places as are wanted and there: those first that share no character with what is taken."""
    chosen: list[Span] = []
    for index in indices:
        if len(chosen) < wanted and is_free(index, taken) and is_free(index, chosen):
            chosen.append(index)
    if len(chosen) < wanted:
        given = {*taken, *chosen}
        chosen += [index for index in indices if index not in given][: wanted - len(chosen)]
    return chosen


def _places(text: str, mention: str) -> tuple[list[Span], list[Span]]:
    """Where a string stands in a text as whole words, and where as part of one; the best first, then in their order."""
    fits = sorted((fit_of(text, *index), index) for index in _find_all(text, mention))
    return [index for fit, index in fits if fit.is_whole], [index for fit, index in fits if not fit.is_whole]


def _find_all(text: str, mention: str) -> Iterator[Span]:
    start = text.find(mention)
    while start >= 0:
        yield start, start + len(mention)
        start = text.find(mention, start + 1)


def _align_tolerantly(
    text: str,
    wanted: Sequence[str],
    of_mention: dict[int, list[Word]],
    words: Sequence[Word],
    rules: dict[str, Rule],
    taken: list[Span],
    found: Found,
) -> None:
    """Ask some rules for the mentions, given as their words, that have no place yet."""
    # the strict rules first, for all: no mention shall lose its place to another that fits there less well
    for rule, find in rules.items():
        for index, mention_words in of_mention.items():
            if index in found or not mention_words:
                continue
            candidates = [_with_edges(text, wanted[index], span) for span in find(mention_words, words)]
            if not candidates:
                continue
            left = [candidate for candidate in candidates if (candidate.start, candidate.end) not in taken]
            free = [candidate for candidate in left if is_free((candidate.start, candidate.end), taken)]
            best = best_of(free or left)
            if best is not None:
                taken.append((best.start, best.end))
                found[index] = Aligned(best.start, best.end, rule)
            elif left:
                found[index] = Unaligned(AMBIGUOUS)
            else:
                again = any(wanted[other] == wanted[index] for other in found if isinstance(found[other], Aligned))
                found[index] = Unaligned(REPEATED if again else PLACE_TAKEN)


def _with_edges(text: str, mention: str, span: Candidate) -> Candidate:
    """Take in what stands beside the words in the mention and in the text alike, as the dot of "Jr."."""
    marks = "".join({char for char in mention if not char.isalnum()})
    head = mention[: len(mention) - len(mention.lstrip(marks))] if marks else ""
    tail = mention[len(mention.rstrip(marks)) :] if marks else ""
    start = span.start - len(head) if text.endswith(head, 0, span.start) else span.start
    end = span.end + len(tail) if text.startswith(tail, span.end) else span.end
    return Candidate(start, end, span.skipped, span.surface)
