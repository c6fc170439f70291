"""Checks of single fields that the readers share."""

import re
from typing import Any, TypeGuard

_URL = re.compile(r"\s*[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def bad_text(text: Any, field: str = "text") -> tuple[str, str] | None:
    """Why a value cannot be a document's text, as a reason and its detail; None where it can."""
    if not isinstance(text, str):
        return f"no {field}", f"give the field {field} as a string"
    if not text.strip():
        return f"the {field} is empty", ""
    if not is_unicode(text):
        return f"the {field} is not valid Unicode", "it holds half a surrogate pair"
    return None


def is_unicode(text: str) -> bool:
    """Whether a text has no half of a surrogate pair, which JSON can hold and UTF-8 cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def is_name(value: Any) -> TypeGuard[str]:
    """Whether a value is a string that can be written."""
    return isinstance(value, str) and is_unicode(value)


def is_url(text: str) -> bool:
    """Whether a text is a URL of any scheme, and so no path of a file."""
    return _URL.match(text) is not None


def id_of(*values: Any) -> str | None:
    """The first of some values that can be an id: a string or a whole number."""
    for value in values:
        if (is_name(value) and value) or type(value) is int:
            return str(value)
    return None


def as_list(value: Any) -> list[Any]:
    """A list as it is, None as an empty one, and anything else as a list of itself."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
