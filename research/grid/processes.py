"""The steps of long work: run a command, say what is going on and how long it still will."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from tqdm import tqdm


class CommandFailed(RuntimeError):
    """A command that ended badly. code: its exit code, or minus the signal that ended it. log: where it told why."""

    def __init__(self, arguments: Sequence[str], code: int, log: Path | None) -> None:
        said = "" if log is None else f"; the end of {log}:\n{_tail(log)}"
        super().__init__(f"python {' '.join(arguments)} ended with {code}{said}")
        self.code, self.log = code, log

    @property
    def why(self) -> str:
        """One line: the last words of its log, or the signal, as of a process that took too much memory."""
        if self.code < 0 or self.log is None:
            return f"ended by signal {-self.code}" if self.code < 0 else f"ended with {self.code}"
        said = [line.strip(" \u2502") for line in _tail(self.log).splitlines()]  # the command line frames its errors
        words = [line for line in said if any(character.isalnum() for character in line)]
        return words[-1] if words else f"ended with {self.code}"


def run(root: Path, *arguments: str, log: IO[str] | None = None, keep_open: Sequence[int] = ()) -> None:
    """Run Python on some arguments in `root`, what it says to `log` or else to stderr.

    keep_open: descriptors that the command gets too, as of a lock that holds as long as it lives: it outlives a caller
    that is killed. An interrupt ends it. Raises CommandFailed, a RuntimeError with the end of the log, where it fails.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        stdout=log or sys.stderr,
        stderr=subprocess.STDOUT if log else None,
        pass_fds=() if sys.platform == "win32" else tuple(keep_open),
    )
    if done.returncode:
        raise CommandFailed(arguments, done.returncode, None if log is None else Path(log.name))


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
        self.index = 0
        self.ran: list[float] = []
        self.start = time.perf_counter()

    def say(self, what: str, left: float | None = None) -> None:
        """Before a trial. left: seconds from here on; where nobody can tell, `ran`, the seconds of those before that
        were not kept, does.
        """
        gone = time.perf_counter() - self.start
        if left is None and self.ran:
            left = sum(self.ran) / len(self.ran) * (self.total - self.index)
        message = "" if left is None else f", about {left / 60:.0f} min left"
        self.index += 1
        say(f"[{self.index}/{self.total}] {what} ({gone / 60:.1f} min gone{message})")
