"""MySQL's literals: what a value in a dump looks like, and what it means."""

from __future__ import annotations

import re
from collections.abc import Sequence

STRING = rb"(?>(?:_binary\s++)?'(?>[^'\\]++|\\.|'')*+')"
VALUE = rb"(?>" + STRING + rb"|[-+]?[0-9.][0-9.eE+-]*+(?![\w])|NULL|null|0[xX][0-9A-Fa-f]++)"
"""Patterns for re.DOTALL. Both are possessive: a row that does not fit is given up at once."""

_QUOTE, _BINARY = b"'_"
_ESCAPES = {b"0": b"\0", b"b": b"\b", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"Z": b"\x1a"}
_ESCAPED = re.compile(rb"\\(.)|''", re.DOTALL)


def text(token: bytes) -> str | None:
    """The text of a literal, None for NULL. Raises UnicodeDecodeError where it is no UTF-8."""
    if token[0] == _BINARY:
        token = token[7:].lstrip()
    if token[0] == _QUOTE:
        content = token[1:-1]
        if b"\\" in content or b"''" in content:
            content = _ESCAPED.sub(_unescaped, content)
        return content.decode("utf-8")
    if token in (b"NULL", b"null"):
        return None
    if token[:2] in (b"0x", b"0X"):
        digits = token[2:].decode("ascii")
        return bytes.fromhex(digits if len(digits) % 2 == 0 else "0" + digits).decode("utf-8")
    return token.decode("utf-8")


def integer(token: bytes) -> int:
    """The number of a literal, which may stand in quotes. Raises ValueError where it is none of up to 18 digits."""
    if len(token) <= 18 and token[0] != _QUOTE:
        return int(token)
    number = token.strip(b"'")
    if len(number.lstrip(b"+-")) > 18:
        raise ValueError(f"{number[:40]!r} is no number of up to 18 digits")
    return int(number)


def row_pattern(columns: int, wanted: Sequence[int]) -> re.Pattern[bytes]:
    """Matches one row of so many values; its groups are the wanted ones, in the order of the columns."""
    values = [b"(" + VALUE + b")" if column in wanted else VALUE for column in range(columns)]
    return re.compile(rb"\(\s*+" + rb"\s*+,\s*+".join(values) + rb"\s*+\)", re.DOTALL)


def rows_pattern(columns: int) -> re.Pattern[bytes]:
    """Matches as many whole rows as stand one after another, with the commas before them."""
    row = rb"\(\s*+" + rb"\s*+,\s*+".join([VALUE] * columns) + rb"\s*+\)"
    return re.compile(rb"(?:[\s,]*+" + row + rb")*+", re.DOTALL)


def column_names(definitions: bytes) -> tuple[str, ...]:
    """The columns of a CREATE TABLE, from what stands between its brackets; keys and constraints are no columns."""
    names = []
    for item in _split(definitions):
        if found := re.match(rb"\s*[`\"]([^`\"]+)[`\"]", item):
            names.append(found[1].decode("utf-8", "replace"))
    return tuple(names)


def _split(definitions: bytes) -> list[bytes]:
    """Split at the commas outside of brackets and strings."""
    parts, depth, start = [], 0, 0
    for found in re.finditer(rb"'(?>[^'\\]|\\.|'')*+'|[(),]", definitions, re.DOTALL):
        sign = found[0]
        depth += (sign == b"(") - (sign == b")")
        if sign == b"," and depth == 0:
            parts.append(definitions[start : found.start()])
            start = found.end()
    return [*parts, definitions[start:]]


def _unescaped(found: re.Match[bytes]) -> bytes:
    escaped = found[1]
    if escaped is None:
        return b"'"
    # MySQL keeps the backslash of these two, which have a meaning in patterns only
    return b"\\" + escaped if escaped in b"%_" else _ESCAPES.get(escaped, escaped)
