"""What a long benchmark keeps: things by key, one process at each, files written whole."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from benchmarks.running import say
from spacy_gemel.paths import write_whole


def digest(*parts: Any) -> str:
    """SHA-256 of some plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def kept(path: Path, key: str, *needed: Path) -> dict[str, Any] | None:
    """What was written at `path` under this key; None where there is nothing, something else, or `needed` is gone."""
    if not all(other.exists() for other in needed):
        return None
    try:
        found = json.loads(path.read_text(encoding="utf8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("key") == key else None


@contextmanager
def alone(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Keep other processes from what is made at `path` meanwhile; a process that dies lets go.

    The lock lies beside it, at `path`.lock, and stays. Says so where it has to wait for another process; raises
    filelock.Timeout there if it shall not wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise
        say(f"waiting for another process, which is at {path.name}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write it whole or not at all."""
    with write_whole(path) as partial:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf8")
