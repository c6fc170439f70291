"""What the decision is compared with: the score at one temperature, and one threshold for NIL, both fitted."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.evaluation.bootstrap import folds_by_doc
from spacy_gemel.evaluation.decision_cases import DecisionCase
from spacy_gemel.evaluation.decision_report import Answers
from spacy_gemel.kb.resolve import NIL

FloatArray = NDArray[np.float64]
_TEMPERATURES = np.geomspace(0.05, 20, 121)
_NAMES = 5  # the beams of a search
_EDGE = 1e-6


def cross_calibrate(cases: Sequence[DecisionCase], scores: Sequence[FloatArray], folds: int) -> Answers:
    """The best-scored candidate of each case, or NIL below a threshold, fitted on the docs of the other folds.

    The temperature minimises the log loss of the best candidates' probabilities (Guo et al. 2017), among as many as a
    search finds; the threshold has the highest F1 of links.
    """
    top = [np.sort(each)[::-1][:_NAMES] for each in scores]
    best = [case.ids[int(each.argmax())] if len(each) else NIL for case, each in zip(cases, scores, strict=True)]
    right = np.array([name == case.gold != NIL for name, case in zip(best, cases, strict=True)])
    nil = np.array([case.gold == NIL for case in cases])
    fold_of = folds_by_doc([case.doc for case in cases], folds, spread={case.doc for case in cases if case.gold == NIL})
    sure, accepted = np.zeros(len(cases)), np.zeros(len(cases), dtype=bool)
    for fold in range(folds):
        rest, own = fold_of != fold, fold_of == fold
        by_temperature = [_confidences(top, temperature) for temperature in _TEMPERATURES]
        losses = [_log_loss(values[rest], right[rest]) for values in by_temperature]
        values = by_temperature[int(np.argmin(losses))]
        sure[own], accepted[own] = values[own], values[own] >= _threshold(values[rest], right[rest], nil[rest])
    answers = [name if accept else NIL for name, accept in zip(best, accepted, strict=True)]
    return Answers(answers, best, [float(value) if len(each) else None for value, each in zip(sure, top, strict=True)])


def _confidences(top: Sequence[FloatArray], temperature: float) -> FloatArray:
    return np.array([1 / np.exp((each - each[0]) / temperature).sum() if len(each) else 0.0 for each in top])


def _log_loss(values: FloatArray, right: NDArray[np.bool_]) -> float:
    values = np.clip(values, _EDGE, 1 - _EDGE)
    return float(-np.where(right, np.log(values), np.log1p(-values)).mean())


def _threshold(values: FloatArray, right: NDArray[np.bool_], nil: NDArray[np.bool_]) -> float:
    """The least confidence at which the links from it on have the highest F1."""
    order = np.argsort(values, kind="stable")
    hits = np.cumsum(right[order][::-1])[::-1]
    f1 = 2 * hits / (np.arange(len(values), 0, -1) + (~nil).sum())
    return float(values[order[int(np.argmax(f1))]])
