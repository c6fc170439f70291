"""How far the probability of an answer is how often it is right, and the figures of answers that may be NIL."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.kb.resolve import NIL
from spacy_gemel.pipeline.scorer import precision_recall_f

BINS = 10

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


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


def answer_figures(
    gold: Sequence[str], answers: Sequence[str], best: Sequence[str], confidences: Sequence[float | None]
) -> dict[str, Any]:
    """The figures of one way to decide.

    Args:
        gold: The gold id of each mention, or NIL.
        answers: What it is linked to, or NIL.
        best: Its best candidate's id, whether that is the answer or not; NIL without any.
        confidences: That candidate's probability; None without any.

    Returns:
        `ece` and `reliability` over the mentions that have a candidate, answered or not; `linking`, precision, recall
        and F1 of links, and `nil` of the answer NIL; `accuracy` over the gold entities, `accuracy_with_nil` over all.
    """
    pairs = [*zip(gold, answers, strict=True)]
    hits = sum(one == other != NIL for one, other in pairs)
    nil_hits = sum(one == other == NIL for one, other in pairs)
    nils, nil_answers = sum(each == NIL for each in gold), sum(each == NIL for each in answers)
    entities, links = len(gold) - nils, len(gold) - nil_answers
    rated = [(sure, b == g) for sure, b, g in zip(confidences, best, gold, strict=True) if sure is not None]
    bins = reliability(np.array([sure for sure, _ in rated]), np.array([right for _, right in rated], dtype=bool))
    return {
        "ece": expected_calibration_error(bins),
        "linking": precision_recall_f(hits, links - hits, entities - hits),
        "nil": {"n": nils, **precision_recall_f(nil_hits, nil_answers - nil_hits, nils - nil_hits)},
        "accuracy": hits / entities if entities else None,
        "accuracy_with_nil": (hits + nil_hits) / len(gold) if gold else None,
        "reliability": bins,
    }
