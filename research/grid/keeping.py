"""What long work keeps: things by key, written whole or not at all."""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spacy_gemel.utils.files import write_whole

STATE = "trial.json"


def digest(*parts: Any) -> str:
    """SHA-256 of some plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_object(path: Path) -> dict[str, Any]:
    """What a JSON file holds by name; {} where there is none, it cannot be read, or it is cut off or something else."""
    try:
        found = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def seconds_in(found: Any, name: str = "seconds") -> float | None:
    """A number of seconds in what was read; None where it is not there."""
    value = found.get(name) if isinstance(found, Mapping) else None
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return float(value) if usable else None  # type: ignore[arg-type]


def kept(path: Path, key: str, *needed: Path) -> dict[str, Any] | None:
    """What was written at `path` under this key; None where there is nothing, something else, or `needed` is gone."""
    if not all(other.exists() for other in needed):
        return None
    found = read_object(path)
    return found if found.get("key") == key else None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write it whole or not at all."""
    with write_whole(path) as partial:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf8")


def kept_folder(folder: Path, key: str, needed: str) -> float | None:
    """The seconds that a folder of `make_folder` took; None where there is none under this key with `needed` in it."""
    found = kept(folder / STATE, key, folder / needed)
    return seconds_in(found)


def make_folder(folder: Path, key: str, needed: str, make: Callable[[Path], None]) -> float:
    """Have a folder made by `make`, unless it is kept under this key; the seconds that took when it was done.

    `make` gets another folder, beside it, that takes its place when it ends well. needed: what must be in it.
    """
    seconds = kept_folder(folder, key, needed)
    if seconds is None:
        partial = folder.with_name(folder.name + ".partial")
        for old in (folder, partial):
            shutil.rmtree(old, ignore_errors=True)
        partial.mkdir(parents=True)
        start = time.perf_counter()
        make(partial)
        seconds = round(time.perf_counter() - start, 1)
        write_json(partial / STATE, {"key": key, "seconds": seconds})
        partial.rename(folder)
    return seconds
