"""The package's warnings, one class per kind, and the pieces of text that messages are made of."""

import sys
import warnings
from collections.abc import Hashable
from weakref import WeakKeyDictionary


class GemelWarning(UserWarning):
    """Any warning of spacy-gemel, so that one filter catches them all."""


class UnreadableImageWarning(GemelWarning):
    """An image could not be read: its mentions are linked from the text alone."""


class PromptTruncatedWarning(GemelWarning):
    """A prompt was too long: demonstrations were left out of it."""


class SkippedMentionWarning(GemelWarning):
    """A mention was neither linked nor trained on."""


class UnknownEntityWarning(GemelWarning):
    """Gold ids that the knowledge base does not have."""


class UnusedSettingWarning(GemelWarning):
    """A setting that has no effect beside the others, or no longer the one it had."""


class ModelWarning(GemelWarning):
    """A model that is slower, larger or other than expected."""


class DataWarning(GemelWarning):
    """Rows, files or features that were left out or repaired."""


_LIBRARIES = ("spacy_gemel", "spacy", "thinc", "torch", "typer", "click")
_WARNED: "WeakKeyDictionary[object, set[Hashable]]" = WeakKeyDictionary()


def warn(message: str, category: type[GemelWarning] = GemelWarning) -> None:
    """Warn at the line of the user's code that led here, not at a line of this package or of spaCy."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _LIBRARIES:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def warn_once(owner: object, message: str, category: type[GemelWarning], key: Hashable = None) -> None:
    """Warn once in the life of `owner`, a pipe or a model, per category and key."""
    seen = _WARNED.setdefault(owner, set())
    if (category, key) not in seen:
        seen.add((category, key))
        warn(message, category)


def excerpt(text: str, length: int = 50) -> str:
    """The beginning of a text, quoted, for a message."""
    return repr(text if len(text) <= length else f"{text[:length]}...")


def one_line(error: BaseException) -> str:
    """An error's message without line breaks; its class if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of a library's error message; its class if it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def percent(share: float | None) -> str:
    """A share as a percentage with one decimal; "-" for None."""
    return "-" if share is None else f"{100 * share:.1f}"
