"""The steps of a long benchmark: run a command, say what is going on."""

import subprocess
import sys
from pathlib import Path
from typing import IO


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
