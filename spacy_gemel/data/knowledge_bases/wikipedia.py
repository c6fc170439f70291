"""Entities from the SQL dumps of a Wikipedia: its articles, with redirects as aliases and links or views as counts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.data.knowledge_bases.sql import Block, Columns, SqlDump, first_table, integer, optional_integer, text
from spacy_gemel.data.knowledge_bases.work import Archive, ImportOptions, Store, Work
from spacy_gemel.data.report import EXAMPLES
from spacy_gemel.kb.entity import Entity

ARTICLES = 0  # their namespace
_QID = re.compile(r"Q[1-9]\d*")
_HIGHEST_PAGE = 2**32
_LONGEST_LINE = 2**16
_MAX_COUNTS = 2**18
_TABLES: dict[str, Columns] = {
    "page": {"page_id": integer, "page_namespace": integer, "page_title": text, "page_is_redirect": integer},
    "redirect": {
        "rd_from": integer, "rd_namespace": integer, "rd_title": text, "rd_interwiki?": text, "rd_fragment?": text
    },
    "page_props": {"pp_page": integer, "pp_propname": text, "pp_value": text},
    "linktarget": {"lt_id": integer, "lt_namespace": integer, "lt_title": text},
    "pagelinks": {  # titles until 2024; while wikis changed over, a row had a number, a title or both
        "pl_from": integer, "pl_from_namespace?": optional_integer, "pl_target_id?": optional_integer,
        "pl_namespace?": optional_integer, "pl_title?": text,
    },
}  # fmt: skip
_VIEWS = "page views"
Files = dict[str, list[Path]]  # by the table they have
Where = Callable[[], str]


def read_wikipedia(sources: Sequence[Path], options: ImportOptions, work: Work) -> Iterator[tuple[str, Entity]]:
    """Yield the articles of a Wikipedia, by page number.

    A link or view of a redirect counts for the article it leads to. Links count once per page, and only from articles
    that are not redirects.

    The sources are the table dumps page, and optionally redirect, page_props (QIDs, short descriptions, disambiguation
    pages), and for the counts either pagelinks (with linktarget, if its targets are numbers) or files of page views;
    their content tells which is which.
    Raises ValueError if a table is missing or not used.
    """
    if options.id not in ("title", "qid"):
        raise ValueError(f"--id must be title or qid, not {options.id!r}")
    files = _files_by_table(sources)
    if options.id == "qid" and "page_props" not in files:
        raise ValueError("--id qid needs the QIDs of page_props.sql.gz: give it as well")
    store = work.store
    store.execute("CREATE TABLE page (id INTEGER PRIMARY KEY, title TEXT NOT NULL, redirect INTEGER NOT NULL)")
    store.execute("CREATE TABLE redirect (source INTEGER PRIMARY KEY, title TEXT NOT NULL)")
    store.execute("CREATE TABLE hop (source INTEGER PRIMARY KEY, target INTEGER NOT NULL)")
    store.execute("CREATE TABLE page_count (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)")
    columns = "page INTEGER, name TEXT, value TEXT NOT NULL, PRIMARY KEY (page, name)"
    store.execute(f"CREATE TABLE prop ({columns}) WITHOUT ROWID")
    store.insert("INSERT OR IGNORE INTO page VALUES (?, ?, ?)", _pages(files, work))
    store.execute("CREATE INDEX page_title ON page (title)")
    highest = store.one("SELECT coalesce(max(id), 0) FROM page")
    pages = _PageSet((page for (page,) in store.rows("SELECT id FROM page WHERE redirect")), highest)
    store.insert("INSERT OR IGNORE INTO redirect VALUES (?, ?)", _redirects(files, pages, options, work))
    if "redirect" in files:
        clause = "FROM page p WHERE p.redirect AND NOT EXISTS (SELECT 1 FROM redirect r WHERE r.source = p.id)"
        _drop_pages(work, "redirects without a row in the redirect table", clause)
    _follow_redirects(work)
    store.insert("INSERT OR IGNORE INTO prop VALUES (?, ?, ?)", _props(files, work))
    _count(files, pages, options, work)
    with work.bar("write the articles", store.one("SELECT count(*) FROM page WHERE NOT redirect"), " pages") as bar:
        for item in _articles(options, work):
            yield item
            bar.update()


def _files_by_table(sources: Sequence[Path]) -> Files:
    """The sources by the table they have. Raises ValueError if they do not fit."""
    files: Files = {}
    needs_targets = False
    for source in sources:
        table, columns = first_table(Archive(source)) or (_VIEWS, ())
        if table not in (*_TABLES, _VIEWS):
            raise ValueError(f"{source} has the table {table}, which is not used: give {', '.join(_TABLES)}")
        files.setdefault(table, []).append(source)
        needs_targets |= table == "pagelinks" and "pl_title" not in columns
        if table == "pagelinks" and columns and not {"pl_target_id", "pl_title"} & set(columns):
            raise ValueError(f"{source}: pagelinks has neither pl_target_id nor pl_title, but {', '.join(columns)}")
    if "page" not in files:
        raise ValueError(f"none of {', '.join(map(str, sources))} has the table page: give page.sql.gz as well")
    if _VIEWS in files and "pagelinks" in files:
        raise ValueError("counts come from pagelinks or from page views, not from both: leave one of them out")
    if needs_targets and "linktarget" not in files:
        raise ValueError("the targets in pagelinks are numbers: give linktarget.sql.gz as well, which has their titles")
    return files


def _table_blocks(files: Files, table: str, work: Work) -> Iterator[Block]:
    """Yield the blocks of rows of a table."""
    for path in files.get(table, []):
        with work.read(path) as archive:
            yield from SqlDump(archive, table, _TABLES[table], work.report).row_blocks()


def _rows(files: Files, table: str, work: Work) -> Iterator[tuple[Where, list[Any]]]:
    """Yield the rows of a table, each with what says where it stands."""
    for block in _table_blocks(files, table, work):
        for row, values in block.rows(work.report):
            yield partial(block.where, row), values


def _pages(files: Files, work: Work) -> Iterator[tuple[int, str, int]]:
    read = work.report.read
    for where, (page, namespace, title, redirect) in _rows(files, "page", work):
        if not 0 < page < _HIGHEST_PAGE or not title:
            work.report.dropped.add("malformed page rows", where)
            continue
        read["pages"] += 1
        if namespace == ARTICLES:
            yield page, title, int(redirect != 0)
        else:
            read["of them of other namespaces"] += 1


def _redirects(files: Files, pages: _PageSet, options: ImportOptions, work: Work) -> Iterator[tuple[int, str]]:
    report = work.report
    for where, (source, namespace, title, wiki, fragment) in _rows(files, "redirect", work):
        report.read["redirects"] += 1
        if source not in pages:
            report.read["of them not of articles"] += 1
        elif wiki:
            report.dropped.add("redirects to another wiki", where)
        elif namespace != ARTICLES:
            report.dropped.add("redirects to another namespace", where)
        elif fragment and not options.sections:
            report.dropped.add("redirects to a section", where)
        elif not title:
            report.dropped.add("malformed redirect rows", where)
        else:
            yield source, title


def _follow_redirects(work: Work) -> None:
    """Fill hop, for each redirect the article that it leads to in the end, and report what leads nowhere."""
    store = work.store
    store.execute(
        "INSERT OR IGNORE INTO hop SELECT r.source, t.id FROM redirect r CROSS JOIN page t INDEXED BY page_title "
        "ON t.title = r.title"
    )
    clause = "FROM redirect r JOIN page p ON p.id = r.source WHERE p.id NOT IN (SELECT source FROM hop)"
    _drop_pages(work, "redirects to a page that does not exist", clause)
    # redirects to redirects are few: people mend them
    hops = dict(store.rows("SELECT h.source, h.target FROM hop h JOIN page t ON t.id = h.target WHERE t.redirect"))
    work.report.read["redirects to redirects"] += len(hops)
    for source, target in hops.items():
        path = {source}
        while target in hops and target not in path:
            path.add(target)
            target = hops[target]
        end = next(store.rows("SELECT target FROM hop WHERE source = ?", (target,)), None)
        if end is not None and target not in path:
            store.execute("UPDATE hop SET target = ? WHERE source = ?", (*end, source))
            continue
        store.execute("DELETE FROM hop WHERE source = ?", (source,))
        title = store.one(f"SELECT title FROM page WHERE id = {source}")
        reason = "redirects in a circle" if target in path else "redirects to redirects that lead nowhere"
        work.report.dropped.add(reason, f"page {source} {title!r}")


def _drop_pages(work: Work, reason: str, clause: str) -> None:
    """Report the pages p of a FROM clause."""
    number = work.store.one(f"SELECT count(*) {clause}")
    for page, title in work.store.rows(f"SELECT p.id, p.title {clause} LIMIT {EXAMPLES}"):
        work.report.dropped.add(reason, f"page {page} {title!r}")
    work.report.dropped.add(reason, "", number - min(number, EXAMPLES))


def _props(files: Files, work: Work) -> Iterator[tuple[int, str, str]]:
    for where, (page, prop, value) in _rows(files, "page_props", work):
        if prop == "wikibase_item" and not (value and _QID.fullmatch(value)):
            work.report.dropped.add("wikibase items that are not a QID", where)
        elif prop in ("wikibase_item", "disambiguation") or (prop == "wikibase-shortdesc" and value):
            yield page, prop, value or ""


def _count(files: Files, redirects: _PageSet, options: ImportOptions, work: Work) -> None:
    """Fill page_count from the views, or from the links of articles that are not redirects."""
    store, report, read = work.store, work.report, work.report.read
    titles, targets = _Counts(store, "title_count"), _Counts(store, "target_count")
    for path in files.get(_VIEWS, []):
        with work.read(path) as archive:
            _read_pageviews(archive, options.language, titles, work)
    by_number = "linktarget" in files
    for block in _table_blocks(files, "pagelinks", work):
        source, from_namespace, target, *_ = block.table.indices
        if (links := block.integers) is not None and target is not None and by_number:
            read["links"] += len(links)
            if from_namespace is not None:
                links = links[links[:, from_namespace] == ARTICLES]
            links = links[~redirects.contains(links[:, source])]
            read["of them counted"] += len(links)
            targets.add_numbers(links[:, target])
            continue
        for _, (page, page_namespace, number, namespace, title) in block.rows(report):
            read["links"] += 1
            key = number if number and by_number else title if namespace == ARTICLES else None
            if key and page_namespace in (None, ARTICLES) and page not in redirects:
                (titles if isinstance(key, str) else targets).add(key)
                read["of them counted"] += 1
    titles.flush()
    if "pagelinks" in files:
        targets.flush()
        store.execute("CREATE TABLE linktarget (id INTEGER PRIMARY KEY, title TEXT NOT NULL)")
        titled = _rows(files, "linktarget", work)
        articles = ((id_, title) for _, (id_, namespace, title) in titled if namespace == ARTICLES and title)
        store.insert("INSERT OR IGNORE INTO linktarget VALUES (?, ?)", articles)
        # in the order of the titles, so that table and index are read and written from front to back
        store.execute(
            "INSERT INTO title_count SELECT t.title, sum(c.n) FROM target_count c CROSS JOIN linktarget t "
            "ON t.id = c.key WHERE true GROUP BY t.title ORDER BY t.title "
            "ON CONFLICT (key) DO UPDATE SET n = n + excluded.n"
        )
    store.execute(
        "INSERT INTO page_count SELECT coalesce(h.target, p.id) AS page, sum(c.n) "
        "FROM title_count c CROSS JOIN page p INDEXED BY page_title ON p.title = c.key "
        "LEFT JOIN hop h ON h.source = p.id GROUP BY page"
    )


def _articles(options: ImportOptions, work: Work) -> Iterator[tuple[str, Entity]]:
    """Yield the articles in the order of their numbers, with their aliases."""
    store, report = work.store, work.report
    store.execute("CREATE INDEX hop_target ON hop (target, source)")
    pages = store.rows(
        "SELECT p.id, p.title, c.n, q.value, d.value, x.value, (SELECT group_concat(title, char(10)) FROM "
        "(SELECT s.title FROM hop h CROSS JOIN page s ON s.id = h.source WHERE h.target = p.id ORDER BY h.source)) "
        "FROM page p LEFT JOIN page_count c ON c.id = p.id "
        "LEFT JOIN prop q ON q.page = p.id AND q.name = 'wikibase_item' "
        "LEFT JOIN prop d ON d.page = p.id AND d.name = 'wikibase-shortdesc' "
        "LEFT JOIN prop x ON x.page = p.id AND x.name = 'disambiguation' "
        "WHERE NOT p.redirect ORDER BY p.id"
    )
    for page, title, count, qid, description, disambiguation, redirects in pages:
        name, where = title.replace("_", " "), f"page {page} {title!r}"
        aliases = [] if redirects is None else redirects.replace("_", " ").split("\n")
        if disambiguation is not None and not options.disambiguation:
            report.dropped.add("disambiguation pages", where)
        elif options.id == "qid" and qid is None:
            report.dropped.add("pages without a Wikidata item, so without a QID", where)
        elif options.id == "qid":
            yield where, Entity(qid, name, count or 0, tuple(aliases), description)
        else:
            # so that gold ids given as QIDs find their article; first, because the last may not fit
            aliases = aliases if qid is None else [qid, *aliases]
            yield where, Entity(name, name, count or 0, tuple(aliases), description)


class _Counts:
    """Counts by title or link target, added to a table (key, n) many at a time and in its order: the disk is slow."""

    def __init__(self, store: Store, table: str) -> None:
        self._store, self._table = store, table
        self._counts: Counter[Any] = Counter()
        self._numbers: list[NDArray[np.int64]] = []
        store.execute(f"CREATE TABLE {table} (key PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID")

    def add(self, key: str | int, number: int = 1) -> None:
        self._counts[key] += number
        if len(self._counts) >= _MAX_COUNTS:
            self.flush()

    def add_numbers(self, numbers: NDArray[np.int64]) -> None:
        """Count each of these keys once."""
        self._numbers.append(numbers.copy())  # a view would keep the whole of its block
        if sum(map(len, self._numbers)) >= _MAX_COUNTS:
            self.flush()

    def flush(self) -> None:
        statement = f"INSERT INTO {self._table} VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET n = n + excluded.n"
        self._store.insert(statement, sorted(self._counts.items()))
        self._counts.clear()
        if self._numbers:
            numbers, counts = np.unique(np.concatenate(self._numbers), return_counts=True)
            self._store.insert(statement, zip(numbers.tolist(), counts.tolist(), strict=True))
            self._numbers.clear()


class _PageSet:
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


def _read_pageviews(archive: Archive, language: str, counts: _Counts, work: Work) -> None:
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
            work.report.dropped.add(f"lines of page views {reason}", f"{archive.path.name}:{number}: {beginning}")
