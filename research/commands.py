"""The steps of long work: run a command, and report progress on stderr."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from tqdm import tqdm


class CommandFailed(RuntimeError):
    """A command failed. code: its exit code, or minus the signal that ended it. log: its output."""

    def __init__(self, arguments: Sequence[str], code: int, log: Path | None) -> None:
        end = "" if log is None else f"; the end of {log}:\n{_tail(log)}"
        super().__init__(f"python {' '.join(arguments)} ended with {code}{end}")
        self.code, self.log = code, log

    @property
    def reason(self) -> str:
        """One line: the last words of its log, or the signal, as for a process that took too much memory."""
        if self.code < 0:
            return f"ended by signal {-self.code}"
        lines = [] if self.log is None else _tail(self.log).splitlines()
        # typer draws a frame around errors
        words = [line.strip(" \u2502") for line in lines if any(character.isalnum() for character in line)]
        return words[-1] if words else f"ended with {self.code}"


def run_command(root: Path, *arguments: str, log: IO[str] | None = None, keep_open: Sequence[int] = ()) -> None:
    """Run Python in `root`; its output goes to `log`, else to stderr. An interrupt ends it.

    Args:
        root: The working folder.
        arguments: Of Python.
        log: An open file.
        keep_open: Descriptors for the command too, such as a lock's: the command can outlive a killed caller.

    Raises:
        CommandFailed: With the end of the log.
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


def report(line: str) -> None:
    """One line of progress on stderr, beside any progress bar."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


class Progress:
    """A line per step: which one, the time so far, and about how long the rest will take."""

    def __init__(self, total: int) -> None:
        self.total, self.index = total, 0
        self.seconds: list[float] = []
        self.start = time.perf_counter()

    def report(self, step: str, remaining: float | None = None) -> None:
        """Before a step. remaining: seconds; if None, the mean of `seconds`, the steps so far, is used."""
        elapsed = time.perf_counter() - self.start
        if remaining is None and self.seconds:
            remaining = sum(self.seconds) / len(self.seconds) * (self.total - self.index)
        rest = "" if remaining is None else f", about {remaining / 60:.0f} min left"
        self.index += 1
        report(f"[{self.index}/{self.total}] {step} ({elapsed / 60:.1f} min so far{rest})")
