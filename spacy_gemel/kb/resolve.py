"""What a gold id means: the title behind a URL, the many ways to say there is none, the entity of a knowledge base."""

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, unquote_to_bytes

if TYPE_CHECKING:
    from spacy_gemel.kb.knowledge_base import KnowledgeBase

NIL = "NIL"

# whatever stands before the host is not looked at: "nhttps://" and "]https://" occur
_PAGE = re.compile(
    r"(?:^|[^a-z0-9.-])(?:[a-z0-9-]+\.)*(?:wikipedia|wikidata|wikinews|wikimedia|dbpedia)\.org"
    r"/(?:wiki|entity|resource|page)/(?P<title>[^?#]+)",
    re.IGNORECASE,
)
_INDEX = re.compile(r"wiki(?:pedia|data|news|media)\.org/w(?:iki)?/index\.php\?(?P<query>[^#\s]*)", re.IGNORECASE)


def title_of_url(url: str) -> str | None:
    """The title of the wiki page that a URL names, or None where it names none.

    Percent escapes are decoded (UTF-8, else Latin-1), underscores are blanks, and query and fragment are left off. What
    stands before the host does not matter, so neither does the wiki's language. A page or entity of Wikidata gives its
    QID. Never raises.
    """
    if found := _PAGE.search(url):
        return _readable(unquote_to_bytes(found["title"])) or None
    if found := _INDEX.search(url):
        titles = parse_qs(found["query"], encoding="latin-1").get("title", [""])
        return _readable(titles[0].encode("latin-1", "ignore")) or None
    return None


def gold_of(gold: str | None, *, missing: str = NIL) -> str:
    """The gold id to keep: a page's title for its URL, "NIL" for none in any spelling, anything else as it is.

    missing: what an empty gold means: "NIL", or "" where it says only that nobody looked.
    """
    text = (gold or "").strip()
    if not text:
        return missing
    if text.casefold() == NIL.casefold():
        return NIL
    return title_of_url(text) or text


def resolve_gold(kb: "KnowledgeBase", gold: str) -> int | None:
    """The row of the entity that a gold id means; None where there is none, for "NIL", or where several may be meant.

    Taken in this order, the first that knows it: the ids as they are; the title of a wiki's URL; percent escapes
    decoded; blanks and underscores exchanged; the names; the aliases. Two entities of one name: the one that is linked
    more often, None where neither is. Two of one alias: None.
    """
    if not gold or gold == NIL:
        return None
    row = kb.row(gold)
    if row is not None:
        return row
    spellings = [title_of_url(gold) or gold]
    spellings += [unquote(spellings[0])] if "%" in spellings[0] else []
    for text in spellings:
        for spelling in (text, text.replace(" ", "_"), text.replace("_", " ")):
            row = kb.row(spelling)
            if row is not None:
                return row
    called = [kb.rows_by_surface(text) for text in spellings]
    for named, _ in called:
        if named:
            return _most_linked(kb, named)
    for _, aliased in called:
        if aliased:
            return aliased[0] if len(aliased) == 1 else None
    return None


def _most_linked(kb: "KnowledgeBase", rows: list[int]) -> int | None:
    counts = sorted((kb.count(row) for row in rows), reverse=True)
    if len(rows) > 1 and counts[0] == counts[1]:
        return None
    return max(rows, key=kb.count)


def linkable_row(kb: "KnowledgeBase", gold: str) -> int | None:
    """`resolve_gold`, where the search can say the entity's name; else None."""
    row = resolve_gold(kb, gold)
    return row if row is not None and kb.is_linkable(row) else None


def _readable(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return " ".join(text.replace("_", " ").split())
