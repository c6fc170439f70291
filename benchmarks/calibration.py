"""What `calibrate` brings on the mini world with a fifth of its entities taken out of the knowledge base.

python -m benchmarks.calibration [--pipeline training/model-best] [--data data/mini] [--draws 3] [--share 0.2]

Trains nothing. In each draw a share of the entities that are gold in dev or test is left out of the knowledge base and
of the demonstrations, as if nobody had known them, and their mentions become NIL. The pipeline is calibrated on dev,
and measured on test as it was and as it was saved. Only a run of the default size writes to benchmarks/results.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from spacy.language import Language

from benchmarks.subject import linker_in
from research.commands import report
from research.machine import describe_machine
from research.mini_world import MODELS, ROOT
from spacy_gemel.data.datasets.converters import convert
from spacy_gemel.evaluation.calibration import (
    Cases,
    Decision,
    calibrate,
    cases_of,
    confidence,
    expected_calibration_error,
    figures,
)
from spacy_gemel.evaluation.calibration import reliability as reliability_of
from spacy_gemel.evaluation.results import MentionResult
from spacy_gemel.evaluation.runner import EvaluateOptions, evaluate
from spacy_gemel.kb.builder import build_kb
from spacy_gemel.linking.demonstrations import DemonstrationStore
from spacy_gemel.models.tokenizer import load_tokenizer
from spacy_gemel.pipeline.loaded_pipeline import load_pipeline, save_changed
from spacy_gemel.utils.files import write_json

DRAWS = 3
SHARE = 0.2
SPLITS = ("dev", "test")
OPTIONS = EvaluateOptions(tail_share=0.2, progress=False, demonstrations=False)
MEANS = ("ece", "nil_f", "linking_f", "accuracy", "accuracy_with_nil")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and at the default size keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__.split("\n")[0])
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
        report(f"draw {seed}: " + json.dumps({when: draws[-1]["test"][when]["nil_f"] for when in ("before", "after")}))
    result = {
        "share_left_out": message.share,
        "mean_on_test": {
            when: {key: _mean([draw["test"][when][key] for draw in draws]) for key in MEANS}
            for when in ("before", "after")
        },
        "draws": draws,
        "machine": describe_machine(),
    }
    if (message.draws, message.share) == (DRAWS, SHARE):
        write_json(ROOT / "benchmarks" / "results" / "calibration.json", result)
    print(json.dumps(result))


def decision_of(nlp: Language) -> Decision:
    """How the pipeline decides."""
    settings = linker_in(nlp).settings
    return Decision(settings.temperature, settings.threshold)


def measure(pipeline: Path, data: Path, folder: Path, share: float, seed: int) -> dict[str, Any]:
    """One draw: everything in `folder`."""
    unknown = draw(data, share, seed)
    report(f"draw {seed}: {len(unknown)} entities are left out")
    prepare(pipeline, data, folder, unknown)
    start = time.perf_counter()
    nlp = load_pipeline(str(folder / "pipeline"))
    _, dev = evaluate(nlp, folder / "dev.spacy", OPTIONS)
    current = decision_of(nlp)
    outcome = calibrate(dev, current)
    fitted = Decision(outcome["after"]["temperature"], outcome["after"]["threshold"])
    seconds = time.perf_counter() - start
    metrics, test = evaluate(nlp, folder / "test.spacy", OPTIONS)
    save_changed(nlp, asdict(fitted), folder / "calibrated")
    calibrated = load_pipeline(str(folder / "calibrated"))
    if decision_of(calibrated) != fitted:
        raise RuntimeError(f"the saved pipeline has {decision_of(calibrated)} in place of {fitted}")
    metrics_after, test_after = evaluate(calibrated, folder / "test.spacy", OPTIONS)
    other = gold_likelihood_temperature(dev)
    return {
        "seed": seed,
        "entities_left_out": len(unknown),
        "seconds_of_calibration": round(seconds, 1),
        "temperature": fitted.temperature,
        "threshold": fitted.threshold,
        "notes": outcome["notes"],
        "dev": {
            "mentions": outcome["mentions"],
            "before": brief(outcome["before"]),
            "after": brief(outcome["after"]),
            "cross_fitted": brief(outcome["cross_fitted"]) if outcome["cross_fitted"] else None,
        },
        "test": {
            "before": judged(test, metrics, current),
            "after": judged(test_after, metrics_after, fitted),
        },
        "gold_likelihood": {"temperature": other, "ece_on_test": ece_of(cases_of(test)[0], other)},
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
    copy = folder / "copy"
    # The knowledge base may be of an older format: the new one takes its place before anything is loaded.
    shutil.copytree(pipeline, copy, ignore=lambda path, names: {"kb"} & set(names))
    tokenizer = load_tokenizer(str(ROOT / MODELS / "language_model"))
    build_kb(folder / "entities.jsonl", copy / "gemel_linker" / "kb", tokenizer, progress=False)
    nlp = load_pipeline(str(copy))
    linker = linker_in(nlp)
    remaining = [demonstration for demonstration in linker.store if demonstration.kb_id not in unknown]
    linker.store = DemonstrationStore(remaining, linker.store.features)
    linker.reload()
    nlp.to_disk(folder / "pipeline")


def judged(results: Sequence[MentionResult], metrics: dict[str, Any], decision: Decision) -> dict[str, Any]:
    """The figures of a pipeline that decides so; what METRICS.json says of NIL must be the same."""
    cases, _ = cases_of(results)
    confidences = confidence(cases, decision.temperature)
    outcome = figures(cases, confidences, decision.accepts(confidences))
    message = {key: metrics["nil"][key] for key in "prf"}
    if message != {key: outcome["nil"][key] for key in "prf"} or metrics["accuracy"] != outcome["accuracy"]:
        raise RuntimeError(
            f"the pipeline decided otherwise than it was calibrated to: {message} against {outcome['nil']}"
        )
    return {**brief(outcome), "reliability": outcome["reliability"]}


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


def ece_of(cases: Cases, temperature: float) -> float | None:
    """The calibration error at a temperature."""
    confidences = confidence(cases, temperature)
    return expected_calibration_error(reliability_of(confidences[cases.linked], cases.right[cases.linked]))


def gold_likelihood_temperature(results: Sequence[MentionResult]) -> float:
    """The temperature that is usual, for comparison: most likely golds among the names found, others left out."""
    rows = []
    for result in results:
        indices = [index for index, candidate in enumerate(result.candidates) if candidate["kb_id"] == result.gold]
        if indices:  # every name of the mini world has one entity
            scores = np.array([candidate["score"] for candidate in result.candidates])
            rows.append((scores, indices[0]))

    def surprise(temperature: float) -> float:
        return float(
            sum(np.logaddexp.reduce(scores / temperature) - scores[gold] / temperature for scores, gold in rows)
        )

    return float(f"{min(np.geomspace(0.01, 100, 2001), key=surprise):.4g}")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


if __name__ == "__main__":
    main()
