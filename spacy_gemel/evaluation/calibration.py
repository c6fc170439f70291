"""The temperature of the candidates' probabilities and the threshold below which a mention is NIL, from dev data.

The temperature is the one at which the best candidates' probabilities are least surprised by which of them are right
(log loss; a gold of NIL makes any of them wrong). That is a proper score of what the threshold is on and of what the
reliability curve shows. The usual one, the likelihood of the gold name among the names found, leaves out the mentions
without such a gold, NIL above all, and so makes probabilities that are too high; ECE itself jumps with its bins and is
perfect for a model that says the same of all mentions.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import srsly

from spacy_gemel.evaluation.confidence import (
    BoolArray,
    Cases,
    Counts,
    FloatArray,
    cases_of,
    confidence,
    figures,
    log_loss,
)
from spacy_gemel.evaluation.results import MentionResult

COLDEST, HOTTEST = 0.01, 100.0
FOLDS = 2
FEW = 50
_STEPS = 160  # of the temperature's logarithm, before the best is refined
_GOLDEN = (math.sqrt(5) - 1) / 2
_SAME = 1e-6  # scores vary with the batch: no threshold between probabilities as near as that


@dataclass(frozen=True, slots=True)
class Decision:
    """threshold: None for no NIL but where nothing was found."""

    temperature: float
    threshold: float | None

    def accepts(self, confidences: FloatArray) -> BoolArray:
        """(n,): which best candidates are not made NIL."""
        if self.threshold is None:
            return np.ones(len(confidences), dtype=bool)
        return confidences >= self.threshold


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was fitted, and what it brings on the mentions it was fitted on.

    before, after: how the pipeline decides, with the figures of `confidence.figures` and the log loss. cross_fitted:
    the same of the mentions of one half of the docs decided by what was fitted on the other half, both ways, None where
    that cannot be. notes: what could not be fitted, and why.
    """

    counts: Counts
    before: Decision
    after: Decision
    figures_before: dict[str, Any]
    figures_after: dict[str, Any]
    cross_fitted: dict[str, Any] | None
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """CALIBRATION.json, but for the settings."""
        return {
            "mentions": asdict(self.counts),
            "before": {**asdict(self.before), **self.figures_before},
            "after": {**asdict(self.after), **self.figures_after},
            "cross_fitted": self.cross_fitted,
            "notes": self.notes,
        }


def calibrate(results: Sequence[MentionResult], before: Decision, *, missing_as_nil: bool = False) -> Calibration:
    """Fit both on evaluated mentions. before: what the pipeline has now, which also gave the results.

    A temperature that cannot be fitted stays; a threshold that cannot be picked is None, as an old one belongs to the
    old temperature. Raises ValueError where no mention can be used.
    """
    cases, counts = cases_of(results, missing_as_nil=missing_as_nil)
    if not len(cases):
        raise ValueError(
            f"not one mention to calibrate on: of {len(results)}, {counts.unannotated} have no gold, "
            f"{counts.not_in_kb} a gold that the knowledge base does not hold, {counts.not_found} were not found"
        )
    after, notes = fit(cases, before)
    if len(cases) < FEW:
        notes.append(f"Only {len(cases)} mentions: take all of this for rough.")
    if before.threshold is not None and after.threshold is None:
        notes.append(f"The old threshold, {before.threshold:g}, goes: it was for the old temperature.")
    return Calibration(
        counts, before, after, _judged(cases, before), _judged(cases, after), cross_fit(cases, before), notes
    )


def fit(cases: Cases, before: Decision) -> tuple[Decision, list[str]]:
    """Temperature and threshold, and what could not be fitted and why. before: whose temperature stays then."""
    temperature, problem = fit_temperature(cases)
    notes = [problem] if problem else []
    temperature = before.temperature if temperature is None else temperature
    threshold, problem = pick_threshold(cases, confidence(cases, temperature))
    notes += [problem] if problem else []
    return Decision(temperature, threshold), notes


def fit_temperature(cases: Cases) -> tuple[float | None, str]:
    """The temperature of least log loss from COLDEST to HOTTEST, to six digits, and "".

    Temperature scaling (Guo et al. 2017) with the loss that the module tells of, by golden section (Kiefer 1953).

    None, and why, where the cases say nothing about it; a word on it too where it lies at an end.
    """
    linked = cases.where(cases.linked)
    kept = "the temperature stays"
    if not len(linked):
        return None, f"No mention has a candidate: {kept}."
    if linked.nil.all():
        return None, f"Every gold is NIL, so that no candidate can be right: {kept}."
    for all_of, what in ((linked.right, "right"), (~linked.right, "wrong")):
        if all_of.all():
            return None, f"All {len(linked)} best candidates are {what}, which fits any probability: {kept}."
    grid = np.linspace(math.log(COLDEST), math.log(HOTTEST), _STEPS + 1)
    losses = [log_loss(linked, math.exp(value)) for value in grid]
    if max(losses) - min(losses) < 1e-12:
        return None, f"No mention has more than one name to choose from: {kept}."
    best = int(np.argmin(losses))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, _STEPS)]
    for _ in range(40):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if log_loss(linked, math.exp(left)) <= log_loss(linked, math.exp(right)):
            high = right
        else:
            low = left
    if best in (0, _STEPS):
        end = COLDEST if best == 0 else HOTTEST
        return end, f"The best temperature lies beyond {end:g}, where the search for it ends."
    return _short(math.exp((low + high) / 2)), ""


def pick_threshold(cases: Cases, confidences: FloatArray) -> tuple[float | None, str]:
    """The threshold with the highest F1 of linking (`figures`), and "". confidences: (n,).

    It lies between two of the probabilities that occur, in the middle or at a rounder number near it. Of thresholds
    that are equally good, the smallest. None, and why, where there is no NIL gold or where none is better than none.
    """
    if not cases.nil.any():
        return None, (
            "No gold is NIL, so the threshold is null: whether a mention has no entity must be learned from some "
            "that have none."
        )
    order = np.argsort(confidences[cases.linked], kind="stable")
    ranked = confidences[cases.linked][order]
    hits = np.cumsum(cases.right[cases.linked][order][::-1])[::-1]  # among those from a place on
    accepted = np.arange(len(ranked), 0, -1)
    scores = 2 * hits / (accepted + int((~cases.nil).sum()))
    apart = np.diff(ranked, prepend=-1.0) > _SAME
    scores = np.where(apart, scores, -1.0)
    if not len(scores) or int(np.argmax(scores)) == 0:
        return None, (
            "No threshold links better than none, so it is null: the mentions whose gold is NIL are no less sure than "
            "the others."
        )
    index = int(np.argmax(scores))  # the first of equals
    return _between(float(ranked[index - 1]), float(ranked[index])), ""


def _between(low: float, high: float) -> float:
    """The number of fewest decimals in the middle half between two."""
    quarter = (high - low) / 4
    for decimals in range(2, 16):
        value = round((low + high) / 2, decimals)
        if low + quarter <= value <= high - quarter and _survives(value):
            return value
    return (low + high) / 2


def _short(temperature: float) -> float:
    """A number of six digits, or one of the nearest to it that survive."""
    near = (float(f"{temperature * (1 + step * 1e-6):.6g}") for step in range(50))
    return next((value for value in near if _survives(value)), float(f"{temperature:.6g}"))


def _survives(value: float) -> bool:
    """Whether spaCy's JSON reads it as it wrote it: of many numbers the last bit is another."""
    return bool(srsly.json_loads(srsly.json_dumps(value)) == value)


def cross_fit(cases: Cases, before: Decision) -> dict[str, Any] | None:
    """The figures of mentions that had no part in the fit that decides them; None for fewer docs than FOLDS.

    The docs, not the mentions, are parted by chance (the same each time), those with a NIL gold evenly.
    """
    folds = _fold_of(cases)
    if len(set(folds.tolist())) < FOLDS:
        return None
    confidences, accepted = np.zeros(len(cases)), np.zeros(len(cases), dtype=bool)
    losses, fitted = 0.0, []
    for fold in range(FOLDS):
        held = folds == fold
        decision, _ = fit(cases.where(~held), before)
        judged = cases.where(held)
        confidences[held] = confidence(judged, decision.temperature)
        accepted[held] = decision.accepts(confidences[held])
        losses += log_loss(judged, decision.temperature) * int(judged.linked.sum())
        fitted.append({**asdict(decision), "fitted_on": int((~held).sum()), "judged": int(held.sum())})
    loss = losses / max(int(cases.linked.sum()), 1)
    return {"folds": fitted, "log_loss": loss, **figures(cases, confidences, accepted)}


def _fold_of(cases: Cases) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(n,): the fold of each case's doc."""
    with_nil = {doc for doc, nil in zip(cases.docs, cases.nil, strict=True) if nil}
    docs = list(dict.fromkeys(cases.docs))
    shuffled = [docs[index] for index in np.random.default_rng(0).permutation(len(docs))]
    ordered = sorted(shuffled, key=lambda doc: doc in with_nil)
    fold = {doc: index % FOLDS for index, doc in enumerate(ordered)}
    return np.array([fold[doc] for doc in cases.docs], dtype=np.int64)


def _judged(cases: Cases, decision: Decision) -> dict[str, Any]:
    confidences = confidence(cases, decision.temperature)
    loss = log_loss(cases, decision.temperature)
    return {"log_loss": loss, **figures(cases, confidences, decision.accepts(confidences))}
