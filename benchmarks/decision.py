"""What `fit-decision` brings on the mini world with a fifth of its entities taken out of the knowledge base.

python -m benchmarks.decision [--pipeline training/model-best] [--data data/mini] [--draws 3] [--share 0.2]

Trains nothing. In each draw a share of the entities that are gold in dev or test is left out of the knowledge base and
of the demonstrations, as if nobody had known them, and their mentions become NIL. What is fitted is fitted on dev and
measured on test: the pipeline as it was, the same answers at one temperature with one threshold for NIL, and the
pipeline with the decision as it was saved. Only a run of the default size writes to benchmarks/results.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.subject import linker_in
from research.commands import report
from research.machine import describe_machine
from research.mini_world import MODELS, ROOT
from research.real.calibrate import calibrate, confidences
from spacy_gemel.data.datasets.converters import convert
from spacy_gemel.evaluation.calibration import answer_figures
from spacy_gemel.evaluation.decision_cases import collect_cases
from spacy_gemel.evaluation.decision_report import fit_report
from spacy_gemel.evaluation.results import MentionResult
from spacy_gemel.evaluation.runner import EvaluateOptions, evaluate
from spacy_gemel.kb.builder import build_kb
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.kb.resolve import NIL
from spacy_gemel.linking.demonstrations import DemonstrationStore
from spacy_gemel.models.tokenizer import load_tokenizer
from spacy_gemel.pipeline.loaded_pipeline import load_pipeline, save_changed
from spacy_gemel.utils.files import write_json

DRAWS = 3
SHARE = 0.2
SPLITS = ("dev", "test")
WAYS = ("before", "calibrated", "decision")
OPTIONS = EvaluateOptions(tail_share=0.2, progress=False, details=False)
MEANS = ("ece", "nil_f", "linking_f", "accuracy", "accuracy_with_nil")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and at the default size keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decision", description=__doc__.split("\n")[0])
    parser.add_argument("--pipeline", type=Path, default=ROOT / "training" / "model-best")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "mini")
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--share", type=float, default=SHARE)
    message = parser.parse_args(arguments)
    for path in (message.pipeline / "config.cfg", message.data / "test.jsonl"):
        if not path.is_file():
            parser.error(f"{path}: not there; `python -m spacy project run all` makes the pipeline and its data")
    draws = []
    for seed in range(message.draws):
        with tempfile.TemporaryDirectory() as folder:
            draws.append(measure(message.pipeline, message.data, Path(folder), message.share, seed))
        report(f"draw {seed}: " + json.dumps({way: draws[-1]["test"][way]["nil_f"] for way in WAYS}))
    result = {
        "share_left_out": message.share,
        "mean_on_test": {
            way: {key: _mean([draw["test"][way][key] for draw in draws]) for key in MEANS} for way in WAYS
        },
        "draws": draws,
        "machine": describe_machine(),
    }
    if (message.draws, message.share) == (DRAWS, SHARE):
        write_json(ROOT / "benchmarks" / "results" / "decision.json", result)
    print(json.dumps(result))


def measure(pipeline: Path, data: Path, folder: Path, share: float, seed: int) -> dict[str, Any]:
    """One draw: everything in `folder`."""
    unknown = draw(data, share, seed)
    report(f"draw {seed}: {len(unknown)} entities are left out")
    prepare(pipeline, data, folder, unknown)
    nlp = load_pipeline(str(folder / "pipeline"))
    (_, dev), (_, test) = (evaluate(nlp, folder / f"{split}.spacy", OPTIONS) for split in SPLITS)
    temperature, threshold = calibrate(scores_of(dev), right(dev), np.array([result.gold == NIL for result in dev]))
    start = time.perf_counter()
    cases, columns = collect_cases(nlp, folder / "dev.spacy", progress=False)
    features = {type(feature).__name__: feature.columns for feature in linker_in(nlp).features}
    decision, outcome = fit_report(cases, columns, features)
    seconds = time.perf_counter() - start
    save_changed(nlp, {"prior_weight": 0.0, "threshold": None}, folder / "decided", decision)
    metrics, decided = evaluate(load_pipeline(str(folder / "decided")), folder / "test.spacy", OPTIONS)
    figures = {
        "before": figures_of(test),
        "calibrated": figures_of(test, temperature, threshold),
        "decision": figures_of(decided),
    }
    if {key: metrics["nil"][key] for key in "prf"} != {key: figures["decision"][f"nil_{key}"] for key in "prf"}:
        raise RuntimeError(f"evaluate says {metrics['nil']} of NIL, and the same answers have {figures['decision']}")
    return {
        "seed": seed,
        "entities_left_out": len(unknown),
        "seconds_of_fitting": round(seconds, 1),
        "temperature": temperature,
        "threshold": threshold,
        "decision": outcome["decision"],
        "worth": outcome["worth"],
        "notes": outcome["notes"],
        "dev": {"mentions": outcome["mentions"], "cross_fitted": brief(outcome["after"]) if outcome["after"] else None},
        "test": figures,
    }


def draw(data: Path, share: float, seed: int) -> set[str]:
    """The ids of a share of the entities that are gold in dev or test."""
    gold_ids = sorted(
        {mention["kb_id"] for split in SPLITS for row in rows_of(data, split) for mention in row["mentions"]}
    )
    chosen = np.random.default_rng(seed).permutation(len(gold_ids))[: round(share * len(gold_ids))]
    return {gold_ids[index] for index in chosen}


def rows_of(data: Path, split: str) -> list[dict[str, Any]]:
    """The rows of a split."""
    lines = (data / f"{split}.jsonl").read_text(encoding="utf8").splitlines()
    return [json.loads(line) for line in lines]


def prepare(pipeline: Path, data: Path, folder: Path, unknown: set[str]) -> None:
    """Write `folder`/pipeline, dev.spacy and test.spacy, in which nobody knows some entities."""
    for split in SPLITS:
        rows = rows_of(data, split)
        for row in rows:
            row["image"] = str((data / row["image"]).resolve())
            for mention in row["mentions"]:
                mention["kb_id"] = "NIL" if mention["kb_id"] in unknown else mention["kb_id"]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf8")
        convert("jsonl", folder / f"{split}.jsonl", folder / f"{split}.spacy", progress=False)
    lines = (data / "entities.jsonl").read_text(encoding="utf8").splitlines()
    known = [line for line in lines if json.loads(line)["id"] not in unknown]
    (folder / "entities.jsonl").write_text("\n".join(known), encoding="utf8")
    tokenizer = load_tokenizer(str(ROOT / MODELS / "language_model"))
    build_kb(folder / "entities.jsonl", folder / "kb", tokenizer, progress=False)
    nlp = load_pipeline(str(pipeline))
    linker = linker_in(nlp)
    linker.set_kb(lambda vocab: KnowledgeBase.open(folder / "kb"))
    remaining = [demonstration for demonstration in linker.store if demonstration.kb_id not in unknown]
    linker.store = DemonstrationStore(remaining, linker.store.features)
    linker.reload()
    nlp.to_disk(folder / "pipeline")


def scores_of(results: Sequence[MentionResult]) -> list[NDArray[np.float64]]:
    """The scores of each mention's names."""
    names = ({candidate["name"]: candidate["score"] for candidate in result.candidates} for result in results)
    return [np.array([*of_mention.values()], dtype=np.float64) for of_mention in names]


def best_of(results: Sequence[MentionResult]) -> list[str]:
    """Each mention's best candidate, NIL without any."""
    return [result.candidates[0]["kb_id"] if result.candidates else NIL for result in results]


def right(results: Sequence[MentionResult]) -> NDArray[np.bool_]:
    """Whether each mention's best candidate is the gold entity."""
    return np.array([best == result.gold != NIL for best, result in zip(best_of(results), results, strict=True)])


def figures_of(results: Sequence[MentionResult], temperature: float = 0.0, threshold: float = 0.0) -> dict[str, Any]:
    """The figures of the answers as they are, or of the scores at a temperature, with NIL below the threshold."""
    best = best_of(results)
    answers = [str(result.predicted) for result in results]
    sure = [result.candidates[0]["probability"] if result.candidates else None for result in results]
    if temperature:
        rated = confidences(scores_of(results), temperature).tolist()
        answers = [name if value >= threshold else NIL for name, value in zip(best, rated, strict=True)]
        sure = [value if result.candidates else None for value, result in zip(rated, results, strict=True)]
    figures = answer_figures([result.gold for result in results], answers, best, sure)
    return {**brief(figures), "reliability": figures["reliability"]}


def brief(outcome: dict[str, Any]) -> dict[str, Any]:
    """The figures that matter, flat."""
    return {
        "ece": outcome["ece"],
        "nil_p": outcome["nil"]["p"],
        "nil_r": outcome["nil"]["r"],
        "nil_f": outcome["nil"]["f"],
        "nil_golds": outcome["nil"]["n"],
        "linking_f": outcome["linking"]["f"],
        "accuracy": outcome["accuracy"],
        "accuracy_with_nil": outcome["accuracy_with_nil"],
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


if __name__ == "__main__":
    main()
