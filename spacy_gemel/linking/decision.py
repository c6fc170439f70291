"""The decision: a conditional logit over a mention's candidates and NIL (McFadden 1974), its weights a table.

P(c | m) = exp(w . f(m, c)) / (sum over candidates c' of exp(w . f(m, c')) + exp(nil)). With the score as the only
feature it is the softmax of the scores at a temperature of 1 / w.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.utils.files import to_json

FloatArray = NDArray[np.float64]

RIDGE = 1.0
"""Of the weights of standardised features. Not tuned on data."""
NAME_SHARE = "name_share"
"""The column whose weight is not fitted but 1: see `NameShareFeature`."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The weights of features, in their own units, and the utility of NIL.

    Attributes:
        weights: By the features' columns. One that is not computed counts as 0.
        nil: None if no mention without an entity was fitted on: then NIL is no alternative.
        scales: The standard deviation of each column within a mention, when it was fitted: weight * scale tells how
            much a feature moves the decision.
    """

    weights: Mapping[str, float]
    nil: float | None = None
    scales: Mapping[str, float] = field(default_factory=dict)

    def utilities(self, values: FloatArray, columns: Sequence[str]) -> FloatArray:
        """The weighted sum of each candidate's features, (candidates,), from (candidates, columns)."""
        return values @ np.array([self.weights.get(name, 0.0) for name in columns])

    def probabilities(self, utilities: FloatArray) -> tuple[FloatArray, float]:
        """Of the candidates, (candidates,), and of NIL."""
        every = np.append(utilities, -np.inf if self.nil is None else self.nil)
        if not len(utilities):
            return utilities, 1.0
        weights = np.exp(every - every.max())
        weights /= weights.sum()
        return weights[:-1], float(weights[-1])

    def to_json(self) -> bytes:
        """As a file that a person can read."""
        return to_json(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> "Decision":
        """What `to_json` gave. Raises ValueError, TypeError, KeyError or AttributeError for anything else."""
        content: dict[str, Any] = json.loads(data)
        tables = [{str(k): float(v) for k, v in content[name].items()} for name in ("weights", "scales")]
        nil = content["nil"]
        numbers = [*tables[0].values(), *tables[1].values(), 0.0 if nil is None else float(nil)]
        if not np.isfinite(numbers).all():
            raise ValueError("a weight is not a finite number")
        return cls(tables[0], None if nil is None else float(nil), tables[1])


NIL_INDEX = -1


def fit_decision(
    values: Sequence[FloatArray], gold: Sequence[int | None], columns: Sequence[str], ridge: float = RIDGE
) -> Decision:
    """Fit by maximum likelihood with a ridge on the weights of standardised features.

    Args:
        values: Of each mention, (candidates, columns).
        gold: The index of each mention's gold among its candidates, NIL_INDEX for NIL, None if it is not among them: no
            weights could make such a mention right, so it has no part in the fit.
        columns: The features' names.
        ridge: The strength of the ridge.

    Raises:
        ValueError: if no mention can be fitted on.
    """
    from scipy.optimize import minimize

    pairs = [(rows, index) for rows, index in zip(values, gold, strict=True) if index is not None and len(rows)]
    if not any(index >= 0 for _, index in pairs):
        raise ValueError("no mention has its gold entity among its candidates, so there is nothing to fit on")
    has_nil = any(index == NIL_INDEX for _, index in pairs)
    widest = max(len(rows) for rows, _ in pairs)
    padded = np.zeros((len(pairs), widest + 1, len(columns) + 1))  # the last candidate is NIL, the last column its bias
    valid = np.zeros(padded.shape[:2], dtype=bool)
    for number, (rows, _) in enumerate(pairs):
        padded[number, : len(rows), :-1], valid[number, : len(rows)] = rows, True
    if has_nil:
        padded[:, -1, -1], valid[:, -1] = 1.0, True
    targets = np.array([widest if index == NIL_INDEX else index for _, index in pairs])
    # What all candidates of a mention share tells none from another, only candidates from NIL.
    within = np.concatenate([rows - rows.mean(0) for rows, _ in pairs]).std(0)
    overall = np.concatenate([rows for rows, _ in pairs]).std(0) if has_nil else within
    deviation = np.where(within > 1e-9, within, overall)
    useless = deviation <= 1e-9
    scales = np.append(np.where(useless, 1.0, deviation), 1.0)
    scaled = padded / scales
    penalty = np.append(np.full(len(columns), ridge), 0.0 if has_nil else ridge)
    numbers = np.arange(len(pairs))

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        utilities = np.where(valid, scaled @ weights, -np.inf)
        top = utilities.max(1, keepdims=True)
        shares = np.exp(utilities - top)
        totals = shares.sum(1, keepdims=True)
        value = (np.log(totals) + top)[:, 0].sum() - utilities[numbers, targets].sum()
        residual = shares / totals
        residual[numbers, targets] -= 1.0
        gradient = np.einsum("mc,mck->k", residual, scaled)
        return value + 0.5 * (penalty * weights**2).sum(), gradient + penalty * weights

    fixed = [float(scale) if name == NAME_SHARE else None for name, scale in zip([*columns, ""], scales, strict=True)]
    start = np.array([value or 0.0 for value in fixed])
    options = {"method": "L-BFGS-B", "bounds": [(value, value) for value in fixed], "options": {"maxiter": 1000}}
    fitted = minimize(loss, start, jac=True, **options).x / scales
    unused = useless & (np.array(columns) != NAME_SHARE)
    weights = {name: 0.0 if none else float(w) for name, w, none in zip(columns, fitted, unused, strict=False)}
    named_scales = {name: float(scale) for name, scale in zip(columns, scales, strict=False)}
    return Decision(weights, float(fitted[-1]) if has_nil else None, named_scales)
