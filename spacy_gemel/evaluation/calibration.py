"""The temperature of the candidates' probabilities and the threshold below which a mention is NIL, from dev data.

The temperature minimises the log loss of the best candidates' probabilities (a gold of NIL makes any candidate wrong).
That is a proper score of exactly what the threshold is compared with. The likelihood of the gold name leaves out the
mentions without such a name, NIL above all, and so gives probabilities that are too high; ECE itself jumps with its
bins, and is perfect for a model that is equally sure of every mention. The candidates' scores are enough: the search
is not run again.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import srsly
from numpy.typing import NDArray

from spacy_gemel.evaluation.bootstrap import folds_by_doc
from spacy_gemel.evaluation.results import MentionResult
from spacy_gemel.kb.resolve import NIL
from spacy_gemel.pipeline.scorer import precision_recall_f

COLDEST, HOTTEST = 0.01, 100.0
FOLDS = 2
FEW = 50
BINS = 10
_STEPS = 160  # of the temperature's logarithm, before the best is refined
_SAME = 1e-6  # scores vary with the batch: no threshold between probabilities this close
_EDGE = 1e-6  # a probability of 0 or 1 that is wrong costs as much as one this close to it, not everything

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Decision:
    """A temperature and a threshold; with threshold None a mention is NIL only if the search found nothing."""

    temperature: float
    threshold: float | None

    def accepts(self, confidences: FloatArray) -> BoolArray:
        """(n,): which best candidates are not made NIL."""
        return confidences >= (-np.inf if self.threshold is None else self.threshold)


@dataclass(frozen=True, slots=True)
class Cases:
    """Linked mentions as arrays, one row each; one whose best candidate is no entity is NIL at any threshold."""

    scores: FloatArray  # (n, names), the best candidate's name first, -inf as padding
    share: FloatArray  # (n,), of the best candidate among the entities of its name
    linked: BoolArray  # (n,), whether the best candidate is an entity
    right: BoolArray  # (n,), whether it is the gold entity
    nil: BoolArray  # (n,), whether the gold is NIL
    docs: NDArray[np.str_]  # (n,)

    def __len__(self) -> int:
        return len(self.docs)

    def select(self, mask: BoolArray) -> "Cases":
        """The cases that an (n,) mask selects."""
        return Cases(*(getattr(self, field.name)[mask] for field in fields(self)))


def calibrate(results: Sequence[MentionResult], current: Decision, *, missing_as_nil: bool = False) -> dict[str, Any]:
    """Fit temperature and threshold on evaluated mentions; `missing_as_nil` makes a gold outside the KB NIL.

    A temperature that cannot be fitted stays the `current` one. A threshold that cannot be chosen is None, as an old
    one belongs to the old temperature. Returns CALIBRATION.json without its settings: the numbers of `mentions`, the
    decision and the `figures` `before` and `after` on these mentions, `cross_fitted` figures, each half of the docs
    decided by what was fitted on the other (None if there are too few docs), and `notes`. Raises ValueError if no
    mention can be used.
    """
    cases, counts = cases_of(results, missing_as_nil=missing_as_nil)
    if not len(cases):
        raise ValueError(
            f"not one mention to calibrate on: of {len(results)}, {counts['unannotated']} have no gold, "
            f"{counts['not_in_kb']} a gold that the knowledge base does not have, {counts['not_found']} were not found"
        )
    fitted, notes = _fit(cases, current)
    if len(cases) < FEW:
        notes.append(f"Only {len(cases)} mentions: all of these figures are rough.")
    if current.threshold is not None and fitted.threshold is None:
        notes.append(f"The old threshold, {current.threshold:g}, is removed: it was for the old temperature.")
    content: dict[str, Any] = {"mentions": counts}
    for key, decision in (("before", current), ("after", fitted)):
        confidences, loss = confidence(cases, decision.temperature), log_loss(cases, decision.temperature)
        decided = figures(cases, confidences, decision.accepts(confidences))
        content[key] = {**asdict(decision), "log_loss": loss, **decided}
    return {**content, "cross_fitted": _cross_fit(cases, current), "notes": notes}


def cases_of(results: Sequence[MentionResult], *, missing_as_nil: bool = False) -> tuple[Cases, dict[str, int]]:
    """Evaluated mentions as calibration needs them, and how many are used and are not; see `calibrate`."""
    used, gold_ids = [], []
    counts = {"entity": 0, "nil": 0, "not_in_kb": 0, "unannotated": 0, "not_found": 0}
    for result in results:
        outside = not result.in_kb and result.gold != NIL
        if not result.gold:
            counts["unannotated"] += 1
        elif result.predicted is None:
            counts["not_found"] += 1
        elif outside and not missing_as_nil:
            counts["not_in_kb"] += 1
        else:
            used.append(result)
            gold_ids.append(NIL if outside else result.gold)
            counts["nil" if gold_ids[-1] == NIL else "entity"] += 1
    # entities of one name are consecutive
    groups = [[list(g) for _, g in groupby(result.candidates, itemgetter("name", "score"))] for result in used]
    scores = np.full((len(used), max(map(len, groups), default=1) or 1), -np.inf)
    share = np.ones(len(used))
    linked, right = np.zeros(len(used), dtype=bool), np.zeros(len(used), dtype=bool)
    for index, (names, gold) in enumerate(zip(groups, gold_ids, strict=True)):
        if names:
            scores[index, : len(names)] = [name[0]["score"] for name in names]
            best, total = names[0][0], sum(candidate["probability"] for candidate in names[0])
            share[index] = best["probability"] / total if total else 1 / len(names[0])
            linked[index] = best["kb_id"] != NIL
            right[index] = best["kb_id"] == gold != NIL
    nil, docs = np.array([gold == NIL for gold in gold_ids], dtype=bool), np.array([result.doc for result in used])
    return Cases(scores, share, linked, right, nil, docs), counts


def confidence(cases: Cases, temperature: float) -> FloatArray:
    """(n,): the best candidate's probability, as `to_candidates` computes it; 0 if it is no entity."""
    return np.where(cases.linked, np.exp(_log_probabilities(cases, temperature)[0]), 0.0)


def log_loss(cases: Cases, temperature: float) -> float:
    """Mean log loss, in nats, of the best candidates' probabilities, clipped by _EDGE; 0 if no mention has one."""
    if not cases.linked.any():
        return 0.0
    right, wrong = _log_probabilities(cases, temperature)
    observed = np.where(cases.right, right, wrong)[cases.linked]
    return float(-np.clip(observed, np.log(_EDGE), np.log1p(-_EDGE)).mean())


def _log_probabilities(cases: Cases, temperature: float) -> tuple[FloatArray, FloatArray]:
    """(n,) each: log of the best candidate's probability, and of all others' together, exact near 1."""
    scores = np.where(cases.linked[:, None], cases.scores, 0.0) / temperature
    total = np.logaddexp.reduce(scores, axis=1)
    other_names = np.logaddexp.reduce(scores[:, 1:], axis=1, initial=-np.inf)
    with np.errstate(divide="ignore"):  # log(0) for a name with a single entity
        same_name = scores[:, 0] + np.log1p(-np.minimum(cases.share, 1.0))
        return scores[:, 0] + np.log(cases.share) - total, np.logaddexp(same_name, other_names) - total


def reliability(confidences: FloatArray, right: BoolArray) -> list[dict[str, Any]]:
    """A reliability diagram's bins (Guo et al. 2017), of equal width, the upper end inclusive; means may be None."""
    indices = np.clip(np.ceil(confidences * BINS) - 1, 0, BINS - 1).astype(int)
    rows = []
    for index in range(BINS):
        mask = indices == index
        n = int(mask.sum())
        sure, accuracy = (float(values[mask].mean()) if n else None for values in (confidences, right))
        edges = {"low": index / BINS, "high": (index + 1) / BINS}
        rows.append({**edges, "n": n, "confidence": sure, "accuracy": accuracy})
    return rows


def expected_calibration_error(bins: Sequence[dict[str, Any]]) -> float | None:
    """Mean distance of confidence and accuracy in a mention's bin (Guo et al. 2017); None for no mention."""
    total = sum(row["n"] for row in bins)
    distance = sum(row["n"] * abs(row["confidence"] - row["accuracy"]) for row in bins if row["n"])
    return distance / total if total else None


def figures(cases: Cases, confidences: FloatArray, accepted: BoolArray) -> dict[str, Any]:
    """The figures of one way to decide, by (n,) confidences and which best candidates are accepted, not made NIL.

    `ece` and `reliability` are over the mentions whose best candidate is an entity, accepted or not; `linking` is
    nel_micro_p/r/f; `accuracy` is over the gold entities, and `accuracy_with_nil` over all.
    """
    links = accepted & cases.linked
    entities, nils = int((~cases.nil).sum()), int(cases.nil.sum())
    hits, nil_hits = int((links & cases.right).sum()), int((~links & cases.nil).sum())
    nil_answers = int((~links).sum())
    bins = reliability(confidences[cases.linked], cases.right[cases.linked])
    return {
        "ece": expected_calibration_error(bins),
        "linking": precision_recall_f(hits, int(links.sum()) - hits, entities - hits),
        "nil": {"n": nils, **precision_recall_f(nil_hits, nil_answers - nil_hits, nils - nil_hits)},
        "accuracy": hits / entities if entities else None,
        "accuracy_with_nil": (hits + nil_hits) / len(cases) if len(cases) else None,
        "reliability": bins,
    }


def _fit(cases: Cases, current: Decision) -> tuple[Decision, list[str]]:
    """Temperature and threshold, and notes on what could not be fitted; a temperature that cannot be fitted stays."""
    fitted, note = fit_temperature(cases)
    temperature = fitted or current.temperature
    threshold, threshold_note = _choose_threshold(cases, confidence(cases, temperature))
    return Decision(temperature, threshold), [text for text in (note, threshold_note) if text]


def fit_temperature(cases: Cases) -> tuple[float | None, str]:
    """The temperature of least log loss (Guo et al. 2017), with six digits, and a note or ""; None, and why, if none.

    It is searched from COLDEST to HOTTEST on a grid that is refined around the best.
    """
    linked = cases.select(cases.linked)
    stays = "the temperature stays"
    if not len(linked):
        return None, f"No mention has a candidate: {stays}."
    if linked.nil.all():
        return None, f"Every gold is NIL, so no candidate can be right: {stays}."
    if len(set(linked.right.tolist())) == 1:
        what = "right" if linked.right[0] else "wrong"
        return None, f"All {len(linked)} best candidates are {what}, which fits any probability: {stays}."
    grid = np.linspace(math.log(COLDEST), math.log(HOTTEST), _STEPS + 1)
    losses = [log_loss(linked, math.exp(value)) for value in grid]
    if max(losses) - min(losses) < 1e-12:
        return None, f"No mention has more than one name to choose from: {stays}."
    best = int(np.argmin(losses))
    if best in (0, _STEPS):
        end = HOTTEST if best else COLDEST
        return end, f"The best temperature lies beyond {end:g}, the end of the search."
    for _ in range(5):
        grid = np.linspace(grid[best - 1], grid[best + 1], 33)
        best = min(max(int(np.argmin([log_loss(linked, math.exp(value)) for value in grid])), 1), 31)
    # of the numbers with six digits the nearest that round-trips
    temperature = math.exp(grid[best])
    near = [float(f"{temperature * (1 + step * 1e-6):.6g}") for step in range(50)]
    return next(filter(_round_trips, near), near[0]), ""


def _choose_threshold(cases: Cases, confidences: FloatArray) -> tuple[float | None, str]:
    """The threshold with the highest F1 of linking, the smallest of equals; None, and why, if there is none."""
    if not cases.nil.any():
        return None, "No gold is NIL, so the threshold is null: it is learned from mentions without an entity."
    order = np.argsort(confidences[cases.linked], kind="stable")
    ranked = confidences[cases.linked][order]
    hits = np.cumsum(cases.right[cases.linked][order][::-1])[::-1]  # among those from an index on
    accepted = np.arange(len(ranked), 0, -1)
    scores = 2 * hits / (accepted + int((~cases.nil).sum()))
    scores = np.where(np.diff(ranked, prepend=-1.0) > _SAME, scores, -1.0)
    index = int(np.argmax(scores)) if len(scores) else 0  # the first of equals
    if index == 0:
        return None, (
            "No threshold links better than none, so it is null: the mentions whose gold is NIL are no less sure than "
            "the others."
        )
    # the number of fewest decimals in the middle half between two confidences
    low, high = float(ranked[index - 1]), float(ranked[index])
    middle, quarter = (low + high) / 2, (high - low) / 4
    rounded = (round(middle, decimals) for decimals in range(2, 16))
    return next((v for v in rounded if low + quarter <= v <= high - quarter and _round_trips(v)), middle), ""


def _round_trips(value: float) -> bool:
    """Whether spaCy's JSON reads it as it wrote it: many numbers come back with another last bit."""
    return bool(srsly.json_loads(srsly.json_dumps(value)) == value)


def _cross_fit(cases: Cases, current: Decision) -> dict[str, Any] | None:
    """The figures of mentions decided by a fit without their docs; None for fewer docs than FOLDS."""
    folds = folds_by_doc(cases.docs.tolist(), FOLDS, spread=set(cases.docs[cases.nil].tolist()))
    if len(set(folds.tolist())) < FOLDS:
        return None
    confidences, accepted, losses, decisions = np.zeros(len(cases)), np.zeros(len(cases), dtype=bool), 0.0, []
    for fold in range(FOLDS):
        mask = folds == fold
        decision, _ = _fit(cases.select(~mask), current)
        test = cases.select(mask)
        confidences[mask] = confidence(test, decision.temperature)
        accepted[mask] = decision.accepts(confidences[mask])
        losses += log_loss(test, decision.temperature) * int(test.linked.sum())
        decisions.append({**asdict(decision), "fitted_on": int((~mask).sum()), "judged": int(mask.sum())})
    loss = losses / max(int(cases.linked.sum()), 1)
    return {"folds": decisions, "log_loss": loss, **figures(cases, confidences, accepted)}
