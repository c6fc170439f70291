"""How often a name of one entity only means that entity: the labels of make-demonstrations against gold ones."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spacy.tokens import Doc
from tqdm import tqdm

from spacy_gemel.data.distant_supervision import UnambiguousNames, WeakMention, lower_case_words
from spacy_gemel.data.reader import blank_pipeline, read_docs
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.kb.resolve import resolve_gold

GoldIds = dict[tuple[int, int], str]


def compare(path: Path, kb_dir: Path, *, progress: bool = True) -> dict[str, Any]:
    """Find the names in the texts of a .spacy file with gold ids, and count the labels that agree with them.

    Returns:
        For mentions by name and by alias: how many there are, and of those with the span of a gold mention and of those
        that only overlap one, how many and how many with its entity. The rest touches no gold mention.
    """
    kb = KnowledgeBase.open(kb_dir)
    nlp = blank_pipeline("en")
    nlp.add_pipe("sentencizer")
    gold_ids = gold_ids_by_text(read_docs(path, nlp.vocab))
    find_names = UnambiguousNames(kb, lower_case_words(gold_ids))
    counts = {"name": Counter[str](), "alias": Counter[str]()}
    for text, spans in tqdm(gold_ids.items(), "finding names", unit=" texts", disable=not progress):
        for mention in find_names(nlp(text)):
            counts["alias" if mention.by_alias else "name"].update(_outcome(mention, spans, kb))
    return {"texts": len(gold_ids), **{kind: _figures(counter) for kind, counter in counts.items()}}


def gold_ids_by_text(docs: Iterable[Doc]) -> dict[str, GoldIds]:
    """The gold ids of each text by their spans, in characters; docs of one text have the mentions of it together."""
    gold_ids: dict[str, GoldIds] = {}
    for doc in docs:
        gold_ids.setdefault(doc.text, {}).update({(ent.start_char, ent.end_char): ent.kb_id_ for ent in doc.ents})
    return gold_ids


def _outcome(mention: WeakMention, gold_ids: GoldIds, kb: KnowledgeBase) -> list[str]:
    span = mention.start, mention.end
    touched = [span] if span in gold_ids else [gold for gold in gold_ids if gold[0] < span[1] and span[0] < gold[1]]
    is_right = any(resolve_gold(kb, gold_ids[gold]) == mention.row for gold in touched)
    kind = "same_span" if span in gold_ids else "overlap" if touched else "no_gold"
    return ["mentions", kind, *([f"{kind}_right"] if is_right else [])]


def _figures(counts: Counter[str]) -> dict[str, Any]:
    names = ("mentions", "same_span", "same_span_right", "overlap", "overlap_right", "no_gold")
    return {name: counts[name] for name in names}
