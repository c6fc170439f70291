"""Checks of single fields that the readers share."""

import re
from typing import Any, TypeGuard

_URL = re.compile(r"\s*[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def is_text(value: Any) -> TypeGuard[str]:
    """Whether a value is a string that UTF-8 can hold: JSON also allows half a surrogate pair."""
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def bad_text(value: Any, field: str = "text") -> tuple[str, str] | None:
    """Why a value cannot be the text of a document, as a reason and its detail; None if it can."""
    if not isinstance(value, str):
        return f"no {field}", f"give the field {field} as a string"
    if not value.strip():
        return f"the {field} is empty", ""
    return None if is_text(value) else (f"the {field} is not valid Unicode", "it holds half a surrogate pair")


def is_url(text: str) -> bool:
    """Whether a text is a URL of any scheme, and so no path of a file."""
    return _URL.match(text) is not None


def first_id(*values: Any) -> str | None:
    """The first value that can be an id: a string that is not empty, or a whole number."""
    return next((str(value) for value in values if (is_text(value) and value) or type(value) is int), None)


def as_list(value: Any) -> list[Any]:
    """A list as it is, None as an empty list, and anything else as a list of one."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
