"""The results as JSON, as Markdown and as one HTML page, each written whole."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.grid.tables import FAILED, NOT_RUN
from research.paper import DATA_SETS
from spacy_gemel.evaluation.metrics import PARTS
from spacy_gemel.evaluation.report import templates
from spacy_gemel.utils.files import write_whole

if TYPE_CHECKING:
    from markupsafe import Markup

NAME = "experiments"
COLUMNS = ("n", "accuracy (95 %)", "difference to the first (95 %)", *(part.replace("_", " ") for part in PARTS))
_DASH = "–"
_TAIL_PARTS = ("common", "tail")
DEV_IS_TEST = (
    "The dev docs are the test docs: checkpoints, and entity_linker's epoch, are chosen on the mentions that these "
    "figures are over, which are too high by that. Give dev docs of their own, such as some of the training's."
)
_WHY = {NOT_RUN: "was not run", FAILED: "failed"}


def write_results(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write experiments.md, .html and .json to a folder; their paths. Raises OSError where one cannot be written."""
    contents = {"md": markdown(results), "html": html(results), "json": json.dumps(results, indent=2) + "\n"}
    paths = []
    for ending, content in contents.items():
        path = folder / f"{NAME}.{ending}"
        with write_whole(path) as partial:
            partial.write_text(content, encoding="utf8")
        paths.append(path)
    return paths


def markdown(results: Mapping[str, Any]) -> str:
    """Each table under its title."""
    lines = [f"# Experiments: {results['dataset']}", ""]
    for paragraph in about(results):
        lines += [paragraph, ""]
    for table in results["tables"]:
        lines += [f"## {table['title']}", ""]
        lines += [table["note"], ""] if table["note"] else []
        columns = columns_of(results)
        lines += [_joined(["setting", *columns]), "|---" * (len(columns) + 1) + "|"]
        lines += [_joined([row["name"], *cells(row, results)]) for row in table["rows"]]
        lines += ["", *([below] if (below := reference(table)) else []), ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def html(results: Mapping[str, Any]) -> str:
    """The same as a page that needs nothing beside it. All text is escaped by the template."""
    template = templates("research", "grid").get_template("experiments.html")
    return template.render(
        results=results,
        about=[inline(paragraph) for paragraph in about(results)],
        notes={table["id"]: inline(table["note"]) for table in results["tables"]},
        below={table["id"]: reference(table) for table in results["tables"]},
        columns=columns_of(results),
        rows={
            table["id"]: [[row["name"], *cells(row, results)] for row in table["rows"]] for table in results["tables"]
        },
    )


def inline(text: str) -> "Markup":
    """Words of the Markdown page for the HTML one: `code` and [links](address); all else is escaped."""
    from markupsafe import Markup, escape

    made = str(escape(text))
    made = re.sub(r"`([^`]+)`", r"<code>\1</code>", made)
    made = re.sub(r"\[([^\]]+)\]\(([^\s()]+)\)", _link, made)
    return Markup(made)  # escaped above


def _link(found: re.Match[str]) -> str:
    """A link as HTML: to the web or to a file; what has another scheme, such as a script, stays as it is written."""
    words, address = found.groups()
    if ":" in address and not address.startswith(("http://", "https://")):
        return found[0]
    return f'<a href="{address}">{words}</a>'


def reference(table: Mapping[str, Any]) -> str:
    """Which row the table's differences are to."""
    rows = table["rows"]
    if table["reference"] is None or not any(row.get("difference") for row in rows):
        return ""
    first = rows[0]
    message = f"ifferences are to the row {table['reference']!r}."
    why = _WHY.get(first["status"])
    return f"D{message}" if why is None else f"The first row, {first['name']!r}, {why}: d{message}"


def about(results: Mapping[str, Any]) -> list[str]:
    """What a reader of the tables must know."""
    seeds = ", ".join(str(seed) for seed in results["seeds"])
    several = len(results["seeds"]) > 1
    message = [
        "Top-1 accuracy in percent over the mentions whose gold entity is in the knowledge base, from "
        f"`{results['config']}` with the changes that a row is about; mapper seed{'s' if several else ''}: {seeds}. In "
        f"brackets the 95 % interval of a bootstrap that resamples mentions{' and seeds' if several else ''} (Wilson's "
        "where all are right or all wrong), after it the number of mentions. " + _tail(results)
    ]
    if results["note"]:
        message.append(results["note"])
    if results["steps"] or results["limit"]:
        steps, docs = results["steps"] or "as configured", results["limit"] or "all"
        message.append(f"Only a try: training steps {steps}, test docs {docs}.")
    if results["dev_is_test"]:
        message.append(DEV_IS_TEST)
    if results.get("interrupted"):
        message.append("Interrupted: the same command goes on with what is not run here.")
    papers = " / ".join(DATA_SETS)
    if results["dataset"] in DATA_SETS:
        message.append(
            f"The paper's figure on {results['dataset']} stands in a column of its own where the row has the paper's "
            "models and settings (but for the learning rate, which means nothing in fp32), and else apart. It is of "
            "the paper's own test mentions and knowledge base. Its figures of common and tail entities are comparable "
            "with none: it does not say which those are."
        )
    else:
        message.append(
            f'The last column, "paper, {papers}", is of other data and other models. It is there for the direction of '
            "an effect; its figures cannot be compared with those beside it."
        )
    return message


def _tail(results: Mapping[str, Any]) -> str:
    """Which entities are common and tail."""
    share, split = f"{100 * results['tail_share']:g} % of all counts", results["tail"]
    if split.get("counted") == 0:
        return "Common and tail: the knowledge base has no counts, so no entity is either."
    message = f"Tail: the least-counted entities that together hold {share}"
    if split:
        message += (
            f", which are the {split['entities']} counted at most {split['threshold']} times "
            f"({100 * split['share_held']:.1f} %)"
        )
    return message + "; common: those counted more often. Entities that were never counted are neither."


def columns_of(results: Mapping[str, Any]) -> list[str]:
    """The columns after the setting's."""
    apart = f"paper, {' / '.join(DATA_SETS)}"
    if results["dataset"] in DATA_SETS:
        return [*COLUMNS, f"paper, {results['dataset']}, same setting", f"{apart}, other setting"]
    return [*COLUMNS, f"{apart} (not comparable)"]


def cells(row: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    """One text per column."""
    if row["status"] in (NOT_RUN, FAILED):
        reason = f" ({_short(row['reason'])})" if row["reason"] else ""
        figures = ["", f"{row['status']}{reason}", *[""] * (len(COLUMNS) - 2)]
    elif not row["n"]:
        none = row["part"] in _TAIL_PARTS and results["tail"].get("counted") == 0
        figures = ["0", "the knowledge base has no counts" if none else "no such mention", *[""] * (len(COLUMNS) - 2)]
    else:
        figures = [str(row["n"]), _interval(row), _difference(row.get("difference"))]
        figures += [_part(row["parts"][name]) for name in PARTS]
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
    if figure["accuracy"] is None:
        return _DASH
    accuracy, low, high = (f"{100 * figure[key]:.1f}" for key in ("accuracy", "low", "high"))
    return f"{accuracy} ({low} to {high})"


def _part(figure: Mapping[str, Any]) -> str:
    return _DASH if not figure["n"] else f"{_interval(figure)}, {figure['n']}"


def _difference(values: Sequence[float] | None) -> str:
    if values is None:
        return ""
    difference, low, high = (f"{100 * value:+.1f}" for value in values)
    return f"{difference} ({low} to {high})"


def _short(reason: str, most: int = 160) -> str:
    line = " ".join(reason.split())
    return line if len(line) <= most else line[:most].rstrip() + " ..."


def _joined(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
