"""The words of a text: folded, so that spellings of one name compare equal, and their edges, so that none is cut.

Words are runs of letters, digits and the marks on them, and abbreviations with dots ("U.S.A."). In scripts without
blanks every span counts as whole words, but a run of katakana is a word, and a name in hangul may have a particle.
"""

import re
import unicodedata
from dataclasses import dataclass
from enum import IntEnum

_WORD = re.compile(r"[^\W_]+")
# letters that Unicode does not decompose into a base and a mark
_BASE_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "ħ": "h", "ŧ": "t"}
)

_ROMANCE = "de d del della delle dello dei degli di da das do dos du des la le l les lo los las el o"
_GERMANIC = "von vom van der den het dem ter ten tot zu zum zur t af av"
# within the names of persons
PARTICLES = frozenset(f"{_ROMANCE} {_GERMANIC} no al ul bin ibn bint abu".split())

_CONJUNCTIONS = "and et i y e und en og och"
_ENGLISH = "a an the of in on at to for from with by or as"
_FUNCTION_WORDS = PARTICLES | frozenset(f"{_CONJUNCTIONS} {_ENGLISH}".split())

_ABBREVIATION = re.compile(r"(?<![^\W_])(?:[^\W\d_]\.){2,}(?:[^\W\d_](?![^\W_]))?")
_LONGEST_ABBREVIATION = 64
_POSSESSIVE = re.compile(r"['’ʼ`´]s?(?![^\W_])", re.IGNORECASE)
# marks that make one word of two if nothing else stands between them, as in "Jean-Paul"
_JOINERS = frozenset("-\u00ad‐‑.'’ʼ`´_&@#/\\+=゠・･·\u200c")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
_KATAKANA = re.compile("[\u30a1-\u30ff\u31f0-\u31ff\uff66-\uff9f]")
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7ff]")


@dataclass(frozen=True, slots=True)
class Word:
    """A run of letters and digits: its span, its text, the folded text, and what separates it from the word before."""

    start: int
    end: int
    text: str
    folded: str
    separator: str

    @property
    def is_initial(self) -> bool:
        """Whether it is a single capital letter."""
        return len(self.text) == 1 and self.text.isupper()

    @property
    def is_capitalised(self) -> bool:
        """Whether it begins with a capital letter, as the words of a name do."""
        return self.text[0].isupper()

    @property
    def is_function_word(self) -> bool:
        """Whether names are often given without it; a single capital letter is an initial, not the word "a"."""
        return self.folded in _FUNCTION_WORDS and not self.is_initial


def split_words(text: str) -> list[Word]:
    """The words of a text in order. The marks of a decomposed letter belong to its word."""
    spans: list[tuple[int, int]] = []
    for match in _WORD.finditer(text):
        start, end = match.span()
        while end < len(text) and _is_mark(text[end]):
            end += 1
        if spans and spans[-1][1] == start:  # only a mark stood between the two
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    previous_ends = [0, *(end for _, end in spans)]
    return [
        Word(start, end, text[start:end], fold(text[start:end]), text[previous:start])
        for previous, (start, end) in zip(previous_ends, spans, strict=False)
    ]


def fold(text: str) -> str:
    """Remove case and marks: "Émile" and "EMILE" fold alike, and so do "Ångström" and "Angstrom"."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    letters = "".join(char for char in decomposed if not unicodedata.combining(char))
    return unicodedata.normalize("NFC", letters).translate(_BASE_LETTERS)


def differ_by_one_letter(one: str, other: str) -> bool:
    """Whether one insertion, deletion or substitution, or a swap of neighbours, makes one word of the other."""
    if abs(len(one) - len(other)) > 1 or one == other:
        return False
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    one, other = one[start:], other[start:]
    if len(one) != len(other):
        return one[1:] == other or one == other[1:]
    return one[1:] == other[1:] or (one[:2] == other[1::-1] and one[2:] == other[2:])


class Fit(IntEnum):
    """How well a span fits the words of its text; the best first."""

    WHOLE = 0  # whole words with blanks, marks or the text's end on both sides, or a possessive behind
    JOINED = 1  # whole words that a mark joins to others: "Jean" in "Jean-Paul"
    PREFIX = 2  # the beginning of a longer word: "Iceland" in "Icelandic"
    INSIDE = 3  # elsewhere in a longer word: "Ada" in "Canada"


def fit_of(text: str, start: int, end: int) -> Fit:
    """How well text[start:end], which must not be empty, fits the words of the text."""
    if _cuts_word(text, start, is_end=False):
        return Fit.INSIDE
    if _cuts_word(text, end, is_end=True):
        return Fit.PREFIX
    is_joined = start > 1 and text[start - 1] in _JOINERS and _is_letter(text[start - 2]) and text[start].isalnum()
    if end < len(text) and not _POSSESSIVE.match(text, end):
        is_joined |= text[end - 1] in _JOINERS and text[end].isalnum()
        is_joined |= text[end] in _JOINERS and _is_letter(text[end - 1]) and text[end + 1 : end + 2].isalnum()
    return Fit.JOINED if is_joined else Fit.WHOLE


def _cuts_word(text: str, index: int, *, is_end: bool) -> bool:
    """Whether a word goes on across an index, at which a mention begins or (`is_end`) ends."""
    if not 0 < index < len(text):
        return False
    if _is_mark(text[index]):
        return _is_letter(text[index - 1])
    if _cuts_abbreviation(text, index):
        return True
    # the letter that the marks before the index stand on
    base = next((text[i] for i in range(index - 1, 0, -1) if not _is_mark(text[i])), text[0])
    following = text[index]
    if not following.isalnum() or not base.isalnum() or _UNSPACED.match(base) or _UNSPACED.match(following):
        return False
    katakana = bool(_KATAKANA.match(base)), bool(_KATAKANA.match(following))
    return all(katakana) if any(katakana) else not (is_end and _HANGUL.match(following))


def _cuts_abbreviation(text: str, index: int) -> bool:
    """Whether an index is between two letters of an abbreviation, whose last dot may be left out."""
    if "." not in text[max(0, index - 1) : index + 1]:
        return False
    first = index
    while first > max(0, index - _LONGEST_ABBREVIATION) and (text[first - 1].isalpha() or text[first - 1] == "."):
        first -= 1
    matches = _ABBREVIATION.finditer(text, first)
    start, end = next((match.span() for match in matches if match.end() > index), (index, index))
    return start < index < end - (text[end - 1] == ".")


def _is_letter(char: str) -> bool:
    return char.isalnum() or _is_mark(char)


def _is_mark(char: str) -> bool:
    return char > "\x7f" and unicodedata.category(char)[0] == "M"
