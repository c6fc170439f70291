"""Run a grid and fill its tables: figures over mentions and seeds, with their intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.cache import seconds_in
from research.commands import report
from research.grid.grid import Grid, Row, Table
from research.grid.plan import Plan, make_plan
from research.paper import DATA_SETS, REPORTED
from research.runner import Runner
from research.statistics import BoolArray, Outcomes, Term, outcomes, seeds_and_mentions_interval
from spacy_gemel.evaluation.metrics import SUBSETS
from spacy_gemel.evaluation.results import mentions_path, read_mentions

RUN, NOT_RUN, FAILED = "run", "not run", "failed"
DEV_IS_TEST = (
    "The dev docs are the test docs: checkpoints, and entity_linker's epoch, are chosen on the mentions that these "
    "figures are over, which are too high by that. Give dev docs of their own, such as some of the training's."
)


class Experiments:
    """A grid and the runner of its trials, in `folder`.

    A try, with fewer steps or docs, has a folder of its own in it.
    """

    def __init__(self, grid: Grid, folder: Path, *, steps: int | None = None, limit: int = 0, gpu_id: int = -1) -> None:
        for path in (folder, *folder.parents):
            if path.exists():
                if not path.is_dir():
                    raise ValueError(f"--output {folder}: {path} is a file; name a folder, or one that does not exist")
                break
        tried = [f"steps-{steps}"] * (steps is not None) + [f"limit-{limit}"] * bool(limit)
        self.grid, self.steps = grid, steps
        self.plan: Plan = make_plan(grid, steps)
        self.runner = Runner(
            folder / "-".join(["try", *tried]) if tried else folder,
            grid.paths,
            self.plan.config,
            self.plan.linker,
            dataset=grid.dataset,
            tail_share=grid.tail_share,
            limit=limit,
            models=grid.path.parent,
            estimate=grid.estimate,
            gpu_id=gpu_id,
        )
        self._failed: dict[str, str] = {}
        self._metrics: dict[str, dict[str, Any] | None] = {}
        self._outcomes: dict[str, Outcomes | None] = {}

    def run(self, tables: Sequence[Table], *, fresh: bool = False) -> dict[str, Any]:
        """Run what these tables need and is not cached; the results of all tables, as experiments.json has them."""
        result = self.runner.run(self.plan.of(tables), fresh=fresh)
        self._failed = result.failed
        results = self.results()
        for id_ in results["failed"].keys() - result.failed.keys():
            report(f"no result: {id_}: {results['failed'][id_]}")
        if results["dev_is_test"]:
            report(DEV_IS_TEST)
        self.runner.digests.save()
        return {**results, "interrupted": result.interrupted, "ran": result.ran}

    def results(self) -> dict[str, Any]:
        """All tables, with what is cached."""
        grid, runner = self.grid, self.runner
        metrics = {id_: content for id_ in self.plan.trials if (content := self.metrics(id_)) is not None}
        trials = {id_: content["trial"] for id_, content in metrics.items()}
        tail: Mapping[str, Any] = next((content["tail"] for content in metrics.values() if "tail" in content), {})
        trainings = {
            trial["training"]: seconds_in(trial, "train_seconds") for trial in trials.values() if "seed" in trial
        }
        seconds = sum(trial["seconds"] for trial in trials.values()) + sum(s or 0.0 for s in trainings.values())
        return {
            "dataset": grid.dataset,
            "note": grid.note,
            "grid": grid.path.as_posix(),
            "config": grid.paths["config"].as_posix(),
            "seeds": list(grid.seeds),
            "dev_is_test": runner.digests.corpus(grid.paths["dev"]) == runner.digests.corpus(grid.paths["test"]),
            "tail_share": grid.tail_share,
            "tail": {name: tail[name] for name in ("threshold", "share_held", "entities", "counted") if name in tail},
            "steps": self.steps,
            "limit": runner.limit,
            "tables": [self._fill(table) for table in grid.tables],
            "failed": {**{id_: why for id_ in metrics if (why := self._no_result(id_))}, **self._failed},
            "trials": trials,
            "seconds": round(seconds, 1),
        }

    def describe(self, tables: Sequence[Table], *, fresh: bool = False) -> list[str]:
        """What would run, in lines, and about how long; also if data are missing."""
        trials = self.plan.of(tables)
        problems = self.runner.problems(trials)
        steps = self.runner.steps(trials, use_cache=not problems and not fresh)
        lines = [f"missing: {problem}" for problem in problems]
        for step in steps:
            time = "           ?" if step.expected is None else f"{step.expected / 60:8.1f} min"
            lines.append(f"{time}  {step.description}")
        for table in tables:
            lines += [f"    not run  {table.id}: {row.name} ({row.not_run})" for row in table.rows if row.not_run]
        missing = sum(len(step.trials) for step in steps)
        known = [step.expected for step in steps if step.expected is not None]
        time = f"about {sum(known) / 60:.0f} min" if len(known) == len(steps) else "for an unknown time"
        counts = f"{len(trials) - missing} kept, {missing} to run, {sum(step.train for step in steps)} trainings"
        return [*lines, f"{len(trials)} trials: {counts}; {time}"]

    def metrics(self, id_: str) -> dict[str, Any] | None:
        """What `evaluate` wrote of a trial; None if it was not run."""
        if id_ not in self._metrics:
            self._metrics[id_] = self.runner.metrics(self.plan.trials[id_])
        return self._metrics[id_]

    def outcomes(self, ids: Sequence[str]) -> list[Outcomes] | None:
        """One per trial; None if one is missing, or over other mentions than the rest."""
        for id_ in ids:
            if id_ not in self._outcomes:
                path = mentions_path(self.runner.metrics_path(self.plan.trials[id_]))
                usable = self._failure(id_) is None and self.metrics(id_) is not None
                self._outcomes[id_] = outcomes(read_mentions(path)) if usable else None
        runs = [run for id_ in ids if (run := self._outcomes[id_]) is not None]
        same = len(runs) == len(ids) > 0 and all(run.mentions == runs[0].mentions for run in runs)
        return runs if same else None

    def _failure(self, id_: str) -> str | None:
        """Why a trial failed, now or when it was last tried with these inputs, or why its figures are no result."""
        if id_ in self._failed:
            return self._failed[id_]
        if self.metrics(id_) is not None:
            return self._no_result(id_)
        return self.runner.failure(self.plan.trials[id_])

    def _no_result(self, id_: str) -> str | None:
        """Why a trial's figures are no result: it has images, its mapper did not improve, and it is no try."""
        metrics, setting = self.metrics(id_), self.plan.trials[id_].setting
        if metrics is None or self.steps is not None or not setting.get("image"):
            return None
        return metrics["trial"].get("led_nowhere") or None

    def _fill(self, table: Table) -> dict[str, Any]:
        """The table with its rows, and `reference`: the first row that was run, which the others are compared with.

        Each row has name, part, status, reason, trials, setting and paper; one that was run also n, accuracy, low,
        high (from 0 to 1), the same for each of SUBSETS, and `difference` to the reference, [difference, low, high], on
        the same mentions.
        """
        rows: list[dict[str, Any]] = []
        first: list[Outcomes] | None = None
        reference = None
        for index, row in enumerate(table.rows):
            ids = self.plan.rows[table.id, index]
            runs = None if row.not_run else self.outcomes(ids)
            rows += [self._line(row, part, ids, runs, first) for part in table.kinds or ("",)]
            if first is None and runs is not None:
                first, reference = runs, row.name
        return {"id": table.id, "title": table.title, "note": table.note, "reference": reference, "rows": rows}

    def _line(
        self, row: Row, part: str, ids: Sequence[str], runs: list[Outcomes] | None, first: list[Outcomes] | None
    ) -> dict[str, Any]:
        setting = dict(self.plan.trials[ids[0]].setting) if ids else {}
        line: dict[str, Any] = {
            "name": f"{row.name}: {part.replace('_', ' ')}" if part else row.name,
            "part": part,
            "status": RUN if runs else NOT_RUN,
            "reason": row.not_run,
            "trials": list(ids),
            "setting": setting,
            "paper": self._paper(row, part, setting),
        }
        errors = [reason for id_ in ids if (reason := self._failure(id_)) is not None]
        if errors:
            return {**line, "status": FAILED, "reason": errors[0]}
        if runs is None:
            return line
        correct = np.stack([run.correct for run in runs])  # (seeds, mentions)
        keep = runs[0].part(part) if part else np.ones(correct.shape[1], dtype=bool)
        line |= _figure(correct, keep)
        line["parts"] = {name: _figure(correct, keep & runs[0].part(name)) for name in SUBSETS}
        if first is not None and first[0].mentions == runs[0].mentions:
            other = np.stack([run.correct for run in first])
            paired = {len(correct), len(other)} <= {1, max(len(correct), len(other))}
            terms = [Term(correct, keep), Term(other, keep, sign=-1)]
            line["difference"] = seeds_and_mentions_interval(terms) if paired else None
        return line

    def _paper(self, row: Row, part: str, setting: Mapping[str, Any]) -> dict[str, Any] | None:
        """{data set: percent}, and whether the row was measured on it in the paper's own setting."""
        if part not in row.paper:
            return None
        reported = REPORTED[row.paper[part]]
        complete = self.steps is None and not self.runner.limit and self.grid.dataset in DATA_SETS
        same = complete and bool(setting) and reported.is_setting(setting)
        return {**dict(zip(DATA_SETS, reported.figures, strict=True)), "same_setting": same}


def _figure(correct: BoolArray, keep: BoolArray) -> dict[str, Any]:
    """correct: (seeds, mentions). keep: (mentions,)."""
    accuracy, low, high = seeds_and_mentions_interval([Term(correct, keep)]) or (None, None, None)
    return {"n": int(keep.sum()), "accuracy": accuracy, "low": low, "high": high}
