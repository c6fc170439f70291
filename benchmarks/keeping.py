"""What a long benchmark keeps: trials by key, one process at each, files written whole; and the steps it runs."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

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
    """Keep other processes from the trial at `path` meanwhile; a process that dies lets go.

    Raises filelock.Timeout where another one has it and this one shall not wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(path.name + ".lock"), timeout=-1 if wait else 0):
        yield


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write it whole or not at all."""
    with write_whole(path) as partial:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf8")


def run(root: Path, *arguments: str, log: IO[str] | None = None) -> None:
    """Run Python on some arguments in `root`, what it says to `log` or else to stderr.

    Raises RuntimeError, with the end of the log, where it fails.
    """
    done = subprocess.run(
        [sys.executable, *arguments], cwd=root, stdout=log or sys.stderr, stderr=subprocess.STDOUT if log else None
    )
    if done.returncode:
        said = "" if log is None else f"; the end of {log.name}:\n{_tail(Path(log.name))}"
        raise RuntimeError(f"python {' '.join(arguments)} ended with {done.returncode}{said}")


def _tail(path: Path, lines: int = 20) -> str:
    return "\n".join(path.read_text(encoding="utf8", errors="replace").splitlines()[-lines:])


def say(line: str) -> None:
    """One line of progress."""
    print(line, file=sys.stderr, flush=True)
