"""Run a grid: what is not kept is trained and measured, one failure ends no other, and the tables are filled."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research.grid.grid import Grid, Table
from research.grid.keeping import STATE, read_object, seconds_in
from research.grid.output import check_data, check_folder, note_data
from research.grid.page import DEV_IS_TEST
from research.grid.plan import Training, Trial, groups, make_plan
from research.grid.processes import Progress, say
from research.grid.tables import Results, fill
from research.grid.trials import Lab
from spacy_gemel.evaluation.results import mentions_path
from spacy_gemel.utils.files import lock_file


@dataclass(frozen=True, slots=True)
class Step:
    """What is left to do for one training, or one peer. expected: seconds, None where nobody can tell."""

    training: Training | None
    trials: tuple[Trial, ...]
    train: bool
    expected: float | None

    @property
    def message(self) -> str:
        """In words."""
        what = "train, measure" if self.train else "measure"
        return f"{what} {', '.join(trial.id for trial in self.trials)}"


def make_lab(grid: Grid, output: Path, *, steps: int | None = None, limit: int = 0, gpu_id: int = -1) -> Lab:
    """A try, with fewer steps or docs, has a folder of its own in `output`, so that it takes no trial's place.

    Raises ValueError for an output that is no folder, and for what `make_plan` refuses.
    """
    tried = [f"steps-{steps}"] if steps is not None else []
    tried += [f"limit-{limit}"] if limit else []
    check_folder(output)
    folder = output / "-".join(["try", *tried]) if tried else output
    return Lab(grid, make_plan(grid, steps), folder, steps, limit, gpu_id)


def forget(lab: Lab, trials: Sequence[Trial]) -> None:
    """Take away what is kept of some trials: their figures, their trainings, and the knowledge bases of these."""
    for trial in trials:
        for path in (lab.metrics(trial), mentions_path(lab.metrics(trial))):
            path.unlink(missing_ok=True)
        if trial.training is not None:
            shutil.rmtree(lab.folder(trial.training), ignore_errors=True)
            if trial.training.language_model is not None:
                shutil.rmtree(lab.kb_folder(trial.training), ignore_errors=True)
    lab.failures.forget(trial.id for trial in trials)


def left_to_do(lab: Lab, trials: Sequence[Trial], *, known: bool = True) -> list[Step]:
    """What is not kept. known: whether the data are there; without them nothing is taken for kept."""
    seconds = _seconds(lab)
    steps = []
    for training, wanted in groups(trials):
        missing = tuple(trial for trial in wanted if not known or lab.found(trial) is None)
        if missing:
            train = training is not None and not (known and lab.is_trained(training))
            steps.append(Step(training, missing, train, _expected(seconds, missing, train=train)))
    return steps


def run_steps(lab: Lab, steps: Sequence[Step], failed: dict[str, str]) -> None:
    """Do them. failed: gets {trial's id: what went wrong}."""
    progress = Progress(len(steps))
    for index, step in enumerate(steps):
        expected = [later.expected for later in steps[index:]]
        left = None if None in expected else sum(seconds for seconds in expected if seconds is not None)
        progress.say(step.message, left)
        try:
            wrong = lab.make(step.training, step.trials)
        except Exception as error:  # whatever it is: the others are still to be run
            wrong = {trial.id: str(error) or type(error).__name__ for trial in step.trials}
        for why in dict.fromkeys(wrong.values()):
            say(f"failed: {', '.join(id for id in wrong if wrong[id] == why)}: {why}")
        failed |= wrong
        lab.failures.note({trial.id: lab.key(trial) for trial in step.trials}, wrong)
        lab.digests.save()


def run_grid(lab: Lab, tables: Sequence[Table], *, fresh: bool = False) -> dict[str, Any]:
    """Run what some tables need and is not kept, and fill all tables with what is there; see `page.write_results`.

    fresh: forget first what is kept of these tables. An interrupt ends the running, not the filling: `interrupted`.
    Raises ValueError where data are missing, the folder holds trials of other data, or another process is at it.
    """
    trials = lab.plan.of(tables)
    problems = lab.problems(trials)
    if problems:
        raise ValueError("; ".join(problems))
    busy = (
        f"{lab.output}: another process is running experiments here, or a command that outlived the one it was started "
        "by; wait for it"
    )
    with lock_file(lab.output / ".lock", busy) as lock:
        lab.keep_open = (lock,)
        check_data(lab, trials)
        if fresh:
            forget(lab, trials)
        steps = left_to_do(lab, trials)
        note_data(lab)
        lab.digests.save()
        count = sum(len(step.trials) for step in steps)
        say(f"{len(trials)} trials: {len(trials) - count} kept, {count} to run")
        failed: dict[str, str] = {}
        interrupted = False
        try:
            run_steps(lab, steps, failed)
        except KeyboardInterrupt:
            interrupted = True
        results = results_of(lab, failed)
        for id in results["failed"].keys() - failed.keys():
            say(f"no result: {id}: {results['failed'][id]}")
        if results["dev_is_test"]:
            say(DEV_IS_TEST)
        lab.digests.save()
        return {**results, "interrupted": interrupted}


def results_of(lab: Lab, failed: Mapping[str, str]) -> dict[str, Any]:
    """All tables, with what is kept. failed: trial's id -> what went wrong in this run."""
    grid = lab.grid
    read = Results(lab, failed)
    kept = {id: found for id in lab.plan.trials if (found := read.metrics(id)) is not None}
    failed = {**{id: why for id in kept if (why := read.no_result(id))}, **failed}
    spent = {id: found["trial"] for id, found in kept.items()}
    tail: Mapping[str, Any] = next((found["tail"] for found in kept.values() if "tail" in found), {})
    return {
        "dataset": grid.dataset,
        "note": grid.note,
        "grid": grid.path.as_posix(),
        "config": grid.paths["config"].as_posix(),
        "seeds": list(grid.seeds),
        "dev_is_test": lab.digests.corpus(grid.paths["dev"]) == lab.digests.corpus(grid.paths["test"]),
        "tail_share": grid.tail_share,
        "tail": {name: tail[name] for name in ("threshold", "share_held", "entities", "counted") if name in tail},
        "steps": lab.steps,
        "limit": lab.limit,
        "tables": [fill(table, read) for table in grid.tables],
        "failed": dict(failed),
        "trials": spent,
        "seconds": round(sum(_train_seconds(spent)) + sum(trial["seconds"] for trial in spent.values()), 1),
    }


def describe(lab: Lab, tables: Sequence[Table], *, fresh: bool = False) -> list[str]:
    """What would run, in lines, with the time that it is thought to take. Works where the data are not there, too.

    fresh: as if what is kept of these tables were forgotten.
    """
    trials = lab.plan.of(tables)
    problems = lab.problems(trials)
    steps = left_to_do(lab, trials, known=not problems and not fresh)
    lines = [f"missing: {problem}" for problem in problems]
    lines += [f"{_time(step.expected)}  {step.message}" for step in steps]
    skipped = [(table, row) for table in tables for row in table.rows if row.not_run]
    lines += [f"    not run  {table.id}: {row.name} ({row.not_run})" for table, row in skipped]
    missing = sum(len(step.trials) for step in steps)
    expected = [step.expected for step in steps]
    total = None if None in expected else sum(seconds for seconds in expected if seconds is not None)
    trained = sum(step.train for step in steps)
    lines.append(
        f"{len(trials)} trials: {len(trials) - missing} kept, {missing} to run, {trained} trainings; {_whole(total)}"
    )
    return lines


def _expected(seconds: Mapping[str, float], trials: Sequence[Trial], *, train: bool) -> float | None:
    needed = ["training"] * train + ["peer" if trial.peer else "evaluation" for trial in trials]
    return sum(seconds[name] for name in needed) if all(name in seconds for name in needed) else None


def _seconds(lab: Lab) -> dict[str, float]:
    """How long a training, an evaluation and a peer take: the mean of those kept, whatever their inputs were, else
    the grid's estimate.
    """
    kept: dict[str, list[float]] = {}
    for path in lab.output.glob(f"trainings/*/{STATE}"):
        if (seconds := seconds_in(read_object(path))) is not None:
            kept.setdefault("training", []).append(seconds)
    for path in lab.output.glob("trials/*.json"):
        trial = read_object(path).get("trial")
        if mentions_path(path).exists() and (seconds := seconds_in(trial)) is not None:
            kept.setdefault("peer" if trial is None or "seed" not in trial else "evaluation", []).append(seconds)
    return {**lab.grid.estimate, **{name: sum(values) / len(values) for name, values in kept.items()}}


def _train_seconds(trials: Mapping[str, Mapping[str, Any]]) -> list[float]:
    """Of each training once; a trial says which is its own."""
    found = {trial["training"]: seconds_in(trial, "train_seconds") for trial in trials.values() if "training" in trial}
    return [seconds for seconds in found.values() if seconds is not None]


def _time(seconds: float | None) -> str:
    return "           ?" if seconds is None else f"{seconds / 60:8.1f} min"


def _whole(seconds: float | None) -> str:
    return "how long that takes nobody has measured" if seconds is None else f"about {seconds / 60:.0f} min"
