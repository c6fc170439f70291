"""The numbers of METRICS.json as a few lines for a terminal."""

from typing import Any


def summary(metrics: dict[str, Any]) -> str:
    """Accuracy, its parts and the speed, one per line."""
    tail = metrics["tail"]
    lines = []
    unreadable = metrics["unreadable_image"]
    if unreadable["mentions"]:
        lines.append(
            f"WARNING: the image of {unreadable['mentions']} mentions could not be read. They were linked from the "
            "text alone: they count in all figures but with_image and without_image"
        )
    lines.append(_line("accuracy", metrics))
    lines += [
        _line(name.replace("_", " "), metrics[name])
        for name in ("common", "tail", "seen", "unseen", "with_image", "without_image", "nil")
    ]
    if unreadable["n"]:
        lines.append(_line("unreadable", unreadable))
    nil = metrics["nil"]
    if nil["f"] is not None:
        lines.append(f"NIL: precision {_percent(nil['p'])}, recall {_percent(nil['r'])}, F1 {_percent(nil['f'])}")
    lines.append(
        f"tail: {tail['entities']} entities counted at most {tail['threshold']} times, "
        f"{100 * tail['share_held']:.1f} % of all counts (asked for: {100 * tail['share']:g} %)"
    )
    lines.append(
        f"not scored: {metrics['not_in_kb']['n']} golds outside the KB, "
        f"{metrics['unannotated']['n']} mentions without a gold"
    )
    if "mention_recall" in metrics:
        lines.append(f"mention recall {_percent(metrics['mention_recall'])}")
        lines.append(_line("end to end", metrics["end_to_end"]))
    if metrics["mentions_per_second"] is not None:
        lines.append(f"{metrics['mentions_per_second']:.1f} mentions per second")
    return "\n".join(lines)


def _line(name: str, part: dict[str, Any]) -> str:
    interval = ""
    if part["low"] is not None:
        interval = f"  (95 %: {_percent(part['low'])} to {_percent(part['high'])})"
    return f"{name:<14}{_percent(part['accuracy']):>6}  of {part['n']}{interval}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
