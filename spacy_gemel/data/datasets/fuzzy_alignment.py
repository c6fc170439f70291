"""Rules by which a mention is found that is not verbatim in its text.

Each rule takes the mention's words and the text's, and says at which spans they fit. The first rule that has any
decides; where they then differ and none is nearest, the mention is reported and not guessed. What no rule does:
change the order of words, leave out a word of the mention that is more than a small one, or read one name for another.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from spacy_gemel.data.datasets.words import PARTICLES, Word, is_one_slip

AMBIGUOUS = "more than one place fits as well"
NO_WORD = "none of its words is in the text"
SOME_WORDS = "only some of its words are in the text"
NOT_AS_ONE = "its words are in the text, but not as one name in this order"

_MOST_FURTHER_WORDS = 4
_MOST_NAMES = 2
_FEWEST_LEFT = 2
_LONG = 5
_LONG_ALONE = 8
_ENDING = 2
_ABBREVIATION = 3
_ARTICLES = frozenset(["the", "a", "an"])
_SENTENCE_ENDS = frozenset(".!?;:\n")
_WITHIN_NAMES = frozenset(" \u00a0-.'\"()‘’“”«»")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A span that fits, in characters; how many words more than the mention it has, and its folded words."""

    start: int
    end: int
    skipped: int
    surface: tuple[str, ...]


Rule = Callable[[Sequence[Word], Sequence[Word]], list[Candidate]]
_Same = Callable[[Word, Word], bool]
_MaySkip = Callable[[Sequence[Word]], bool]
"""Whether the text may have further words between the first and the last of these, which the mention has too."""


def best_of(candidates: Sequence[Candidate]) -> Candidate | None:
    """The span with the fewest further words, the first of equal ones; None where two differ, or there is none."""
    least = min((candidate.skipped for candidate in candidates), default=0)
    nearest = [candidate for candidate in candidates if candidate.skipped == least]
    return nearest[0] if len({candidate.surface for candidate in nearest}) == 1 else None


def why_not(mention: Sequence[Word], text: Sequence[Word]) -> str:
    """The reason to report for a mention that no rule finds."""
    there = {word.folded for word in text}
    content = [word for word in mention if not word.is_function_word] or mention
    if not any(word.folded in there for word in content):
        return NO_WORD
    return NOT_AS_ONE if all(word.folded in there for word in mention) else SOME_WORDS


def _same_words(mention: Sequence[Word], text: Sequence[Word]) -> list[Candidate]:
    """The same words one after another, whatever stands between them: case, marks, dashes, quotes, commas, blanks."""
    return _search(mention, text, _equal, _nothing)


def _same_letters(mention: Sequence[Word], text: Sequence[Word]) -> list[Candidate]:
    """The same letters, parted otherwise: "Al-Hilal" and "AlHilal"; with initials or few letters, the same capitals."""
    wanted = "".join(word.folded for word in mention)
    found = []
    for first in range(len(text)):
        joined = ""
        for last in range(first, len(text)):
            joined += text[last].folded
            if not wanted.startswith(joined):
                break
            if joined == wanted:
                there = text[first : last + 1]
                is_telling = len(wanted) >= _LONG and not any(word.is_initial for word in (*mention, *there))
                if is_telling or _capitals(mention) == _capitals(there) != "":
                    found.append(_candidate(text, first, last, 0))
                break
    return found


def _small_words(mention: Sequence[Word], text: Sequence[Word]) -> list[Candidate]:
    """Without some of the small words: "Louis Nassau" for "Louis of Nassau"."""
    return _search(mention, text, _equal, _are_small)


def _initials(mention: Sequence[Word], text: Sequence[Word]) -> list[Candidate]:
    """Without initials too: "Owen Marsh" for "Owen J. Marsh"; if it has some, it has all."""
    if any(word.is_initial for word in mention):
        return []
    return _search(mention, text, _equal, _are_small_or_initials)


def _names_between(mention: Sequence[Word], text: Sequence[Word]) -> list[Candidate]:
    """Without up to two names in the middle: "Alice Roosevelt" for "Alice Lee Roosevelt"."""
    names = [word for word in mention if not word.is_function_word]
    if len(names) < _FEWEST_LEFT or any(word.is_initial for word in mention):
        return []
    return _search(mention, text, _equal, _are_middle_names)


def _small_words_added(mention: Sequence[Word], text: Sequence[Word]) -> list[Candidate]:
    """With small words that the text has nowhere: "The Blue Marble" for "Blue Marble".

    Two further words must be left: "Hague" is not "The Hague". Another capital word may be a name ("Van"), and one at
    the end a noun ("Police van").
    """
    there = {word.folded for word in text}
    kept = [
        word
        for index, word in enumerate(mention, start=1)
        if not word.is_function_word
        or word.folded in there
        or index == len(mention)
        or (word.is_capitalised and not (index == 1 and word.folded in _ARTICLES))
    ]
    content = [word for word in kept if not word.is_function_word and not word.is_initial]
    return [] if len(kept) == len(mention) or len(content) < _FEWEST_LEFT else _search(kept, text, _equal, _are_small)


def _one_slip(mention: Sequence[Word], text: Sequence[Word]) -> list[Candidate]:
    """One letter of one long word differs, not in its ending ("Paul" is not "Paula"), and no other word does."""
    found = []
    for index, word in enumerate(mention):
        others = [other for other in mention if other is not word and not other.is_function_word]
        if len(word.folded) < (_LONG if others else _LONG_ALONE) or not word.folded.isalpha():
            continue

        def same(left: Word, right: Word, slip: Word = mention[index]) -> bool:
            if left is not slip:
                return _equal(left, right)
            one, other = left.folded, right.folded
            return one[0] == other[0] and one[-_ENDING:] == other[-_ENDING:] and is_one_slip(one, other)

        found += _search(mention, text, same, _are_small)
    return found


STRICT_RULES: dict[str, Rule] = {
    "case, marks or punctuation": _same_words,
    "words parted otherwise": _same_letters,
    "small words": _small_words,
    "initials": _initials,
    "middle names": _names_between,
}
"""Name of a rule, as reports have it -> the rule; the strictest first. These find all words of a mention, letter for
letter, so that what they find is better than a place inside another word."""

OTHER_RULES: dict[str, Rule] = {
    "small words added": _small_words_added,
    "one letter": _one_slip,
}
"""Those that do not."""


def _search(mention: Sequence[Word], text: Sequence[Word], same: _Same, may_skip: _MaySkip) -> list[Candidate]:
    return [found for first in range(len(text)) for found in _match(mention, text, first, same, may_skip)]


def _match(
    mention: Sequence[Word], text: Sequence[Word], first: int, same: _Same, may_skip: _MaySkip
) -> Iterator[Candidate]:
    """Follow the mention's words from one of the text's; yields the span, or nothing."""
    index, skipped = first, 0
    for number, word in enumerate(mention):
        for at in range(index, min(len(text), index + 1 + (_MOST_FURTHER_WORDS if number else 0))):
            if same(word, text[at]) and (at == index or may_skip(text[index - 1 : at + 1])):
                skipped += at - index
                index = at + 1
                break
        else:
            return
    content = [word for word in mention if not word.is_function_word]
    if len(mention) == 1 and not _is_safe_alone(mention[0], text[first]):
        return
    if content or may_skip is _nothing:
        yield _candidate(text, first, index - 1, skipped)


def _candidate(text: Sequence[Word], first: int, last: int, skipped: int) -> Candidate:
    surface = tuple(word.folded for word in text[first : last + 1])
    return Candidate(text[first].start, text[last].end, skipped, surface)


def _is_safe_alone(mention: Word, text: Word) -> bool:
    """A short word by itself is another word in another case: "US" and "us"."""
    return len(mention.folded) >= _LONG or mention.text.islower() == text.text.islower()


def _capitals(words: Sequence[Word]) -> str:
    return "".join(char for word in words for char in word.text if char.isupper())


def _equal(mention: Word, text: Word) -> bool:
    return mention.folded == text.folded


def _nothing(words: Sequence[Word]) -> bool:
    return False


def _are_small(words: Sequence[Word]) -> bool:
    return all(word.is_function_word for word in words[1:-1]) and _is_one_sentence(words)


def _are_small_or_initials(words: Sequence[Word]) -> bool:
    return all(word.is_function_word or word.is_initial for word in words[1:-1]) and _is_one_sentence(words)


def _are_middle_names(words: Sequence[Word]) -> bool:
    """Names within one name: no comma, no "and" and no "with" parts them."""
    between = words[1:-1]
    return (
        sum(word.is_capitalised and not word.is_initial for word in between) <= _MOST_NAMES
        and all(word.is_capitalised or word.folded in PARTICLES for word in between)
        and all(set(word.before) <= _WITHIN_NAMES for word in words[1:])
        and _is_one_sentence(words)
    )


def _is_one_sentence(words: Sequence[Word]) -> bool:
    """No sentence ends between the words; a dot after a short one is that of an abbreviation."""
    return all(
        len(word.text) <= _ABBREVIATION or _SENTENCE_ENDS.isdisjoint(following.before)
        for word, following in pairwise(words)
    )
