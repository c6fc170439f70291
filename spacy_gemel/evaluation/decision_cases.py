"""Gold mentions with their candidates' features: what a decision is fitted and measured on."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from spacy.language import Language
from spacy.training import Example
from tqdm import tqdm

from spacy_gemel.data.reader import make_example, read_docs
from spacy_gemel.kb.resolve import NIL, resolve_gold
from spacy_gemel.linking.candidates import Answer, answer_id
from spacy_gemel.linking.decision import NIL_INDEX, Decision
from spacy_gemel.models.frozen import model_lock
from spacy_gemel.pipeline.gemel_linker import GemelLinker
from spacy_gemel.pipeline.loaded_pipeline import entity_pipes, linker_name, linker_of
from spacy_gemel.pipeline.scorer import check_images_read
from spacy_gemel.pipeline.user_data import doc_id, flag_unreadable_image, has_image, has_unreadable_image

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DecisionCase:
    """A gold mention with its candidates.

    Attributes:
        doc: The doc's id, or its number.
        mention: The words.
        gold: The gold entity's id, or NIL.
        ids: Of the candidates.
        values: Their features, (candidates, columns).
        current: The answer of the pipe as it is, its best candidate and its probability; see `decide`.
        seen: Whether the gold entity is in the training examples.
        has_description: Whether the gold entity has a description.
        count: How often the gold entity occurs in the training examples.
        is_demonstration: Whether the same mention of the same text is one that the pipe shows.
        unreadable_image: Whether its doc has an image that could not be read, so that the text alone decides.
    """

    doc: str
    mention: str
    gold: str
    ids: tuple[str, ...]
    values: FloatArray
    current: tuple[str, str, float | None]
    seen: bool = False
    has_description: bool = False
    count: int = 0
    is_demonstration: bool = False
    unreadable_image: bool = False

    @property
    def gold_index(self) -> int | None:
        """The gold's index among the candidates; NIL_INDEX for NIL, None if it is not among them."""
        if self.gold == NIL:
            return NIL_INDEX
        return self.ids.index(self.gold) if self.gold in self.ids else None

    def decide(self, decision: Decision, columns: Sequence[str]) -> tuple[str, str, float | None]:
        """The answer by a decision, the best candidate's id, and its probability; NIL and None without any."""
        if not self.ids:
            return NIL, NIL, None
        probabilities, nil = decision.probabilities(decision.utilities(self.values, columns))
        best = int(probabilities.argmax())  # the first of equals
        return (NIL if nil > probabilities[best] else self.ids[best]), self.ids[best], float(probabilities[best])


def collect_cases(
    nlp: Language,
    data: Path,
    *,
    missing_as_nil: bool = False,
    limit: int = 0,
    batch_size: int = 128,
    progress: bool = True,
) -> tuple[list[DecisionCase], list[str]]:
    """Link the gold mentions of a .spacy file, or a folder of them, once, and compute all features of the pipe.

    Returns the cases and the columns. Mentions without a gold are left out, and those whose gold the knowledge base
    lacks, unless `missing_as_nil`. Warns if some images could not be read. Raises ValueError if the pipeline has no
    linker, no mention can be used, or the linker could read none of the images.
    """
    linker, name = linker_of(nlp), linker_name(nlp)
    examples = [make_example(nlp, doc, gold_ents=True) for doc in islice(read_docs(data, nlp.vocab), limit or None)]
    # A NER would overwrite the gold mentions; of the other pipes the linker may need sentences, or vectors.
    disabled = [*entity_pipes(nlp), *nlp.pipe_names[nlp.pipe_names.index(name) :]]
    columns = [column for feature in linker.features for column in feature.columns]
    cases: list[DecisionCase] = []
    with nlp.select_pipes(disable=disabled):
        docs = nlp.pipe((example.predicted for example in examples), batch_size=batch_size)
        for example, doc in zip(examples, docs, strict=True):
            example.predicted = doc
        for start in tqdm(range(0, len(examples), batch_size), "link", unit=" batches", disable=not progress):
            cases += _cases_of(linker, examples[start : start + batch_size], start, missing_as_nil=missing_as_nil)
    if not cases:
        raise ValueError(f"{data}: not one mention with a gold entity of the knowledge base in {len(examples)} docs")
    if linker.settings.use_image:
        docs_with_gold = [example.predicted for example in examples if example.reference.ents]
        check_images_read(docs_with_gold, name=name, labels_discard=linker.settings.labels_discard)
    return cases, columns


def _cases_of(
    linker: GemelLinker, examples: Sequence[Example], first: int, *, missing_as_nil: bool
) -> list[DecisionCase]:
    """The cases of some docs, the first of which has the number `first`."""
    docs = [example.predicted for example in examples]
    with model_lock():
        model, settings = linker.linking_model, linker.settings
        mentions = linker.mentions_of(linker.entities_to_link(docs))
        batch, values, columns, answers = model.consider(mentions, settings)
    current = [_best(answer, settings.threshold) for answer in answers]
    without_image = {m.doc for m in mentions if m.features is None} if settings.use_image else set()
    for index, doc in enumerate(docs):
        flag_unreadable_image(doc, index in without_image and has_image(doc))
    by_span = {
        (m.doc, docs[m.doc][m.start].idx, docs[m.doc][m.start : m.end].end_char): number
        for number, m in enumerate(mentions)
    }
    training = model.training_counts
    in_prompts = {(demonstration.mention, demonstration.text) for demonstration in linker.store}
    cases = []
    for index, example in enumerate(examples):
        for ent in example.reference.ents:
            row = resolve_gold(linker.kb, ent.kb_id_)
            if not ent.kb_id_ or (row is None and ent.kb_id_ != NIL and not missing_as_nil):
                continue
            gold = None if row is None else linker.kb.entity(row)
            gold_id = NIL if gold is None else gold.kb_id
            number = by_span.get((index, ent.start_char, ent.end_char))
            options = None if number is None else batch[number]
            cases.append(
                DecisionCase(
                    doc=str(first + index if (name := doc_id(example.reference)) is None else name),
                    mention=ent.text,
                    gold=gold_id,
                    ids=() if options is None else tuple(entity.kb_id for entity in options.entities),
                    values=np.zeros((0, len(columns))) if number is None else values[number],
                    current=(NIL, NIL, None) if number is None else current[number],
                    seen=gold_id in training,
                    has_description=gold is not None and bool(gold.description),
                    count=training.get(gold_id, 0),
                    is_demonstration=options is not None and (ent.text, options.mention.text) in in_prompts,
                    unreadable_image=has_unreadable_image(docs[index]),
                )
            )
    return cases


def _best(answer: Answer, threshold: float | None) -> tuple[str, str, float | None]:
    if not answer.candidates:
        return NIL, NIL, None
    return answer_id(answer, threshold), answer.candidates[0].kb_id, answer.candidates[0].probability
