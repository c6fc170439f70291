"""What fitting the prior's weight found: for a program, and for a terminal."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_gemel.evaluation.prior_weight import GRID, SEED, WAYS, PriorCase, cross_validate, curve, fit_weight
from spacy_gemel.linking.prior import ALIAS, FLOOR, MAX_KNOWN, SURFACE, UNKNOWN
from spacy_gemel.utils.files import write_whole

if TYPE_CHECKING:
    from spacy_gemel.linking.settings import LinkerSettings

# Of the mentions: a few captions are the same in any two parts of a data set.
_FEW_DEMONSTRATIONS = 0.05
_TITLES = {"model": "model alone", "prior": "prior alone", "backoff": "prior, else model", "both": "both"}


def fitted(cases: Sequence[PriorCase], settings: "LinkerSettings", *, folds: int) -> dict[str, Any]:
    """The weight fitted on all cases, the cross-validated figures, and what else a reader must know.

    settings: of the pipe that gave the cases. Raises ValueError for no cases.
    """
    weight = fit_weight(cases)
    notes = []
    shown = sum(case.shown for case in cases)
    if shown > _FEW_DEMONSTRATIONS * len(cases):
        notes.append(
            f"{shown} of the {len(cases)} mentions stand, in the same text, among the pipe's demonstrations, as those "
            "of training data do: the prior has counted what they mean, so its weight may be too large and the figures "
            "too good. Fit it on dev data."
        )
    unreadable = sum(case.unreadable_image for case in cases)
    if unreadable:
        notes.append(
            f"The image of {unreadable} of the {len(cases)} mentions could not be read. They count, in the figures "
            "and in the weight, with what was linked from their text alone."
        )
    docs = len({case.doc for case in cases})
    crossed = cross_validate(cases, folds=folds).to_json() if docs > 1 else None
    if crossed is None:
        notes.append("One doc alone: nothing can be held out, so there are no cross-validated figures.")
    if weight == max(GRID):
        notes.append(f"The best weight lies at {weight:g}, where the grid ends: the prior decides nearly alone.")
    changed = weight != settings.prior_weight
    if changed and (settings.threshold is not None or settings.temperature != 1):
        notes.append(
            "Temperature and threshold are for the scores of another prior_weight: run calibrate on the new pipeline."
        )
    with_evidence = sum(case.has_evidence() for case in cases)
    return {
        "prior_weight": weight,
        "before": settings.prior_weight,
        "mentions": len(cases),
        "docs": docs,
        "with_evidence": with_evidence,
        "demonstrations": shown,
        "unreadable_image": unreadable,
        "cross_validated": crossed,
        "on_all": curve(cases),
        "constants": {
            "surface": SURFACE,
            "alias": ALIAS,
            "unknown": UNKNOWN,
            "floor": FLOOR,
            "known": MAX_KNOWN,
            "seed": SEED,
        },
        "notes": notes,
    }


def table(found: dict[str, Any]) -> str:
    """What was found in a few lines of text; figures in percent."""
    lines = [
        f"prior_weight {found['before']:g} -> {found['prior_weight']:g}, from {found['mentions']} mentions in "
        f"{found['docs']} docs; of {found['with_evidence']} the prior knows something"
    ]
    crossed = found["cross_validated"]
    if crossed is not None:
        folds = ", ".join(f"{weight:g}" for weight in crossed["weights"])
        lines += [
            "",
            f"on docs that the weight was not fitted on (weights of the folds: {folds}); 95 %, docs resampled",
        ]
        lines += [f"{_TITLES[way]:<26}{_interval(crossed[way], 'accuracy')}" for way in WAYS]
        for way in WAYS[:-1]:
            lines.append(f"{'both - ' + _TITLES[way]:<26}{_interval(crossed[f'both_minus_{way}'], 'difference', '+')}")
    return "\n".join([*lines, *(["", *found["notes"]] if found["notes"] else [])])


def write_report(found: dict[str, Any], path: Path) -> None:
    """Write it as JSON, whole or not at all. Raises OSError."""
    with write_whole(path) as partial:
        partial.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _interval(row: dict[str, float], key: str, sign: str = "") -> str:
    value, low, high = (f"{100 * row[name]:{sign}.1f}" for name in (key, "low", "high"))
    return f"{value:>6}  ({low} to {high})"
