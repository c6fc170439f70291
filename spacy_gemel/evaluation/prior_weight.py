"""The weight of prior knowledge from dev data, and what model, prior and both score on docs it was not fitted on."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc
from tqdm import tqdm

from spacy_gemel.data.reader import make_example, read_docs
from spacy_gemel.evaluation.bootstrap import SEED, accuracy_of, difference_of, folds_by_doc
from spacy_gemel.kb.resolve import NIL, resolve_gold
from spacy_gemel.linking.prior import ALIAS, FLOOR, MAX_KNOWN, SURFACE, UNKNOWN, combine
from spacy_gemel.linking.settings import LinkerSettings
from spacy_gemel.models.frozen import model_lock
from spacy_gemel.pipeline.loaded_pipeline import entity_pipes, linker_name
from spacy_gemel.pipeline.scorer import check_images_read
from spacy_gemel.pipeline.user_data import flag_unreadable_image, has_image, has_unreadable_image

GRID = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
FOLDS = 5
_CONSTANTS = {"surface": SURFACE, "alias": ALIAS, "unknown": UNKNOWN, "floor": FLOOR, "known": MAX_KNOWN, "seed": SEED}
WAYS = ("model", "prior", "backoff", "both")
_FEW_DEMONSTRATIONS = 0.05  # of the mentions: a few captions are the same in any two parts of a data set


class PriorCandidate(NamedTuple):
    """An entity that a mention may mean."""

    kb_id: str
    score: float  # of its name by the language model: `Candidate.score` of a pipe without prior_weight
    prior: float  # P(entity | mention), 0 without evidence
    searched: bool = True  # False if only the prior proposed it: the model alone does not answer it


@dataclass(frozen=True, slots=True)
class PriorCase:
    """A mention with its gold entity; of candidates with equal scores the first is the answer."""

    doc: str
    gold: str
    candidates: Sequence[PriorCandidate]
    by_prior: str  # the prior's answer, NIL without evidence
    is_demonstration: bool = False  # the same mention of the same text: the prior has counted it
    unreadable_image: bool = False  # the scores are those of the text alone

    def has_evidence(self) -> bool:
        """Whether the prior knows anything of the mention."""
        return any(candidate.prior > 0 for candidate in self.candidates)

    def by_model(self) -> str:
        """The model's answer; NIL if its search found nothing."""
        candidates = [candidate for candidate in self.candidates if candidate.searched]
        return max(candidates, key=lambda candidate: candidate.score).kb_id if candidates else NIL

    def by_backoff(self) -> str:
        """The prior's answer if it has evidence, else the model's; no scores are combined."""
        return self.by_model() if self.by_prior == NIL else self.by_prior

    def by_both(self, weight: float) -> str:
        """The answer of a pipe with this prior_weight: the model's without evidence or weight."""
        if not weight or not self.has_evidence():
            return self.by_model()
        return max(self.candidates, key=lambda c: combine(c.score, c.prior, weight)).kb_id


def collect_cases(
    nlp: Language, data: Path, *, limit: int = 0, batch_size: int = 128, progress: bool = True
) -> list[PriorCase]:
    """Link the gold mentions of a .spacy file, or a folder of them, once, whatever prior_weight the pipe has.

    Only mentions with a gold in the knowledge base become cases. Warns if some images could not be read. Raises
    ValueError if the pipeline has no linker, no mention can be used, or the linker could read none of the images.
    """
    name = linker_name(nlp)
    pipe: Any = nlp.get_pipe(name)
    examples = [make_example(nlp, doc, gold_ents=True) for doc in islice(read_docs(data, nlp.vocab), limit or None)]
    # A NER would overwrite the gold mentions; of the other pipes the linker may need sentences, or vectors.
    disabled = [*entity_pipes(nlp), *nlp.pipe_names[nlp.pipe_names.index(name) :]]
    cases: list[PriorCase] = []
    answered: list[Doc] = []
    with nlp.select_pipes(disable=disabled), tqdm(examples, "link", unit=" docs", disable=not progress) as bar:
        docs = nlp.pipe((example.predicted for example in examples), batch_size=batch_size)
        remaining = iter(bar)
        for first in range(0, len(examples), batch_size):
            references = [example.reference for example in islice(remaining, batch_size)]
            batch = list(islice(docs, len(references)))
            for doc, of_doc in zip(batch, cases_of(pipe, references, batch, first), strict=True):
                cases += of_doc
                if any(case.candidates for case in of_doc):  # otherwise its image was never needed
                    answered.append(doc)
    if not cases:
        raise ValueError(f"{data}: not one mention with a gold entity of the knowledge base in {len(examples)} docs")
    if pipe.settings.use_image:
        check_images_read(answered, name=name)
    return cases


def cases_of(pipe: Any, references: Sequence[Doc], docs: Sequence[Doc], first: int) -> list[list[PriorCase]]:
    """The cases of each gold doc, from the same docs with the mentions to be linked by a GemelLinker.

    A mention that it does not link has no candidates. A doc without user_data["id"] is named by its number, from
    `first` on.
    """
    with model_lock():
        mentions = pipe.mentions_of(pipe.entities_to_link(docs))
        names_of_mentions = pipe.linking_model.find(mentions, pipe.settings, include_prior=True)
    text_alone = {mention.doc for mention in mentions if mention.features is None} if pipe.settings.use_image else set()
    for index, linked in enumerate(docs):
        flag_unreadable_image(linked, index in text_alone and has_image(linked))
    demonstrations = {(demonstration.mention, demonstration.text) for demonstration in pipe.store}
    answers: dict[tuple[int, int, int], tuple[list[PriorCandidate], str, bool]] = {}  # by doc and characters
    for mention, names in zip(mentions, names_of_mentions, strict=True):
        prior = pipe.linking_model.prior.of(mention.mention)
        span = docs[mention.doc][mention.start : mention.end]
        entities = ((name, kb_id) for name in names for kb_id, _ in name.entities)
        candidates = [PriorCandidate(id_, name.score, prior.get(id_, 0.0), name.searched) for name, id_ in entities]
        is_demonstration = (mention.mention, mention.text) in demonstrations
        answers[mention.doc, span.start_char, span.end_char] = candidates, next(iter(prior), NIL), is_demonstration
    cases: list[list[PriorCase]] = [[] for _ in references]
    for index, reference in enumerate(references):
        doc, unreadable = str(reference.user_data.get("id", first + index)), has_unreadable_image(docs[index])
        for gold in reference.ents:
            if (row := resolve_gold(pipe.kb, gold.kb_id_)) is not None:
                answer = answers.get((index, gold.start_char, gold.end_char), ([], NIL, False))
                cases[index].append(PriorCase(doc, pipe.kb.entity(row).kb_id, *answer, unreadable))
    return cases


def fit_weight(cases: Sequence[PriorCase]) -> float:
    """The weight of GRID with which most cases are right, the smallest of equals; raises ValueError for no cases."""
    if not cases:
        raise ValueError("no mention with a gold entity to fit the prior's weight on")
    return GRID[int(np.argmax(_right(cases).sum(axis=1)))]  # the first of equals


def _right(cases: Sequence[PriorCase]) -> NDArray[np.bool_]:
    """Whether each case is right with each weight of GRID, (weights, cases)."""
    return np.array([[case.by_both(weight) == case.gold for case in cases] for weight in GRID], dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class CrossValidated:
    """Answers to mentions whose doc had no part in fitting the weight."""

    correct: dict[str, list[bool]]  # by way (WAYS), of each case
    weights: list[float]  # of each fold, which answered its docs
    folds: list[int]  # of each case
    docs: list[str]  # of each case

    def to_json(self) -> dict[str, Any]:
        """Each way's accuracy, and the advantage of both over the others; docs are resampled with all mentions."""
        right, docs = self.correct, self.docs
        content: dict[str, Any] = {way: accuracy_of(right[way], docs) for way in WAYS}
        content |= {f"both_minus_{way}": difference_of(right["both"], right[way], docs) for way in WAYS[:-1]}
        return {**content, "weights": self.weights}


def cross_validate(cases: Sequence[PriorCase], *, folds: int = FOLDS, seed: int = SEED) -> CrossValidated:
    """Answer each case by model, by prior, and by both with the weight that was fitted on the docs of the other folds.

    There are at most as many folds as docs, no doc is split, and `seed` shuffles the docs. Raises ValueError for fewer
    than two docs or folds.
    """
    docs = [case.doc for case in cases]
    folds = min(folds, len(set(docs)))
    if folds < 2:
        message = f"{len(set(docs))} docs with usable mentions and {folds} folds"
        raise ValueError(f"{message}: cross-validation needs two of each")
    fold_of = folds_by_doc(docs, folds, seed=seed)
    right = _right(cases)
    indices = np.array([right[:, fold_of != fold].sum(axis=1).argmax() for fold in range(folds)])
    correct = {
        "model": [case.by_model() == case.gold for case in cases],
        "prior": [case.by_prior == case.gold for case in cases],
        "backoff": [case.by_backoff() == case.gold for case in cases],
        "both": right[indices[fold_of], np.arange(len(cases))].tolist(),
    }
    return CrossValidated(correct, [GRID[index] for index in indices], fold_of.tolist(), docs)


def curve(cases: Sequence[PriorCase]) -> list[dict[str, float]]:
    """The accuracy on the cases themselves with each weight: [{"weight", "accuracy"}]."""
    values = zip(GRID, _right(cases).mean(axis=1).tolist(), strict=True)
    return [{"weight": weight, "accuracy": accuracy} for weight, accuracy in values]


def fit_prior(cases: Sequence[PriorCase], settings: LinkerSettings, *, folds: int) -> dict[str, Any]:
    """The content of PRIOR.json: the weight fitted on all cases, the cross-validated figures, and notes.

    `settings` are those of the pipe that linked the cases. Raises ValueError for no cases.
    """
    weight, docs, notes = fit_weight(cases), len({case.doc for case in cases}), []
    demonstrations = sum(case.is_demonstration for case in cases)
    unreadable = sum(case.unreadable_image for case in cases)
    if demonstrations > _FEW_DEMONSTRATIONS * len(cases):
        notes.append(
            f"{demonstrations} of the {len(cases)} mentions are, in the same text, among the pipe's demonstrations, as "
            "those of training data are: the prior has counted what they mean, so its weight may be too large and the "
            "figures too good. Fit it on dev data."
        )
    if unreadable:
        notes.append(
            f"The image of {unreadable} of the {len(cases)} mentions could not be read. They count, in the figures "
            "and in the weight, with what was linked from their text alone."
        )
    if docs == 1:
        notes.append("There is only one doc, so no doc can be held out and there are no cross-validated figures.")
    if weight == max(GRID):
        notes.append(f"The best weight is {weight:g}, the end of the grid: the prior decides nearly alone.")
    if weight != settings.prior_weight and (settings.threshold is not None or settings.temperature != 1):
        notes.append(
            "Temperature and threshold are for the scores of another prior_weight: run calibrate on the new pipeline."
        )
    return {
        "prior_weight": weight,
        "before": settings.prior_weight,
        "mentions": len(cases),
        "docs": docs,
        "with_evidence": sum(case.has_evidence() for case in cases),
        "demonstrations": demonstrations,
        "unreadable_image": unreadable,
        "cross_validated": cross_validate(cases, folds=folds).to_json() if docs > 1 else None,
        "on_all": curve(cases),
        "constants": _CONSTANTS,
        "notes": notes,
    }
