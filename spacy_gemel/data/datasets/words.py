"""The words of a text, folded so that spellings of one name compare equal."""

import re
import unicodedata
from dataclasses import dataclass

_WORD = re.compile(r"[^\W_]+")
# letters that Unicode does not take apart into a base and a mark
_BASE = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "ħ": "h", "ŧ": "t"}
)

CONJUNCTIONS = frozenset(["and", "et", "i", "y", "e", "und", "en", "og", "och"])
"""Small words between two persons as often as within one name."""

_ROMANCE = "de d del della delle dello dei degli di da das do dos du des la le l les lo los las el o"
_GERMANIC = "von vom van der den het dem ter ten tot zu zum zur t af av"
_FURTHER = "no al ul bin ibn bint abu"

PARTICLES = frozenset(f"{_ROMANCE} {_GERMANIC} {_FURTHER}".split())
"""Small words within the names of persons."""

_ENGLISH = "a an the of in on at to for from with by or as"

FUNCTION_WORDS = CONJUNCTIONS | PARTICLES | frozenset(_ENGLISH.split())
"""Words that data sets leave out of a name: articles, prepositions, conjunctions and particles, folded."""


@dataclass(frozen=True, slots=True)
class Word:
    """A run of letters and digits: where it stands, what it is compared by, and what parts it from the one before."""

    start: int
    end: int
    text: str
    folded: str
    before: str

    @property
    def is_initial(self) -> bool:
        """One capital letter alone."""
        return len(self.text) == 1 and self.text.isupper()

    @property
    def is_capitalised(self) -> bool:
        """Begins with a capital letter, as the parts of a name do."""
        return self.text[0].isupper()

    @property
    def is_function_word(self) -> bool:
        """Something a name is often given without; a single capital letter is an initial, not the word "a"."""
        return self.folded in FUNCTION_WORDS and not self.is_initial


def words_of(text: str) -> list[Word]:
    """The words of a text in their order. Marks of a decomposed letter belong to its word."""
    spans: list[tuple[int, int]] = []
    for match in _WORD.finditer(text):
        start, end = match.span()
        while end < len(text) and text[end] > "\x7f" and unicodedata.category(text[end])[0] == "M":
            end += 1
        if spans and spans[-1][1] == start:  # only a mark stood between the two
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    ends = [0, *(end for _, end in spans)]
    return [
        Word(start, end, text[start:end], fold(text[start:end]), text[last:start])
        for last, (start, end) in zip(ends, spans, strict=False)
    ]


def fold(text: str) -> str:
    """Without case and marks: "Émile" and "EMILE" fold alike, and so do "Ångström" and "Angstrom"."""
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(char for char in apart if not unicodedata.combining(char))
    return unicodedata.normalize("NFC", bare).translate(_BASE)


def is_one_slip(left: str, right: str) -> bool:
    """Whether one letter more, less or other, or two changed about, make one word of the other."""
    if abs(len(left) - len(right)) > 1 or left == right:
        return False
    start = 0
    while start < min(len(left), len(right)) and left[start] == right[start]:
        start += 1
    left, right = left[start:], right[start:]
    if len(left) != len(right):
        return left[1:] == right or left == right[1:]
    return left[1:] == right[1:] or (left[:2] == right[1::-1] and left[2:] == right[2:])
