"""Our search beside other ways to hold a language model to names: same weights, names and prompts, one run.

python -m benchmarks.peers [--tiny]
python -m benchmarks.peers --model real --data DATA [--models DIR]

Ours with demonstrations retrieved for each mention and with fixed sets of them, the official procedure
(benchmarks/official.py), and `transformers.generate` held by a function over our trie, by GLiNER's LabelsTrie, by
xgrammar's masks and by llguidance's. Each way is a process of its own (benchmarks/peer_steps.py), with more and more
names until it fails or takes more than ten minutes. A package that cannot be imported is left out. By default a small
Llama of random weights and made-up names; with --model real SmolLM2-135M, WikiDiverse's captions and the 53,234 names
of DATA. Only a run with the default sizes writes to benchmarks/results.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.agreement import agreement
from benchmarks.made_names import VOCABULARY, make_names
from benchmarks.official import names_in
from benchmarks.random_llama import Shape, write_random_llama
from benchmarks.subject import Caption, ModelPaths
from research.commands import report
from research.machine import describe_machine
from research.mini_world import MODELS, ROOT
from spacy_gemel.kb.builder import build_kb
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.models.tokenizer import NameTokenizer, load_tokenizer
from spacy_gemel.utils.files import write_json

WAYS = ("ours", "ours_sets", "official", "generate_with_our_trie", "gliner_labels_trie", "xgrammar", "llguidance")
SECONDS = 600  # of one process


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. names: of each knowledge base. examples: captions that demonstrations are chosen from."""

    names: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    mentions: int = 20
    examples: int = 200
    demonstrations: int = 8
    shape: Shape = field(default_factory=lambda: Shape(hidden=256, inner=688, layers=4, heads=4))


TINY = Sizes(
    names=(50, 200), mentions=2, examples=10, demonstrations=2, shape=Shape(hidden=32, inner=64, layers=1, heads=2)
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and at the default sizes keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=("random", "real"), default="random")
    parser.add_argument("--models", type=Path, help="folder of the real models, by default assets/real")
    parser.add_argument("--data", type=Path, help="with --model real: a folder with kb/ and wikidiverse/")
    parser.add_argument("--tiny", action="store_true", help="all sizes as small as they go: does it run?")
    options = parser.parse_args(arguments)
    if (options.model == "real") != (options.data is not None):
        parser.error("--model real and --data go together")
    sizes = TINY if options.tiny else Sizes()
    with tempfile.TemporaryDirectory() as folder:
        if options.model == "real":
            result = measure_real(options.models or ROOT / "assets" / "real", options.data, Path(folder), sizes)
        else:
            result = measure_random(ROOT / MODELS, Path(folder), sizes)
    named = " --model real --data DATA" if options.model == "real" else ""
    result = {"command": f"python -m benchmarks.peers{named}", **result, "machine": describe_machine()}
    if not options.tiny:
        name = "peers-real.json" if options.model == "real" else "peers.json"
        write_json(ROOT / "benchmarks" / "results" / name, result)
    print(json.dumps(result))


def measure_random(models: Path, folder: Path, sizes: Sizes) -> dict[str, Any]:
    """A Llama of random weights with the tokenizer of the mini world's, and made-up names of its tokens."""
    tokenizer = load_tokenizer(str(models / "language_model"))
    names = make_texts(tokenizer, sizes.names[-1])
    captions = [make_caption(names[: sizes.names[0]], index) for index in range(sizes.examples + sizes.mentions)]
    train, test = captions[: sizes.examples], captions[sizes.examples :]
    paths = ModelPaths(
        write_random_llama(folder / "language_model", models / "language_model", sizes.shape),
        models / "vision_encoder",
        models / "sentence_encoder",
        folder / "kb",
    )
    cases = []
    for count in sizes.names:
        report(f"a knowledge base of {count} names")
        rows = (json.dumps({"id": f"E{index}", "name": name}) for index, name in enumerate(names[:count]))
        (folder / "entities.jsonl").write_text("\n".join(rows), encoding="utf8")
        cases.append(replace(paths, kb=folder / f"kb-{count}"))
        build_kb(folder / "entities.jsonl", cases[-1].kb, tokenizer, progress=False)
    return measure(cases, train, test, sizes.demonstrations, folder)


def make_texts(tokenizer: NameTokenizer, count: int) -> list[str]:
    """The names of benchmarks/made_names.py as text, in the letters and digits of a tokenizer's tokens."""
    pieces = [piece for index in range(tokenizer.vocab_size) if is_word(piece := tokenizer.tokenizer.decode([index]))]
    made = make_names(count)
    return ["".join(pieces[token * len(pieces) // VOCABULARY] for token in ids).strip() for ids in made.lists(0, count)]


def is_word(piece: str) -> bool:
    """Whether a token is letters and digits, perhaps after a space."""
    return piece.removeprefix(" ").isalnum()


def make_caption(names: Sequence[str], index: int) -> Caption:
    """A text of five of the names, the third one its mention."""
    rows = np.random.default_rng(index).integers(0, len(names), 5).tolist()
    first, second, mention, third, fourth = (names[row] for row in rows)
    start = f"{first} and {second} met "
    text = f"{start}{mention} before {third} or {fourth} came."
    return Caption(text, len(start), len(start) + len(mention), f"E{rows[2]}")


def measure_real(models: Path, data: Path, folder: Path, sizes: Sizes) -> dict[str, Any]:
    """SmolLM2-135M, WikiDiverse's captions, and all names of a real knowledge base."""
    from benchmarks import linking, linking_real

    linking_real.check_models(models)
    chosen = replace(linking.Sizes(), examples=sizes.examples if sizes == TINY else 5000)
    paths, train, test = linking_real.prepare_real(models, data, folder / "kb", chosen, sizes.mentions)
    return measure([paths], train, test, sizes.demonstrations, folder)


def measure(
    cases: Sequence[ModelPaths], train: Sequence[Caption], test: Sequence[Caption], demonstrations: int, folder: Path
) -> dict[str, Any]:
    """All ways with each knowledge base, the smallest first; a way that fails is asked no more."""
    captions = folder / "captions.json"
    captions.write_text(json.dumps({"train": [*map(astuple, train)], "test": [*map(astuple, test)]}), encoding="utf8")
    texts = [caption.text for caption in test]
    left_out: dict[str, str] = {}
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    lengths: list[int] = []
    for paths in cases:
        case: dict[str, Any] = {
            "paths": {name: str(path) for name, path in asdict(paths).items() if path is not None},
            "names": str(write_names(paths)),
            "captions": str(captions),
            "demonstrations": demonstrations,
        }
        answers: list[Any] = []
        for way in WAYS:
            if way in left_out or any("stopped" in run for run in runs[way]):
                continue
            report(f"{way}, {paths.kb.name}")
            run = run_step({"way": way, **case})
            if "left_out" in run:
                left_out[way] = run["left_out"]
                report(f"{way} is left out: {left_out[way]}")
                continue
            theirs = run.pop("answers", None)
            lengths = run.pop("prompt_tokens", lengths)
            if way == "ours":
                answers = theirs
            elif theirs is not None and way != "ours_sets":  # which shows other prompts
                run |= shares(texts, answers, theirs)
            runs[way].append(run)
            report(json.dumps(run))
    return {
        "mentions": len(test),
        "prompt_tokens": {"least": min(lengths), "mean": round(sum(lengths) / len(lengths)), "most": max(lengths)},
        "left_out": left_out,
        "ways": {way: of_way for way, of_way in runs.items() if of_way},
    }


def write_names(paths: ModelPaths) -> Path:
    """Write the names of a knowledge base for benchmarks/peer_steps.py, and what the language model is to them."""
    from transformers import AutoConfig

    tokenizer = load_tokenizer(str(paths.language_model))
    content = {
        "names": names_in(KnowledgeBase.open(paths.kb), tokenizer),
        "vocab_size": AutoConfig.from_pretrained(paths.language_model).vocab_size,
        "end_id": tokenizer.end_id("newline"),
    }
    file = paths.kb.with_suffix(".json")
    file.write_text(json.dumps(content), encoding="utf8")
    return file


def shares(texts: Sequence[str], ours: Sequence[Any], theirs: Sequence[Any]) -> dict[str, Any]:
    """The share of mentions with our best name, and with all of our names in our order."""
    agreed = agreement(texts, ours, theirs)
    differ = len(agreed["best_differs"]) + len(agreed["lower_ranks_differ"])
    return {"same_best": agreed["same_best"], "same_names": round(1 - differ / len(texts), 4)}


def run_step(case: Mapping[str, Any]) -> dict[str, Any]:
    """One way in a process of its own; `stopped` says why it did not get through."""
    command = [sys.executable, "-m", "benchmarks.peer_steps", json.dumps(case)]
    try:
        run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace")
        return {**last_object(output), "stopped": f"not done within {SECONDS} s"}
    if run.returncode < 0:
        return {**last_object(run.stdout), "stopped": f"ended by signal {-run.returncode}"}
    run.check_returncode()
    return last_object(run.stdout)


def last_object(output: str) -> dict[str, Any]:
    """What a process printed last, nothing if that is no JSON object."""
    lines = output.splitlines()
    return json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}


if __name__ == "__main__":
    main(sys.argv[1:])
