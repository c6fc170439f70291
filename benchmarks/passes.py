"""Forward passes of a search, and its time: a step a pass, several steps a pass, and exact.

python -m benchmarks.passes --data DATA --kb KB [--models DIR] [--mentions 96] [--dtype float32]

SmolLM2-135M reads WikiDiverse's val captions of DATA, text only, with 8 demonstrations, alone and sixteen at once; all
searches follow the same prompts, in turns. Only a run with the default sizes writes to benchmarks/results.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import real_kb
from benchmarks.constraint import ForwardClock
from benchmarks.linking import mentions_of
from benchmarks.linking_real import DEMONSTRATIONS, LONGEST, check_models
from benchmarks.subject import ModelPaths, linker_in, make_pipeline
from research.commands import report
from research.machine import describe_machine
from research.mini_world import MODEL_FOLDERS, ROOT
from spacy_gemel.utils.files import write_json

if TYPE_CHECKING:
    from torch import Tensor

    from spacy_gemel.linking.model import LinkingModel

EXAMPLES, MENTIONS, DTYPE = 5000, 96, "float32"
BATCHES = (1, 16)
BEAMS = 5
MOST_PASSES = 4  # asked, one mention at a time

WAYS = ("step_by_step", "ahead", "exact")
Names = list[tuple[tuple[int, ...], ...]]
"""The tokens of the names of each mention."""


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and at the default sizes keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.passes", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder with wikidiverse/")
    parser.add_argument("--kb", type=Path, required=True, help="a knowledge base of the language model's tokenizer")
    parser.add_argument("--models", type=Path, default=ROOT / "assets" / "real", help="folder of the real models")
    parser.add_argument("--mentions", type=int, default=MENTIONS)
    parser.add_argument("--dtype", default=DTYPE)
    options = parser.parse_args(arguments)
    check_models(options.models)
    language_model, vision_encoder, sentence_encoder = (options.models / name for name in MODEL_FOLDERS)
    paths = ModelPaths(language_model, vision_encoder, sentence_encoder, options.kb, dtype=options.dtype)
    train = real_kb.captions(options.data / "wikidiverse" / "train.json", EXAMPLES, LONGEST)
    asked = real_kb.captions(options.data / "wikidiverse" / "val.json", options.mentions, LONGEST)
    nlp = make_pipeline(paths, train, DEMONSTRATIONS)
    linking_model, settings = linker_in(nlp).linking_model, linker_in(nlp).settings
    prompts = [prompt for prompt in linking_model.prompts(mentions_of(nlp, asked), settings) if prompt]
    embedded, _ = linking_model.embed(prompts, train=False)
    result: dict[str, Any] = {"command": "python -m benchmarks.passes --data DATA --kb KB", "dtype": options.dtype}
    found: list[Names] = []
    for batch in BATCHES:
        report(f"{len(embedded)} mentions, {batch} at a time")
        result[f"batch_{batch}"], names = measure(linking_model, embedded, linking_model.end_id(settings), batch)
        found += [of_way for way, of_way in names.items() if way != "exact"]
    result["same_names"] = sum(len({*row}) == 1 for row in zip(*found, strict=True)) / len(embedded)
    alone = result["batch_1"]
    result["holds"] = {
        "passes": alone["ahead"]["passes"] <= MOST_PASSES,
        "same_names": result["same_names"] == 1 or options.dtype != "float32",
        "exact_passes": alone["exact"]["median_passes"] <= 2 * alone["ahead"]["median_passes"],
    }
    result["machine"] = describe_machine()
    if (options.mentions, options.dtype) == (MENTIONS, DTYPE):
        write_json(ROOT / "benchmarks" / "results" / "passes.json", result)
    print(json.dumps(result))


def measure(
    model: "LinkingModel", prompts: "Sequence[Tensor]", end_id: int, batch: int
) -> tuple[dict[str, Any], dict[str, Names]]:
    """Passes and milliseconds of each way, `batch` prompts at a time, and the names that each finds.

    Only single mentions are also searched step by step: the search of several shares passes otherwise.
    """
    from spacy_gemel.decoding.beam_search import beam_search, room_for_beams
    from spacy_gemel.decoding.constraints import TrieConstraint
    from spacy_gemel.decoding.exact_search import exact_search
    from spacy_gemel.linking.settings import LinkerSettings

    max_tokens = LinkerSettings().exact_tokens
    constraint = TrieConstraint(model.kb.trie, end_id, LinkerSettings().max_name_tokens)
    room = room_for_beams(BEAMS, constraint.max_tokens) + max_tokens
    seconds, passes = dict.fromkeys(WAYS, 0.0), {name: list[int]() for name in WAYS}
    found: dict[str, Names] = {name: [()] * len(prompts) for name in WAYS}
    prefill = 0.0
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), batch):
        indices = order[start : start + batch]
        begin = time.perf_counter()
        state = model.decoder.prefill([prompts[i] for i in indices], tokens=constraint.max_tokens, room=room)
        prefill += time.perf_counter() - begin
        free_slots = state.free_slots
        for name in WAYS if start // batch % 2 else reversed(WAYS):  # neither always follows the other
            state.free_slots = 1 if name == "step_by_step" else free_slots
            clock = ForwardClock()
            begin = time.perf_counter()
            with clock.on(model.language_model):
                if name == "exact":
                    results = exact_search(state, constraint, beam_size=BEAMS, n_names=BEAMS, max_tokens=max_tokens)
                    names = [of_mention for of_mention, _ in results]
                else:
                    names = beam_search(state, constraint, beam_size=BEAMS, n_names=BEAMS)
            seconds[name] += time.perf_counter() - begin
            passes[name].append(clock.passes)
            for index, of_mention in zip(indices, names, strict=True):
                found[name][index] = tuple(hypothesis.tokens for hypothesis in of_mention)
    ways = WAYS if batch == 1 else WAYS[1:]
    whole = {name: prefill + seconds[name] for name in ways}
    figures = {
        name: {
            "passes": round(sum(passes[name]) / len(passes[name]), 2),
            "median_passes": sorted(passes[name])[len(passes[name]) // 2],
            "ms_per_mention": round(1000 * seconds[name] / len(prompts), 1),
            "over_beams_with_prefill": round(whole[name] / whole["ahead"], 3),
        }
        for name in ways
    }
    figures["prefill"] = {"ms_per_mention": round(1000 * prefill / len(prompts), 1)}
    return figures, {name: found[name] for name in ways}


if __name__ == "__main__":
    main()
