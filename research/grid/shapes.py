"""Values of a YAML file read as what they must be; what is wrong is said with its place."""

import math
from collections.abc import Collection, Mapping
from typing import Any


def mapping(raw: Any, where: str, known: Collection[str] | None = None) -> dict[str, Any]:
    """Settings by name, without those that are null, which count as absent; {} for null. known: the names there are.

    Raises ValueError for anything else, and for an unknown name.
    """
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise ValueError(f"{where} is {raw!r}; it must be settings with names")
    for key in raw:
        if known is not None and key not in known:
            raise ValueError(f"{where}: unknown setting {key!r}; there are {', '.join(sorted(known))}")
    return {str(key): value for key, value in raw.items() if value is not None}


def sequence(raw: Any, where: str) -> list[Any]:
    """A list; [] for null. Raises ValueError for anything else."""
    if raw is None:
        return []
    if not isinstance(raw, list):
        raise ValueError(f"{where} is {raw!r}; it must be a list")
    return raw


def text(raw: Any, where: str) -> str:
    """Words; "" for null. Raises ValueError for anything else, such as a YAML `off`, which is no string."""
    if raw is None:
        return ""
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError(f"{where} is {raw!r}; it must be words, in quotes where YAML takes them for something else")
    return raw


def whole(raw: Any, where: str, least: int = 0) -> int:
    """A whole number of `least` or more. Raises ValueError for anything else."""
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise ValueError(f"{where} is {raw!r}; it must be int")
    if raw < least:
        raise ValueError(f"{where} is {raw}; it must be {least} or more")
    return raw


def number(raw: Any, where: str, most: float | None = None) -> float:
    """A number from 0 to `most`. Raises ValueError for anything else."""
    if not isinstance(raw, int | float) or isinstance(raw, bool):
        raise ValueError(f"{where} is {raw!r}; it must be a number")
    if not math.isfinite(raw) or raw < 0 or (most is not None and raw > most):
        raise ValueError(f"{where} is {raw}; it must be " + ("0 or more" if most is None else f"from 0 to {most:g}"))
    return float(raw)


def flag(raw: Any, where: str) -> bool:
    """true or false. Raises ValueError for anything else."""
    if not isinstance(raw, bool):
        raise ValueError(f"{where} is {raw!r}; it must be bool")
    return raw
