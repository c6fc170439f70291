"""What `size` computes of a config, beside what a process takes on this machine.

python -m benchmarks.size [--model real|mini] [--models DIR] [--tiny]

The captions and pictures of the mini world, its entities as knowledge base, configs/mini.cfg with the models of
`python -m spacy project run real-models`. Each case, linking or training in fp32 or bf16 with some `batch_tokens`, is a
process of its own. Its memory is that of the weights and how far the process rises beyond its warm state, which is what
a GPU would hold; beside it stands `size`'s figure without its overhead for CUDA. The rate that `size` takes is that of
the model's own products, a full batch by its MLP. Batches are as full as `batch_tokens` allows. Only a run with the
default sizes of the real models writes to benchmarks/results.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from benchmarks import linking
from benchmarks.linking_real import check_models
from benchmarks.memory import peak_mb, reset_peak, resident_mb
from research.commands import report
from research.machine import describe_machine, matmul_rate
from research.mini_world import MODEL_FOLDERS, MODELS, ROOT, prepare
from spacy_gemel.utils.files import write_json

if TYPE_CHECKING:
    from spacy.language import Language

DEMONSTRATIONS, TRAINING_DEMONSTRATIONS = 8, 2
EXAMPLES = 200
MENTIONS = {"link": 10, "train": 32}  # which fill the batches below
# What is computed may differ from what is measured by a quarter of either.
LIMITS = (0.8, 1.25)
CASES = [
    (step, dtype, tokens)
    for step in ("link", "train")
    for dtype in ("float32", "bfloat16")
    for tokens in (2048, 8192)
]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and at the default sizes keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.size", description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=("real", "mini"), default="real")
    parser.add_argument("--models", type=Path, help="folder of the models, by default assets/real or assets/mini")
    parser.add_argument("--tiny", action="store_true", help="one small case: does it run?")
    parser.add_argument("--case", help=argparse.SUPPRESS)  # what a process of its own is asked for
    options = parser.parse_args(arguments)
    if options.case is not None:
        print(json.dumps(run_case(**json.loads(options.case))))
        return
    models = options.models or ROOT / ("assets/real" if options.model == "real" else MODELS)
    check_models(models)
    prepare(linking.WORLD)
    cases = [(step, "float32", 1024) for step in ("link", "train")] if options.tiny else CASES
    with tempfile.TemporaryDirectory() as name:
        kb = build(models, Path(name) / "kb")
        rows = [measure(models, kb, *case, tiny=options.tiny) for case in cases]
    result = {
        "command": f"python -m benchmarks.size --model {options.model}",
        "cases": rows,
        "holds": all(row["within_a_quarter"] for row in rows),
        "machine": describe_machine(),
    }
    if options.model == "real" and not options.tiny:
        write_json(ROOT / "benchmarks" / "results" / "size-real.json", result)
    print(json.dumps(result))


def build(models: Path, kb: Path) -> Path:
    """The mini world's entities as a knowledge base of the language model's tokens."""
    from spacy_gemel.kb.builder import build_kb
    from spacy_gemel.models.tokenizer import load_tokenizer

    entities = linking.WORLD.folder("data") / "entities.jsonl"
    build_kb(entities, kb, load_tokenizer(str(models / "language_model")), progress=False)
    return kb


def measure(models: Path, kb: Path, step: str, dtype: str, batch_tokens: int, *, tiny: bool) -> dict[str, Any]:
    """A case: what its process took, and what `size` computes with its texts' length and this machine's rates."""
    report(f"{step}, {dtype}, batch_tokens = {batch_tokens}")
    case: dict[str, Any] = {"models": str(models), "kb": str(kb), "data": str(linking.WORLD.folder("data"))}
    case |= {"step": step, "dtype": dtype, "batch_tokens": batch_tokens, "mentions": 4 if tiny else MENTIONS[step]}
    command = [sys.executable, "-m", "benchmarks.size", "--case", json.dumps(case)]
    run = subprocess.run(command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    ratios = {key: round(value / result["measured"][key], 2) for key, value in result["computed"].items()}
    low, high = LIMITS
    return {
        "step": step,
        "dtype": dtype,
        "batch_tokens": batch_tokens,
        **result,
        "computed_over_measured": ratios,
        "within_a_quarter": all(low <= ratio <= high for ratio in ratios.values()),
    }


def run_case(
    models: str, kb: str, data: str, step: str, dtype: str, batch_tokens: int, mentions: int
) -> dict[str, Any]:
    """In a process of its own: initialize a pipeline, link or train some mentions, and compute the same."""
    from benchmarks.subject import ModelPaths, lengthen, linker_in, make_pipeline, read_captions
    from spacy_gemel.cli.common import read_config
    from spacy_gemel.cli.size_estimate import OVERHEAD, Data, estimate, find_gpu

    for name in ("open_clip", "sentence_transformers", "spacy", "timm", "transformers"):
        import_module(name)
    libraries = resident_mb()
    language_model, vision_encoder, sentence_encoder = (Path(models) / name for name in MODEL_FOLDERS)
    paths = ModelPaths(language_model, vision_encoder, sentence_encoder, Path(kb), dtype)
    train = lengthen(read_captions(Path(data) / "train.jsonl")[:EXAMPLES], linking.Sizes().more_words)
    settings = {"batch_tokens": batch_tokens, "n_training_demonstrations": TRAINING_DEMONSTRATIONS}
    nlp = make_pipeline(paths, train, DEMONSTRATIONS, **settings)
    linker = linker_in(nlp)
    run_step = link if step == "link" else learn
    initialized, peak = resident_mb(), peak_mb()
    run_step(nlp, train[-1:])  # the libraries' code is read from disk when it is first called
    linker.reload()
    warm = resident_mb()
    reset_peak()
    asked = train[:mentions]
    seconds = run_step(nlp, asked)
    highest = peak_mb()
    linking_model = linker.linking_model
    lengths = [
        prompt.length
        for prompt in linking_model.prompts(linking.mentions_of(nlp, asked), linker.settings, training=step == "train")
        if prompt is not None
    ]
    mean = sum(lengths) / len(lengths)
    count = DEMONSTRATIONS if step == "link" else TRAINING_DEMONSTRATIONS
    prefix = linking_model.prompt_builder.prefix_length
    shape = linking_model.language_model.model.config
    products = (batch_tokens, shape.hidden_size, shape.intermediate_size)
    rates = {"square": matmul_rate(3, dtype), "model": matmul_rate(dtype=dtype, shape=products)}
    with tempfile.TemporaryDirectory() as folder:
        nlp.config.to_disk(Path(folder) / "my.cfg")
        _, block, training, _ = read_config(Path(folder) / "my.cfg")
    texts = Data(mentions=len(train), docs=len(train), text=round(mean / (count + 1)) - prefix, entities=len(linker.kb))
    figures = estimate(block, training, find_gpu("cpu", rates["model"] / 1000, memory_rate()), texts, Path(folder))
    memory = "linking" if step == "link" else "training"
    language_model, reader, retriever = linking_model.language_model.model, cast(Any, linker._reader), linker.retriever
    weights = sum(
        bytes_of(model) for model in (language_model, reader.encoder.model, cast(Any, retriever).loaded.model)
    )
    figures_measured = {memory: weights / 1e6 + highest - warm, "parameters": parameters_of(language_model)}
    computed = {memory: (figures[memory] - OVERHEAD) / 1e6, "parameters": figures["parameters"]}
    if step == "link":
        figures_measured["mentions_per_second"] = mentions / seconds
        computed["mentions_per_second"] = figures["mentions_per_second"]
    return {
        "prompt_tokens": round(mean),
        "process_mb": {
            "libraries": round(libraries),
            "initializing": round(peak),
            "initialized": round(initialized),
            "warm": round(warm),
            "peak": round(highest),
        },
        "gflops": rates,
        "weights_mb": round(weights / 1e6, 1),
        "measured": {key: round(value, 3) for key, value in figures_measured.items()},
        "computed": {key: round(value, 3) for key, value in computed.items()},
        "parts_mb": {
            key: round(figures[key] / 1e6, 1)
            for key in ("language_model", "encoder", "retriever", "mapper", "cache", "activations")
        },
        "not_included": figures["unknown"],
        "seconds": round(seconds, 2),
    }


def link(nlp: "Language", captions: Sequence[Any]) -> float:
    """Seconds of linking captions as one batch of docs."""
    from benchmarks.subject import docs_of

    docs = docs_of(nlp, captions)
    begin = time.perf_counter()
    for _ in nlp.pipe(docs, batch_size=len(docs)):
        pass
    return time.perf_counter() - begin


def learn(nlp: "Language", captions: Sequence[Any]) -> float:
    """Seconds of an update on all captions."""
    from spacy.training import Example

    from benchmarks.subject import docs_of

    docs = docs_of(nlp, captions, gold=True)
    optimizer = nlp.resume_training()
    begin = time.perf_counter()
    nlp.update([Example(nlp.make_doc(doc.text), doc) for doc in docs], sgd=optimizer)
    return time.perf_counter() - begin


def parameters_of(model: Any) -> int:
    """Numbers in a model, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def bytes_of(model: Any) -> int:
    """Bytes of a model's weights, tied ones once."""
    return sum(parameter.nbytes for parameter in model.parameters())


def memory_rate() -> float:
    """GB/s that are read when a large tensor is added up."""
    import torch

    numbers = torch.ones(2**26)
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        numbers.sum()
        seconds.append(time.perf_counter() - begin)
    return numbers.nbytes / sorted(seconds)[2] / 1e9


if __name__ == "__main__":
    main(sys.argv[1:])
