"""What an import works with: its options, its report, its sources with their progress, and tables on the disk."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from spacy_gemel.data.knowledge_bases.archive import Archive, CutOffError
from spacy_gemel.data.report import ReasonCounter
from spacy_gemel.kb.folder import work_folder

_CACHE_KB = 8192
_CHECK_EVERY = 100_000


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """The options of all kinds of sources, as `import-kb --help` describes them."""

    language: str = "en"
    id: str = "title"
    names: str | None = None
    site: str | None = None
    with_sitelink: bool = False
    properties: bool = False
    sections: bool = True
    disambiguation: bool = True
    column: tuple[str, ...] = ()
    delimiter: str | None = None
    alias_separator: str = "|"

    def check(self, kind: str, names: frozenset[str]) -> None:
        """Raise ValueError if an option is set that is not in `names`, the options of the kind."""
        for option in fields(self):
            if option.name not in names and getattr(self, option.name) != option.default:
                flag, *known = ("--" + name.replace("_", "-") for name in (option.name, *sorted(names)))
                raise ValueError(f"{flag} is not an option of {kind}, which has {', '.join(known) or 'none'}")


@dataclass(slots=True)
class ImportReport:
    """What an import read, kept and left out; `disk_mb` is the most that the temporary tables took (10^6 bytes)."""

    kind: str
    sources: list[str]
    read: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)
    dropped: ReasonCounter = field(default_factory=ReasonCounter)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    disk_mb: float = 0.0

    def drop(self, reason: str, where: str | Callable[[], str], number: int = 1) -> None:
        """Count what is left out, or is not taken as it stands."""
        self.dropped.add(reason, where, number)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for OUT.jsonl.report.json."""
        return {
            "kind": self.kind,
            "sources": self.sources,
            "read": dict(self.read),
            "kept": dict(self.written),
            "dropped": self.dropped.to_dict(),
            "notes": self.notes,
            "seconds": round(self.seconds, 1),
            "temporary_disk_mb": round(self.disk_mb, 1),
        }

    def summary(self) -> str:
        """Some lines for a person."""
        lines = [
            f"{verb}: {', '.join(f'{n:,} {name}' for name, n in counts.items()) or 'nothing'}"
            for verb, counts in (("read", self.read), ("kept", self.written))
        ]
        lines += ["left out or changed:", *self.dropped.lines()] if self.dropped else []
        return "\n".join([*lines, *self.notes, f"{self.seconds:.1f} s, {self.disk_mb:,.0f} MB of temporary tables"])


class Store:
    """Tables in a temporary SQLite database, for what is too large for memory.

    Its methods raise OSError if the disk is full. Ctrl-C interrupts long statements, which SQLite alone does not allow.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "tables.sqlite"
        self._connection = sqlite3.connect(self._path, isolation_level=None)
        # what SQLite sorts goes beside the output too: the system's temporary folder may be too small for it
        settings = [f"temp_store_directory = '{str(folder).replace(chr(39), chr(39) * 2)}'", "temp_store = FILE"]
        settings += ["journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE"]
        for setting in (*settings, f"cache_size = -{_CACHE_KB}"):
            self._connection.execute(f"PRAGMA {setting}")
        self._connection.set_progress_handler(lambda: 0, _CHECK_EVERY)
        self._connection.execute("BEGIN")

    def execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one statement."""
        with self._errors():
            return self._connection.execute(statement, values)

    def insert(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for many rows."""
        with self._errors():
            self._connection.executemany(statement, rows)

    def rows(self, statement: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query."""
        with self._errors():
            yield from self._connection.execute(statement, values)

    def one(self, statement: str) -> Any:
        """The first value of a query's first row."""
        return next(self.rows(statement))[0]

    def close(self) -> None:
        """Close the database; its file stays."""
        self._connection.execute("PRAGMA temp_store_directory = ''")
        self._connection.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if str(error) == "interrupted":  # by the progress handler, in which Ctrl-C was raised
                raise KeyboardInterrupt from error
            raise OSError(f"the temporary tables in {self._path.parent}: {error}") from error


@dataclass(frozen=True, slots=True)
class Work:
    """One import under way. keep_going: a source that is cut off is used as far as it goes."""

    report: ImportReport
    store: Store
    keep_going: bool
    progress: bool

    @contextmanager
    def read(self, path: Path) -> Iterator[Archive]:
        """Open a source with a progress bar. With `keep_going`, a CutOffError becomes a note of the report."""
        with self.bar(f"read {path.name}", path.stat().st_size, "B") as bar:
            try:
                yield Archive(path, bar.update)
            except CutOffError as error:
                if not self.keep_going:
                    raise
                self.report.notes.append(f"cut off, and used as far as it goes: {error}")

    def bar(self, description: str, total: int | None, unit: str) -> tqdm[Any]:
        """A progress bar on stderr."""
        return tqdm(total=total, desc=description, unit=unit, unit_scale=True, disable=not self.progress)


@contextmanager
def working_beside(out: Path, report: ImportReport, *, keep_going: bool, progress: bool) -> Iterator[Work]:
    """A Work whose tables are in a folder beside `out`, which is removed at the end.

    It also removes the tables of an import that was killed. Raises KBError if another process imports to `out`.
    """
    with work_folder(out) as folder, ExitStack() as stack:

        def remove_tables() -> None:
            for path in folder.iterdir():
                if path.name != "lock":
                    path.unlink(missing_ok=True)

        remove_tables()
        stack.callback(remove_tables)
        work = Work(report, Store(folder), keep_going, progress)
        stack.callback(work.store.close)
        yield work
        report.disk_mb = work.store.one("PRAGMA page_count") * work.store.one("PRAGMA page_size") / 1e6
