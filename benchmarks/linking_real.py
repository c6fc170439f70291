"""How fast a real language model links: `python -m benchmarks.linking --model real`.

SmolLM2-135M of `python -m spacy project run real-models`, in fp32 and bf16, beside the official way with the same
weights and prompts, and bf16 beside fp32 on more mentions. With --data (../shared/data) it links WikiDiverse's val
captions, text only, in the knowledge base that lies there; else those of the mini world, with its entities.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import linking, real_kb
from benchmarks.agreement import Answer, agreement
from benchmarks.linking import Sizes, has_bf16, make_pair, measure_beside, prompts_at_once, time_ours
from benchmarks.prefill import measure_prefill
from benchmarks.subject import Caption, ModelPaths, lengthen, linker_in, read_captions
from benchmarks.timing import spread
from research.commands import report
from research.machine import describe_machine, matmul_rate
from research.mini_world import MODEL_FOLDERS, ROOT, prepare
from spacy_gemel.kb.builder import build_kb
from spacy_gemel.models.tokenizer import load_tokenizer
from spacy_gemel.utils.files import write_json

if TYPE_CHECKING:
    from spacy.language import Language

DEMONSTRATIONS = 8
COMPARED, ROUND = 300, 30
LONGEST = 1000  # characters of a caption


def run(models: Path, data: Path | None, sizes: Sizes, *, tiny: bool) -> None:
    """Measure, print, and at the default sizes keep. Raises SystemExit if a model is missing."""
    check_models(models)
    examples, demonstrations, compared = (sizes.examples, 2, 4) if tiny else (5000, DEMONSTRATIONS, COMPARED)
    real = replace(sizes, examples=examples, demonstrations=demonstrations)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(*prepare_real(models, data, Path(folder) / "kb", real, compared), real)
    named = "" if data is None else " --data DATA"
    result = {"command": f"python -m benchmarks.linking --model real{named}", **result, "machine": describe_machine()}
    if replace(sizes, profile=False) == Sizes():
        write_json(ROOT / "benchmarks" / "results" / "linking-real.json", result)
    print(json.dumps(result))


def check_models(models: Path) -> None:
    """Raises SystemExit if one of the real models is missing."""
    missing = [name for name in MODEL_FOLDERS if not (models / name).is_dir()]
    if missing:
        raise SystemExit(f"{models / missing[0]} does not exist: run `python -m spacy project run real-models` first")


def prepare_real(
    models: Path, data: Path | None, kb: Path, sizes: Sizes, asked: int
) -> tuple[ModelPaths, list[Caption], list[Caption]]:
    """The models with a knowledge base built in `kb`, captions for demonstrations, and those that are linked."""
    if data is None:
        prepare(linking.WORLD)
        folder = linking.WORLD.folder("data")
        entities = folder / "entities.jsonl"
        train, test = (read_captions(folder / f"{split}.jsonl") for split in ("train", "test"))
        train, test = (lengthen(rows, sizes.more_words) for rows in (train[: sizes.examples], test[:asked]))
    else:
        entities = data / "kb" / "entities.jsonl"
        train = real_kb.captions(data / "wikidiverse" / "train.json", sizes.examples, LONGEST)
        test = real_kb.captions(data / "wikidiverse" / "val.json", asked, LONGEST)
    report(f"building a knowledge base of {entities.name}")
    build_kb(entities, kb, load_tokenizer(str(models / "language_model")), progress=False)
    language_model, vision_encoder, sentence_encoder = (models / name for name in MODEL_FOLDERS)
    return ModelPaths(language_model, vision_encoder, sentence_encoder, kb), train, test


def measure(paths: ModelPaths, train: Sequence[Caption], test: Sequence[Caption], sizes: Sizes) -> dict[str, Any]:
    """All figures."""
    nlp, half = make_pair(paths, train, sizes.demonstrations)
    result = measure_beside(nlp, half, test[: sizes.mentions], sizes)
    result["same_best_beside_reference_bf16"] = result.pop("same_best_bf16")
    report(f"fp32 and bf16 on {len(test)} mentions")
    result |= compare_types(nlp, half, test)
    report("the prefill alone")
    batch = prompts_at_once(nlp, test)
    result |= measure_prefill(linker_in(nlp).linking_model.language_model, batch, sizes.repeats)
    result |= {"demonstrations": sizes.demonstrations, "entities": len(linker_in(nlp).kb)}
    return {**result, "holds": check_targets(result)}


def compare_types(nlp: "Language", half: "Language", captions: Sequence[Caption]) -> dict[str, Any]:
    """How many times faster bf16 is than fp32, some mentions in turns, and for how many the best name is the same."""
    seconds: dict[str, list[float]] = {"fp32": [], "bf16": []}
    answers: dict[str, list[Answer]] = {"fp32": [], "bf16": []}
    ways = {"fp32": nlp, "bf16": half}
    matmul = []
    for start in range(0, len(captions), ROUND):
        matmul.append(matmul_rate(3, "bfloat16") / matmul_rate(3))
        for name, pipeline in ways.items():
            second, names = time_ours(pipeline, captions[start : start + ROUND])
            seconds[name].append(second)
            answers[name] += names
        ways = dict(reversed(ways.items()))  # neither always follows the other
        report(f"{min(start + ROUND, len(captions))} of {len(captions)}")
    agreed = agreement([caption.text for caption in captions], answers["bf16"], answers["fp32"])
    ratios = [whole / half_seconds for whole, half_seconds in zip(seconds["fp32"], seconds["bf16"], strict=True)]
    return {
        "bf16_over_fp32": spread(ratios, 2),
        "bf16_over_fp32_matmul_2048": spread(matmul, 2),
        "compared": len(captions),
        "compared_seconds": {name: round(sum(times), 1) for name, times in seconds.items()},
        "same_best_bf16": agreed["same_best"],
        "best_differs_bf16": len(agreed["best_differs"]),
    }


def check_targets(result: Mapping[str, Any]) -> dict[str, bool]:
    """Which of the figures that are asked for hold."""
    return {
        "bf16_over_fp32": result["bf16_over_fp32"]["median"] >= 1.5 or not has_bf16(),
        "same_best_bf16": result["same_best_bf16"] >= 0.99,
        "same_best": result["same_best"] == 1,
        "scores": result["largest_score_difference"] <= 1e-4,
        "lower_ranks": not result["still_differ_without_early_stop"],
    }
