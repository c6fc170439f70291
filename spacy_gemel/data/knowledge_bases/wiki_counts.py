"""How often pages are linked or viewed: the counts of a Wikipedia, in tables on the disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.data.knowledge_bases.archive import Archive
from spacy_gemel.data.knowledge_bases.work import Work

_NUMBERS = 2**19
_TITLES = 2**17
_LONGEST_LINE = 2**16


class TargetCounts:
    """Counts by the number of a link target, in the table target_count (id, n).

    They are collected for half a million links and added in the order of the numbers, which is the table's own: memory
    stays the same, and the disk is read from front to back.
    """

    def __init__(self, work: Work) -> None:
        self._store = work.store
        self._numbers: list[NDArray[np.int64]] = []
        self._size = 0
        self._store.execute("CREATE TABLE target_count (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)")

    def add(self, targets: NDArray[np.int64]) -> None:
        """Count each of these numbers of link targets, (links,), once."""
        self._numbers.append(targets.copy())  # a view would keep the whole of its block
        self._size += len(targets)
        if self._size >= _NUMBERS:
            self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        if self._numbers:
            numbers, counts = np.unique(np.concatenate(self._numbers), return_counts=True)
            self._numbers, self._size = [], 0
            statement = "INSERT INTO target_count VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET n = n + excluded.n"
            self._store.insert(statement, zip(map(int, numbers), map(int, counts), strict=True))


class TitleCounts:
    """Counts by title, in the table title_count (title, n)."""

    def __init__(self, work: Work) -> None:
        self._store = work.store
        self._counts: Counter[str] = Counter()
        self._store.execute("CREATE TABLE title_count (title TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID")

    def add(self, title: str, number: int = 1) -> None:
        """Add to a title's count."""
        self._counts[title] += number
        if len(self._counts) >= _TITLES:
            self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        statement = "INSERT INTO title_count VALUES (?, ?) ON CONFLICT (title) DO UPDATE SET n = n + excluded.n"
        self._store.insert(statement, sorted(self._counts.items()))
        self._counts.clear()


class PageSet:
    """A set of page numbers from 0 to the highest, one bit for each: 10 MB for the largest Wikipedia."""

    def __init__(self, numbers: Iterable[int], highest: int) -> None:
        self._bits = bytearray(highest // 8 + 1)
        for number in numbers:
            self._bits[number >> 3] |= 1 << (number & 7)
        self._array = np.frombuffer(self._bits, dtype=np.uint8)

    def contains(self, pages: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each of these numbers (n,), from 0, is in the set."""
        clipped = np.minimum(pages, 8 * len(self._array) - 1)
        bits = (self._array[clipped >> 3] >> (clipped & 7).astype(np.uint8)) & 1
        return bits.astype(bool) & (clipped == pages)

    def __contains__(self, page: int) -> bool:
        return 0 <= page < 8 * len(self._bits) and bool(self._bits[page >> 3] >> (page & 7) & 1)


def read_pageviews(archive: Archive, language: str, counts: TitleCounts, work: Work) -> None:
    """Count the views of one language's Wikipedia. The number of fields between spaces tells the form of a line.

    Six, of pageview_complete: wiki, title, page, access, views, views by the hour. Four, of the hourly files: wiki,
    title, views, bytes. Two, of your own: title, views (with a tab between them the title may have spaces).
    """
    codes = {f"{language}.wikipedia", language, f"{language}.m", f"{language}.zero"}
    for number, line in archive.lines(_LONGEST_LINE):
        work.report.read["lines of page views"] += 1
        try:
            fields = (line or b"").split(b"\t" if b"\t" in (line or b"") else b" ")
            if len(fields) not in (2, 4, 6):
                raise ValueError
            if len(fields) > 2 and fields[0].decode("utf-8") not in codes:
                work.report.read["of them of other wikis"] += 1
                continue
            title = fields[0] if len(fields) == 2 else fields[1]
            views = int(fields[{2: 1, 4: 2, 6: 4}[len(fields)]])
            if not 0 <= views < 10**15:
                raise ValueError
            # no title has a percent-encoded character, so this is how the page was requested
            title = unquote_to_bytes(title) if b"%" in title else title
            counts.add(title.decode("utf-8").replace(" ", "_"), views)
        except ValueError as error:
            reason = "that are not UTF-8" if isinstance(error, UnicodeDecodeError) else "of another form"
            beginning = (line or b"(too long)")[:80].decode("utf-8", "backslashreplace")
            work.report.drop(f"lines of page views {reason}", f"{archive.path.name}:{number}: {beginning}")
    counts.flush()
