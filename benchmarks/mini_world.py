"""The main job on the mini world: how long `spacy project run all` takes, and what it measures.

python -m benchmarks.mini_world [--keep]
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from research.machine import describe_machine
from spacy_gemel.evaluation.bootstrap import paired_difference
from spacy_gemel.evaluation.results import read_mentions

ROOT = Path(__file__).resolve().parent.parent
OUTPUTS = (
    "data/mini", "corpus/*.spacy", "kb/mini", "training/model-*", "training/random*", "training/bm25*",
    "training/no-demonstrations", "metrics/*.json*", "report", "project.lock",
)  # fmt: skip
SETTINGS = ("full", "no-image", "no-demonstrations", "random", "bm25", "dense", "unconstrained")


def main(arguments: list[str]) -> None:
    """Run everything from nothing, unless told to keep what is there, and write the figures."""
    seconds = None if "--keep" in arguments else run_from_nothing()
    result = {
        "command": "python -m spacy project run all",
        "seconds": seconds,
        "settings": {name: figures_of(name) for name in SETTINGS},
        "machine": describe_machine(),
    }
    path = ROOT / "benchmarks" / "results" / "mini-world.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf8")
    print(json.dumps(result))


def run_from_nothing() -> float:
    """Seconds of the whole workflow after everything it makes was deleted; what other commands keep stays."""
    for path in [path for name in OUTPUTS for path in ROOT.glob(name)]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "spacy", "project", "run", "all"], cwd=ROOT, check=True, stdout=sys.stderr)
    return round(time.perf_counter() - start, 1)


def figures_of(name: str) -> dict[str, Any]:
    """A setting's accuracies, and full minus it on the same mentions."""
    folder = ROOT / "metrics"
    metrics = json.loads((folder / f"{name}.json").read_text(encoding="utf8"))
    full, mine = (
        [mention.predicted == mention.gold for mention in read_mentions(folder / f"{setting}.mentions.jsonl")]
        for setting in ("full", name)
    )
    return {
        "n": metrics["n"],
        "accuracy": metrics["accuracy"],
        "interval": [metrics["low"], metrics["high"]],
        "full_minus_this": paired_difference(full, mine),
        "parts": {part: metrics[part]["accuracy"] for part in ("common", "tail", "seen", "unseen")},
        "mentions_per_second": metrics["mentions_per_second"],
    }


if __name__ == "__main__":
    main(sys.argv[1:])
