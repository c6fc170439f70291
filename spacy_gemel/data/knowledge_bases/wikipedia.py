"""Entities from the SQL dumps of a Wikipedia: its articles, with redirects as aliases and links or views as counts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from spacy_gemel.data.knowledge_bases.archive import Archive
from spacy_gemel.data.knowledge_bases.sql import Block, Column, SqlDump, first_table, integer, optional_integer
from spacy_gemel.data.knowledge_bases.wiki_counts import PageSet, TargetCounts, TitleCounts, read_pageviews
from spacy_gemel.data.knowledge_bases.work import ImportOptions, Work
from spacy_gemel.data.report import EXAMPLES
from spacy_gemel.kb.entity import Entity

ARTICLES = 0
"""The namespace of the articles."""

_QID = re.compile(r"Q[1-9]\d*")
_HIGHEST_PAGE = 2**32
_TABLES: dict[str, tuple[Column, ...]] = {
    "page": (
        Column("page_id", integer),
        Column("page_namespace", integer),
        Column("page_title"),
        Column("page_is_redirect", integer),
    ),
    "redirect": (
        Column("rd_from", integer),
        Column("rd_namespace", integer),
        Column("rd_title"),
        Column("rd_interwiki", optional=True),
        Column("rd_fragment", optional=True),
    ),
    "page_props": (Column("pp_page", integer), Column("pp_propname"), Column("pp_value")),
    "linktarget": (Column("lt_id", integer), Column("lt_namespace", integer), Column("lt_title")),
    # by number in linktarget, or by namespace and title, or both while wikis changed from one to the other
    "pagelinks": (
        Column("pl_from", integer),
        Column("pl_from_namespace", optional_integer, optional=True),
        Column("pl_target_id", optional_integer, optional=True),
        Column("pl_namespace", optional_integer, optional=True),
        Column("pl_title", optional=True),
    ),
}
_VIEWS = "page views"


def read_wikipedia(sources: Sequence[Path], options: ImportOptions, work: Work) -> Iterator[tuple[str, Entity]]:
    """Yield the articles of a Wikipedia, by page number.

    A link or view of a redirect counts for the article it leads to. Links count once per page, and only from articles
    that are not redirects.

    Args:
        sources: the table dumps page, and optionally redirect, page_props (QIDs, short descriptions, disambiguation
            pages), and for the counts either pagelinks (with linktarget, if its targets are numbers) or files of page
            views; their content tells which is which.
        options: `id`, `language`, `sections` and `disambiguation`.
        work: has the tables and the report.

    Raises:
        ValueError: if a table is missing or not used.
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
    for prop in ("qid", "description", "disambiguation"):
        store.execute(f"CREATE TABLE {prop} (page INTEGER PRIMARY KEY, value TEXT NOT NULL)")
    _read_table(files, "page", work, lambda block, name: _read_pages(block, name, work))
    _index_pages(work)
    highest = store.one("SELECT coalesce(max(id), 0) FROM page")
    redirects = PageSet((page for (page,) in store.rows("SELECT id FROM page WHERE redirect")), highest)
    _read_table(files, "redirect", work, lambda block, name: _read_redirects(block, name, redirects, options, work))
    if "redirect" in files:
        _drop_pages(
            work,
            "redirects without a row in the redirect table",
            "FROM page p WHERE p.redirect AND NOT EXISTS (SELECT 1 FROM redirect r WHERE r.source = p.id)",
        )
    _follow_redirects(work)
    _read_table(files, "page_props", work, lambda block, name: _read_props(block, name, work))
    _count(files, redirects, options, work)
    with work.bar("write the articles", store.one("SELECT count(*) FROM page WHERE NOT redirect"), " pages") as bar:
        for item in _articles(options, work):
            yield item
            bar.update()


def _files_by_table(sources: Sequence[Path]) -> dict[str, list[Path]]:
    """The sources by the table they have. Raises ValueError if they do not fit together."""
    files: dict[str, list[Path]] = {}
    links: tuple[str, ...] = ()
    for source in sources:
        table, columns = first_table(Archive(source)) or (_VIEWS, ())
        if table not in (*_TABLES, _VIEWS):
            raise ValueError(f"{source} has the table {table}, which is not used: give {', '.join(_TABLES)}")
        files.setdefault(table, []).append(source)
        links = columns if table == "pagelinks" else links
    if "page" not in files:
        raise ValueError(f"none of {', '.join(map(str, sources))} has the table page: give page.sql.gz as well")
    if _VIEWS in files and "pagelinks" in files:
        raise ValueError("counts come from pagelinks or from page views, not from both: leave one of them out")
    if links and not {"pl_target_id", "pl_title"} & set(links):
        raise ValueError(f"pagelinks has neither pl_target_id nor pl_title, but {', '.join(links)}")
    if "pl_target_id" in links and "pl_title" not in links and "linktarget" not in files:
        raise ValueError("the targets in pagelinks are numbers: give linktarget.sql.gz as well, which has their titles")
    return files


def _read_table(files: dict[str, list[Path]], table: str, work: Work, read: Callable[[Block, str], None]) -> None:
    """Call `read` with each block of rows of a table."""
    for path in files.get(table, []):
        with work.read(path) as archive:
            for block in SqlDump(archive, {table: _TABLES[table]}).row_blocks():
                read(block, path.name)


def _read_pages(block: Block, name: str, work: Work) -> None:
    report = work.report
    articles, number_of_others = [], 0
    for number, (page, namespace, title, redirect) in block.rows(report, name):
        if not 0 < page < _HIGHEST_PAGE or not title:
            report.drop("malformed page rows", partial(block.where, name, number))
        elif namespace == ARTICLES:
            articles.append((page, title, int(redirect != 0)))
        else:
            number_of_others += 1
    added = work.store.insert("INSERT OR IGNORE INTO page VALUES (?, ?, ?)", articles)
    report.drop("pages with the number of an earlier one", f"{name}:{block.line} and after", len(articles) - added)
    report.read["pages"] += len(articles) + number_of_others
    report.read["of them of other namespaces"] += number_of_others


def _index_pages(work: Work) -> None:
    """Index the pages by title; of several with one title the first stays that is not a redirect, else the first."""
    store = work.store
    store.execute("CREATE INDEX page_title ON page (title)")
    repeated = store.rows("SELECT title FROM page INDEXED BY page_title GROUP BY title HAVING count(*) > 1")
    for (title,) in list(repeated):
        pages = list(store.rows("SELECT id FROM page WHERE title = ? ORDER BY redirect, id", (title,)))
        for (page,) in pages[1:]:
            store.execute("DELETE FROM page WHERE id = ?", (page,))
            work.report.drop("pages with the title of an earlier one", f"page {page} {title!r}")


def _read_redirects(block: Block, name: str, pages: PageSet, options: ImportOptions, work: Work) -> None:
    report = work.report
    redirects = []
    for number, (source, namespace, title, wiki, fragment) in block.rows(report, name):
        report.read["redirects"] += 1
        where = partial(block.where, name, number)
        if source not in pages:
            report.read["of them not of articles"] += 1
        elif wiki:
            report.drop("redirects to another wiki", where)
        elif namespace != ARTICLES:
            report.drop("redirects to another namespace", where)
        elif fragment and not options.sections:
            report.drop("redirects to a section", where)
        elif not title:
            report.drop("malformed redirect rows", where)
        else:
            redirects.append((source, title))
    added = work.store.insert("INSERT OR IGNORE INTO redirect VALUES (?, ?)", redirects)
    report.drop("redirects of a page with an earlier one", f"{name}:{block.line} and after", len(redirects) - added)


def _follow_redirects(work: Work) -> None:
    """Fill hop, for each redirect the article that it leads to in the end, and report what leads nowhere."""
    store = work.store
    store.execute(
        "INSERT INTO hop SELECT r.source, t.id FROM redirect r CROSS JOIN page t INDEXED BY page_title "
        "ON t.title = r.title"
    )
    _drop_pages(
        work,
        "redirects to a page that does not exist",
        "FROM redirect r JOIN page p ON p.id = r.source "
        "WHERE NOT EXISTS (SELECT 1 FROM hop h WHERE h.source = r.source)",
    )
    # hops to a redirect go on to its target; every round halves the rest of a chain at least, and a circle stays one
    store.execute("CREATE TABLE open_hop AS SELECT h.source FROM hop h JOIN page t ON t.id = h.target WHERE t.redirect")
    remaining, previous = store.one("SELECT count(*) FROM open_hop"), None
    work.report.read["redirects to redirects"] += remaining
    while remaining and remaining != previous:
        store.execute(
            "UPDATE hop SET target = coalesce((SELECT n.target FROM hop n WHERE n.source = hop.target), target) "
            "WHERE source IN (SELECT source FROM open_hop)"
        )
        store.execute(
            "DELETE FROM open_hop WHERE source IN "
            "(SELECT h.source FROM open_hop o JOIN hop h ON h.source = o.source JOIN page t ON t.id = h.target "
            "WHERE NOT t.redirect)"
        )
        previous, remaining = remaining, store.one("SELECT count(*) FROM open_hop")
    dead_ends = (
        "FROM hop h JOIN page t ON t.id = h.target JOIN page p ON p.id = h.source "
        "WHERE t.redirect AND {} EXISTS (SELECT 1 FROM hop n WHERE n.source = h.target)"
    )
    _drop_pages(work, "redirects to redirects that lead nowhere", dead_ends.format("NOT"))
    _drop_pages(work, "redirects in a circle", dead_ends.format(""))
    store.execute("DELETE FROM hop WHERE target IN (SELECT id FROM page WHERE redirect)")


def _drop_pages(work: Work, reason: str, clause: str) -> None:
    """Report the pages p of a FROM clause."""
    number = work.store.one(f"SELECT count(*) {clause}")
    for page, title in work.store.rows(f"SELECT p.id, p.title {clause} LIMIT {EXAMPLES}"):
        work.report.drop(reason, f"page {page} {title!r}")
    work.report.drop(reason, "", number - min(number, EXAMPLES))


def _read_props(block: Block, name: str, work: Work) -> None:
    props: dict[str, list[tuple[int, str]]] = {"qid": [], "description": [], "disambiguation": []}
    for number, (page, prop, value) in block.rows(work.report, name):
        if prop == "wikibase_item":
            if value and _QID.fullmatch(value):
                props["qid"].append((page, value))
            else:
                work.report.drop("wikibase items that are not a QID", partial(block.where, name, number))
        elif prop == "wikibase-shortdesc" and value:
            props["description"].append((page, value))
        elif prop == "disambiguation":
            props["disambiguation"].append((page, ""))
    for table, rows in props.items():
        work.store.insert(f"INSERT OR IGNORE INTO {table} VALUES (?, ?)", rows)


def _count(files: dict[str, list[Path]], redirects: PageSet, options: ImportOptions, work: Work) -> None:
    """Fill page_count."""
    store = work.store
    titles = TitleCounts(work)
    for path in files.get(_VIEWS, []):
        with work.read(path) as archive:
            read_pageviews(archive, options.language, titles, work)
    if "pagelinks" in files:
        targets = TargetCounts(work)
        # a table that is changing over has both, and linktarget has what the titles may lack
        by_number = targets if "linktarget" in files else None
        _read_table(
            files, "pagelinks", work, lambda block, name: _read_links(block, name, redirects, by_number, titles, work)
        )
        targets.flush()
        titles.flush()
        store.execute("CREATE TABLE linktarget (id INTEGER PRIMARY KEY, title TEXT NOT NULL)")
        _read_table(files, "linktarget", work, lambda block, name: _read_targets(block, name, work))
        # in the order of the titles, so that table and index are read and written from front to back
        store.execute(
            "INSERT INTO title_count SELECT t.title, c.n FROM target_count c CROSS JOIN linktarget t ON t.id = c.id "
            "WHERE true ORDER BY t.title ON CONFLICT (title) DO UPDATE SET n = n + excluded.n"
        )
    store.execute(
        "INSERT INTO page_count SELECT coalesce(h.target, p.id) AS page, sum(c.n) "
        "FROM title_count c CROSS JOIN page p INDEXED BY page_title ON p.title = c.title "
        "LEFT JOIN hop h ON h.source = p.id GROUP BY page"
    )


def _read_targets(block: Block, name: str, work: Work) -> None:
    rows = block.rows(work.report, name)
    articles = [(number, title) for _, (number, namespace, title) in rows if namespace == ARTICLES and title]
    added = work.store.insert("INSERT OR IGNORE INTO linktarget VALUES (?, ?)", articles)
    reason = "link targets with the number of an earlier one"
    work.report.drop(reason, f"{name}:{block.line} and after", len(articles) - added)


def _read_links(
    block: Block, name: str, redirects: PageSet, targets: TargetCounts | None, titles: TitleCounts, work: Work
) -> None:
    """Count the links from articles that are not redirects."""
    read = work.report.read
    if block.integers is not None and targets is not None:
        source, namespace, target = block.table.indices[:3]
        links = block.integers
        read["links"] += len(links)
        if namespace is not None:
            links = links[links[:, namespace] == ARTICLES]
        links = links[~redirects.contains(links[:, source])]
        read["of them counted"] += len(links)
        targets.add(links[:, target])
        return
    numbers = []
    for _, (source, source_namespace, target, namespace, title) in block.rows(work.report, name):
        read["links"] += 1
        if source_namespace not in (None, ARTICLES) or source in redirects:
            continue
        if targets is not None and target is not None:
            numbers.append(target)
        elif namespace == ARTICLES and title:
            titles.add(title)
        else:
            continue
        read["of them counted"] += 1
    if numbers and targets is not None:
        targets.add(np.array(numbers, dtype=np.int64))


def _articles(options: ImportOptions, work: Work) -> Iterator[tuple[str, Entity]]:
    """Yield the articles in the order of their numbers, with their aliases."""
    store, report = work.store, work.report
    pages = store.rows(
        "SELECT p.id, p.title, c.n, q.value, d.value, x.value FROM page p LEFT JOIN page_count c ON c.id = p.id "
        "LEFT JOIN qid q ON q.page = p.id LEFT JOIN description d ON d.page = p.id "
        "LEFT JOIN disambiguation x ON x.page = p.id WHERE NOT p.redirect ORDER BY p.id"
    )
    hops = groupby(
        store.rows(
            "SELECT h.target, s.title FROM hop h CROSS JOIN page s ON s.id = h.source ORDER BY h.target, h.source"
        ),
        key=lambda row: row[0],
    )
    target, sources = next(hops, (None, iter(())))
    for page, title, count, qid, description, disambiguation in pages:
        name, where = title.replace("_", " "), f"page {page} {title!r}"
        aliases: list[str] = []
        if target == page:
            aliases = [alias.replace("_", " ") for _, alias in sources]
            target, sources = next(hops, (None, iter(())))
        if disambiguation is not None and not options.disambiguation:
            report.drop("disambiguation pages", where)
        elif options.id == "qid" and qid is None:
            report.drop("pages without a Wikidata item, so without a QID", where)
        elif options.id == "qid":
            yield where, Entity(qid, name, count or 0, tuple(aliases), description)
        else:
            # so that golds given as QIDs find their article; first, because the last may not fit
            aliases = aliases if qid is None else [qid, *aliases]
            yield where, Entity(name, name, count or 0, tuple(aliases), description)
