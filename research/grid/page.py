"""The results of a grid as JSON and as Markdown."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

from research.grid.tables import DEV_IS_TEST, FAILED, NOT_RUN
from research.paper import DATA_SETS
from spacy_gemel.evaluation.metrics import SUBSETS
from spacy_gemel.utils.files import write_json, write_whole

NAME = "experiments"
COLUMNS = ("n", "accuracy (95 %)", "difference to the first (95 %)", *(part.replace("_", " ") for part in SUBSETS))
_TAIL_PARTS = ("common", "tail")
_REASONS = {NOT_RUN: "was not run", FAILED: "failed"}


def write_results(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write experiments.md and experiments.json to a folder. Returns their paths."""
    paths = [folder / f"{NAME}.md", folder / f"{NAME}.json"]
    with write_whole(paths[0]) as partial:
        partial.write_text(markdown(results), encoding="utf8")
    write_json(paths[1], results)
    return paths


def markdown(results: Mapping[str, Any]) -> str:
    """Each table under its title."""
    columns = columns_of(results)
    lines = [f"# Experiments: {results['dataset']}", ""]
    for paragraph in about(results):
        lines += [paragraph, ""]
    for table in results["tables"]:
        lines += [f"## {table['title']}", "", table["note"], ""]
        lines += [_joined(["setting", *columns]), "|---" * (len(columns) + 1) + "|"]
        lines += [_joined([row["name"], *cells(row, results)]) for row in table["rows"]]
        lines += ["", reference(table), ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def reference(table: Mapping[str, Any]) -> str:
    """Which row the table's differences are to."""
    rows = table["rows"]
    if table["reference"] is None or not any(row.get("difference") for row in rows):
        return ""
    text = f"ifferences are to the row {table['reference']!r}."
    why = _REASONS.get(rows[0]["status"])
    return f"D{text}" if why is None else f"The first row, {rows[0]['name']!r}, {why}: d{text}"


def about(results: Mapping[str, Any]) -> list[str]:
    """What a reader of the tables must know."""
    several = len(results["seeds"]) > 1
    paragraphs = [
        "Top-1 accuracy in percent over the mentions whose gold entity is in the knowledge base, from "
        f"`{results['config']}` with the changes that a row is about; mapper seed{'s' if several else ''}: "
        f"{', '.join(str(seed) for seed in results['seeds'])}. In brackets the 95 % interval of a bootstrap that "
        f"resamples mentions{' and seeds' if several else ''} (Wilson's where all are right or all wrong), after it "
        f"the number of mentions. {_tail(results)}",
        results["note"],
    ]
    if results["steps"] or results["limit"]:
        steps, docs = results["steps"] or "as configured", results["limit"] or "all"
        paragraphs.append(f"Only a try: training steps {steps}, test docs {docs}.")
    if results["dev_is_test"]:
        paragraphs.append(DEV_IS_TEST)
    if results.get("interrupted"):
        paragraphs.append("Interrupted: the same command continues with what is not run here.")
    if results["dataset"] in DATA_SETS:
        paragraphs.append(
            f"The paper's figure on {results['dataset']} has a column of its own if the row has the paper's models and "
            "settings (except the learning rate, which means nothing in fp32). It is of the paper's own test mentions "
            "and knowledge base. Its figures of common and tail entities are comparable with none: it does not say "
            "which those are."
        )
    else:
        paragraphs.append(
            f'The last column, "paper, {" / ".join(DATA_SETS)}", is of other data and other models. It shows the '
            "direction of an effect; its figures cannot be compared with those beside it."
        )
    return [paragraph for paragraph in paragraphs if paragraph]


def _tail(results: Mapping[str, Any]) -> str:
    share, split = f"{100 * results['tail_share']:g} % of all counts", results["tail"]
    if split.get("counted") == 0:
        return "Common and tail: the knowledge base has no counts, so no entity is either."
    text = f"Tail: the least-counted entities that together hold {share}"
    if split:
        text += (
            f", which are the {split['entities']} counted at most {split['threshold']} times "
            f"({100 * split['share_held']:.1f} %)"
        )
    return text + "; common: those counted more often. Entities that were never counted are neither."


def columns_of(results: Mapping[str, Any]) -> list[str]:
    """The columns after the setting's."""
    paper = f"paper, {' / '.join(DATA_SETS)}"
    if results["dataset"] in DATA_SETS:
        return [*COLUMNS, f"paper, {results['dataset']}, same setting", f"{paper}, other setting"]
    return [*COLUMNS, f"{paper} (not comparable)"]


def cells(row: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    """One text per column."""
    empty = [""] * (len(COLUMNS) - 2)
    if row["status"] in (NOT_RUN, FAILED):
        reason = f" ({shorten(row['reason'], 160, placeholder=' ...')})" if row["reason"] else ""
        figures = ["", f"{row['status']}{reason}", *empty]
    elif not row["n"]:
        no_counts = row["part"] in _TAIL_PARTS and results["tail"].get("counted") == 0
        figures = ["0", "the knowledge base has no counts" if no_counts else "no such mention", *empty]
    else:
        figures = [str(row["n"]), _interval(row), _difference(row.get("difference"))]
        by_kind = (row["parts"][name] for name in SUBSETS)
        figures += [f"{_interval(part)}, {part['n']}" if part["n"] else "–" for part in by_kind]
    return figures + _paper(row, results["dataset"])


def _paper(row: Mapping[str, Any], dataset: str) -> list[str]:
    paper = row["paper"]
    both = "" if paper is None else " / ".join(f"{paper[name]:.1f}" for name in DATA_SETS)
    if dataset not in DATA_SETS:
        return [both]
    if paper is not None and paper["same_setting"]:
        return [f"{paper[dataset]:.1f}", ""]
    return ["", f"{both} (not comparable)" if both and row["part"] in _TAIL_PARTS else both]


def _interval(figure: Mapping[str, Any]) -> str:
    accuracy, low, high = (f"{100 * figure[key]:.1f}" for key in ("accuracy", "low", "high"))
    return f"{accuracy} ({low} to {high})"


def _difference(values: Sequence[float] | None) -> str:
    if values is None:
        return ""
    difference, low, high = (f"{100 * value:+.1f}" for value in values)
    return f"{difference} ({low} to {high})"


def _joined(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"
