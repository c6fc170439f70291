"""Mentions per second with sets of demonstrations that stay read, beside demonstrations retrieved for each mention.

python -m benchmarks.demonstration_sets [--model random|real] [--models DIR] [--data DATA] [--tiny]

By default a Llama of 100M random parameters in fp32 and the mini world's lengthened captions, text and pictures; with
--model real SmolLM2-135M in bf16, and with --data WikiDiverse's captions, text only. All ways link the same captions
in turns. The sets that these are nearest to have been read before: what is measured is a stream of docs after its
beginning. Only a run with the default sizes writes to benchmarks/results.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import linking, linking_real
from benchmarks.random_llama import write_random_llama
from benchmarks.subject import Caption, ModelPaths, lengthen, linker_in, make_pipeline, read_captions
from benchmarks.timing import spread
from research.commands import report
from research.machine import describe_machine
from research.mini_world import MODELS, ROOT, prepare
from spacy_gemel.utils.files import write_json

if TYPE_CHECKING:
    from spacy.language import Language

SETS = (1, 16, 64, 256)
MENTIONS = {"random": 24, "real": 96}
LEAST = 5.0
"""Times as many mentions per second, asked with at most FEW sets."""
FEW = 64


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and at the default sizes keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demonstration_sets", description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=("random", "real"), default="random")
    parser.add_argument("--models", type=Path, help="folder of the real models, by default assets/real")
    parser.add_argument("--data", type=Path, help="with --model real: a folder with kb/ and wikidiverse/")
    parser.add_argument("--tiny", action="store_true", help="all sizes as small as they go: does it run?")
    options = parser.parse_args(arguments)
    sizes, mentions = (linking.TINY, 3) if options.tiny else (linking.Sizes(), MENTIONS[options.model])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.model == "real":
            models = options.models or ROOT / "assets" / "real"
            result = measure_real(models, options.data, folder, sizes, mentions, tiny=options.tiny)
        else:
            result = measure_random(folder, sizes, mentions)
    named = "" if options.data is None else " --data DATA"
    result = {
        "command": f"python -m benchmarks.demonstration_sets --model {options.model}{named}",
        **result,
        "holds": all(way["ratio"]["median"] >= LEAST for count, way in result["sets"].items() if int(count) <= FEW),
        "machine": describe_machine(),
    }
    if not options.tiny:
        suffix = "-real" if options.model == "real" else ""
        write_json(ROOT / "benchmarks" / "results" / f"demonstration-sets{suffix}.json", result)
    print(json.dumps(result))


def measure_random(folder: Path, sizes: linking.Sizes, mentions: int) -> dict[str, Any]:
    """A large Llama of random weights."""
    prepare(linking.WORLD)
    models, data = ROOT / MODELS, linking.WORLD.folder("data")
    large = write_random_llama(folder, models / "language_model", sizes.shape)
    paths = ModelPaths(large, models / "vision_encoder", models / "sentence_encoder", linking.WORLD.kb)
    train, test = (read_captions(data / f"{split}.jsonl") for split in ("train", "test"))
    train, test = (lengthen(rows, sizes.more_words) for rows in (train[: sizes.mini_examples], test[:mentions]))
    return measure(make_pipeline(paths, train, sizes.demonstrations), test, sizes.repeats)


def measure_real(
    models: Path, data: Path | None, folder: Path, sizes: linking.Sizes, mentions: int, *, tiny: bool
) -> dict[str, Any]:
    """SmolLM2-135M."""
    linking_real.check_models(models)
    chosen = linking.Sizes(examples=20 if tiny else 5000, more_words=sizes.more_words)
    paths, train, test = linking_real.prepare_real(models, data, folder / "kb", chosen, mentions)
    half = ModelPaths(paths.language_model, paths.vision_encoder, paths.sentence_encoder, paths.kb, "bfloat16")
    return measure(make_pipeline(half, train, linking_real.DEMONSTRATIONS), test, sizes.repeats)


def measure(nlp: "Language", asked: Sequence[Caption], repeats: int) -> dict[str, Any]:
    """Retrieved demonstrations and each number of sets, in turns."""
    seconds: dict[int, list[float]] = {count: [] for count in (0, *SETS)}
    linking_model = linker_in(nlp).linking_model
    kept = {}
    for count in seconds:
        report(f"{count or 'no'} sets, unmeasured")
        before = linking_model._beginnings.entries.size
        linking.time_sets(nlp, asked, count)
        kept[count] = linking_model._beginnings.entries.size - before
    for repeat in range(repeats):
        report(f"linking {len(asked)} mentions each way: {repeat + 1}")
        for count, times in seconds.items():
            times.append(linking.time_sets(nlp, asked, count))
    lengths = [
        prompt.length
        for prompt in linking_model.prompts(linking.mentions_of(nlp, asked), linker_in(nlp).settings)
        if prompt
    ]
    rates = {count: [len(asked) / each for each in times] for count, times in seconds.items()}
    return {
        "mentions": len(asked),
        "mean_prompt_tokens": round(sum(lengths) / len(lengths)),
        "retrieved_mentions_per_second": spread(rates[0]),
        "sets": {
            str(count): {
                "mentions_per_second": spread(rates[count]),
                "ratio": linking.ratio(seconds[0], seconds[count]),
                "kept_mb": round(kept[count] / 1e6, 1),
            }
            for count in SETS
        },
    }


if __name__ == "__main__":
    main(sys.argv[1:])
