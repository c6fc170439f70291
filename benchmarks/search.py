"""A recorded search of the mini world's settings, on dev data alone: one coordinate after another.

python -m benchmarks.search [--seeds 1 2] [--steps N] [--fresh]

A trial that is kept and whose inputs have not changed is not run again; after a change of the package's own code or of
the libraries, give --fresh. Only a run with the default seeds and steps writes to benchmarks/results.
"""

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from thinc.api import Config

from benchmarks.keeping import alone, digest, kept, write_json
from benchmarks.machine import describe_machine
from benchmarks.running import say
from benchmarks.trials import CONFIG, TAIL_SHARE, Training, distinct, measure, parser_of, steps_of, train
from benchmarks.worlds import ROOT, Ready, World, forget, prepare
from research.grid.processes import Progress

if TYPE_CHECKING:
    from spacy.language import Language

    from spacy_gemel.pipeline.gemel_linker import GemelLinker

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


Trial = Callable[[dict[str, Any], int], Score]


def coordinate_search(
    start: Mapping[str, Any], coordinates: Mapping[str, Sequence[Any]], seeds: Sequence[int], trial: Trial
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """The chosen settings, and per coordinate a row for each value that was tried.

    start: the default of every coordinate. The best value of a coordinate goes on to the next; it must beat the one
    held so far by MARGIN of mean accuracy, and no prompt of its may have PROMPT_LIMIT tokens. trial: called once for
    the same settings and seed.
    """
    done: dict[str, Score] = {}

    def once(settings: dict[str, Any], seed: int) -> Score:
        key = digest(settings, seed)
        if key not in done:
            done[key] = trial(settings, seed)
        return done[key]

    chosen = dict(start)
    tables: dict[str, list[dict[str, Any]]] = {}
    for name, values in coordinates.items():
        tables[name] = []
        for value in dict.fromkeys((*values, chosen[name])):
            scores = [once({**chosen, name: value}, seed) for seed in seeds]
            tables[name].append(
                {
                    "value": value,
                    "accuracy": sum(score.accuracy for score in scores) / len(scores),
                    "per_seed": [score.accuracy for score in scores],
                    "mean_prompt": sum(score.mean_prompt for score in scores) / len(scores),
                    "longest_prompt": max(score.longest_prompt for score in scores),
                }
            )
        chosen[name] = choose(tables[name], chosen[name])
    return chosen, tables


def choose(rows: Sequence[Mapping[str, Any]], held: Any) -> Any:
    """The best value whose prompts are short enough; the one held where that is less than MARGIN better, or alone."""
    short = [row for row in rows if row["longest_prompt"] < PROMPT_LIMIT]
    if not short:
        return held
    best = max(short, key=lambda row: row["accuracy"])  # the first of equals
    mine = next((row for row in short if row["value"] == held), None)
    if mine is not None and round(best["accuracy"] - mine["accuracy"], 9) < MARGIN:
        return held
    return best["value"]


def trials_of(start: Mapping[str, Any], coordinates: Mapping[str, Sequence[Any]]) -> int:
    """How many settings a search tries: each coordinate's values, what it starts from only once."""
    return 1 + sum(len({*values, start[name]}) - 1 for name, values in coordinates.items())


def defaults(config: Path) -> dict[str, Any]:
    """The config's own value of each coordinate."""
    found = {}
    whole = Config().from_disk(config, interpolate=False)
    for name in COORDINATES:
        value: Any = whole
        for part in name.split("."):
            value = value[part]
        found[name] = value
    return found


def main(arguments: Sequence[str]) -> None:
    """Search, and write every trial and what was chosen."""
    chosen = parser_of("python -m benchmarks.search", __doc__, SEEDS).parse_args(arguments)
    seeds = distinct(chosen.seeds)
    world = World()
    if chosen.fresh:
        forget(world)
        shutil.rmtree(ROOT / "training" / "search", ignore_errors=True)
    ready = prepare(world)
    start = defaults(ROOT / CONFIG)
    progress = Progress(trials_of(start, COORDINATES) * len(seeds))
    trials: list[dict[str, Any]] = []
    trial = partial(run_trial, ready, chosen.steps, progress, trials)
    best, tables = coordinate_search(start, COORDINATES, seeds, trial)
    result = {
        "command": "python -m benchmarks.search",
        "start": start,
        "chosen": best,
        "margin": MARGIN,
        "prompt_limit": PROMPT_LIMIT,
        "by_coordinate": tables,
        "seeds": seeds,
        "trials": trials,
        "seconds": round(ready.seconds + sum(row["seconds"] for row in trials), 1),
        "machine": describe_machine(),
    }
    default = tuple(seeds) == SEEDS and chosen.steps is None
    path = ROOT / "benchmarks" / "results" / "search.json" if default else ROOT / "metrics" / "search" / "search.json"
    write_json(path, result)
    say(f"wrote {path}")
    print(json.dumps(result))


def run_trial(
    ready: Ready,
    steps: int | None,
    progress: Progress,
    trials: list[dict[str, Any]],
    settings: dict[str, Any],
    seed: int,
) -> Score:
    """Train with some settings and measure on the dev mentions, unless that is kept; noted in `trials`."""
    training = Training("search", seed, {**settings, **steps_of(steps)})
    key = training.key(ready)
    folder = ready.world.root / "training" / "search"
    path = folder / "trials" / f"{key[:16]}.json"
    message = ", ".join(f"{name.rsplit('.', 1)[-1]} {value}" for name, value in settings.items())
    with alone(path):
        found = kept(path, key)
        progress.say(f"{message}, seed {seed}" + (": kept" if found else ""))
        if found is None:
            score = score_of(ready, training, folder / key[:16])
            progress.ran.append(score.seconds)
            found = {"key": key, "settings": settings, "seed": seed, **asdict(score)}
            write_json(path, found)
            shutil.rmtree(folder / key[:16])  # the figures are all that is wanted of it
    trials.append({name: value for name, value in found.items() if name != "key"})
    return Score(**{name: found[name] for name in ("accuracy", "mean_prompt", "longest_prompt", "seconds")})


def score_of(ready: Ready, training: Training, folder: Path) -> Score:
    """Train, and measure on all dev mentions."""
    from spacy_gemel.evaluation.runner import EvaluateOptions
    from spacy_gemel.pipeline.loaded import load_pipeline

    trained = train(ready, training, folder)
    nlp = load_pipeline(str(trained.pipeline))
    dev = ready.world.corpus("dev")
    metrics, _, seconds = measure(nlp, dev, EvaluateOptions(tail_share=TAIL_SHARE, progress=False), trained.pipeline)
    lengths = prompt_lengths(nlp, dev)
    return Score(metrics["accuracy"], sum(lengths) / len(lengths), max(lengths), round(trained.seconds + seconds, 1))


def prompt_lengths(nlp: "Language", data: Path) -> list[int]:
    """The tokens of each mention's prompt, its image's soft ones included."""
    import numpy as np

    from spacy_gemel.data.reader import read_docs
    from spacy_gemel.pipeline.loaded import linker_of
    from spacy_gemel.pipeline.mentions import gather_mentions

    pipe = cast("GemelLinker", linker_of(nlp))
    # any features make room for an image's soft tokens: every doc of the mini world has one
    image = np.zeros(1, dtype=np.float32)
    mentions = [
        replace(mention, features=image)
        for mention in gather_mentions([doc.ents for doc in read_docs(data, nlp.vocab)], None, pipe.settings)
    ]
    return [prompt.length for prompt in pipe.stages.prompts(mentions, pipe.settings) if prompt is not None]


if __name__ == "__main__":
    main(sys.argv[1:])
