"""Whether a place in a text is made of whole words, or lies inside another word.

Words are runs of letters, digits and the marks on them, and abbreviations with dots ("U.S.A."). Scripts that are
written without blanks have no such runs: there a place counts as whole, since nobody could tell that it is not; but a
run of katakana, which spells a foreign name, is a word, and what follows a name in hangul is most often a particle.
"""

import re
import unicodedata
from enum import IntEnum

_ABBREVIATION = re.compile(r"(?<![^\W_])(?:[^\W\d_]\.){2,}(?:[^\W\d_](?![^\W_]))?")
_LONGEST_ABBREVIATION = 64
_POSSESSIVE = re.compile(r"['’ʼ`´]s?(?![^\W_])", re.IGNORECASE)
_JOINERS = frozenset("-\u00ad‐‑.'’ʼ`´_&@#/\\+=゠・･·\u200c")
"""Marks that make one word of two where nothing else stands between them, as in "Jean-Paul"."""

_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
_KATAKANA = re.compile("[\u30a1-\u30ff\u31f0-\u31ff\uff66-\uff9f]")
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7ff]")


class Fit(IntEnum):
    """How well a place fits the words of its text; the best first."""

    WHOLE = 0
    """Blanks, marks or the text's end on both sides, or a possessive behind it."""
    JOINED = 1
    """Whole words that a mark joins to others: "Jean" in "Jean-Paul"."""
    PREFIX = 2
    """The beginning of a longer word: "Iceland" in "Icelandic"."""
    INSIDE = 3
    """Somewhere else in a longer word: "Ada" in "Canada"."""

    @property
    def is_whole(self) -> bool:
        """Whether no word is cut."""
        return self <= Fit.JOINED


def fit_of(text: str, start: int, end: int) -> Fit:
    """How text[start:end], which must not be empty, fits the words of the text."""
    cut_before, cut_behind = _cuts_word(text, start, at_end=False), _cuts_word(text, end, at_end=True)
    if cut_before or cut_behind:
        return Fit.INSIDE if cut_before else Fit.PREFIX
    return Fit.JOINED if _joined_before(text, start) or _joined_behind(text, end) else Fit.WHOLE


def _cuts_word(text: str, index: int, *, at_end: bool) -> bool:
    """Whether a word goes on over a place; at_end: whether the mention ends there, and not begins."""
    if not 0 < index < len(text):
        return False
    left, right = text[index - 1], text[index]
    if _is_mark(right):
        return left.isalnum() or _is_mark(left)
    return _is_one_run(text, index, left, right, at_end=at_end) or _cuts_abbreviation(text, index)


def _is_one_run(text: str, index: int, left: str, right: str, *, at_end: bool) -> bool:
    if not right.isalnum() or not (left.isalnum() or (_is_mark(left) and _base_before(text, index).isalnum())):
        return False
    base = _base_before(text, index) if _is_mark(left) else left
    if _UNSPACED.match(base) or _UNSPACED.match(right):
        return False
    katakana = bool(_KATAKANA.match(base)), bool(_KATAKANA.match(right))
    if any(katakana):
        return all(katakana)
    return not (at_end and _HANGUL.match(right))


def _cuts_abbreviation(text: str, index: int) -> bool:
    """Whether a place is between two letters of an abbreviation; its last dot may be left off."""
    if "." not in text[max(0, index - 1) : index + 1]:
        return False
    first = index
    while first > max(0, index - _LONGEST_ABBREVIATION) and (text[first - 1].isalpha() or text[first - 1] == "."):
        first -= 1
    found = _ABBREVIATION.search(text, first)
    while found is not None and found.end() <= index:
        found = _ABBREVIATION.search(text, found.end())
    return found is not None and found.start() < index < found.end() - (text[found.end() - 1] == ".")


def _joined_before(text: str, start: int) -> bool:
    return start > 1 and text[start - 1] in _JOINERS and _is_letter(text[start - 2]) and text[start].isalnum()


def _joined_behind(text: str, end: int) -> bool:
    if end >= len(text) or _POSSESSIVE.match(text, end):
        return False
    if text[end - 1] in _JOINERS and text[end].isalnum():
        return True
    return text[end] in _JOINERS and _is_letter(text[end - 1]) and text[end + 1 : end + 2].isalnum()


def _is_letter(char: str) -> bool:
    return char.isalnum() or _is_mark(char)


def _is_mark(char: str) -> bool:
    return char > "\x7f" and unicodedata.category(char)[0] == "M"


def _base_before(text: str, index: int) -> str:
    """The letter that the marks before a place stand on."""
    while index > 1 and _is_mark(text[index - 1]):
        index -= 1
    return text[index - 1]
