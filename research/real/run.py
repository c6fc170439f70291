"""Run the cells that are not cached, and keep their figures in research/results/real.json."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from research.cache import read_object
from research.commands import Progress, report
from research.machine import describe_machine
from research.mini_world import ROOT
from research.paper import DATA_SETS, REPORTED
from research.real.answers import difference, end_to_end_figures, figures
from research.real.cells import BASE, CELLS, DTYPE, Cell, Workspace, choose, code_digest
from research.real.text import SOURCES
from research.statistics import with_interval
from spacy_gemel.evaluation.bootstrap import accuracy_of, difference_of
from spacy_gemel.evaluation.results import mentions_path, read_mentions, scored
from spacy_gemel.utils.files import lock_file, write_json

OUTPUT = ROOT / "research" / "results" / "real.json"
WORK = ROOT / "metrics" / "evidence-real"
_DRAWINGS = {"full": "full.json", "no_image": "no-image.json"}
_TABLE_6 = {"text_only": "full", "bm25": "bm25", "random": "random", "none": "no-demonstrations"}
"""Cell -> the paper's row, which is measured with the image."""
_PAIRS = (
    ("text_only", "bm25"),
    ("bm25", "random"),
    ("random", "none"),
    ("text_only", "random"),
    ("text_only", "none"),
    ("bm25", "none"),
    *(("text_only", name) for name in ("n_2", "n_4", "n_16", "sets_1", "sets_16", "sets_64", "sets_256")),
    *(("text_only", name) for name in ("eos", "unconstrained", "decision", "fp32")),
)


def run_real(
    data: Path,
    models: Path,
    names: Iterable[str] = (),
    *,
    fresh: bool = False,
    cells: Sequence[Cell] = CELLS,
    work: Path = WORK,
    output: Path = OUTPUT,
    root: Path = ROOT,
) -> dict[str, Any]:
    """Run the chosen cells, write the figures after each, and return them.

    Args:
        data: A folder with kb/, wikidiverse/, wikimel/ and richpediamel/.
        models: A folder with language_model/ and sentence_encoder/.
        names: Ids of cells, or data sets; all without any.
        fresh: Delete first what is cached of the chosen cells.
        cells: All cells that there are.
        work: Where everything is cached.
        output: The file of the figures; what it holds of other experiments stays.
        root: The clone, for what `benchmarks.linking --model real` and `spacy project run real` have left there.

    Raises:
        ValueError: If a file is missing, a name is unknown, or another process is running here.
    """
    chosen = choose(names, cells)
    workspace = Workspace(data, models, work)
    workspace.check(chosen)
    machine = describe_machine()
    with lock_file(work / ".lock", f"{work}: another process is running cells here; wait for it"):
        if fresh:
            workspace.forget(chosen)
        missing = [cell for cell in chosen if workspace.rows(cell) is None]
        report(f"{len(chosen)} cells: {len(chosen) - len(missing)} cached, {len(missing)} to run")
        progress = Progress(len(missing))
        for cell in missing:
            progress.report(cell.id)
            workspace.measure(cell)
            progress.seconds.append(workspace.seconds(cell))
            write_json(output, collect(workspace, cells, read_object(output), machine))
        result = collect(workspace, cells, {**read_object(output), **measured_elsewhere(root)}, machine)
        write_json(output, result)
        workspace.digests.save()
    report(f"wrote {output}")
    return result


def collect(
    workspace: Workspace, cells: Sequence[Cell], previous: Mapping[str, Any], machine: Mapping[str, Any]
) -> dict[str, Any]:
    """The figures of all cells. Those that are cached elsewhere keep their figures while their key is the same."""
    result = {**previous, "command": "python -m research real --data DATA --models MODELS"}
    result["settings"] = {**BASE, "use_image": False, "retriever": "dense", "dtype": DTYPE}
    missing = []
    for dataset in dict.fromkeys(cell.dataset for cell in cells):
        if not all((workspace.data / file).is_file() for file in SOURCES[dataset].files):
            missing += [cell.id for cell in cells if cell.dataset == dataset]
            continue
        earlier = previous.get(dataset, {})
        all_rows = {cell.name: workspace.rows(cell) for cell in cells if cell.dataset == dataset}
        section: dict[str, Any] = {"data": workspace.corpus(dataset).sizes}
        for cell in cells:
            if cell.dataset != dataset:
                continue
            rows = all_rows[cell.name]
            if rows is not None:
                section[cell.name] = _cell_figures(workspace, cell, rows)
            elif earlier.get(cell.name, {}).get("key") == workspace.key(cell):
                section[cell.name] = earlier[cell.name]
            else:
                missing.append(cell.id)
        if "none" in section:
            section["n_0"] = {**section["none"], "same_as": "none"}  # the same prompts
        section["differences"] = {
            name: value
            for first, second in _PAIRS
            if (value := _difference(dataset, first, second, all_rows, section, earlier)) is not None
            for name in [f"{first} - {second}"]
        }
        result[dataset] = section
    old = [
        cell.id
        for cell in cells
        if result.get(cell.dataset, {}).get(cell.name, {}).get("code", [code_digest()]) != [code_digest()]
    ]
    return {**result, "code": code_digest(), "made_by_other_code": old, "missing": missing, "machine": machine}


def measured_elsewhere(root: Path) -> dict[str, Any]:
    """`speed` from benchmarks/results, `drawings` from metrics/real; neither if there is no such file."""
    content: dict[str, Any] = {}
    if speed := read_object(root / "benchmarks" / "results" / "linking-real.json"):
        content["speed"] = {
            "bf16_over_fp32": speed["bf16_over_fp32"]["median"],
            "bf16_same_best": speed["same_best_bf16"],
            "bf16_same_best_n": speed["compared"],
        }
    results = {}
    for name, file in _DRAWINGS.items():
        if (path := mentions_path(root / "metrics" / "real" / file)).is_file():
            results[name] = scored(read_mentions(path))
    if len(results) == len(_DRAWINGS):
        full, no_image = ([result.correct for result in results[name]] for name in _DRAWINGS)
        docs = [result.doc for result in results["full"]]
        content["drawings"] = {
            **{name: with_interval(accuracy_of([r.correct for r in rows], docs)) for name, rows in results.items()},
            "full - no_image": with_interval(difference_of(full, no_image, docs)),
        }
    return content


def _cell_figures(workspace: Workspace, cell: Cell, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    content = end_to_end_figures(rows) if cell.raw_texts else figures(rows)
    seconds = workspace.seconds(cell)
    content |= {"seconds": seconds, "key": workspace.key(cell), "code": workspace.code(cell)}
    if not cell.raw_texts:
        content["mentions_per_second"] = len(rows) / seconds if seconds else None
    if cell.with_decision:
        fitted = workspace.decision(cell)
        content |= {"decision": fitted["decision"], "fitted_on_mentions": fitted["mentions"]}
    return content


def _difference(
    dataset: str,
    first: str,
    second: str,
    all_rows: Mapping[str, Any],
    section: Mapping[str, Any],
    earlier: Mapping[str, Any],
) -> dict[str, Any] | None:
    """The paired difference of two cells, with the paper's in points; one that was kept if both cells were."""
    if not all_rows.get(first) or not all_rows.get(second):
        both = first in section and second in section
        return earlier.get("differences", {}).get(f"{first} - {second}") if both else None
    value = difference(all_rows[first], all_rows[second])
    paper = {name.casefold(): index for index, name in enumerate(DATA_SETS)}
    if dataset in paper and first in _TABLE_6 and second in _TABLE_6:
        one, other = (REPORTED[_TABLE_6[name]].figures[paper[dataset]] for name in (first, second))
        value["paper_points"] = round(one - other, 1)
    return value
