"""What a gold id means: the title in a URL, NIL in its spellings, the entity of a knowledge base."""

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, unquote_to_bytes

if TYPE_CHECKING:
    from spacy_gemel.kb.knowledge_base import KnowledgeBase

NIL = "NIL"

# anything may precede the host: "nhttps://" and "]https://" occur in data sets
_PAGE = re.compile(
    r"(?:^|[^a-z0-9.-])(?:[a-z0-9-]+\.)*(?:wikipedia|wikidata|wikinews|wikimedia|dbpedia)\.org"
    r"/(?:wiki|entity|resource|page)/(?P<title>[^?#]+)",
    re.IGNORECASE,
)
_INDEX = re.compile(r"wiki(?:pedia|data|news|media)\.org/w(?:iki)?/index\.php\?(?P<query>[^#\s]*)", re.IGNORECASE)


def title_of_url(url: str) -> str | None:
    """The title of the wiki page that a URL names, or None. Never raises.

    Percent escapes are decoded (UTF-8, else Latin-1), underscores become spaces, query and fragment are dropped.
    Whatever precedes the host is ignored, and so is the wiki's language. A Wikidata page or entity gives its QID.
    """
    if match := _PAGE.search(url):
        return _decode(unquote_to_bytes(match["title"])) or None
    if match := _INDEX.search(url):
        titles = parse_qs(match["query"], encoding="latin-1").get("title", [""])
        return _decode(titles[0].encode("latin-1", "ignore")) or None
    return None


def gold_of(gold: str | None, *, missing: str = NIL) -> str:
    """A gold id from a data set: the title of a wiki URL, "NIL" in any spelling as "NIL", anything else unchanged.

    `missing` is the result for an empty gold: "NIL", or "" if the data set only means that nobody looked.
    """
    text = (gold or "").strip()
    if not text:
        return missing
    if text.casefold() == NIL.casefold():
        return NIL
    return title_of_url(text) or text


def resolve_gold(kb: "KnowledgeBase", gold: str) -> int | None:
    """The row of the entity that a gold id means; None for "NIL", for an unknown one, and if several may be meant.

    The first of these that is known decides: the ids as they are; the title in a wiki URL; the same without percent
    escapes; the same with spaces for underscores and the reverse; the names; the aliases. Of two entities with one
    name, the more frequent is meant (None if they are equally frequent); of two with one alias, neither.
    """
    if not gold or gold == NIL:
        return None
    title = title_of_url(gold) or gold
    titles = [title, unquote(title)] if "%" in title else [title]
    spellings = [spelling for text in titles for spelling in (text, text.replace(" ", "_"), text.replace("_", " "))]
    for spelling in (gold, *spellings):
        if (row := kb.row(spelling)) is not None:
            return row
    matches = [kb.rows_by_surface(text) for text in titles]
    named = next((rows for rows, _ in matches if rows), [])
    if named:
        counts = sorted((kb.count(row) for row in named), reverse=True)
        return None if len(counts) > 1 and counts[0] == counts[1] else max(named, key=kb.count)
    aliased = next((rows for _, rows in matches if rows), [])
    return aliased[0] if len(aliased) == 1 else None


def linkable_row(kb: "KnowledgeBase", gold: str) -> int | None:
    """`resolve_gold`, but None if the search cannot find the entity."""
    row = resolve_gold(kb, gold)
    return row if row is not None and kb.is_in_trie(row) else None


def _decode(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return " ".join(text.replace("_", " ").split())
