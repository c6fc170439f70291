"""The paper's effects on the mini world: three mappers per setting, 2,000 test mentions, an interval for each effect.

python -m benchmarks.evidence [--seeds 1 2 3] [--test N] [--steps N] [--fresh]

A trial that is kept and whose inputs have not changed is not run again; after a change of the package's own code or of
the libraries, give --fresh. Only a run with the default seeds, mentions and steps writes to benchmarks/results; a run
with some of those seeds makes a part of its trials.
"""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from filelock import Timeout

from benchmarks.effects import effects, figures, line_up, markdown, outcomes
from benchmarks.keeping import alone, digest, kept
from benchmarks.machine import describe_machine
from benchmarks.running import run, say
from benchmarks.trials import TAIL_SHARE, Training, distinct, measure, parser_of, steps_of, train
from benchmarks.worlds import (
    MODELS,
    ROOT,
    TEST_MENTIONS,
    Ready,
    World,
    folder_sums,
    forget,
    prepare,
    split_sum,
    world_seed,
    world_sources,
)
from research.grid.processes import Progress
from spacy_gemel.evaluation.results import mentions_path, read_mentions, write_evaluation
from spacy_gemel.evaluation.runner import EvaluateOptions
from spacy_gemel.kb.meta import sha256_of
from spacy_gemel.pipeline.loaded import load_pipeline
from spacy_gemel.utils.files import write_whole

SEEDS = (1, 2, 3)
SETTINGS = ("full", "no-image", "unconstrained", "none", "random", "bm25")
FIXED_TEST = "scripts/mini_world/data/test.sha256"


def main(arguments: Sequence[str]) -> None:
    """Run what is not kept, and write the table."""
    parser = parser_of("python -m benchmarks.evidence", __doc__, SEEDS)
    parser.add_argument("--test", type=int, default=TEST_MENTIONS, help="test mentions")
    chosen = parser.parse_args(arguments)
    seeds = distinct(chosen.seeds)
    world = world_of(chosen.test, chosen.steps)
    if chosen.fresh:
        forget(world)
        for kind in ("training", "metrics"):
            shutil.rmtree(world.folder(kind), ignore_errors=True)
        gates_file(world.root).unlink(missing_ok=True)
    ready = prepare(world)
    if world.test == TEST_MENTIONS:
        check_test(world)
    gates = measured_gates(world.root)
    run_trials(ready, seeds, chosen.steps)
    command = "python -m benchmarks.evidence"
    text_seed = text_seed_of(seeds)
    if text_seed is None:
        say(f"kept; `{command}` gathers all seeds")
        print(json.dumps({"command": command, "seeds": seeds, "gathered": False}))
        return
    result = {"command": command, **gather(ready, seeds, text_seed), **gates, "machine": describe_machine()}
    default = chosen.test == TEST_MENTIONS and chosen.steps is None and tuple(seeds) == SEEDS
    folder = ROOT / "benchmarks" / "results" if default else world.folder("metrics") / "result"
    table = markdown(result["effects"], gates["gates"])
    write_result(folder, result, table)
    print(table)
    print(json.dumps(result))


def world_of(test: int, steps: int | None) -> World:
    """The evidence's own world, or another one for a try: that must not take the place of what the evidence keeps."""
    tried = [f"-test{test}"] if test != TEST_MENTIONS else []
    tried += [f"-steps{steps}"] if steps is not None else []
    return World("evidence" + "".join(tried), test)


def trainings(seed: int, steps: int | None) -> list[Training]:
    """The four mappers of a seed. dense is full."""
    short = steps_of(steps)
    return [
        Training("full", seed, short),
        Training("none", seed, {**short, "components.gemel_linker.n_demonstrations": 0}),
        Training("random", seed, short, {"@misc": "spacy_gemel.RandomRetriever.v1", "seed": seed}),
        Training("bm25", seed, short, {"@misc": "spacy_gemel.BM25Retriever.v1"}),
    ]


def text_seed_of(seeds: Sequence[int]) -> int | None:
    """The seed whose pipeline stands for all without the image, where no mapper plays a part.

    None where the seeds are some of SEEDS without their first: that is left to a run with it.
    """
    if SEEDS[0] in seeds:
        return SEEDS[0]
    return None if set(seeds) <= set(SEEDS) else seeds[0]


def evaluations(training: str, *, text_only: bool) -> dict[str, EvaluateOptions]:
    """What is measured of a trained pipeline. text_only: without the image as well, if it is the full setting's."""
    plain = EvaluateOptions(tail_share=TAIL_SHARE, progress=False)
    if training != "full":
        return {training: plain}
    found = {
        "full": plain,
        "unconstrained": EvaluateOptions(constrained=False, tail_share=TAIL_SHARE, progress=False),
    }
    if text_only:
        found["no-image"] = EvaluateOptions(use_image=False, tail_share=TAIL_SHARE, progress=False)
    return found


def metrics_file(world: World, setting: str, seed: int) -> Path:
    """Where an evaluation is kept."""
    return world.folder("metrics") / f"{setting}-{seed}.json"


def run_trials(ready: Ready, seeds: Sequence[int], steps: int | None) -> None:
    """Train and measure what is not kept; what another process is at comes last."""
    plan = [training for seed in seeds for training in trainings(seed, steps)]
    test = split_sum(ready.world, "test")
    text_seed = text_seed_of(seeds)
    progress = Progress(len(plan))
    others = []
    for training in plan:
        try:
            run_trial(ready, training, test, progress, text_only=training.seed == text_seed, wait=False)
        except Timeout:
            others.append(training)
    for training in others:
        run_trial(ready, training, test, progress, text_only=training.seed == text_seed, wait=True)


def run_trial(ready: Ready, training: Training, test: str, progress: Progress, *, text_only: bool, wait: bool) -> None:
    """One training and its evaluations. test: digest of the test set. Raises filelock.Timeout as `alone` does."""
    start = time.perf_counter()
    key = training.key(ready)
    wanted = [
        (metrics_file(ready.world, name, training.seed), options, digest(key, name, test, asdict(options)))
        for name, options in evaluations(training.name, text_only=text_only).items()
    ]
    with alone(wanted[0][0], wait=wait):
        missing = [trial for trial in wanted if kept(trial[0], trial[2], mentions_path(trial[0])) is None]
        message = f"{len(missing)} to measure" if missing else "kept"
        progress.say(f"{training.name}, seed {training.seed}: {message}")
        if missing:
            measure_all(ready, training, missing)
            progress.ran.append(time.perf_counter() - start)


def measure_all(ready: Ready, training: Training, missing: Sequence[tuple[Path, EvaluateOptions, str]]) -> None:
    """Measure one training's pipeline in some ways; the numbers, which hold the key, are written last."""
    trained = train(ready, training, ready.world.folder("training") / f"{training.name}-{training.seed}")
    nlp = load_pipeline(str(trained.pipeline))
    for path, options, key in missing:
        path.unlink(missing_ok=True)  # its mentions go first
        metrics, results, seconds = measure(nlp, ready.world.corpus("test"), options, trained.pipeline)
        metrics["trial"] = {"seed": training.seed, "train_seconds": trained.seconds, "evaluate_seconds": seconds}
        write_evaluation({"key": key, **metrics}, results, path)


def gather(ready: Ready, seeds: Sequence[int], text_seed: int) -> dict[str, Any]:
    """Effects and settings from the evaluations on disk. seconds: of all trials, whenever they ran."""
    world = ready.world
    paths = {
        setting: [metrics_file(world, setting, seed) for seed in ((text_seed,) if setting == "no-image" else seeds)]
        for setting in SETTINGS
    }
    metrics = {
        setting: [json.loads(path.read_text(encoding="utf8")) for path in files] for setting, files in paths.items()
    }
    evidence = line_up(
        {setting: [outcomes(read_mentions(mentions_path(path))) for path in files] for setting, files in paths.items()}
    )
    every = [row["trial"] for rows in metrics.values() for row in rows]
    mappers = [row["trial"] for name in ("full", "none", "random", "bm25") for row in metrics[name]]
    seconds = ready.seconds
    seconds += sum(trial["evaluate_seconds"] for trial in every) + sum(trial["train_seconds"] for trial in mappers)
    return {
        "effects": effects(evidence),
        "settings": {
            setting: figures(evidence, setting, [row["mentions_per_second"] for row in rows])
            for setting, rows in metrics.items()
        },
        "seeds": list(seeds),
        "test": {
            "mentions": len(evidence.parts["tail"]),
            "tail": int(np.count_nonzero(evidence.parts["tail"])),
            "unseen": int(np.count_nonzero(evidence.parts["unseen"])),
            "sha256": sha256_of(world.folder("data") / "test.jsonl"),
            "sha256_with_pictures": split_sum(world, "test"),
        },
        "seconds": round(seconds, 1),
    }


def check_test(world: World) -> None:
    """Raises RuntimeError where the test mentions are not those that were fixed before any model was tuned."""
    rows = world.folder("data") / "test.jsonl"
    [fixed, *_] = (world.root / FIXED_TEST).read_text(encoding="utf8").split()
    found = sha256_of(rows)
    if found != fixed:
        raise RuntimeError(
            f"{rows} is not the test set that was fixed in {FIXED_TEST}: its SHA-256 is {found}, not {fixed}. Restore "
            "world_seed and the sources of scripts/mini_world that draw captions and names; a new test set must be "
            "fixed there before anything is tuned"
        )


def gates_file(root: Path) -> Path:
    """Where the gates are kept: they are of the model, and alike for every try."""
    return root / "metrics" / "evidence" / "gates.json"


def measured_gates(root: Path) -> dict[str, Any]:
    """`gates` and `dev` of the language model as it is on disk, from scripts/mini_world/gates.py; kept."""
    model, path = f"{MODELS}/language_model", gates_file(root)
    seed = world_seed(root)
    key = digest(folder_sums(root / model), world_sources(root), seed)
    with alone(path):
        found = kept(path, key)
        if found is None:
            say("measuring the language model's gates")
            with write_whole(path) as partial:
                out = partial.relative_to(root).as_posix()
                run(root, "scripts/mini_world/gates.py", model, out, "--seed", str(seed))
                found = {"key": key, **json.loads(partial.read_text(encoding="utf8"))}
                partial.write_text(json.dumps(found, indent=2) + "\n", encoding="utf8")
    return {name: found[name] for name in ("gates", "dev")}


def write_result(folder: Path, result: dict[str, Any], table: str) -> None:
    """evidence.json and evidence.md, each whole or not at all."""
    for name, content in (("evidence.md", table), ("evidence.json", json.dumps(result, indent=2) + "\n")):
        with write_whole(folder / name) as partial:
            partial.write_text(content, encoding="utf8")
    say(f"wrote {folder / 'evidence.json'} and evidence.md")


if __name__ == "__main__":
    main(sys.argv[1:])
