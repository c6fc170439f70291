"""Trains the mini world's three models from nothing: `python scripts/mini_world/pretrain.py [--out assets/mini]`.

About 50 minutes on two idle cores, the language model's share about 35. A model is skipped when its output is there
and its inputs have not changed; the language model's training goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

from mini_world.checksums import write_checksums
from mini_world.distractors import make_distractors
from mini_world.gates import measure
from mini_world.names import WORLD_SEED, Reading, load_world
from mini_world.prompts import PromptMaker
from mini_world.token_stream import Encoder
from mini_world.tokens import save_tokenizer, train_tokenizer
from mini_world.train_lm import LMSettings, train_lm
from mini_world.train_sentences import SentenceSettings, save_sentences, train_sentences
from mini_world.train_vision import VisionSettings, save_vision, train_vision

_WORLD = ("data/names.txt", "names.py", "captions.py", "distractors.py")
SOURCES = {
    "language_model": (*_WORLD, "tokens.py", "prompts.py", "token_stream.py", "curriculum.py", "train_lm.py"),
    "vision_encoder": ("data/names.txt", "names.py", "sampling.py", "drawing", "train_vision.py"),
    "sentence_encoder": (*_WORLD, "train_sentences.py"),
}
SHARD = "2500KB"


def inputs_hash(model: str, settings: dict[str, Any]) -> str:
    """Hash of all that a model is made from: the sources named in SOURCES, and its settings."""
    total = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in SOURCES[model]:
        path = HERE / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            total.update(file.name.encode() + file.read_bytes())
    return total.hexdigest()


def matmul_rate() -> float:
    """fp32 GFLOP/s of a 2048-cubed product on this CPU, the best of four."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    best = 1e9
    for _ in range(4):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return round(2 * 2048**3 / best / 1e9, 1)


def make_portable(folder: Path) -> None:
    """Let older versions of the libraries read what newer ones wrote, and everyone read the files."""
    config = folder / "config.json"
    if config.exists():  # transformers 4 looks for the rotations' base at the top, 5 writes it one level down
        fields = json.loads(config.read_text())
        if "rope_theta" in (fields.get("rope_parameters") or {}):
            fields["rope_theta"] = fields["rope_parameters"]["rope_theta"]
            config.write_text(json.dumps(fields, indent=2) + "\n")
    config = folder / "tokenizer_config.json"
    if config.exists():  # transformers 5 names a class that 4 does not have
        fields = json.loads(config.read_text())
        fields.pop("backend", None)
        config.write_text(json.dumps({**fields, "tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n")
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _replace(folder: Path, target: Path) -> None:
    """Put a finished folder in the place of an old one."""
    make_portable(folder)
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(str(folder), str(target))


def _language_model(
    settings: LMSettings,
    world: tuple[Reading, ...],
    seed: int,
    work: Path,
    device: torch.device,
    key: str,
    partial: Path,
) -> dict[str, Any]:
    distractors = make_distractors(world, seed)
    tokenizer = train_tokenizer(world, distractors)
    maker = PromptMaker(world, [str(row["name"]) for row in distractors])
    model, report = train_lm(settings, maker, Encoder(tokenizer), work / "language_model_state", device, key)
    report |= measure(model.half().float(), tokenizer, seed)  # of the weights as they are stored
    model.half().save_pretrained(str(partial), max_shard_size=SHARD)
    # stored in half precision, meant to be run in single: newer versions of transformers follow the config's type
    config = json.loads((partial / "config.json").read_text())
    config["dtype"] = config["torch_dtype"] = "float32"
    (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_tokenizer(tokenizer, partial)
    return report


def pretrain(
    out: Path, work: Path, device: torch.device, seed: int = WORLD_SEED, only: Sequence[str] = tuple(SOURCES)
) -> dict[str, Any]:
    """Make what is missing or out of date under `out`, of the models in `only`.

    Returns the report that is written beside them.
    """
    world = load_world(seed)
    report_path = out / "pretrain.json"
    report: dict[str, Any] = json.loads(report_path.read_text()) if report_path.exists() else {"models": {}}
    lm, vision, sentences = LMSettings(seed=seed), VisionSettings(seed=seed), SentenceSettings(seed=seed)

    def make_vision(partial: Path, key: str) -> dict[str, Any]:
        model, figures = train_vision(vision, device)
        save_vision(model, partial)
        return figures

    def make_sentences(partial: Path, key: str) -> dict[str, Any]:
        names = [str(row["name"]) for row in make_distractors(world, seed)] + [reading.name for reading in world]
        model, tokenizer, figures = train_sentences(sentences, world, names, device)
        save_sentences(model, tokenizer, partial)
        return figures

    def make_lm(partial: Path, key: str) -> dict[str, Any]:
        return _language_model(lm, world, seed, work, device, key, partial)

    makers: dict[str, tuple[dict[str, Any], Callable[[Path, str], dict[str, Any]]]] = {
        "sentence_encoder": (asdict(sentences), make_sentences),
        "vision_encoder": (asdict(vision), make_vision),
        "language_model": (asdict(lm), make_lm),
    }
    for name, (settings, make) in makers.items():
        if name not in only:
            continue
        key = inputs_hash(name, settings)
        if (out / name).is_dir() and report["models"].get(name, {}).get("inputs") == key:
            sys.stderr.write(f"{name}: up to date\n")
            continue
        partial = work / f"{name}.new"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        figures = make(partial, key)
        _replace(partial, out / name)
        report["models"][name] = {"inputs": key, **figures}
        report["machine"] = {
            "fp32_matmul_2048_gflops": matmul_rate(),
            "threads": torch.get_num_threads(),
            "device": device.type,
            "python": platform.python_version(),
            **versions(),
        }
        report_path.write_text(json.dumps(report, indent=2) + "\n")
        write_checksums(out)
    return report


def versions() -> dict[str, str]:
    """Versions of the libraries that matter."""
    from importlib.metadata import version

    names = ("torch", "transformers", "tokenizers", "open_clip_torch", "sentence-transformers", "numpy", "pillow")
    return {name: version(name) for name in names}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("assets/mini"))
    parser.add_argument("--work", type=Path, default=Path("training/pretrain"), help="where interrupted work is kept")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--seed", type=int, default=WORLD_SEED)
    parser.add_argument("--only", nargs="+", choices=list(SOURCES), default=list(SOURCES))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device_name = arguments.device
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device_name == "auto" else device_name)
    report = pretrain(arguments.out, arguments.work, device, arguments.seed, arguments.only)
    sys.stdout.write(json.dumps(report["models"], indent=2) + "\n")


if __name__ == "__main__":
    main()
