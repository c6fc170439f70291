"""What the pipe costs a spaCy pipeline besides linking: on docs without entities, to load, and to make into bytes.

python -m benchmarks.spacy_contract [--pipeline training/model-best] [--docs 4000] [--repeats 5]

Takes the mini pipeline that `spacy project run all` left; where there is none, makes one from assets/mini with an
untrained mapper, which is as large. Loading, bytes and memory are measured in processes of their own. Only a run with
the default sizes writes to benchmarks/results.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.memory import peak_mb, resident_mb
from benchmarks.timing import spread
from research.commands import report, run_command
from research.machine import describe_machine
from research.mini_world import MODELS, ROOT
from spacy_gemel.utils.files import write_json

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

PIPELINE = Path("training") / "model-best"
DOCS = 4000
REPEATS = 5
LIMIT_MS = 0.1
DEMONSTRATIONS = 8
TEXT = "A picture taken by the reporter in the morning, number"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and at the default sizes keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spacy_contract", description=__doc__.split("\n")[0])
    parser.add_argument("--pipeline", type=Path, default=ROOT / PIPELINE)
    parser.add_argument("--docs", type=int, default=DOCS)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--step", choices=sorted(STEPS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.step:
        print(json.dumps(STEPS[options.step](options.pipeline)))
        return
    with tempfile.TemporaryDirectory() as folder:
        trained = is_usable(options.pipeline)
        pipeline = options.pipeline if trained else make_pipeline(Path(folder))
        added = added_by_the_pipe(pipeline, options.docs)
        result = {
            "added_ms": added["call"]["added_ms"],
            "holds": all(form["added_ms"] < LIMIT_MS for form in added.values()),
            "without_entities": added,
            **{name: repeated(name, pipeline, options.repeats) for name in STEPS},
            "pipeline": "trained" if trained else "made from assets/mini, its mapper untrained",
            "machine": describe_machine(),
        }
    if (options.docs, options.repeats) == (DOCS, REPEATS):
        write_json(ROOT / "benchmarks" / "results" / "spacy-contract.json", result)
    print(json.dumps(result))


def is_usable(pipeline: Path) -> bool:
    """Whether there is a pipeline that this version can load; reports why not."""
    import spacy

    try:
        spacy.load(pipeline)
    except (OSError, ValueError) as error:
        report(f"{pipeline} is not measured: {error}")
        return False
    return True


def make_pipeline(folder: Path) -> Path:
    """The mini pipeline as training starts with it, its models bundled, saved below a folder."""
    from benchmarks import subject

    report("making an untrained pipeline")
    data, models = folder / "world", ROOT / MODELS
    run_command(ROOT, "scripts/mini_world/generate.py", str(data), "--test", "20")
    tokenizer = str(models / "language_model")
    entities = str(data / "entities.jsonl")
    run_command(
        ROOT, "-m", "spacy_gemel", "build-kb", entities, str(folder / "kb"), "--tokenizer", tokenizer, "--quiet"
    )
    paths = subject.ModelPaths(
        models / "language_model", models / "vision_encoder", models / "sentence_encoder", folder / "kb"
    )
    captions = subject.read_captions(data / "train.jsonl")
    subject.make_pipeline(paths, captions, DEMONSTRATIONS, bundle_models=True).to_disk(folder / "pipeline")
    return folder / "pipeline"


def added_by_the_pipe(pipeline: Path, docs: int) -> dict[str, dict[str, float]]:
    """Milliseconds a doc without entities, with the linker and without it: doc by doc, with a picture, streamed."""
    import spacy

    from benchmarks.subject import linker_in

    whole = spacy.load(pipeline)
    bare = spacy.load(pipeline, exclude=[linker_in(whole).name])
    texts = [f"{TEXT} {index}" for index in range(docs)]
    report(f"{docs} docs without entities")
    return {
        "call": compared(lambda nlp: call(nlp, texts), whole, bare),
        "call_with_image": compared(lambda nlp: call(nlp, texts, image="picture.jpg"), whole, bare),
        "stream": compared(lambda nlp: [seconds_of_stream(nlp, texts) / len(texts)], whole, bare, turns=9),
    }


def compared(
    measure: "Callable[[Language], list[float]]", whole: "Language", bare: "Language", turns: int = 2
) -> dict[str, float]:
    """The medians of both, measured in turns, and their difference; the first turn only warms up."""
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    for turn_number in range(turns + 1):
        for name, nlp in (("with", whole), ("without", bare)):
            times = measure(nlp)
            seconds[name] += times if turn_number else []
    with_pipe, without = (1000 * median(seconds[name]) for name in ("with", "without"))
    return {
        "added_ms": round(with_pipe - without, 5),
        "with_ms": round(with_pipe, 5),
        "without_ms": round(without, 5),
    }


def call(nlp: "Language", texts: Sequence[str], image: str | None = None) -> list[float]:
    """The seconds of each doc."""
    seconds = []
    for doc in docs_of(nlp, texts, image):
        start = time.perf_counter()
        nlp(doc)
        seconds.append(time.perf_counter() - start)
    return seconds


def seconds_of_stream(nlp: "Language", texts: Sequence[str]) -> float:
    """The seconds of all docs in one nlp.pipe."""
    docs = docs_of(nlp, texts, None)
    start = time.perf_counter()
    for _ in nlp.pipe(docs):
        pass
    return time.perf_counter() - start


def docs_of(nlp: "Language", texts: Sequence[str], image: str | None) -> "list[Doc]":
    """Docs of the texts, with the picture if there is one."""
    docs = [nlp.make_doc(text) for text in texts]
    for doc in docs:
        if image is not None:
            doc.user_data["image"] = image
    return docs


# Each of these runs in a process of its own


def load(pipeline: Path) -> dict[str, float]:
    """spacy.load, with the import of the libraries behind it, and once more; memory beyond that of `import spacy`."""
    import spacy

    start_mb = resident_mb()
    forget_peak()
    pipelines: list[Language] = []  # a frozen model is shared for as long as somebody holds it
    first = seconds_of(lambda: pipelines.append(spacy.load(pipeline)))
    peak, resident = peak_mb() - start_mb, resident_mb() - start_mb
    again = seconds_of(lambda: pipelines.append(spacy.load(pipeline)))
    return {"seconds": first, "again_seconds": again, "peak_mb": peak, "resident_mb": resident}


def to_bytes(pipeline: Path) -> dict[str, float]:
    """nlp.to_bytes of a loaded pipeline, and what it takes beyond that pipeline."""
    import spacy

    nlp = spacy.load(pipeline)
    start_mb = resident_mb()
    forget_peak()
    data: list[bytes] = []
    seconds = seconds_of(lambda: data.append(nlp.to_bytes()))
    return {"seconds": seconds, "peak_mb": peak_mb() - start_mb, "size_mb": len(data[0]) / 1e6}


def from_bytes(pipeline: Path) -> dict[str, float]:
    """nlp.from_bytes into a pipeline of the same config, and what it takes beyond the bytes."""
    import spacy
    from spacy.util import load_model_from_config

    nlp = spacy.load(pipeline)
    data, config = nlp.to_bytes(), nlp.config
    new = load_model_from_config(config)
    start_mb = resident_mb()
    forget_peak()
    seconds = seconds_of(lambda: new.from_bytes(data))
    return {"seconds": seconds, "peak_mb": peak_mb() - start_mb}


STEPS: dict[str, Callable[[Path], dict[str, float]]] = {"load": load, "to_bytes": to_bytes, "from_bytes": from_bytes}


def repeated(name: str, pipeline: Path, repeats: int) -> dict[str, Any]:
    """A step some times over, each in a new process: each figure's median, least and most."""
    report(f"{name}, {repeats} times")
    command = [sys.executable, "-m", "benchmarks.spacy_contract", "--step", name, "--pipeline", str(pipeline.resolve())]
    runs = []
    for _ in range(repeats):
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return {figure: spread([one[figure] for one in runs], 3) for figure in runs[0]}


def seconds_of(action: Callable[[], object]) -> float:
    """How long it took."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def forget_peak() -> None:
    """Reset the peak of this process's memory to what it has now, if the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


if __name__ == "__main__":
    main(sys.argv[1:])
