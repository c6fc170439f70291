"""Entities from the SQL dumps of a Wikipedia: its articles, with redirects as aliases and links or views as counts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from spacy_gemel.data.knowledge_bases.archive import Archive
from spacy_gemel.data.knowledge_bases.options import ImportOptions
from spacy_gemel.data.knowledge_bases.sql import Block, Column, SqlDump, first_table
from spacy_gemel.data.knowledge_bases.wiki_counts import PageBits, TargetCounts, TitleCounts, read_pageviews
from spacy_gemel.data.knowledge_bases.wiki_redirects import follow_redirects, index_pages
from spacy_gemel.data.knowledge_bases.work import Work
from spacy_gemel.kb.entity import Entity

ARTICLES = 0
"""The namespace of the articles."""

_QID = re.compile(r"Q[1-9]\d*")
_HIGHEST_PAGE = 2**32
_TABLES: dict[str, tuple[Column, ...]] = {
    "page": (
        Column(("page_id",), "int"),
        Column(("page_namespace",), "int"),
        Column(("page_title",)),
        Column(("page_is_redirect",), "int"),
    ),
    "redirect": (
        Column(("rd_from",), "int"),
        Column(("rd_namespace",), "int"),
        Column(("rd_title",)),
        Column(("rd_interwiki",), may_lack=True),
        Column(("rd_fragment",), may_lack=True),
    ),
    "page_props": (Column(("pp_page",), "int"), Column(("pp_propname",)), Column(("pp_value",))),
    "linktarget": (Column(("lt_id",), "int"), Column(("lt_namespace",), "int"), Column(("lt_title",))),
    # by number in linktarget, or by namespace and title, or both while wikis changed from one to the other
    "pagelinks": (
        Column(("pl_from",), "int"),
        Column(("pl_from_namespace",), "int", may_lack=True),
        Column(("pl_target_id",), "int", may_lack=True),
        Column(("pl_namespace",), "int", may_lack=True),
        Column(("pl_title",), may_lack=True),
    ),
}
_VIEWS = "page views"


def read_wikipedia(sources: Sequence[Path], options: ImportOptions, work: Work) -> Iterator[tuple[str, Entity]]:
    """The articles of a Wikipedia, by page number.

    sources: the table dumps page, and as wanted redirect, page_props (QIDs, short descriptions, disambiguation pages),
    and for the counts either pagelinks (with linktarget, where it names its targets by number) or files of page views;
    told apart by what they hold. A link or view of a redirect counts for the article it leads to. Links count once a
    page, and only from articles that are no redirects.

    Raises ValueError where a table is missing, or of no use here.
    """
    if options.id not in ("title", "qid"):
        raise ValueError(f"--id must be title or qid, not {options.id!r}")
    files = _by_table(sources)
    if options.id == "qid" and "page_props" not in files:
        raise ValueError("ids are to be QIDs: give page_props.sql.gz as well, which has them")
    store = work.store
    store.execute("CREATE TABLE page (id INTEGER PRIMARY KEY, title TEXT NOT NULL, redirect INTEGER NOT NULL)")
    store.execute("CREATE TABLE redirect (source INTEGER PRIMARY KEY, title TEXT NOT NULL, section INTEGER NOT NULL)")
    store.execute("CREATE TABLE hop (source INTEGER PRIMARY KEY, target INTEGER NOT NULL)")
    store.execute("CREATE TABLE page_count (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)")
    for prop in ("qid", "description", "disambiguation"):
        store.execute(f"CREATE TABLE {prop} (page INTEGER PRIMARY KEY, value TEXT NOT NULL)")
    _each(files, "page", work, lambda block, name: _take_pages(block, name, work))
    index_pages(work)
    highest = store.one("SELECT coalesce(max(id), 0) FROM page")
    redirects = PageBits((page for (page,) in store.rows("SELECT id FROM page WHERE redirect")), highest)
    _each(files, "redirect", work, lambda block, name: _take_redirects(block, name, redirects, options, work))
    follow_redirects(work, given="redirect" in files)
    _each(files, "page_props", work, lambda block, name: _take_props(block, name, work))
    _count(files, redirects, options, work)
    with work.bar("write the articles", store.one("SELECT count(*) FROM page WHERE NOT redirect"), " pages") as bar:
        for found in _articles(options, work):
            yield found
            bar.update()


def _by_table(sources: Sequence[Path]) -> dict[str, list[Path]]:
    """The sources by the table they hold. Raises ValueError where they do not go together."""
    files: dict[str, list[Path]] = {}
    columns: dict[str, tuple[str, ...]] = {}
    for source in sources:
        table, columns_of = first_table(Archive(source)) or (_VIEWS, ())
        if table not in (*_TABLES, _VIEWS):
            raise ValueError(f"{source} holds the table {table}, which is not used: give {', '.join(_TABLES)}")
        files.setdefault(table, []).append(source)
        columns[table] = columns_of
    if "page" not in files:
        raise ValueError(f"none of {', '.join(map(str, sources))} has the table page: give page.sql.gz as well")
    if _VIEWS in files and "pagelinks" in files:
        raise ValueError("counts come from pagelinks or from page views, not from both: leave one of them out")
    links = columns.get("pagelinks", ())
    if links and not {"pl_target_id", "pl_title"} & set(links):
        raise ValueError(f"pagelinks has neither pl_target_id nor pl_title, but {', '.join(links)}")
    if "pl_target_id" in links and "pl_title" not in links and "linktarget" not in files:
        raise ValueError(
            "pagelinks names its targets by number: give linktarget.sql.gz as well, which has their titles"
        )
    return files


def _each(files: dict[str, list[Path]], table: str, work: Work, take: Callable[[Block, str], None]) -> None:
    """Have the rows of a table taken, block by block."""
    for path in files.get(table, []):
        with work.read(path) as archive:
            for block in SqlDump(archive, {table: _TABLES[table]}, work.report).blocks():
                take(block, path.name)


def _take_pages(block: Block, name: str, work: Work) -> None:
    report = work.report
    articles, others = [], 0
    for number, (page, namespace, title, redirect) in block.rows(report, name):
        if not 0 < page < _HIGHEST_PAGE or not title:
            report.drop("malformed page rows", partial(block.where, name, number))
        elif namespace == ARTICLES:
            articles.append((page, title, int(redirect != 0)))
        else:
            others += 1
    added = work.store.insert("INSERT OR IGNORE INTO page VALUES (?, ?, ?)", articles)
    report.drop("pages whose number stands above already", f"{name}:{block.line} and after", len(articles) - added)
    report.read["pages"] += len(articles) + others
    report.read["of them of other namespaces"] += others


def _take_redirects(block: Block, name: str, known: PageBits, options: ImportOptions, work: Work) -> None:
    report = work.report
    kept = []
    for number, (source, namespace, title, wiki, fragment) in block.rows(report, name):
        report.read["redirects"] += 1
        where = partial(block.where, name, number)
        if source not in known:
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
            kept.append((source, title, int(bool(fragment))))
    added = work.store.insert("INSERT OR IGNORE INTO redirect VALUES (?, ?, ?)", kept)
    report.drop("redirects whose page stands above already", f"{name}:{block.line} and after", len(kept) - added)


def _take_props(block: Block, name: str, work: Work) -> None:
    found: dict[str, list[tuple[int, str]]] = {"qid": [], "description": [], "disambiguation": []}
    for number, (page, prop, value) in block.rows(work.report, name):
        if prop == "wikibase_item":
            if value and _QID.fullmatch(value):
                found["qid"].append((page, value))
            else:
                work.report.drop("wikibase items that are no QID", partial(block.where, name, number))
        elif prop == "wikibase-shortdesc" and value:
            found["description"].append((page, value))
        elif prop == "disambiguation":
            found["disambiguation"].append((page, ""))
    for table, rows in found.items():
        work.store.insert(f"INSERT OR IGNORE INTO {table} VALUES (?, ?)", rows)


def _count(files: dict[str, list[Path]], redirects: PageBits, options: ImportOptions, work: Work) -> None:
    """Fill page_count."""
    store = work.store
    titles = TitleCounts(work)
    for path in files.get(_VIEWS, []):
        with work.read(path) as archive:
            read_pageviews(archive, options.language, titles, work)
    if "pagelinks" in files:
        targets = TargetCounts(work)
        # a table that is changing over has both, and what stands in linktarget is what the other one may lack
        by_number = targets if "linktarget" in files else None
        _each(
            files, "pagelinks", work, lambda block, name: _take_links(block, name, redirects, by_number, titles, work)
        )
        targets.flush()
        titles.flush()
        store.execute("CREATE TABLE linktarget (id INTEGER PRIMARY KEY, title TEXT NOT NULL)")
        _each(files, "linktarget", work, lambda block, name: _take_targets(block, name, work))
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


def _take_targets(block: Block, name: str, work: Work) -> None:
    rows = block.rows(work.report, name)
    articles = [(number, title) for _, (number, namespace, title) in rows if namespace == ARTICLES and title]
    added = work.store.insert("INSERT OR IGNORE INTO linktarget VALUES (?, ?)", articles)
    reason = "link targets whose number stands above already"
    work.report.drop(reason, f"{name}:{block.line} and after", len(articles) - added)


def _take_links(
    block: Block, name: str, redirects: PageBits, targets: TargetCounts | None, titles: TitleCounts, work: Work
) -> None:
    """Count the links from articles that are no redirects."""
    read = work.report.read
    if block.integers is not None and targets is not None:
        source, namespace, target = block.table.indices[:3]
        links = block.integers
        read["links"] += len(links)
        if namespace is not None:
            links = links[links[:, namespace] == ARTICLES]
        links = links[~redirects.of(links[:, source])]
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
    """The articles in the order of their numbers, with their aliases."""
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
            continue
        kb_id = name
        if options.id == "qid":
            if qid is None:
                report.drop("pages without a Wikidata item, so without a QID", where)
                continue
            kb_id = qid
        elif qid is not None:
            aliases.insert(0, qid)  # so that golds given as QIDs find their article; first, as the last may not fit
        yield where, Entity(kb_id, name, count or 0, tuple(aliases), description)
