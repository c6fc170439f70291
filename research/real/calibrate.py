"""What the decision is compared with: the score at one temperature, and one threshold for NIL, both fitted."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.evaluation.bootstrap import folds_by_doc
from spacy_gemel.evaluation.decision_cases import DecisionCase
from spacy_gemel.evaluation.decision_report import Answers
from spacy_gemel.kb.resolve import NIL

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
_TEMPERATURES = np.geomspace(0.05, 20, 121)
_NAMES = 5  # the beams of a search
_EDGE = 1e-6


def cross_calibrate(cases: Sequence[DecisionCase], scores: Sequence[FloatArray], folds: int) -> Answers:
    """The best-scored candidate of each case, or NIL below a threshold, fitted on the docs of the other folds."""
    best = [case.ids[int(each.argmax())] if len(each) else NIL for case, each in zip(cases, scores, strict=True)]
    right = np.array([name == case.gold != NIL for name, case in zip(best, cases, strict=True)])
    nil = np.array([case.gold == NIL for case in cases])
    fold_of = folds_by_doc([case.doc for case in cases], folds, spread={case.doc for case in cases if case.gold == NIL})
    sure, accepted = np.zeros(len(cases)), np.zeros(len(cases), dtype=bool)
    for fold in range(folds):
        rest, fold_mask = fold_of != fold, fold_of == fold
        fitted_on = [scores[index] for index in np.flatnonzero(rest).tolist()]
        temperature, threshold = calibrate(fitted_on, right[rest], nil[rest])
        sure[fold_mask] = confidences([scores[index] for index in np.flatnonzero(fold_mask).tolist()], temperature)
        accepted[fold_mask] = sure[fold_mask] >= threshold
    answers = [name if accept else NIL for name, accept in zip(best, accepted, strict=True)]
    rated = zip(sure.tolist(), scores, strict=True)
    return Answers(answers, best, [value if len(each) else None for value, each in rated])


def calibrate(scores: Sequence[FloatArray], right: BoolArray, nil: BoolArray) -> tuple[float, float]:
    """The temperature of the best candidates' probabilities, and the threshold below which a mention is NIL.

    The temperature minimises the log loss of these probabilities (Guo et al. 2017); the threshold has the highest F1 of
    links.

    Args:
        scores: Of each mention's candidates; as many count as a search finds.
        right: Whether the best candidate is the gold, (mentions,).
        nil: Whether the gold is NIL, (mentions,).
    """
    losses = [_log_loss(confidences(scores, temperature), right) for temperature in _TEMPERATURES]
    temperature = float(_TEMPERATURES[int(np.argmin(losses))])
    return temperature, _threshold(confidences(scores, temperature), right, nil)


def confidences(scores: Sequence[FloatArray], temperature: float) -> FloatArray:
    """The probability of each mention's best candidate, (mentions,); 0 without any."""
    top = [np.sort(each)[::-1][:_NAMES] for each in scores]
    return np.array([1 / np.exp((each - each[0]) / temperature).sum() if len(each) else 0.0 for each in top])


def _log_loss(values: FloatArray, right: BoolArray) -> float:
    values = np.clip(values, _EDGE, 1 - _EDGE)
    return float(-np.where(right, np.log(values), np.log1p(-values)).mean())


def _threshold(values: FloatArray, right: BoolArray, nil: BoolArray) -> float:
    """The least confidence at which the links from it on have the highest F1."""
    order = np.argsort(values, kind="stable")
    hits = np.cumsum(right[order][::-1])[::-1]
    f1 = 2 * hits / (np.arange(len(values), 0, -1) + (~nil).sum())
    return float(values[order[int(np.argmax(f1))]])
