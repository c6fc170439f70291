"""A recorded search of the mini world's settings, on dev data alone: one coordinate after another."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from research.cache import digest
from research.commands import Progress
from research.configs import read_config, value_at
from research.grid.plan import linker_in, shorter
from research.machine import describe_machine
from research.mini_world import CONFIG, ROOT, World, delete, prepare
from research.runner import Runner, Training, Trial
from spacy_gemel.utils.files import write_json

COMMAND = "python -m research search"
SEEDS = (1, 2)
COORDINATES: dict[str, tuple[Any, ...]] = {
    "training.optimizer.learn_rate.initial_rate": (0.001, 0.002, 0.003, 0.006, 0.012),
    # the trie's end of a name is abstract, so one knowledge base serves both
    "components.gemel_linker.name_end": ("newline", "eos"),
    "components.gemel_linker.model.prefix_length": (1, 2, 4, 8),
    "components.gemel_linker.n_demonstrations": (2, 4, 8, 12),
}
MARGIN = 0.005  # of mean accuracy; chosen beforehand, not a standard error
PROMPT_LIMIT = 500


@dataclass(frozen=True, slots=True)
class Score:
    """One trial. accuracy: on all dev mentions. mean_prompt, longest_prompt: tokens, soft ones included."""

    accuracy: float
    mean_prompt: float
    longest_prompt: int
    seconds: float = 0.0


def coordinate_search(
    start: Mapping[str, Any],
    coordinates: Mapping[str, Sequence[Any]],
    seeds: Sequence[int],
    trial: Callable[[dict[str, Any], int], Score],
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Search the coordinates in their order; each keeps its best value.

    Args:
        start: The default of every coordinate.
        coordinates: The values of each to try.
        seeds: Of the trials of each value.
        trial: Called once for the same settings and seed.

    Returns:
        The chosen settings, and per coordinate a row for each value.
    """
    scores: dict[str, Score] = {}

    def once(settings: dict[str, Any], seed: int) -> Score:
        key = digest(settings, seed)
        if key not in scores:
            scores[key] = trial(settings, seed)
        return scores[key]

    chosen = dict(start)
    tables: dict[str, list[dict[str, Any]]] = {}
    for name, values in coordinates.items():
        tables[name] = []
        for value in dict.fromkeys((*values, chosen[name])):
            runs = [once({**chosen, name: value}, seed) for seed in seeds]
            tables[name].append(
                {
                    "value": value,
                    "accuracy": sum(run.accuracy for run in runs) / len(runs),
                    "per_seed": [run.accuracy for run in runs],
                    "mean_prompt": sum(run.mean_prompt for run in runs) / len(runs),
                    "longest_prompt": max(run.longest_prompt for run in runs),
                }
            )
        chosen[name] = choose(tables[name], chosen[name])
    return chosen, tables


def choose(rows: Sequence[Mapping[str, Any]], current: Any) -> Any:
    """The best value with prompts that are short enough; the current one if the best is less than MARGIN better."""
    short = [row for row in rows if row["longest_prompt"] < PROMPT_LIMIT]
    if not short:
        return current
    best = max(short, key=lambda row: row["accuracy"])  # the first of equals
    accuracy = next((row["accuracy"] for row in short if row["value"] == current), None)
    close = accuracy is not None and round(best["accuracy"] - accuracy, 9) < MARGIN
    return current if close else best["value"]


def count_settings(start: Mapping[str, Any], coordinates: Mapping[str, Sequence[Any]]) -> int:
    """How many settings a search tries: each coordinate's values, and the start only once."""
    return 1 + sum(len({*values, start[name]}) - 1 for name, values in coordinates.items())


class Searcher:
    """Trials of changed settings of configs/mini.cfg, measured on the dev mentions of a mini world."""

    def __init__(self, world: World, steps: int | None = None) -> None:
        path = world.root / CONFIG
        config = read_config(path)
        self.start = {name: value_at(config, name) for name in COORDINATES}
        self.rows: list[dict[str, Any]] = []
        self.progress: Progress | None = None
        self._short = shorter(config, steps)
        self._config = config
        self.runner = Runner(
            world.root / "training" / "search",
            {**world.paths, "test": world.corpus("dev")},
            config,
            linker_in(config, path),
            dataset="mini world, dev",
            tail_share=0.2,
            prompt_lengths=True,
            root=world.root,
        )

    def __call__(self, settings: dict[str, Any], seed: int) -> Score:
        """Train with these settings and measure, unless that is cached. Raises RuntimeError if it fails."""
        changed = {name: value for name, value in settings.items() if value != value_at(self._config, name)}
        id_ = f"{digest(changed, self._short)[:12]}-{seed}"
        trial = Trial(id_, Training(id_, seed, {**changed, **self._short}))
        result = self.runner.run([trial], progress=self.progress)
        if result.interrupted:
            raise KeyboardInterrupt
        metrics = self.runner.metrics(trial)
        if metrics is None:
            raise RuntimeError(f"{settings}, seed {seed}: {result.failed.get(id_)}")
        seconds = metrics["trial"]["train_seconds"] + metrics["trial"]["seconds"]
        prompts = metrics["prompts"]
        score = Score(metrics["accuracy"], prompts["mean"], prompts["longest"], round(seconds, 1))
        self.rows.append({"settings": settings, "seed": seed, **asdict(score)})
        return score


def run_search(seeds: Sequence[int] = SEEDS, steps: int | None = None, *, fresh: bool = False) -> dict[str, Any]:
    """Search, and write every trial and what was chosen; only the default sizes go to research/results."""
    seeds = list(dict.fromkeys(seeds))
    world = World()
    if fresh:
        delete(world)
        shutil.rmtree(world.root / "training" / "search", ignore_errors=True)
    prepared = prepare(world)
    searcher = Searcher(world, steps)
    searcher.progress = Progress(count_settings(searcher.start, COORDINATES) * len(seeds))
    chosen, tables = coordinate_search(searcher.start, COORDINATES, seeds, searcher)
    result = {
        "command": COMMAND,
        "start": searcher.start,
        "chosen": chosen,
        "margin": MARGIN,
        "prompt_limit": PROMPT_LIMIT,
        "by_coordinate": tables,
        "seeds": seeds,
        "trials": searcher.rows,
        "seconds": round(prepared + sum(row["seconds"] for row in searcher.rows), 1),
        "machine": describe_machine(),
    }
    default = tuple(seeds) == SEEDS and steps is None
    write_json(ROOT / ("research/results" if default else "metrics/search") / "search.json", result)
    return result
