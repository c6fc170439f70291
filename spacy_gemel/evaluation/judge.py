"""A predicted doc held against its gold doc: one result per gold mention, whoever predicted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_gemel.evaluation.results import MentionResult
from spacy_gemel.evaluation.tail import TailSplit
from spacy_gemel.kb.resolve import NIL, resolve_gold
from spacy_gemel.pipeline.loaded import candidate_rows, probability_of
from spacy_gemel.pipeline.user_data import has_image, has_unreadable_image

if TYPE_CHECKING:
    from spacy_gemel.kb.knowledge_base import KnowledgeBase
    from spacy_gemel.linking.demonstrations import Demonstration


def no_demonstrations(doc: Doc, span: Span) -> "Sequence[Demonstration]":
    """What is shown for a mention by whoever shows nothing."""
    return ()


@dataclass(frozen=True, slots=True)
class Judge:
    """Holds a predicted doc against its gold doc.

    training_golds: the ids of the entities of the training set. demonstrations: what the prompt of a predicted mention
    showed.
    """

    kb: "KnowledgeBase"
    tail: TailSplit
    training_golds: frozenset[str]
    demonstrations: "Callable[[Doc, Span], Sequence[Demonstration]]" = no_demonstrations

    def results_of(self, example: Example, number: int) -> list[MentionResult]:
        """One result per gold mention; `number` names the doc where it has no id."""
        doc, reference = example.predicted, example.reference
        candidates = candidate_rows(doc)
        spans = {(ent.start_char, ent.end_char): ent for ent in doc.ents}
        identity = str(reference.user_data.get("id", number))
        results = []
        for gold in reference.ents:
            index = (gold.start_char, gold.end_char)
            results.append(self._result(identity, gold, doc, spans.get(index), candidates.get(index, [])))
        return results

    def _result(
        self, identity: str, gold: Span, doc: Doc, span: Span | None, candidates: list[dict[str, Any]]
    ) -> MentionResult:
        row = resolve_gold(self.kb, gold.kb_id_)
        gold_id = gold.kb_id_ if row is None else self.kb.entity(row).kb_id
        predicted = None if span is None else span.kb_id_ or NIL
        shown = () if span is None else self.demonstrations(doc, span)
        return MentionResult(
            doc=identity,
            start=gold.start_char,
            end=gold.end_char,
            mention=gold.text,
            gold=gold_id,
            predicted=predicted,
            probability=None if predicted is None else probability_of(predicted, candidates),
            seen=gold_id in self.training_golds,
            tail=None if row is None else self.tail.is_tail(self.kb.count(row)),
            image=has_image(doc) and not has_unreadable_image(doc),
            in_kb=row is not None,
            candidates=candidates,
            demonstrations=[{"text": d.text, "mention": d.mention, "name": d.name, "kb_id": d.kb_id} for d in shown],
            text=doc.text,
            unreadable_image=has_unreadable_image(doc),
            image_path=image if isinstance(image := doc.user_data.get("image"), str) else None,
        )
