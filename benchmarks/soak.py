"""Whether a long stream with bad docs in it loses, swaps or slows anything, and holds memory flat.

python -m benchmarks.soak [--docs 50000]

Made-up captions, one in five with a picture of its own, one in ten bad in one of the ways of bad_inputs.py by turns,
go through `nlp.pipe` and through `link`, with a language model of one layer and one demonstration. Beside each stands
a run of its good docs alone. `lost`, `doubled`, `swapped` and `changed` add up both: docs that did not come back, came
twice, came in another place, or were answered otherwise than without bad ones beside them. `good_rate` is the lower of
both ratios of good docs per second of the processor's time, which other work on the machine leaves alone. Only a run
with the default size writes to benchmarks/results.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmarks.bad_inputs import FEATURES, IMAGES, WAYS, bad_line
from benchmarks.memory import resident_mb
from benchmarks.random_llama import Shape, write_random_llama
from benchmarks.subject import Caption, ModelPaths, make_pipeline
from research.commands import report
from research.machine import describe_machine
from research.mini_world import MODELS, ROOT
from spacy_gemel.bulk.journal import failed_path
from spacy_gemel.bulk.link import LinkOptions, link_file
from spacy_gemel.bulk.workers import Block, Linked, ThisProcess
from spacy_gemel.kb.builder import build_kb
from spacy_gemel.models.tokenizer import load_tokenizer
from spacy_gemel.utils.files import write_json

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

DOCS = 50_000
WARM_UP = 4_000
LIMIT_MB = 50
SAMPLE = 1_000
NAMES = 20_000  # whatever is kept of a mention goes on growing as long as none comes twice
EXAMPLES = 500
PICTURES_EVERY, BAD_EVERY = 5, 10
BLOCK = 128
SHAPE = Shape(hidden=32, inner=64, layers=1, heads=2, vocabulary=3200, longest=640)
SYLLABLES = ("ba", "ke", "mo", "ri", "tu", "la", "ne", "so", "vi", "da")


@dataclass(slots=True)
class Run:
    """What came out of a stream: (index, answer or None) in its order, seconds of the processor, and MB on the way.

    restarts: how often the order begins anew, once for a second file.
    """

    results: list[tuple[int, str | None]]
    seconds: float
    samples: dict[int, float]
    restarts: int = 0

    @property
    def growth_mb(self) -> float:
        """The most that memory was above that of the first sample."""
        values = [*self.samples.values()]
        return round(max(values) - values[0], 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and at the default size keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.split("\n")[0])
    parser.add_argument("--docs", type=int, default=DOCS)
    count = parser.parse_args(arguments).docs
    warnings.simplefilter("ignore")  # one for each bad picture
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nlp = make_pipeline(make_parts(ROOT / MODELS, folder), examples(), n_demonstrations=1)
        streams: dict[str, Callable[[bool], Run]] = {
            "pipe": lambda with_bad: through_pipe(nlp, count, folder, with_bad=with_bad),
            "link": lambda with_bad: through_link(nlp, count, folder, with_bad=with_bad),
        }
        rows = {}
        for stream, run in streams.items():
            report(f"{stream}: good docs alone")
            good = run(False)
            report(f"{stream}: with bad ones")
            rows[stream] = compare(good, run(True), count)
    result = {
        "command": "python -m benchmarks.soak",
        "docs": count,
        "bad": sum(1 for index in range(count) if is_bad(index)) * 2,
        "ways": WAYS,
        **{key: sum(row[key] for row in rows.values()) for key in ("lost", "doubled", "swapped", "changed")},
        "memory_growth_mb": max(row["memory_growth_mb"] for row in rows.values()),
        "good_rate": min(row["good_rate"] for row in rows.values()),
        **rows,
        "machine": describe_machine(),
    }
    if count == DOCS:
        write_json(ROOT / "benchmarks" / "results" / "soak.json", result)
    print(json.dumps(result))


def compare(good: Run, mixed: Run, count: int) -> dict[str, Any]:
    """The figures of a stream with bad docs beside the same without."""
    order = [index for index, _ in mixed.results]
    answers = dict(good.results)
    n_good = len(answers)
    return {
        "lost": count - len({*order}),
        "doubled": len(order) - len({*order}),
        "swapped": max(0, sum(one > other for one, other in pairwise(order)) - mixed.restarts),
        "changed": sum(answers[index] != answer for index, answer in mixed.results if index in answers),
        "memory_growth_mb": mixed.growth_mb,
        "good_docs_per_second": round(n_good / mixed.seconds, 1),
        "good_alone_per_second": round(n_good / good.seconds, 1),
        "good_rate": round(good.seconds / mixed.seconds, 3),
        "docs_per_second": round(count / mixed.seconds, 1),
        "samples_mb": {n: round(mb, 1) for n, mb in mixed.samples.items()},
    }


def is_bad(index: int) -> bool:
    """Whether a doc of the stream is bad."""
    return index % BAD_EVERY == 3


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


def docs_of_stream(nlp: "Language", count: int, folder: Path, *, with_bad: bool) -> "Iterator[Doc]":
    """Docs one by one, a few of them with a picture that no other has."""
    from benchmarks.subject import docs_of

    generator = np.random.default_rng(0)
    images, features = [*IMAGES.values()], [*FEATURES.values()]
    turn = 0
    for index in range(count):
        if is_bad(index) and not with_bad:
            continue
        [doc] = docs_of(nlp, [caption_of(index)])
        doc.user_data["id"] = str(index)
        if is_bad(index):
            way = turn % (len(images) + len(features))
            if way < len(images):
                doc.user_data["image"] = images[way](folder)
            else:
                doc.user_data["image_features"] = features[way - len(images)]()
            turn += 1
        elif index % PICTURES_EVERY == 0:
            doc.user_data["image"] = generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        yield doc


def through_pipe(nlp: "Language", count: int, folder: Path, *, with_bad: bool) -> Run:
    """Link a stream of docs."""
    watch = Watch(count)
    results: list[tuple[int, str | None]] = []
    for doc in nlp.pipe(docs_of_stream(nlp, count, folder, with_bad=with_bad), batch_size=BLOCK):
        results.append((int(doc.user_data["id"]), doc.ents[0].kb_id_))
        watch.add(1)
    return Run(results, watch.seconds, watch.samples)


def through_link(nlp: "Language", count: int, folder: Path, *, with_bad: bool) -> Run:
    """Link a file of lines as the command does; the results in the order of its two outputs."""
    source, out, watch = folder / "in.jsonl", folder / "out.jsonl", Watch(count)
    indices = write_lines(source, count, folder, with_bad=with_bad)

    class Watched(ThisProcess):
        def link(self, blocks: Iterator[Block], folder: Path, **options: Any) -> Linked:
            for block, linked in super().link(blocks, folder, **options):
                watch.add(len(block))
                yield block, linked

    link_file(Watched(nlp), "", source, out, LinkOptions(batch_size=BLOCK, overwrite=True), progress=False)
    results: list[tuple[int, str | None]] = []
    for path in (out, failed_path(out)):
        for line in path.read_text(encoding="utf8").splitlines() if path.is_file() else ():
            row = json.loads(line)
            mentions = row.get("mentions", ())
            results.append((indices[row["line"] - 1], mentions[0]["kb_id"] if mentions else None))
    return Run(results, watch.seconds, watch.samples, restarts=1)


def write_lines(source: Path, count: int, folder: Path, *, with_bad: bool) -> list[int]:
    """The same captions as JSON lines, pictures a hundred files by turns; returns each line's index."""
    generator = np.random.default_rng(0)
    for number in range(100):
        pixels = generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    indices = [index for index in range(count) if with_bad or not is_bad(index)]
    turn = 0
    with source.open("wb") as file:
        for index in indices:
            caption = caption_of(index)
            row: dict[str, Any] = {"text": caption.text, "mentions": [{"start": caption.start, "end": caption.end}]}
            if index % PICTURES_EVERY == 0:
                row["image"] = f"{index // PICTURES_EVERY % 100}.png"
            file.write((bad_line(turn, caption.text) if is_bad(index) else json.dumps(row).encode()) + b"\n")
            turn += is_bad(index)
    return indices


class Watch:
    """Seconds of the processor since it was made, and memory after the warm-up and then every so many docs."""

    def __init__(self, count: int) -> None:
        self.samples: dict[int, float] = {}
        self._done, self._next, self._every = 0, min(WARM_UP, count // 10), max(1, min(SAMPLE, count // 20))
        self._begin = time.process_time()

    @property
    def seconds(self) -> float:
        """So far."""
        return time.process_time() - self._begin

    def add(self, docs: int) -> None:
        """So many docs more are done."""
        self._done += docs
        if self._done >= self._next:
            gc.collect()
            self.samples[self._done] = resident_mb()
            self._next = self._done + self._every
            report(f"{self._done} docs, {self.samples[self._done]:.0f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
