"""An output that is written block by block and goes on after any end: a kill, a full disk, an interrupt.

Rows go to `OUT.partial`, what failed to `OUT.failed.jsonl`. After each block both are on the disk, and then the
journal, which says how far they are whole: what lies behind is of a block that was cut off, and is made again.
"""

import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from spacy_gemel.bulk.sources import SourceRow
from spacy_gemel.utils.files import lock_file, write_json


def failed_path(out: Path) -> Path:
    """Where the rows stand that have no output."""
    return out.with_name(out.name + ".failed.jsonl")


def own_files(out: Path) -> list[Path]:
    """All files of a run: the output, what is whole of it, what failed, and the journal."""
    return [out, out.with_name(out.name + ".partial"), failed_path(out), out.with_name(out.name + ".journal.json")]


class JournalError(ValueError):
    """What an unfinished run has left does not go with what is asked now."""


class Journal:
    """A run's output so far, which must be locked: see `open_journal`.

    Args:
        out: The file that there will be at the end.
        key: What the rows depend on beside the input: a run goes on under the same key only.

    Raises:
        JournalError: if an unfinished run had another key, or its files are damaged.
        OSError: for the files.
    """

    def __init__(self, out: Path, key: str) -> None:
        _, self.partial, self.failed, self._file = own_files(out)
        self._digest = hashlib.sha256()
        self._state: dict[str, Any] = {"key": key, "rows": 0, "input": "", "sizes": [0, 0], "counts": {}}
        if self._file.is_file():
            try:
                state = json.loads(self._file.read_bytes())
                self._state = {name: state[name] for name in self._state}
                sizes = [int(size) for size in self._state["sizes"]]
            except (ValueError, TypeError, KeyError) as error:
                raise JournalError(f"{self._file}: damaged; begin anew with --overwrite") from error
            if self._state["key"] != key:
                raise JournalError(
                    f"{self.partial}: unfinished, and made by another pipeline or with other options: go on with "
                    "those, or begin anew with --overwrite"
                )
            for path, size in zip((self.partial, self.failed), sizes, strict=True):
                if not path.is_file() or path.stat().st_size < size:
                    raise JournalError(f"{path}: shorter than {self._file} says; begin anew with --overwrite")
        for path, size in zip((self.partial, self.failed), self._state["sizes"], strict=True):
            with path.open("ab") as file:
                file.truncate(size)

    @property
    def counts(self) -> Mapping[str, int]:
        """What was counted of the blocks that are written."""
        return dict(self._state["counts"])

    def skip(self, rows: Iterator[SourceRow], source: Path) -> None:
        """Read the rows whose blocks are written. Raises JournalError if they are others than then."""
        for row in islice(rows, self._state["rows"]):
            self._note(row.content)
        if self._state["rows"] and self._digest.hexdigest() != self._state["input"]:
            raise JournalError(
                f"{source}: not what {self.partial} was made from: its first {self._state['rows']} rows are others. "
                "Give the same input, or begin anew with --overwrite"
            )

    def _note(self, content: bytes) -> None:
        self._digest.update(len(content).to_bytes(8) + content)

    def write(
        self, done: Sequence[SourceRow], rows: Iterable[Any], failed: Iterable[Any], counts: Mapping[str, int]
    ) -> None:
        """Add the block of some rows of the input."""
        sizes = [_append(self.partial, rows), _append(self.failed, failed)]
        for row in done:
            self._note(row.content)
        self._state |= {"rows": self._state["rows"] + len(done), "input": self._digest.hexdigest()}
        self._state |= {"sizes": sizes, "counts": dict(counts)}
        write_json(self._file, self._state)

    def close(self) -> None:
        """The run has ended and its output is in place."""
        self._file.unlink(missing_ok=True)
        self.partial.unlink(missing_ok=True)
        if not self.failed.stat().st_size:
            self.failed.unlink()


def to_line(row: Any) -> bytes:
    """A row as a line of JSON; what no UTF-8 holds, of a file's name, becomes an escape."""
    return json.dumps(row, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


def _append(path: Path, rows: Iterable[Any]) -> int:
    """Write rows as JSON lines behind what is there, and to the disk; returns the file's size."""
    with path.open("ab") as file:
        for row in rows:
            file.write(to_line(row))
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


@contextmanager
def open_journal(
    out: Path, key: str, read: Callable[[], Iterator[SourceRow]], source: Path, *, overwrite: bool
) -> Iterator[tuple[Journal, Iterator[SourceRow]]]:
    """The journal of an output, locked, and the rows of the input that are not written yet.

    Args:
        out: The file that there will be at the end.
        key: See Journal.
        read: Gives the rows of the input, from the first.
        source: The input's name for messages.
        overwrite: Replace an output, and begin anew if what an unfinished run has left does not fit.

    Raises:
        ValueError: if what is unfinished does not fit, or if a run writes it now.
    """
    with lock_file(out.with_name(f".{out.name}.lock"), f"{out}: another link is writing it: wait until it has ended"):
        for left in out.parent.glob(f".{glob.escape(out.name)}.????????"):
            left.unlink()  # by `write_whole`, when a run was killed while it wrote its table
        try:
            journal, rows = Journal(out, key), read()
            journal.skip(rows, source)
        except JournalError as error:
            if not overwrite:
                raise
            if not (source.is_file() or source.is_dir()):  # what was read of a pipe to compare it is gone
                raise ValueError(f"{error}; a pipe is not read twice, so delete {own_files(out)[3]} first") from error
            own_files(out)[3].unlink()
            journal, rows = Journal(out, key), read()
        yield journal, rows
