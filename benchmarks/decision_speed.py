"""How much longer a mention takes if a decision weighs all default features.

python -m benchmarks.decision_speed --data DATA --kb KB [--models DIR] [--mentions 60] [--repeats 2]

SmolLM2-135M in bf16 links WikiDiverse's val captions of DATA, text only, with and without a decision in turns, caches
emptied each time. KB was built with `--encode-descriptions` and the models' sentence encoder. Only a run with the
default sizes writes to benchmarks/results.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import real_kb
from benchmarks.linking import time_ours
from benchmarks.linking_real import DEMONSTRATIONS, LONGEST, check_models
from benchmarks.subject import ModelPaths, linker_in, make_pipeline
from benchmarks.timing import spread
from research.commands import report
from research.machine import describe_machine, matmul_rate
from research.mini_world import MODEL_FOLDERS, ROOT
from spacy_gemel.linking.decision import Decision
from spacy_gemel.utils.files import write_json

EXAMPLES, MENTIONS, REPEATS = 5000, 60, 2
TARGET = 1.1


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and at the default sizes keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decision_speed", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder with wikidiverse/")
    parser.add_argument("--kb", type=Path, required=True, help="a knowledge base with vectors of descriptions")
    parser.add_argument("--models", type=Path, default=ROOT / "assets" / "real", help="folder of the real models")
    parser.add_argument("--mentions", type=int, default=MENTIONS)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    options = parser.parse_args(arguments)
    result = measure(options.models, options.data, options.kb, options.mentions, options.repeats)
    if (options.mentions, options.repeats) == (MENTIONS, REPEATS):
        write_json(ROOT / "benchmarks" / "results" / "decision-speed.json", result)
    print(json.dumps(result))


def measure(models: Path, data: Path, kb: Path, mentions: int, repeats: int) -> dict[str, Any]:
    """Seconds with and without, their ratio, and mentions per second. Raises SystemExit if something is missing."""
    check_models(models)
    language_model, vision_encoder, sentence_encoder = (models / name for name in MODEL_FOLDERS)
    paths = ModelPaths(language_model, vision_encoder, sentence_encoder, kb, dtype="bfloat16")
    train = real_kb.captions(data / "wikidiverse" / "train.json", EXAMPLES, LONGEST)
    asked = real_kb.captions(data / "wikidiverse" / "val.json", mentions, LONGEST)
    nlp = make_pipeline(paths, train, DEMONSTRATIONS)
    linker = linker_in(nlp)
    if linker.kb.description_vectors is None:
        raise SystemExit(f"{kb} has no vectors of descriptions: build it with --encode-descriptions {sentence_encoder}")
    columns = [column for feature in linker.features for column in feature.columns]
    ways = {"without": None, "with": Decision(dict.fromkeys(columns, 0.1))}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    rates = []
    for repeat in range(repeats):
        report(f"{len(asked)} mentions, with a decision and without: {repeat + 1} of {repeats}")
        rates.append(matmul_rate())
        for name, decision in ways.items():
            linker.use_decision(decision)
            seconds[name].append(time_ours(nlp, asked)[0])
        ways = dict(reversed(ways.items()))  # neither always follows the other
    ratio = spread([more / less for more, less in zip(seconds["with"], seconds["without"], strict=True)], 2)
    return {
        "command": "python -m benchmarks.decision_speed --data DATA --kb KB",
        "with_over_without": ratio,
        "mentions_per_second": {name: spread([len(asked) / each for each in seconds[name]], 3) for name in seconds},
        "mentions": len(asked),
        "features": [type(feature).__name__ for feature in linker.features],
        "holds": {"with_over_without": ratio["median"] <= TARGET},
        "fp32_matmul_2048_gflops": spread(rates, 1),
        "machine": describe_machine(),
    }


if __name__ == "__main__":
    main()
