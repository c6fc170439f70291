"""What evaluate, calibrate and fit-prior print: their JSON as a few lines of text, figures in percent."""

from functools import reduce
from typing import Any

from spacy_gemel.evaluation.metrics import SUBSETS
from spacy_gemel.evaluation.prior_weight import WAYS
from spacy_gemel.utils.messages import percent

CALIBRATION_COLUMNS = {"before": "before", "after": "after", "cross_fitted": "cross-fitted"}
_SCORES = {"F1": "f", "precision": "p", "recall": "r"}
_CALIBRATION_ROWS: dict[str, tuple[str, ...]] = {
    "calibration error (ECE)": ("ece",),
    **{f"{title} {score}": (title.lower(), key) for title in ("linking", "NIL") for score, key in _SCORES.items()},
    "accuracy without NIL": ("accuracy",),
    "accuracy with NIL": ("accuracy_with_nil",),
}
_WAY_TITLES = {"model": "model alone", "prior": "prior alone", "backoff": "prior, else model", "both": "both"}


def metrics_text(metrics: dict[str, Any]) -> str:
    """METRICS.json: accuracy, its parts and the speed, one per line."""
    tail, nil, unreadable = metrics["tail"], metrics["nil"], metrics["unreadable_image"]
    lines = []
    if unreadable["mentions"]:
        lines.append(
            f"WARNING: the image of {unreadable['mentions']} mentions could not be read. They were linked from the "
            "text alone: they count in all figures but with_image and without_image"
        )
    lines.append(_accuracy("accuracy", metrics))
    lines += [_accuracy(name.replace("_", " "), metrics[name]) for name in (*SUBSETS, "nil")]
    if unreadable["n"]:
        lines.append(_accuracy("unreadable", unreadable))
    if nil["f"] is not None:
        lines.append(f"NIL: precision {percent(nil['p'])}, recall {percent(nil['r'])}, F1 {percent(nil['f'])}")
    lines += [
        f"tail: {tail['entities']} entities counted at most {tail['threshold']} times, "
        f"{100 * tail['share_held']:.1f} % of all counts (requested: {100 * tail['share']:g} %)",
        f"not scored: {metrics['not_in_kb']['n']} gold ids outside the KB, "
        f"{metrics['unannotated']['n']} mentions without a gold",
    ]
    if "mention_recall" in metrics:
        lines.append(f"mention recall {percent(metrics['mention_recall'])}")
        lines.append(_accuracy("end to end", metrics["end_to_end"]))
    if metrics["mentions_per_second"] is not None:
        lines.append(f"{metrics['mentions_per_second']:.1f} mentions per second")
    return "\n".join(lines)


def _accuracy(name: str, part: dict[str, Any]) -> str:
    interval = "" if part["low"] is None else f"  (95 %: {percent(part['low'])} to {percent(part['high'])})"
    return f"{name:<14}{percent(part['accuracy']):>6}  of {part['n']}{interval}"


def calibration_text(calibration: dict[str, Any]) -> str:
    """CALIBRATION.json: the change, the figures before and after it, and the reliability bins."""
    counts, columns = calibration["mentions"], CALIBRATION_COLUMNS
    before, after = calibration["before"], calibration["after"]
    old, new = ("null" if part["threshold"] is None else f"{part['threshold']:g}" for part in (before, after))
    lines = [
        f"{counts['entity']} mentions with an entity, {counts['nil']} NIL; not used: {counts['not_in_kb']} gold ids "
        f"outside the knowledge base, {counts['unannotated']} without a gold, {counts['not_found']} not found",
        f"temperature {before['temperature']:g} -> {after['temperature']:g}, threshold {old} -> {new}",
        "",
        " " * 24 + "".join(f"{title:>14}" for title in columns.values()),
    ]
    for title, values in calibration_rows(calibration):
        lines.append(f"{title:<24}" + "".join(f"{percent(value):>14}" for value in values))
    lines += ["", f"{'probability':<12}" + "".join(f"{title + ': n, mean, right':>30}" for title in columns.values())]
    curves = [calibration[key]["reliability"] if calibration[key] else None for key in columns]
    for index, row in enumerate(before["reliability"]):
        bins = [curve[index] if curve else None for curve in curves]
        cells = [f"{b['n']} {percent(b['confidence']):>6} {percent(b['accuracy']):>6}" if b else "-" for b in bins]
        lines.append(f"{row['low']:.1f} to {row['high']:<5.1f}" + "".join(f"{cell:>30}" for cell in cells))
    return "\n".join(lines + (["", *calibration["notes"]] if calibration["notes"] else []))


def calibration_rows(calibration: dict[str, Any]) -> list[tuple[str, list[float | None]]]:
    """Each figure's name, and its value before, after and cross-fitted; None if there is none."""

    def value(key: str, path: tuple[str, ...]) -> float | None:
        return reduce(lambda part, step: None if part is None else part[step], path, calibration[key])

    return [(title, [value(key, path) for key in CALIBRATION_COLUMNS]) for title, path in _CALIBRATION_ROWS.items()]


def prior_text(prior: dict[str, Any]) -> str:
    """PRIOR.json: the change, and the cross-validated figures of model, prior and both."""
    lines = [
        f"prior_weight {prior['before']:g} -> {prior['prior_weight']:g}, from {prior['mentions']} mentions in "
        f"{prior['docs']} docs; the prior has evidence for {prior['with_evidence']} of them"
    ]
    if (figures := prior["cross_validated"]) is not None:
        folds = ", ".join(f"{weight:g}" for weight in figures["weights"])
        lines += ["", f"on docs that the weight was not fitted on (weights of the folds: {folds}); 95 % over docs"]
        lines += [f"{_WAY_TITLES[way]:<26}{_interval(figures[way], 'accuracy')}" for way in WAYS]
        gains = {way: _interval(figures[f"both_minus_{way}"], "difference", "+") for way in WAYS[:-1]}
        lines += [f"{'both - ' + _WAY_TITLES[way]:<26}{gain}" for way, gain in gains.items()]
    return "\n".join(lines + (["", *prior["notes"]] if prior["notes"] else []))


def _interval(row: dict[str, float], key: str, sign: str = "") -> str:
    value, low, high = (f"{100 * row[name]:{sign}.1f}" for name in (key, "low", "high"))
    return f"{value:>6}  ({low} to {high})"
