"""From the tables page and redirect to hop: for each redirect of an article the article it leads to in the end."""

from __future__ import annotations

from spacy_gemel.data.knowledge_bases.report import EXAMPLES
from spacy_gemel.data.knowledge_bases.work import Work


def index_pages(work: Work) -> None:
    """Index the pages by title; of several with one title the first stays that is no redirect, else the first."""
    store = work.store
    store.execute("CREATE INDEX page_title ON page (title)")
    repeated = store.rows("SELECT title FROM page INDEXED BY page_title GROUP BY title HAVING count(*) > 1")
    for (title,) in list(repeated):
        pages = list(store.rows("SELECT id FROM page WHERE title = ? ORDER BY redirect, id", (title,)))
        for (page,) in pages[1:]:
            store.execute("DELETE FROM page WHERE id = ?", (page,))
            work.report.drop("pages whose title stands above already", f"page {page} {title!r}")


def follow_redirects(work: Work, *, given: bool) -> None:
    """Fill hop from redirect, whose sources must be redirects in page, and report what leads nowhere.

    given: there is a redirect table, so that redirects without a row in it are reported.
    """
    store = work.store
    if given:
        _drop(
            work,
            "redirects without a row in the redirect table",
            "FROM page p WHERE p.redirect AND NOT EXISTS (SELECT 1 FROM redirect r WHERE r.source = p.id)",
        )
    store.execute(
        "INSERT INTO hop SELECT r.source, t.id FROM redirect r CROSS JOIN page t INDEXED BY page_title "
        "ON t.title = r.title"
    )
    _drop(
        work,
        "redirects to a page that does not exist",
        "FROM redirect r JOIN page p ON p.id = r.source "
        "WHERE NOT EXISTS (SELECT 1 FROM hop h WHERE h.source = r.source)",
    )
    _shorten(work)
    dead_ends = (
        "FROM hop h JOIN page t ON t.id = h.target JOIN page p ON p.id = h.source "
        "WHERE t.redirect AND {} EXISTS (SELECT 1 FROM hop n WHERE n.source = h.target)"
    )
    _drop(work, "redirects to redirects that lead nowhere", dead_ends.format("NOT"))
    _drop(work, "redirects in a circle", dead_ends.format(""))
    store.execute("DELETE FROM hop WHERE target IN (SELECT id FROM page WHERE redirect)")


def _shorten(work: Work) -> None:
    """Let each hop that ends at a redirect go on to where that one leads, until no more of them reach an article.

    Every round halves what is left of a chain at least; what is in a circle stays in it.
    """
    store = work.store
    store.execute("CREATE TABLE open_hop AS SELECT h.source FROM hop h JOIN page t ON t.id = h.target WHERE t.redirect")
    left, before = store.one("SELECT count(*) FROM open_hop"), None
    work.report.read["redirects to redirects"] += left
    while left and left != before:
        store.execute(
            "UPDATE hop SET target = coalesce((SELECT n.target FROM hop n WHERE n.source = hop.target), target) "
            "WHERE source IN (SELECT source FROM open_hop)"
        )
        store.execute(
            "DELETE FROM open_hop WHERE source IN "
            "(SELECT h.source FROM open_hop o JOIN hop h ON h.source = o.source JOIN page t ON t.id = h.target "
            "WHERE NOT t.redirect)"
        )
        before, left = left, store.one("SELECT count(*) FROM open_hop")


def _drop(work: Work, reason: str, rows: str) -> None:
    """Report the pages p of a FROM clause."""
    number = work.store.one(f"SELECT count(*) {rows}")
    if number:
        for page, title in work.store.rows(f"SELECT p.id, p.title {rows} LIMIT {EXAMPLES}"):
            work.report.drop(reason, f"page {page} {title!r}")
        work.report.drop(reason, "", number - min(number, EXAMPLES))
