"""SHA-256 sums of the mini models' files: written when they are made, checked wherever they are used."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

NAME = "checksums.json"


def file_sum(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def all_sums(folder: Path) -> dict[str, str]:
    """Sum of every file under `folder` but the list itself, by its path with forward slashes."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    return {path.relative_to(folder).as_posix(): file_sum(path) for path in paths if path.suffix != ".tmp"}


def write_checksums(folder: Path) -> None:
    """Write checksums.json for what `folder` holds now."""
    temporary = folder / f"{NAME}.tmp"
    temporary.write_text(json.dumps(all_sums(folder), indent=2) + "\n")
    temporary.replace(folder / NAME)


def check_checksums(folder: Path) -> list[str]:
    """What differs from checksums.json, one line each; empty if all is well. FileNotFoundError without the list."""
    expected: dict[str, str] = json.loads((folder / NAME).read_text())
    sums = all_sums(folder)
    wrong = [f"{name}: missing" for name in expected if name not in sums]
    wrong += [f"{name}: not listed" for name in sums if name not in expected]
    return wrong + [f"{name}: changed" for name in expected if name in sums and sums[name] != expected[name]]
