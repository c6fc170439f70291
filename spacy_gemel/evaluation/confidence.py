"""How sure a linker was of its best candidates, at any temperature, and how right it was.

The search is not run again for another temperature: a candidate's score is all that is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.evaluation.precision import precision_recall_f
from spacy_gemel.evaluation.results import MentionResult
from spacy_gemel.kb.resolve import NIL

BINS = 10
_EDGE = 1e-6  # a probability of 0 or 1 that is wrong costs as much as one so near to it, not everything

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Cases:
    """Linked mentions as arrays, one row each.

    scores: (n, names), of the names found, the best candidate's first, -inf where there are fewer. share: (n,), of the
    best candidate among the entities of its name. linked: (n,), whether the best candidate is an entity: False where
    there is none, or where a free search said a name that no entity has; such a mention is NIL at any threshold.
    right: (n,), whether it is the gold entity. nil: (n,), whether the gold is NIL. docs: (n,), what doc each is of.
    """

    scores: FloatArray
    share: FloatArray
    linked: BoolArray
    right: BoolArray
    nil: BoolArray
    docs: list[str]

    def __len__(self) -> int:
        return len(self.docs)

    def where(self, keep: BoolArray) -> "Cases":
        """Some of them. keep: (n,)."""
        docs = [doc for doc, kept in zip(self.docs, keep, strict=True) if kept]
        return Cases(self.scores[keep], self.share[keep], self.linked[keep], self.right[keep], self.nil[keep], docs)


@dataclass(frozen=True, slots=True)
class Counts:
    """The mentions that are used, and those that are not.

    entity, nil: by their gold. not_in_kb: the gold is not in the knowledge base, and is not to count as NIL.
    unannotated: without a gold. not_found: that the pipeline's NER did not find.
    """

    entity: int
    nil: int
    not_in_kb: int
    unannotated: int
    not_found: int


def cases_of(results: Sequence[MentionResult], *, missing_as_nil: bool = False) -> tuple[Cases, Counts]:
    """What calibration needs of evaluated mentions. missing_as_nil: a gold outside the knowledge base is NIL."""
    used, golds = [], []
    not_in_kb = unannotated = not_found = 0
    for result in results:
        outside = not result.in_kb and result.gold != NIL
        if not result.gold:
            unannotated += 1
        elif result.predicted is None:
            not_found += 1
        elif outside and not missing_as_nil:
            not_in_kb += 1
        else:
            used.append(result)
            golds.append(NIL if outside else result.gold)
    names = [_names(result.candidates) for result in used]
    scores = np.full((len(used), max(map(len, names), default=1) or 1), -np.inf)
    share = np.ones(len(used))
    linked, right = np.zeros(len(used), dtype=bool), np.zeros(len(used), dtype=bool)
    for index, (result, found, gold) in enumerate(zip(used, names, golds, strict=True)):
        if not found:
            continue
        scores[index, : len(found)] = [score for score, _ in found]
        best = result.candidates[0]
        total = sum(found[0][1])
        share[index] = best["probability"] / total if total else 1 / len(found[0][1])
        linked[index] = best["kb_id"] != NIL
        right[index] = best["kb_id"] == gold != NIL
    nil = np.array([gold == NIL for gold in golds], dtype=bool)
    cases = Cases(scores, share, linked, right, nil, [result.doc for result in used])
    counts = Counts(int((~nil).sum()), int(nil.sum()), not_in_kb, unannotated, not_found)
    return cases, counts


def _names(candidates: Sequence[dict[str, Any]]) -> list[tuple[float, list[float]]]:
    """The score of each name, and the probabilities of its entities: those of one name stand together."""
    return [
        (score, [candidate["probability"] for candidate in bearers])
        for (_, score), bearers in groupby(candidates, lambda candidate: (candidate["name"], candidate["score"]))
    ]


def confidence(cases: Cases, temperature: float) -> FloatArray:
    """(n,): the best candidate's probability, as `candidates.to_candidates` has it; 0 where none is an entity."""
    right, _ = _log_probabilities(cases, temperature)
    return np.where(cases.linked, np.exp(right), 0.0)


def log_loss(cases: Cases, temperature: float) -> float:
    """Mean surprise, in nats, at the best candidates' being right or wrong; 0 where no mention has one.

    A probability nearer than 1e-6 to 0 or 1 counts as that near.
    """
    if not cases.linked.any():
        return 0.0
    right, wrong = _log_probabilities(cases, temperature)
    said = np.where(cases.right, right, wrong)[cases.linked]
    return float(-np.clip(said, np.log(_EDGE), np.log1p(-_EDGE)).mean())


def _log_probabilities(cases: Cases, temperature: float) -> tuple[FloatArray, FloatArray]:
    """(n,) each: the logarithms of the best candidate's probability and of all others' together, exact near 1."""
    scores = np.where(cases.linked[:, None], cases.scores, 0.0) / temperature
    total = np.logaddexp.reduce(scores, axis=1)
    others = np.logaddexp.reduce(scores[:, 1:], axis=1, initial=-np.inf)
    with np.errstate(divide="ignore"):  # of a name that no other entity shares nothing is left
        sharers = scores[:, 0] + np.log1p(-np.minimum(cases.share, 1.0))
        return scores[:, 0] + np.log(cases.share) - total, np.logaddexp(sharers, others) - total


def reliability(confidences: FloatArray, right: BoolArray) -> list[dict[str, Any]]:
    """BINS of equal width, the upper end of each within: {"low", "high", "n", "confidence", "accuracy"}; the means are
    None in an empty one. confidences, right: (n,). A reliability diagram's (Guo et al. 2017).
    """
    indices = np.clip(np.ceil(confidences * BINS) - 1, 0, BINS - 1).astype(int)
    rows = []
    for index in range(BINS):
        inside = indices == index
        n = int(inside.sum())
        rows.append(
            {
                "low": index / BINS,
                "high": (index + 1) / BINS,
                "n": n,
                "confidence": float(confidences[inside].mean()) if n else None,
                "accuracy": float(right[inside].mean()) if n else None,
            }
        )
    return rows


def expected_calibration_error(bins: Sequence[dict[str, Any]]) -> float | None:
    """How far confidence and accuracy lie apart in a bin, on the average of the mentions (Guo et al. 2017); None for
    no mention.
    """
    total = sum(row["n"] for row in bins)
    away = sum(row["n"] * abs(row["confidence"] - row["accuracy"]) for row in bins if row["n"])
    return away / total if total else None


def figures(cases: Cases, confidences: FloatArray, accepted: BoolArray) -> dict[str, Any]:
    """What is said of one way to decide. confidences: (n,), of the best candidates; accepted: (n,), not made NIL.

    ece and reliability: over the mentions whose best candidate is an entity, before any is made NIL; it is right if it
    is the gold, so with a gold of NIL it is wrong. linking: as nel_micro_p/r/f, an entity for NIL counts against p, NIL
    for an entity against r, NIL for NIL for nothing. nil: of the answer NIL. accuracy: over the golds that are
    entities; accuracy_with_nil: over all.
    """
    links = accepted & cases.linked
    hits = int((links & cases.right).sum())
    entities = int((~cases.nil).sum())
    answered_nil, hits_nil = int((~links).sum()), int((~links & cases.nil).sum())
    nils = len(cases) - entities
    bins = reliability(confidences[cases.linked], cases.right[cases.linked])
    return {
        "ece": expected_calibration_error(bins),
        "linking": precision_recall_f(hits, int(links.sum()) - hits, entities - hits),
        "nil": {"n": nils, **precision_recall_f(hits_nil, answered_nil - hits_nil, nils - hits_nil)},
        "accuracy": hits / entities if entities else None,
        "accuracy_with_nil": (hits + hits_nil) / len(cases) if len(cases) else None,
        "reliability": bins,
    }
