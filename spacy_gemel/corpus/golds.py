"""What a data set calls an entity: the title behind a URL, and the many ways to write that there is none."""

import re
from urllib.parse import parse_qs, unquote_to_bytes

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
    stands before the host does not matter. A page or entity of Wikidata gives its QID. Never raises.
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


def _readable(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return " ".join(text.replace("_", " ").split())
