"""Which entity of a knowledge base a gold id means: its id, or a URL, a title or another name of it."""

from typing import TYPE_CHECKING
from urllib.parse import unquote

from spacy_gemel.corpus.golds import NIL, title_of_url

if TYPE_CHECKING:
    from spacy_gemel.kb.knowledge_base import KnowledgeBase


def gold_row(kb: "KnowledgeBase", gold: str) -> int | None:
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
    called = [kb.rows_called(text) for text in spellings]
    for named, _ in called:
        if named:
            return _most_linked(kb, named)
    for _, aliased in called:
        if aliased:
            return aliased[0] if len(aliased) == 1 else None
    return None


def _most_linked(kb: "KnowledgeBase", rows: list[int]) -> int | None:
    counts = sorted((int(kb.counts[row]) for row in rows), reverse=True)
    if len(rows) > 1 and counts[0] == counts[1]:
        return None
    return max(rows, key=lambda row: int(kb.counts[row]))


def linkable_row(kb: "KnowledgeBase", gold: str) -> int | None:
    """`gold_row`, where the search can say the entity's name; else None."""
    row = gold_row(kb, gold)
    return row if row is not None and kb.is_linkable(row) else None
