"""Rules that find a mention that is not verbatim in its text.

Each rule takes the words of the mention and of the text, and returns the spans that fit. The first rule with a match
decides; if its matches differ and none is nearest, the mention is reported and not guessed. No rule changes the order
of words, leaves out a word of the mention unless it is a function word, or reads one name for another.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from spacy_gemel.data.datasets.words import PARTICLES, Word, differ_by_one_letter

_MAX_SKIPPED_WORDS = 4
_MAX_MIDDLE_NAMES = 2
_MIN_CONTENT_WORDS = 2
_LONG_WORD = 5
_LONG_SINGLE_WORD = 8
_ENDING = 2
_ABBREVIATION = 3
_ARTICLES = frozenset(["the", "a", "an"])
_SENTENCE_ENDS = frozenset(".!?;:\n")
_NAME_SEPARATORS = frozenset(" \u00a0-.'\"()‘’“”«»")


@dataclass(frozen=True, slots=True)
class Match:
    """A span that fits, with the number of words that the mention does not have, and its words."""

    span: tuple[int, int]
    skipped: int
    words: tuple[str, ...]


Words = Sequence[Word]
Rule = Callable[[Words, Words], list[Match]]
_SameWord = Callable[[Word, Word], bool]
# whether the text may have the words between the first and the last of these, which are the mention's; None: never
_MaySkip = Callable[[Words], bool] | None


def why_not_found(mention: Words, text: Words) -> str:
    """The reason to report for a mention that no rule finds."""
    in_text = {word.folded for word in text}
    content = [word for word in mention if not word.is_function_word] or mention
    if not any(word.folded in in_text for word in content):
        return "none of its words is in the text"
    if all(word.folded in in_text for word in mention):
        return "its words are in the text, but not as one name in this order"
    return "only some of its words are in the text"


def _same_letters(mention: Words, text: Words) -> list[Match]:
    """The same letters, split otherwise: "Al-Hilal" and "AlHilal". Short ones and initials need the same capitals."""
    letters = "".join(word.folded for word in mention)
    matches = []
    for first in range(len(text)):
        joined = ""
        for last in range(first, len(text)):
            joined += text[last].folded
            if not letters.startswith(joined):
                break
            if joined == letters:
                words = text[first : last + 1]
                is_long = len(letters) >= _LONG_WORD and not any(word.is_initial for word in (*mention, *words))
                if is_long or _capitals(mention) == _capitals(words) != "":
                    matches.append(_make_match(text, first, last, 0))
                break
    return matches


def _initials(mention: Words, text: Words) -> list[Match]:
    """The text has initials too: "Owen J. Marsh" for "Owen Marsh". A mention with some initials has all of them."""
    return [] if any(word.is_initial for word in mention) else _search(mention, text, _skip_initials)


def _middle_names(mention: Words, text: Words) -> list[Match]:
    """The text has up to two middle names: "Alice Lee Roosevelt" for "Alice Roosevelt"."""
    names = [word for word in mention if not word.is_function_word]
    if len(names) < _MIN_CONTENT_WORDS or any(word.is_initial for word in mention):
        return []
    return _search(mention, text, _skip_middle_names)


def _function_words_added(mention: Words, text: Words) -> list[Match]:
    """The mention has function words that the text has nowhere: "The Blue Marble" for "Blue Marble".

    Two content words must remain: "Hague" is not "The Hague". Another capitalised word may be a name ("Van"), and the
    last one a noun ("Police van").
    """
    in_text = {word.folded for word in text}
    required = [
        word
        for number, word in enumerate(mention, start=1)
        if not word.is_function_word
        or word.folded in in_text
        or number == len(mention)
        or (word.is_capitalised and not (number == 1 and word.folded in _ARTICLES))
    ]
    content = [word for word in required if not word.is_function_word and not word.is_initial]
    if len(required) == len(mention) or len(content) < _MIN_CONTENT_WORDS:
        return []
    return _search(required, text, _skip_function_words)


def _one_letter(mention: Words, text: Words) -> list[Match]:
    """One letter of one long word differs, but not in its ending ("Paul" is not "Paula")."""

    def same(misspelt: Word, word: Word, candidate: Word) -> bool:
        one, other = word.folded, candidate.folded
        if word is not misspelt:
            return one == other
        return one[0] == other[0] and one[-_ENDING:] == other[-_ENDING:] and differ_by_one_letter(one, other)

    matches = []
    for word in mention:
        has_content = any(other is not word and not other.is_function_word for other in mention)
        if len(word.folded) >= (_LONG_WORD if has_content else _LONG_SINGLE_WORD) and word.folded.isalpha():
            matches += _search(mention, text, _skip_function_words, partial(same, word))
    return matches


# by their names in reports, the strictest first; these find all words, so they come before a span inside another word
STRICT_RULES: dict[str, Rule] = {
    "case, marks or punctuation": lambda mention, text: _search(mention, text, None),  # whatever separates the words
    "words split differently": _same_letters,
    # the text has more of them: "Louis of Nassau" for "Louis Nassau"
    "function words": lambda mention, text: _search(mention, text, _skip_function_words),
    "initials": _initials,
    "middle names": _middle_names,
}
LOOSE_RULES: dict[str, Rule] = {"function words added": _function_words_added, "one letter": _one_letter}


def _search(mention: Words, text: Words, may_skip: _MaySkip, same: _SameWord | None = None) -> list[Match]:
    same = same or (lambda word, candidate: word.folded == candidate.folded)
    matches = (_match_at(mention, text, first, may_skip, same) for first in range(len(text)))
    return [match for match in matches if match is not None]


def _match_at(mention: Words, text: Words, first: int, may_skip: _MaySkip, same: _SameWord) -> Match | None:
    """Follow the mention's words through the text from the word `first` on."""
    index, skipped = first, 0
    for number, word in enumerate(mention):
        reach = 1 + (_MAX_SKIPPED_WORDS if number and may_skip else 0)
        for candidate in range(index, min(len(text), index + reach)):
            words = text[index - 1 : candidate + 1]
            if same(word, text[candidate]) and (candidate == index or may_skip is None or may_skip(words)):
                skipped += candidate - index
                index = candidate + 1
                break
        else:
            return None
    # a short word by itself is another word in another case: "US" and "us"
    is_short = len(mention) == 1 and len(mention[0].folded) < _LONG_WORD
    if is_short and mention[0].text.islower() != text[first].text.islower():
        return None
    if may_skip is not None and all(word.is_function_word for word in mention):
        return None
    return _make_match(text, first, index - 1, skipped)


def _make_match(text: Words, first: int, last: int, skipped: int) -> Match:
    words = tuple(word.folded for word in text[first : last + 1])
    return Match((text[first].start, text[last].end), skipped, words)


def _capitals(words: Words) -> str:
    return "".join(char for word in words for char in word.text if char.isupper())


def _skip_function_words(words: Words) -> bool:
    return all(word.is_function_word for word in words[1:-1]) and _is_one_sentence(words)


def _skip_initials(words: Words) -> bool:
    return all(word.is_function_word or word.is_initial for word in words[1:-1]) and _is_one_sentence(words)


def _skip_middle_names(words: Words) -> bool:
    """Names within one name: no comma, no "and" and no "with" stands between them."""
    between = words[1:-1]
    return (
        sum(word.is_capitalised and not word.is_initial for word in between) <= _MAX_MIDDLE_NAMES
        and all(word.is_capitalised or word.folded in PARTICLES for word in between)
        and all(set(word.separator) <= _NAME_SEPARATORS for word in words[1:])
        and _is_one_sentence(words)
    )


def _is_one_sentence(words: Words) -> bool:
    """Whether no sentence ends between the words; a dot behind a short word is that of an abbreviation."""
    return all(
        len(word.text) <= _ABBREVIATION or _SENTENCE_ENDS.isdisjoint(following.separator)
        for word, following in pairwise(words)
    )
