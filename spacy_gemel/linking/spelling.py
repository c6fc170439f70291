"""When two mentions are the same words: as they stand, or else folded."""

import re
import unicodedata

_POSSESSIVE = re.compile(r"(?:['’ʼ]s|(?<=s)['’ʼ])$", re.IGNORECASE)
_DASHES = re.compile(r"[-‐-―/]+")


def fold(mention: str) -> str:
    """What spellings of one mention share: case, a possessive at its end and punctuation do not count.

    Dashes and slashes are blanks. "" for nothing but punctuation.
    """
    text = _DASHES.sub(" ", without_possessive(mention).casefold())
    return " ".join("".join(char for char in text if not _is_punctuation(char)).split())


def spellings(mention: str) -> list[str]:
    """How a name that folds to the same might be written: what to ask an index that knows exact spellings only.

    The mention without possessive and outer punctuation, then without any punctuation; each as it is, in small
    letters, in capitals, and with each word's first letter a capital.
    """
    bare = without_possessive(mention)
    while bare and _is_punctuation(bare[0]):
        bare = bare[1:]
    while bare and (_is_punctuation(bare[-1])):
        bare = bare[:-1]
    plain = "".join(char for char in _DASHES.sub(" ", bare) if not _is_punctuation(char))
    written = [" ".join(text.split()) for text in (bare, plain)]
    cased = [
        way
        for text in written
        for way in (text, text.lower(), text.upper(), " ".join(word.capitalize() for word in text.split()))
    ]
    return list(dict.fromkeys(text for text in cased if text))


def without_possessive(mention: str) -> str:
    """The mention without 's, or the mark after an s, at its end."""
    return _POSSESSIVE.sub("", " ".join(unicodedata.normalize("NFC", mention).split()))


def _is_punctuation(char: str) -> bool:
    return unicodedata.category(char).startswith("P")
