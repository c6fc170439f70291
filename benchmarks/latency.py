"""How long one doc alone takes, by stage: the first of a new process, and the next fifty.

python -m benchmarks.latency [--model mini|real] [--models DIR] [--data DATA] [--tiny]

Each of ten processes loads the same saved pipeline and then calls `nlp(doc)` doc by doc, one mention each; the first
call is `cold`, the others are `warm`. `mini` is the mini world's captions with pictures and its own language model;
`real` is SmolLM2-135M in fp32 with 8 demonstrations, of the mini world's captions or with --data ../shared/data of
WikiDiverse's, text only. The files are in the page cache. Only a run with the default sizes writes to
benchmarks/results.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import linking, linking_real
from benchmarks.stage_clock import NAMES, StageClock, watched
from benchmarks.subject import Caption, ModelPaths, docs_of, make_pipeline, read_captions
from research.commands import report
from research.machine import describe_machine
from research.mini_world import MODEL_FOLDERS, MODELS, ROOT, prepare
from spacy_gemel.utils.files import write_json


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. docs: of each process, the first of them cold."""

    processes: int = 10
    docs: int = 51
    examples: int = 5000
    demonstrations: int = 8


TINY = Sizes(processes=1, docs=3, examples=20, demonstrations=2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and at the default sizes keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=("mini", "real"), default="mini")
    parser.add_argument("--models", type=Path, help="folder of the models, by default assets/real or assets/mini")
    parser.add_argument("--data", type=Path, help="with --model real: a folder with kb/ and wikidiverse/")
    parser.add_argument("--tiny", action="store_true", help="all sizes as small as they go: does it run?")
    parser.add_argument("--case", help=argparse.SUPPRESS)  # what a process of its own is asked for
    options = parser.parse_args(arguments)
    if options.case is not None:
        print(json.dumps(run_case(**json.loads(options.case))))
        return
    sizes = TINY if options.tiny else Sizes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.model == "real":
            models = options.models or ROOT / "assets" / "real"
            linking_real.check_models(models)
            chosen = replace(linking.Sizes(), examples=sizes.examples)
            parts = linking_real.prepare_real(models, options.data, folder / "kb", chosen, sizes.docs)
        else:
            parts = prepare_mini(options.models or ROOT / MODELS, sizes)
        result = measure(*parts, sizes, folder)
    named = f" --model {options.model}{'' if options.data is None else ' --data DATA'}"
    result = {"command": f"python -m benchmarks.latency{named}", **result, "machine": describe_machine()}
    if not options.tiny:
        name = "latency.json" if options.model == "mini" else "latency-real.json"
        write_json(ROOT / "benchmarks" / "results" / name, result)
    print(json.dumps(result))


def prepare_mini(models: Path, sizes: Sizes) -> tuple[ModelPaths, list[Caption], list[Caption]]:
    """The models, captions for demonstrations, and those that are linked."""
    prepare(linking.WORLD)
    data = linking.WORLD.folder("data")
    language_model, vision_encoder, sentence_encoder = (models / name for name in MODEL_FOLDERS)
    paths = ModelPaths(language_model, vision_encoder, sentence_encoder, linking.WORLD.kb)
    train, test = (read_captions(data / f"{split}.jsonl") for split in ("train", "test"))
    return paths, train[: sizes.examples], test[: sizes.docs]


def measure(
    paths: ModelPaths, train: Sequence[Caption], test: Sequence[Caption], sizes: Sizes, folder: Path
) -> dict[str, Any]:
    """All figures, in milliseconds."""
    make_pipeline(paths, train, sizes.demonstrations).to_disk(folder / "pipeline")
    case = json.dumps({"pipeline": str(folder / "pipeline"), "captions": [astuple(caption) for caption in test]})
    runs = []
    for index in range(sizes.processes):
        report(f"process {index + 1} of {sizes.processes}")
        command = [sys.executable, "-m", "benchmarks.latency", "--case", case]
        run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        runs.append(json.loads(run.stdout.splitlines()[-1]))
    return {
        "demonstrations": sizes.demonstrations,
        "load_seconds": percentiles([run["load_seconds"] for run in runs]),
        "cold": by_stage([run["calls"][0] for run in runs]),
        "warm": by_stage([call for run in runs for call in run["calls"][1:]]),
    }


def by_stage(calls: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """The percentiles of some calls' milliseconds, of all and of each stage."""
    whole = percentiles([1000 * sum(call.values()) for call in calls])
    stages = {name: percentiles([1000 * call[name] for call in calls]) for name in NAMES}
    return {"calls": len(calls), "ms": whole, "ms_by_stage": stages}


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50 and p95."""
    return {f"p{share}": round(float(np.percentile(values, share)), 3) for share in (50, 95)}


def run_case(pipeline: str, captions: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Load a pipeline and link doc by doc: the seconds of each call by stage."""
    import spacy

    start = time.perf_counter()
    nlp = spacy.load(pipeline)
    result: dict[str, Any] = {"load_seconds": time.perf_counter() - start, "calls": []}
    for doc in docs_of(nlp, [Caption(*row) for row in captions]):
        clock = StageClock()
        with watched(nlp, clock), clock.stage("other"):
            nlp(doc)
        result["calls"].append(clock.seconds)
    return result


if __name__ == "__main__":
    main(sys.argv[1:])
