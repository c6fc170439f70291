"""A calibration for a terminal, for a program, and for a reader: a table, CALIBRATION.json and a page beside it."""

import json
from pathlib import Path
from typing import Any

from spacy_gemel.evaluation.pages import templates
from spacy_gemel.utils.files import write_whole

_COLUMNS = {"before": "before", "after": "after", "cross_fitted": "cross-fitted"}
_ROWS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("calibration error (ECE)", ("ece",)),
    ("linking F1", ("linking", "f")),
    ("linking precision", ("linking", "p")),
    ("linking recall", ("linking", "r")),
    ("NIL F1", ("nil", "f")),
    ("NIL precision", ("nil", "p")),
    ("NIL recall", ("nil", "r")),
    ("accuracy, NIL left out", ("accuracy",)),
    ("accuracy with NIL", ("accuracy_with_nil",)),
)


def table(calibration: dict[str, Any]) -> str:
    """What a calibration's JSON says, in a few lines of text; figures in percent."""
    counts = calibration["mentions"]
    lines = [
        f"{counts['entity']} mentions with an entity, {counts['nil']} NIL; not used: {counts['not_in_kb']} golds "
        f"outside the knowledge base, {counts['unannotated']} without a gold, {counts['not_found']} not found",
        _change(calibration, "temperature") + ", " + _change(calibration, "threshold"),
        "",
        " " * 24 + "".join(f"{title:>14}" for title in _COLUMNS.values()),
    ]
    for title, values in figures_of(calibration):
        lines.append(f"{title:<24}" + "".join(f"{percent(value):>14}" for value in values))
    lines += ["", f"{'probability':<12}" + "".join(f"{title + ': n, mean, right':>30}" for title in _COLUMNS.values())]
    curves = [calibration[key]["reliability"] if calibration[key] else None for key in _COLUMNS]
    for index, row in enumerate(curves[0] or ()):
        cells = [_cell(curve[index]) if curve else "-" for curve in curves]
        lines.append(f"{row['low']:.1f} to {row['high']:<5.1f}" + "".join(f"{cell:>30}" for cell in cells))
    return "\n".join([*lines, *(["", *calibration["notes"]] if calibration["notes"] else [])])


def write_calibration(calibration: dict[str, Any], output: Path) -> Path:
    """Write CALIBRATION.json and the page CALIBRATION.html beside it, each whole or not at all; returns the page."""
    page = output.with_suffix(".html")
    html = render(calibration)
    with write_whole(page) as partial:
        partial.write_text(html, encoding="utf-8")
    with write_whole(output) as partial:
        partial.write_text(json.dumps(calibration, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return page


def render(calibration: dict[str, Any]) -> str:
    """The page's HTML, with the reliability curves as SVG. It needs nothing beside it."""
    environment = templates()
    environment.filters["percent"] = percent
    curves = []
    for key, title in _COLUMNS.items():
        if found := calibration[key]:
            fullest = max(row["n"] for row in found["reliability"])
            curves.append({"title": title, "figures": found, "fullest": fullest})
    return environment.get_template("calibration.html").render(
        calibration=calibration,
        settings=calibration["settings"],
        columns=list(_COLUMNS.values()),
        rows=figures_of(calibration),
        curves=curves,
    )


def figures_of(calibration: dict[str, Any]) -> list[tuple[str, list[float | None]]]:
    """Each figure's name, and its value before, after and cross-fitted; None where there is none."""
    rows = []
    for title, path in _ROWS:
        values: list[float | None] = []
        for key in _COLUMNS:
            value: Any = calibration[key]
            for step in path:
                value = None if value is None else value[step]
            values.append(value)
        rows.append((title, values))
    return rows


def percent(value: float | None) -> str:
    """0.863 as 86.3; a dash where there is no value."""
    return "–" if value is None else f"{100 * value:.1f}"


def _cell(row: dict[str, Any]) -> str:
    return f"{row['n']} {percent(row['confidence']):>6} {percent(row['accuracy']):>6}"


def _change(calibration: dict[str, Any], name: str) -> str:
    def shown(value: float | None) -> str:
        return "null" if value is None else f"{value:g}"

    return f"{name} {shown(calibration['before'][name])} -> {shown(calibration['after'][name])}"
