"""Whether a stream of mentions holds memory flat.

python -m benchmarks.soak [--mentions 20000]

Links made-up captions through nlp.pipe with a language model of one layer and one demonstration, and looks at the
process's memory on the way. Only a run with the default size writes to benchmarks/results.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.memory import resident_mb
from benchmarks.random_llama import Shape, write_random_llama
from benchmarks.subject import Caption, ModelPaths, make_pipeline
from research.commands import report
from research.machine import describe_machine
from research.mini_world import MODELS, ROOT
from spacy_gemel.kb.builder import build_kb
from spacy_gemel.models.tokenizer import load_tokenizer
from spacy_gemel.utils.files import write_json

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

MENTIONS = 20_000
WARM_UP = 2_000
LIMIT_MB = 50
SAMPLE = 1_000
NAMES = 20_000  # no mention comes twice, so that whatever is kept of one goes on growing
EXAMPLES = 500
PICTURES_EVERY = 5
SHAPE = Shape(hidden=32, inner=64, layers=1, heads=2, vocabulary=3200, longest=640)
SYLLABLES = ("ba", "ke", "mo", "ri", "tu", "la", "ne", "so", "vi", "da")


@dataclass(frozen=True, slots=True)
class Sample:
    """mentions: linked so far. mb: resident memory of the process then."""

    mentions: int
    mb: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and at the default size keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.split("\n")[0])
    parser.add_argument("--mentions", type=int, default=MENTIONS)
    mentions = parser.parse_args(arguments).mentions
    models = ROOT / MODELS
    with tempfile.TemporaryDirectory() as folder:
        paths = make_parts(models, Path(folder))
        nlp = make_pipeline(paths, examples(), n_demonstrations=1)
        start = time.perf_counter()
        samples = soak(nlp, mentions, warm_up=min(WARM_UP, mentions // 10), sample=max(1, min(SAMPLE, mentions // 20)))
        seconds = time.perf_counter() - start
    result = {
        "growth_mb": growth_mb(samples),
        "holds": growth_mb(samples) < LIMIT_MB,
        "mentions": mentions,
        "warm_up": samples[0].mentions,
        "mentions_per_second": round(mentions / seconds, 1),
        "samples_mb": {sample.mentions: round(sample.mb, 1) for sample in samples},
        "machine": describe_machine(),
    }
    if mentions == MENTIONS:
        write_json(ROOT / "benchmarks" / "results" / "soak.json", result)
    print(json.dumps(result))


def make_parts(models: Path, folder: Path) -> ModelPaths:
    """A language model and a knowledge base of made-up names, and the other models of `models`."""
    tokenizer = models / "language_model"
    rows = (json.dumps({"id": f"E{index}", "name": name_of(index)}) for index in range(NAMES))
    (folder / "entities.jsonl").write_text("\n".join(rows), encoding="utf8")
    build_kb(folder / "entities.jsonl", folder / "kb", load_tokenizer(str(tokenizer)), progress=False)
    return ModelPaths(
        write_random_llama(folder / "language_model", tokenizer, SHAPE),
        models / "vision_encoder",
        models / "sentence_encoder",
        folder / "kb",
    )


def name_of(index: int) -> str:
    """A made-up name; each place has its own."""
    digits = f"{index:05d}"
    return "".join(SYLLABLES[int(digit)] for digit in digits).capitalize()


def caption_of(index: int) -> Caption:
    """A made-up caption of the place-th name; of the first again after the last."""
    mention = name_of(index % NAMES)
    text = f"A view of {mention} on day {index % 997} of year {index // 997}."
    return Caption(text, 10, 10 + len(mention), f"E{index % NAMES}", None)


def examples() -> list[Caption]:
    """Captions to learn demonstrations from."""
    return [caption_of(index) for index in range(EXAMPLES)]


def stream(nlp: "Language", mentions: int) -> "Iterator[Doc]":
    """Docs one by one, every fifth with a picture that no other has."""
    from benchmarks.subject import docs_of

    generator = np.random.default_rng(0)
    for index in range(mentions):
        [doc] = docs_of(nlp, [caption_of(index)])
        if index % PICTURES_EVERY == 0:
            doc.user_data["image"] = generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        yield doc


def soak(nlp: "Language", mentions: int, *, warm_up: int, sample: int) -> list[Sample]:
    """Link a stream; the memory after the first warm_up mentions and then after every `sample`."""
    samples: list[Sample] = []
    for done, doc in enumerate(nlp.pipe(stream(nlp, mentions)), 1):
        if not doc.ents[0].kb_id_:
            raise RuntimeError(f"mention {done} was not linked: {doc.text!r}")
        if done == warm_up or (done > warm_up and (done % sample == 0 or done == mentions)):
            gc.collect()
            samples.append(Sample(done, resident_mb()))
            report(f"{done} mentions, {samples[-1].mb:.0f} MB")
    return samples


def growth_mb(samples: Sequence[Sample]) -> float:
    """The most that memory was above that of the first sample, in MB."""
    return round(max(sample.mb for sample in samples) - samples[0].mb, 1)


if __name__ == "__main__":
    main(sys.argv[1:])
