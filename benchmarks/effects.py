"""The paper's effects: from what each setting got right to whether the effect is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from research.paper import REPORTED
from research.statistics import BoolArray, Outcomes, Term, outcomes, seeds_and_mentions_interval

__all__ = ["Evidence", "Outcomes", "effects", "figures", "line_up", "markdown", "outcomes"]

PAPER: dict[str, tuple[float, float]] = {
    name: REPORTED["no-demonstrations" if name == "none" else name].figures
    for name in ("full", "no-image", "none", "random", "bm25", "common", "tail")
}
"""The paper's accuracies, WikiDiverse and WikiMEL. common, tail: of the full setting."""

ABOVE = "low end above 0"
NOT_BELOW = "low end not below -1 point"
ENOUGH = "the estimate, not its low end, is at least 0"


@dataclass(frozen=True, slots=True)
class Evidence:
    """All evaluations on the same mentions.

    correct: setting -> (seeds, mentions), one row where no seed plays a part. parts: common, tail, seen, unseen ->
    (mentions,).
    """

    correct: dict[str, BoolArray]
    parts: dict[str, BoolArray]


def line_up(runs: Mapping[str, Sequence[Outcomes]]) -> Evidence:
    """Put the evaluations of each setting, one per seed, side by side.

    Raises ValueError where two of them are not of the same mentions in the same order.
    """
    every = [(setting, run) for setting, seeds in runs.items() for run in seeds]
    first_setting, first = every[0]
    for setting, run in every:
        if run.mentions != first.mentions:
            raise ValueError(f"{setting} and {first_setting} were not evaluated on the same mentions")
    parts = {"common": first.common, "tail": first.tail, "seen": first.seen, "unseen": ~first.seen}
    return Evidence({setting: np.stack([run.correct for run in seeds]) for setting, seeds in runs.items()}, parts)


def effects(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """One row per effect.

    difference, low, high: from -1 to 1, None where there is no mention to take them from; holds, by `rule`, where the
    low end is the interval's; paper: the paper's figure for the same effect, in points, and `paper_note` where it is
    not quite that.
    """
    common, tail = evidence.parts["common"], evidence.parts["tail"]

    def minus(first: str, second: str) -> list[Term]:
        return [Term(evidence.correct[first]), Term(evidence.correct[second], sign=-1)]

    def gap(setting: str, sign: int = 1) -> list[Term]:
        correct = evidence.correct[setting]
        return [Term(correct, common, sign), Term(correct, tail, -sign)]

    full = evidence.correct["full"]
    with_image = "with the image; not reported for the text alone"
    return {
        "image": _row("image: full over without it", minus("full", "no-image"), _paper("full", "no-image")),
        "demonstrations": _row("demonstrations: full over none", minus("full", "none"), _paper("full", "none")),
        "dense_over_random": _row("dense over random", minus("full", "random"), _paper("full", "random")),
        "random_over_none": _row("random over none", minus("random", "none"), _paper("random", "none")),
        "dense_near_bm25": _row(
            "dense not a point below BM25", minus("full", "bm25"), _paper("full", "bm25"), rule=NOT_BELOW
        ),
        "constrained": _row("constrained over unconstrained", minus("full", "unconstrained"), None),
        "text_only_common_over_tail": _row(
            "text only: common over tail", gap("no-image"), _paper("common", "tail"), note=with_image
        ),
        "image_closes_gap": _row(
            "image closes part of that gap", gap("no-image") + gap("full", -1), None, note="not reported in those terms"
        ),
        "accuracy": _row(
            "full at least 90 %: what it is above that",
            [Term(full)],
            PAPER["full"],
            rule=ENOUGH,
            offset=-0.9,
            note="the accuracy itself",
        ),
    }


def _row(
    effect: str,
    terms: list[Term],
    paper: tuple[float, float] | None,
    *,
    rule: str = ABOVE,
    offset: float = 0.0,
    note: str = "",
) -> dict[str, Any]:
    interval = seeds_and_mentions_interval(terms)
    difference, low, high = (None, None, None) if interval is None else (value + offset for value in interval)
    row = {
        "effect": effect,
        "difference": difference,
        "low": low,
        "high": high,
        "rule": rule,
        "holds": _holds(rule, difference, low),
        "paper": None if paper is None else {"WikiDiverse": paper[0], "WikiMEL": paper[1]},
    }
    if note or paper is None:
        row["paper_note"] = note or "not reported"
    return row


def _holds(rule: str, difference: float | None, low: float | None) -> bool:
    if difference is None or low is None:
        return False
    # the tolerance keeps the rounding of 0.9 and of means from deciding
    return {ABOVE: low > 1e-9, NOT_BELOW: low >= -0.01 - 1e-9, ENOUGH: difference >= -1e-9}[rule]


def _paper(first: str, second: str) -> tuple[float, float]:
    wikidiverse, wikimel = (round(a - b, 1) for a, b in zip(PAPER[first], PAPER[second], strict=True))
    return wikidiverse, wikimel


def figures(evidence: Evidence, setting: str, mentions_per_second: Sequence[float]) -> dict[str, Any]:
    """A setting's accuracy over seeds and mentions with its interval, and what it is made of."""
    correct = evidence.correct[setting]
    accuracy, low, high = seeds_and_mentions_interval([Term(correct)]) or (None, None, None)
    return {
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "n": correct.shape[1],
        "per_seed": [float(row.mean()) for row in correct],
        "parts": {
            part: {"n": int(keep.sum()), "accuracy": float(correct[:, keep].mean()) if keep.any() else None}
            for part, keep in evidence.parts.items()
        },
        "mentions_per_second": sum(mentions_per_second) / len(mentions_per_second),
    }


def markdown(rows: Mapping[str, Mapping[str, Any]], gates: Sequence[Mapping[str, Any]] = ()) -> str:
    """The effects as a table, in points, and under it the gates that the language model was held against."""
    lines = [
        "| effect | here, points (95 % interval) | holds if | holds | paper, WikiDiverse / WikiMEL |",
        "|---|---|---|---|---|",
    ]
    for row in rows.values():
        here = "no mention"
        if row["difference"] is not None:
            difference, low, high = (f"{100 * row[key]:+.1f}" for key in ("difference", "low", "high"))
            here = f"{difference} ({low} to {high})"
        paper, note = row["paper"], row.get("paper_note", "")
        message = note
        if paper is not None:
            sign = "" if row["rule"] == ENOUGH else "+"
            message = " / ".join(f"{paper[name]:{sign}.1f}" for name in ("WikiDiverse", "WikiMEL"))
            message += f" ({note})" if note else ""
        lines.append(f"| {row['effect']} | {here} | {row['rule']} | {_yes(row)} | {message} |")
    if gates:
        lines += ["", "| gate of the language model | accuracy (prompts) | holds if | holds |", "|---|---|---|---|"]
        lines += [
            f"| {gate['name']} | {gate['accuracy']:.3f} ({gate['n']}) | {gate['rule']} | {_yes(gate)} |"
            for gate in gates
        ]
    return "\n".join(lines) + "\n"


def _yes(row: Mapping[str, Any]) -> str:
    return "yes" if row["holds"] else "no"
