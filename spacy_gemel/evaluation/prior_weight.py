"""The weight of prior knowledge from dev data; what model, prior and both are worth on docs it was not fitted on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.evaluation.bootstrap import accuracy_interval, interval_by_doc, paired_difference
from spacy_gemel.kb.resolve import NIL
from spacy_gemel.linking.prior import combine

GRID = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
FOLDS = 5
SEED = 0
WAYS = ("model", "prior", "backoff", "both")


class PriorCandidate(NamedTuple):
    """An entity that a mention may mean.

    score: the language model's, of its name (`Candidate.score` of a pipe without prior_weight). prior: P(entity |
    mention), 0 without evidence. searched: False where only the prior brought it in: the model alone does not answer
    it.
    """

    kb_id: str
    score: float
    prior: float
    searched: bool = True


@dataclass(frozen=True, slots=True)
class PriorCase:
    """A mention with its gold entity.

    doc: what tells its doc from others. candidates: of equal scores the first is answered. prior_answer: what the prior
    alone answers, NIL where it has no evidence. shown: whether the same mention of the same text is a demonstration of
    the pipe, so that the prior has counted it. unreadable_image: its doc has an image that the pipe could not read, so
    that the scores are those of the text alone.
    """

    doc: str
    gold: str
    candidates: Sequence[PriorCandidate]
    prior_answer: str
    shown: bool = False
    unreadable_image: bool = False

    def has_evidence(self) -> bool:
        """Whether the prior knows anything of the mention."""
        return any(candidate.prior > 0 for candidate in self.candidates)

    def by_model(self) -> str:
        """The model's answer; NIL where its search found nothing."""
        return max((c for c in self.candidates if c.searched), key=lambda c: c.score, default=_NONE).kb_id

    def by_prior(self) -> str:
        """The prior's answer; NIL for a mention without evidence."""
        return self.prior_answer

    def by_backoff(self) -> str:
        """The prior's answer where it has evidence, else the model's: both, and no scores weighed."""
        answer = self.by_prior()
        return self.by_model() if answer == NIL else answer

    def by_both(self, weight: float) -> str:
        """The answer of a pipe with this prior_weight: the model's where there is no evidence, or no weight."""
        if not weight or not self.has_evidence():
            return self.by_model()
        return max(self.candidates, key=lambda c: combine(c.score, c.prior, weight)).kb_id


_NONE = PriorCandidate(NIL, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class CrossValidated:
    """Answers to mentions whose doc had no part in fitting the weight.

    answers: by way (WAYS), in the order of the cases. weights: of each fold, with which its docs
    were answered. folds: of each case. docs: of each case.
    """

    golds: list[str]
    answers: dict[str, list[str]]
    weights: list[float]
    folds: list[int]
    docs: list[str]

    def correct(self, way: str) -> list[bool]:
        """Whether each answer of one way is the gold."""
        return [answer == gold for answer, gold in zip(self.answers[way], self.golds, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """n, accuracy and 95 % interval of each way, and both's advantage over the others, paired by mention.

        Docs are resampled with all their mentions.
        """
        right = {way: self.correct(way) for way in WAYS}
        return {
            **{way: accuracy_of(right[way], self.docs) for way in WAYS},
            **{f"both_minus_{way}": difference_of(right["both"], right[way], self.docs) for way in WAYS[:-1]},
            "weights": self.weights,
        }


def accuracy_of(correct: Sequence[bool], docs: Sequence[str] | None = None) -> dict[str, Any]:
    """{"n", "accuracy", "low", "high"}; None where there is no mention.

    docs: of each mention, to be resampled with all their mentions; None to resample mentions.
    """
    if docs is None or sum(correct) in (0, len(correct)):  # where all went alike no doc tells more than its mentions
        low, high = accuracy_interval(sum(correct), len(correct)) or (None, None)
    else:
        low, high = interval_by_doc(correct, docs) or (None, None)
    return {
        "n": len(correct),
        "accuracy": sum(correct) / len(correct) if correct else None,
        "low": low,
        "high": high,
    }


def difference_of(
    first: Sequence[bool], second: Sequence[bool], docs: Sequence[str] | None = None
) -> dict[str, float | None]:
    """{"difference", "low", "high"} of two accuracies on the same mentions; None where there is no mention.

    docs: of each mention, to be resampled with all their pairs; None to resample pairs of mentions.
    """
    value, low, high = paired_difference(first, second) or (None, None, None)
    if docs is not None:
        gained = [int(one) - int(other) for one, other in zip(first, second, strict=True)]
        low, high = interval_by_doc(gained, docs) or (None, None)
    return {"difference": value, "low": low, "high": high}


def fit_weight(cases: Sequence[PriorCase], grid: Sequence[float] = GRID) -> float:
    """The weight of the grid with which most cases are right, the smallest of equals.

    Raises ValueError for no cases, or no grid.
    """
    if not cases or not grid:
        raise ValueError("no mention with a gold entity to fit the prior's weight on, or no weight to choose from")
    grid = sorted(grid)
    return grid[int(np.argmax(_right(cases, grid).sum(axis=1)))]  # the first of equals


def cross_validate(
    cases: Sequence[PriorCase], *, folds: int = FOLDS, grid: Sequence[float] = GRID, seed: int = SEED
) -> CrossValidated:
    """Answer each case by model, by prior, and by both with the weight that was fitted on the docs of the other folds.

    folds: at most as many as there are docs, no doc is split. seed: of the shuffle that parts the docs.
    Raises ValueError where there are fewer than two docs or folds.
    """
    docs = list(dict.fromkeys(case.doc for case in cases))
    folds = min(folds, len(docs))
    if folds < 2:
        raise ValueError(f"{len(docs)} docs with usable mentions and {folds} folds: cross-validation needs two of each")
    grid = sorted(grid)
    shuffled = np.random.default_rng(seed).permutation(len(docs))
    fold_of = {docs[index]: number % folds for number, index in enumerate(shuffled.tolist())}
    parted = np.array([fold_of[case.doc] for case in cases])
    right = _right(cases, grid)
    weights = [grid[int(np.argmax(right[:, parted != fold].sum(axis=1)))] for fold in range(folds)]
    return CrossValidated(
        golds=[case.gold for case in cases],
        answers={
            "model": [case.by_model() for case in cases],
            "prior": [case.by_prior() for case in cases],
            "backoff": [case.by_backoff() for case in cases],
            "both": [case.by_both(weights[fold]) for case, fold in zip(cases, parted.tolist(), strict=True)],
        },
        weights=weights,
        folds=parted.tolist(),
        docs=[case.doc for case in cases],
    )


def curve(cases: Sequence[PriorCase], grid: Sequence[float] = GRID) -> list[dict[str, float]]:
    """The accuracy on the cases themselves with each weight: [{"weight", "accuracy"}]."""
    grid = sorted(grid)
    accuracies = _right(cases, grid).mean(axis=1).tolist()
    return [{"weight": weight, "accuracy": value} for weight, value in zip(grid, accuracies, strict=True)]


def _right(cases: Sequence[PriorCase], grid: Sequence[float]) -> NDArray[np.bool_]:
    """Whether each case is right with each weight, (weights, cases)."""
    return np.array([[case.by_both(weight) == case.gold for case in cases] for weight in grid], dtype=np.bool_)
