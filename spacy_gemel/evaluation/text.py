"""What evaluate and fit-decision print: their JSON as a few lines of text, figures in percent."""

from functools import reduce
from typing import Any

from spacy_gemel.evaluation.metrics import SUBSETS
from spacy_gemel.utils.messages import percent

DECISION_COLUMNS = {"before": "before", "after": "cross-fitted"}
_SCORES = {"F1": "f", "precision": "p", "recall": "r"}
_DECISION_ROWS: dict[str, tuple[str, ...]] = {
    "accuracy": ("entities", "accuracy"),
    **{f"  {name}": (name, "accuracy") for name in ("seen", "unseen", "described", "undescribed")},
    "calibration error (ECE)": ("ece",),
    **{f"{title} {score}": (title.lower(), key) for title in ("linking", "NIL") for score, key in _SCORES.items()},
    "accuracy, NIL included": ("accuracy_with_nil",),
}


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


def decision_text(decision: dict[str, Any]) -> str:
    """DECISION.json: the weights, what each feature is worth, and the figures before and after."""
    counts, table = decision["mentions"], decision["decision"]
    lines = [
        f"{counts['n']} mentions in {counts['docs']} docs, {counts['nil']} of them NIL; the gold entity is among the "
        f"candidates of {percent(decision['candidate_recall'])} %",
        "",
        f"{'feature':<24}{'weight':>10}{'x deviation':>14}",
    ]
    for name, weight in table["weights"].items():
        lines.append(f"{name:<24}{weight:>10.3f}{weight * table['scales'][name]:>14.2f}")
    lines += [f"{'NIL':<24}{table['nil']:>10.3f}"] if table["nil"] is not None else []
    if decision["worth"]:
        lines += ["", "what is lost without it, in points, on docs that were not fitted on; 95 % over docs"]
        lines += [f"{name:<24}{_interval(row, 'difference', '+')}" for name, row in decision["worth"].items()]
    columns = {key: title for key, title in DECISION_COLUMNS.items() if decision[key]}
    lines += ["", " " * 24 + "".join(f"{title:>14}" for title in columns.values())]
    for title, values in decision_rows(decision):
        lines.append(f"{title:<24}" + "".join(f"{percent(value):>14}" for value in values))
    if decision["after"]:
        lines.append(f"{'after - before':<24}{_interval(decision['after_minus_before'], 'difference', '+')}")
    lines += ["", f"{'probability':<12}" + "".join(f"{title + ': n, mean, right':>30}" for title in columns.values())]
    for bins in zip(*(decision[key]["reliability"] for key in columns), strict=True):
        cells = [f"{b['n']} {percent(b['confidence']):>6} {percent(b['accuracy']):>6}" for b in bins]
        lines.append(f"{bins[0]['low']:.1f} to {bins[0]['high']:<5.1f}" + "".join(f"{cell:>30}" for cell in cells))
    return "\n".join(lines + (["", *decision["notes"]] if decision["notes"] else []))


def decision_rows(decision: dict[str, Any]) -> list[tuple[str, list[float | None]]]:
    """Each figure's name, and its value before and cross-fitted, if there are such figures."""

    def value(key: str, path: tuple[str, ...]) -> float | None:
        return reduce(lambda part, step: part[step], path, decision[key])

    keys = [key for key in DECISION_COLUMNS if decision[key]]
    return [(title, [value(key, path) for key in keys]) for title, path in _DECISION_ROWS.items()]


def _interval(row: dict[str, float], key: str, sign: str = "") -> str:
    value, low, high = (f"{100 * row[name]:{sign}.1f}" for name in (key, "low", "high"))
    return f"{value:>6}  ({low} to {high})"
