"""The paper's effects on the mini world: three mappers per setting, 2,000 test mentions, an interval per effect."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from research.cache import cached_json, digest
from research.commands import report, run_command
from research.grid.grid import read_grid
from research.grid.tables import Experiments
from research.machine import describe_machine
from research.mini_world import (
    MODELS,
    ROOT,
    TEST_MENTIONS,
    World,
    delete,
    folder_sums,
    prepare,
    split_sum,
    world_seed,
    world_sources,
)
from research.paper import DATA_SETS, REPORTED
from research.statistics import BoolArray, Outcomes, Term, seeds_and_mentions_interval
from spacy_gemel.utils.files import sha256_of, write_json, write_whole

SEEDS = (1, 2, 3)
COMMAND = "python -m research evidence"
GRID = "configs/evidence.yml"
FIXED_TEST = "scripts/mini_world/data/test.sha256"
_SETTINGS = ("full", "no-image", "unconstrained", "none", "random", "bm25")

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
    """All evaluations, on the same mentions.

    Attributes:
        correct: Setting -> (seeds, mentions), one row if the seed has no effect.
        groups: common, tail, seen, unseen -> (mentions,).
    """

    correct: dict[str, BoolArray]
    groups: dict[str, BoolArray]


def run_evidence(
    seeds: Sequence[int] = SEEDS, test: int = TEST_MENTIONS, steps: int | None = None, *, fresh: bool = False
) -> dict[str, Any]:
    """Run what is not cached, and write evidence.json and evidence.md; only the default sizes go to research/results.

    A try has a world of its own. Raises RuntimeError if a trial failed, or if the test set is not the fixed one.
    """
    seeds = list(dict.fromkeys(seeds))
    tried = [f"-test{test}"] * (test != TEST_MENTIONS) + [f"-steps{steps}"] * (steps is not None)
    world = World("evidence" + "".join(tried), test)
    if fresh:
        delete(world)
        shutil.rmtree(world.folder("metrics"), ignore_errors=True)
        gates_path(world.root).unlink(missing_ok=True)
    prepared = prepare(world)
    if test == TEST_MENTIONS:
        check_test(world)
    gates = measure_gates(world.root)
    experiments = make_experiments(world, seeds, steps)
    results = experiments.run(experiments.grid.tables)
    if results["interrupted"]:
        raise KeyboardInterrupt
    if results["failed"]:
        raise RuntimeError("; ".join(f"{id_}: {reason}" for id_, reason in results["failed"].items()))
    result = {
        "command": COMMAND,
        **collect_figures(experiments, world, prepared),
        **gates,
        "machine": describe_machine(),
    }
    default = test == TEST_MENTIONS and steps is None and tuple(seeds) == SEEDS
    folder = ROOT / "research" / "results" if default else world.folder("metrics") / "result"
    with write_whole(folder / "evidence.md") as partial:
        partial.write_text(markdown(result["effects"], result["gates"]), encoding="utf8")
    write_json(folder / "evidence.json", result)
    report(f"wrote {folder / 'evidence.json'} and evidence.md")
    return result


def make_experiments(world: World, seeds: Sequence[int], steps: int | None = None) -> Experiments:
    """The grid of the evidence, on a world."""
    grid = read_grid(world.root / GRID, world.paths)
    experiments = Experiments(replace(grid, seeds=tuple(seeds)), world.folder("metrics"), steps=steps)
    experiments.runner.root = world.root
    return experiments


def collect_figures(experiments: Experiments, world: World, seconds: float) -> dict[str, Any]:
    """Effects and settings from the trials. seconds: of making the world; the result has those of all trials, too."""
    [table] = experiments.grid.tables
    ids = {row.name: experiments.plan.rows[table.id, index] for index, row in enumerate(table.rows)}
    runs = {name: experiments.outcomes(ids[name]) or [] for name in _SETTINGS}
    evidence = line_up(runs)
    rates = {name: [(experiments.metrics(id_) or {})["mentions_per_second"] for id_ in ids[name]] for name in _SETTINGS}
    return {
        "effects": effects(evidence),
        "settings": {name: figures(evidence, name, rates[name]) for name in _SETTINGS},
        "seeds": list(experiments.grid.seeds),
        "test": {
            "mentions": len(evidence.groups["tail"]),
            "tail": int(np.count_nonzero(evidence.groups["tail"])),
            "unseen": int(np.count_nonzero(evidence.groups["unseen"])),
            "sha256": sha256_of(world.folder("data") / "test.jsonl"),
            "sha256_with_pictures": split_sum(world, "test"),
        },
        "seconds": round(seconds + experiments.results()["seconds"], 1),
    }


def check_test(world: World) -> None:
    """Raises RuntimeError if the test mentions are not those that were fixed before any model was tuned."""
    rows = world.folder("data") / "test.jsonl"
    [fixed, *_] = (world.root / FIXED_TEST).read_text(encoding="utf8").split()
    digest_of_rows = sha256_of(rows)
    if digest_of_rows != fixed:
        raise RuntimeError(
            f"{rows} is not the test set that was fixed in {FIXED_TEST}: its SHA-256 is {digest_of_rows}, not {fixed}. "
            "Restore world_seed and the sources of scripts/mini_world that draw captions and names; a new test set "
            "must be fixed there before anything is tuned"
        )


def gates_path(root: Path) -> Path:
    """Where the gates are cached: they are of the language model, and the same for every try."""
    return root / "metrics" / "evidence" / "gates.json"


def measure_gates(root: Path) -> dict[str, Any]:
    """`gates` and `dev` of the language model as it is on disk, from scripts/mini_world/gates.py."""
    model, seed = f"{MODELS}/language_model", world_seed(root)

    def measure() -> dict[str, Any]:
        report("measuring the language model's gates")
        with write_whole(gates_path(root)) as partial:
            output = partial.relative_to(root).as_posix()
            run_command(root, "scripts/mini_world/gates.py", model, output, "--seed", str(seed))
            content: dict[str, Any] = json.loads(partial.read_text(encoding="utf8"))
        return content

    content = cached_json(gates_path(root), digest(folder_sums(root / model), world_sources(root), seed), measure)
    return {name: content[name] for name in ("gates", "dev")}


def line_up(runs: Mapping[str, Sequence[Outcomes]]) -> Evidence:
    """Put the evaluations of each setting, one per seed, side by side.

    Raises:
        ValueError: If two of them are not over the same mentions in the same order.
    """
    every = [(setting, run) for setting, seeds in runs.items() for run in seeds]
    first_setting, first = every[0]
    for setting, run in every:
        if run.mentions != first.mentions:
            raise ValueError(f"{setting} and {first_setting} were not evaluated on the same mentions")
    groups = {name: first.part(name) for name in ("common", "tail", "seen", "unseen")}
    return Evidence({setting: np.stack([run.correct for run in seeds]) for setting, seeds in runs.items()}, groups)


def effects(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """One row per effect.

    Each has difference, low, high (from -1 to 1, None without mentions), whether it holds by its `rule`, the paper's
    figure for the same effect, in points, and `paper_note` if that is not quite the same.
    """
    common, tail = evidence.groups["common"], evidence.groups["tail"]

    def minus(first: str, second: str) -> list[Term]:
        return [Term(evidence.correct[first]), Term(evidence.correct[second], sign=-1)]

    def gap(setting: str, sign: int = 1) -> list[Term]:
        correct = evidence.correct[setting]
        return [Term(correct, common, sign), Term(correct, tail, -sign)]

    def paper(first: str, second: str) -> tuple[float, float]:
        wikidiverse, wikimel = (round(a - b, 1) for a, b in zip(PAPER[first], PAPER[second], strict=True))
        return wikidiverse, wikimel

    full = [Term(evidence.correct["full"])]
    with_image = "with the image; not reported for the text alone"
    not_reported = "not reported in those terms"
    closing = gap("no-image") + gap("full", -1)
    return {
        "image": _row("image: full over without it", minus("full", "no-image"), paper("full", "no-image")),
        "demonstrations": _row("demonstrations: full over none", minus("full", "none"), paper("full", "none")),
        "dense_over_random": _row("dense over random", minus("full", "random"), paper("full", "random")),
        "random_over_none": _row("random over none", minus("random", "none"), paper("random", "none")),
        "dense_near_bm25": _row(
            "dense not a point below BM25", minus("full", "bm25"), paper("full", "bm25"), rule=NOT_BELOW
        ),
        "constrained": _row("constrained over unconstrained", minus("full", "unconstrained"), None),
        "text_only_common_over_tail": _row(
            "text only: common over tail", gap("no-image"), paper("common", "tail"), note=with_image
        ),
        "image_closes_gap": _row("image closes part of that gap", closing, None, note=not_reported),
        "accuracy": _row(
            "full at least 90 %: what it is above that",
            full,
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
    # the tolerance keeps the rounding of 0.9 and of means from deciding
    holds = low is not None and difference is not None and {
        ABOVE: low > 1e-9, NOT_BELOW: low >= -0.01 - 1e-9, ENOUGH: difference >= -1e-9
    }[rule]  # fmt: skip
    row = {
        "effect": effect,
        "difference": difference,
        "low": low,
        "high": high,
        "rule": rule,
        "holds": holds,
        "paper": None if paper is None else dict(zip(DATA_SETS, paper, strict=True)),
    }
    return {**row, "paper_note": note or "not reported"} if note or paper is None else row


def figures(evidence: Evidence, setting: str, mentions_per_second: Sequence[float]) -> dict[str, Any]:
    """A setting's accuracy over seeds and mentions with its interval, by seed, and by part."""
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
            for part, keep in evidence.groups.items()
        },
        "mentions_per_second": sum(mentions_per_second) / len(mentions_per_second),
    }


def markdown(rows: Mapping[str, Mapping[str, Any]], gates: Sequence[Mapping[str, Any]] = ()) -> str:
    """The effects as a table, in points, and under it the language model's gates."""
    lines = [
        "| effect | here, points (95 % interval) | holds if | holds | paper, WikiDiverse / WikiMEL |",
        "|---|---|---|---|---|",
    ]
    for row in rows.values():
        here = "no mention"
        if row["difference"] is not None:
            difference, low, high = (f"{100 * row[key]:+.1f}" for key in ("difference", "low", "high"))
            here = f"{difference} ({low} to {high})"
        note = row.get("paper_note", "")
        paper = note
        if row["paper"] is not None:
            sign = "" if row["rule"] == ENOUGH else "+"
            paper = " / ".join(f"{row['paper'][name]:{sign}.1f}" for name in DATA_SETS) + (f" ({note})" if note else "")
        lines.append(f"| {row['effect']} | {here} | {row['rule']} | {_yes(row)} | {paper} |")
    if gates:
        lines += ["", "| gate of the language model | accuracy (prompts) | holds if | holds |", "|---|---|---|---|"]
    lines += [
        f"| {gate['name']} | {gate['accuracy']:.3f} ({gate['n']}) | {gate['rule']} | {_yes(gate)} |" for gate in gates
    ]
    return "\n".join(lines) + "\n"


def _yes(row: Mapping[str, Any]) -> str:
    return "yes" if row["holds"] else "no"
