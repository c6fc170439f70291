"""What the training data say of a mention string: which entities it meant, and how often."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spacy.tokens import Doc

from spacy_gemel.kb.resolve import NIL, resolve_gold

if TYPE_CHECKING:
    from spacy_gemel.kb.knowledge_base import KnowledgeBase


@dataclass(frozen=True, slots=True)
class TrainingMentions:
    """The gold mentions of a training set.

    rows: {mention as it is written: {row of the knowledge base: how often}}. golds: the ids of the gold entities, as
    the linker keeps them, whose names can be said: so that the same mentions count as seen in the table of both.
    used: mentions in `rows`; the others are unannotated, NIL, or of an entity that the knowledge base does not hold.
    """

    rows: dict[str, Counter[int]]
    golds: frozenset[str]
    used: int
    nil: int
    unannotated: int
    not_in_kb: int


def training_mentions(docs: Iterable[Doc], kb: "KnowledgeBase") -> TrainingMentions:
    """Count the gold mentions of some docs; golds may be ids, URLs, titles or aliases."""
    rows: dict[str, Counter[int]] = {}
    golds: set[str] = set()
    found: Counter[str] = Counter()
    known: dict[str, int | None] = {}
    for doc in docs:
        for ent in doc.ents:
            gold = ent.kb_id_
            if gold not in known:
                known[gold] = resolve_gold(kb, gold)
            row = known[gold]
            if row is None:
                found["unannotated" if not gold else "nil" if gold == NIL else "not_in_kb"] += 1
                continue
            found["used"] += 1
            rows.setdefault(ent.text, Counter())[row] += 1
            if kb.is_linkable(row):
                golds.add(kb.entity(row).kb_id)
    return TrainingMentions(
        rows, frozenset(golds), found["used"], found["nil"], found["unannotated"], found["not_in_kb"]
    )
