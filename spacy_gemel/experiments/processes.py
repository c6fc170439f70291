"""The steps of long work: run a command, say what is going on and how long it still will."""

import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from tqdm import tqdm


def run(root: Path, *arguments: str, log: IO[str] | None = None) -> None:
    """Run Python on some arguments in `root`, what it says to `log` or else to stderr.

    An interrupt ends it too. Raises RuntimeError, with the end of the log, where it fails.
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
    """One line of progress, on stderr, beside whatever bars are there."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


class Progress:
    """A line per trial: which, for how long it has gone on, and about how long it still will."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.place = 0
        self.ran: list[float] = []
        self.start = time.perf_counter()

    def say(self, what: str, left: float | None = None) -> None:
        """Before a trial. left: seconds from here on; where nobody can tell, `ran`, the seconds of those before that
        were not kept, does.
        """
        gone = time.perf_counter() - self.start
        if left is None and self.ran:
            left = sum(self.ran) / len(self.ran) * (self.total - self.place)
        told = "" if left is None else f", about {left / 60:.0f} min left"
        self.place += 1
        say(f"[{self.place}/{self.total}] {what} ({gone / 60:.1f} min gone{told})")
