"""What an import works with: its report, its sources with their progress, and tables on the disk."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from spacy_gemel.data.knowledge_bases.archive import Archive, CutOffError
from spacy_gemel.data.knowledge_bases.report import ImportReport
from spacy_gemel.kb.folder import work_folder

_CACHE_KB = 8192
_CHECK_EVERY = 100_000


class Store:
    """Tables in a temporary SQLite database, for what memory should not hold. Errors of the disk are OSError.

    Long statements can be interrupted (Ctrl-C), which SQLite alone would not allow.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "tables.sqlite"
        self._connection = sqlite3.connect(self._path, isolation_level=None)
        # what SQLite sorts goes beside the output too: the system's temporary folder may be too small for it
        self._connection.execute(f"PRAGMA temp_store_directory = '{str(folder).replace(chr(39), chr(39) * 2)}'")
        for setting in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE", "temp_store = FILE"):
            self._connection.execute(f"PRAGMA {setting}")
        self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
        self._connection.set_progress_handler(lambda: 0, _CHECK_EVERY)
        self._connection.execute("BEGIN")

    def execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one statement. Raises OSError where the disk is full, KeyboardInterrupt."""
        try:
            return self._connection.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise self._told(error) from error

    def insert(self, statement: str, rows: Iterable[Sequence[Any]]) -> int:
        """Run one statement for many rows, and give how many rows of tables it changed. Raises as `execute` does."""
        before = self._connection.total_changes
        try:
            self._connection.executemany(statement, rows)
        except sqlite3.OperationalError as error:
            raise self._told(error) from error
        return self._connection.total_changes - before

    def rows(self, statement: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, one by one. Raises as `execute` does."""
        cursor = self.execute(statement, values)
        while True:
            try:
                batch = cursor.fetchmany(1000)
            except sqlite3.OperationalError as error:
                raise self._told(error) from error
            if not batch:
                return
            yield from batch

    def one(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """The first value of a query's first row."""
        return next(self.rows(statement, values))[0]

    def disk_mb(self) -> float:
        """How large the database is, in MB of a million bytes; what is being sorted comes on top of that."""
        return self.one("PRAGMA page_count") * self.one("PRAGMA page_size") / 1e6

    def _told(self, error: sqlite3.OperationalError) -> BaseException:
        if str(error) == "interrupted":  # by the progress handler, in which Ctrl-C was raised
            return KeyboardInterrupt()
        return OSError(f"the temporary tables in {self._path.parent}: {error}")

    def close(self) -> None:
        """Close it; the folder's owner removes the file."""
        self._connection.execute("PRAGMA temp_store_directory = ''")
        self._connection.close()


class Work:
    """One import under way. keep_going: a source that is cut off is used as far as it goes."""

    def __init__(self, report: ImportReport, folder: Path, *, keep_going: bool, progress: bool) -> None:
        self.report = report
        self.keep_going = keep_going
        self.progress = progress
        self._folder = folder
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """The temporary tables; the database is made when it is first asked for."""
        if self._store is None:
            self._store = Store(self._folder)
        return self._store

    @contextmanager
    def read(self, path: Path) -> Iterator[Archive]:
        """A source, with a progress bar over its bytes. With keep_going its being cut off becomes a note."""
        with self.bar(f"read {path.name}", path.stat().st_size, "B") as bar:
            try:
                yield Archive(path, bar.update)
            except CutOffError as error:
                if not self.keep_going:
                    raise
                self.report.notes.append(f"cut off, and used as far as it goes: {error}")

    def bar(self, what: str, total: int | None, unit: str) -> tqdm[Any]:
        """A progress bar on stderr."""
        bar: tqdm[Any] = tqdm(
            total=total, desc=what, unit=unit, unit_scale=True, file=sys.stderr, disable=not self.progress
        )
        return bar

    def close(self) -> None:
        """Close the tables and note how much disk they took."""
        if self._store is not None:
            try:
                self.report.disk_mb = max(self.report.disk_mb, self._store.disk_mb())
            finally:
                self._store.close()


@contextmanager
def working_beside(out: Path, report: ImportReport, *, keep_going: bool, progress: bool) -> Iterator[Work]:
    """A Work whose tables lie in a folder beside `out`, which is removed at the end, however that comes.

    What a process that was killed has left there is removed too. Raises KBError where another process imports to `out`.
    """
    with work_folder(out) as folder:
        _empty(folder)
        work = Work(report, folder, keep_going=keep_going, progress=progress)
        try:
            yield work
        finally:
            try:
                work.close()
            finally:
                _empty(folder)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != "lock":
            path.unlink(missing_ok=True)
