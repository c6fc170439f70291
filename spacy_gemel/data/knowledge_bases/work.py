"""What an import works with: options, a report, sources read with bounded memory, and tables on the disk."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sqlite3
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm
from tqdm.utils import CallbackIOWrapper

from spacy_gemel.data.report import ReasonCounter
from spacy_gemel.kb.folder import work_folder

CHUNK = 2**20  # bytes, at most

_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_UNSUPPORTED = {b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip", b"7z\xbc\xaf": "7z"}
_CACHE_KB = 8192


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
        self._connection.set_progress_handler(lambda: 0, 100_000)
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


class CutOffError(ValueError):
    """A source that ends too early or is damaged; the message says how far it was read."""


class Archive:
    """One source file, plain or compressed; `advance` is called with each number of bytes read from the disk."""

    def __init__(self, path: Path, advance: Callable[[int], object] = lambda n: None) -> None:
        self.path = path
        self._advance = advance
        self._bytes_read = 0

    def chunks(self) -> Iterator[bytes]:
        """Yield the content in chunks of at most CHUNK bytes, never empty.

        Raises CutOffError after all readable content if the file is cut off or damaged, ValueError if it is compressed
        in another way, and OSError if it cannot be read.
        """
        with self.path.open("rb") as raw:
            beginning = raw.peek(6)  # no seek: it may be a pipe
            for magic, name in _UNSUPPORTED.items():
                if beginning.startswith(magic):
                    raise ValueError(f"{self.path} is compressed with {name}: unpack it, or use gzip, bzip2 or xz")
            opener = next((opener for magic, opener in _OPENERS.items() if beginning.startswith(magic)), None)
            if opener is None:
                if self.path.suffix in (".gz", ".bz2", ".xz"):
                    raise self.cut_off(f"it does not begin as a {self.path.suffix} file does")
                while chunk := raw.read1(CHUNK):  # read would wait until a pipe has as much
                    self._count(len(chunk))
                    yield chunk
                return
            with opener(CallbackIOWrapper(self._count, raw)) as file:
                try:
                    while chunk := file.read1(CHUNK):  # read would lose what precedes the damage
                        yield chunk
                except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
                    raise self.cut_off(str(error)) from error

    def lines(self, longest: int) -> Iterator[tuple[int, bytes | None]]:
        """Yield each line without its end, and its number from 1; None for a line of more than `longest` bytes."""
        number, rest, skipping = 1, b"", False
        for chunk in self.chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield number, None if skipping or len(line) > longest else line.removesuffix(b"\r")
                number, skipping = number + 1, False
            if len(rest) > longest:
                rest, skipping = b"", True
        if rest or skipping:
            yield number, None if skipping else rest.removesuffix(b"\r")

    def cut_off(self, problem: str) -> CutOffError:
        """Make the error that says how far the file was read."""
        return CutOffError(
            f"{self.path} is cut off or damaged ({problem}): read {self._bytes_read:,} of its "
            f"{self.path.stat().st_size:,} bytes. Get it again, or use what there is with --keep-going"
        )

    def _count(self, number: int) -> None:
        self._bytes_read += number
        self._advance(number)


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
