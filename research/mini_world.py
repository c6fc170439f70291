"""The mini world of long experiments and benchmarks: drawn, converted, its knowledge base built; cached by key."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import srsly

from research.cache import cached, digest
from research.commands import report, run_command
from spacy_gemel.utils.files import files_in, lock_file, sha256_of, write_json

ROOT = Path(__file__).resolve().parent.parent
CONFIG = "configs/mini.cfg"
MODELS = "assets/mini"
MODEL_FOLDERS = ("language_model", "vision_encoder", "sentence_encoder")
TEST_MENTIONS = 2000
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True, slots=True)
class World:
    """A mini world, in the folders called `name` below data, corpus, training and metrics."""

    name: str = "evidence"
    test: int = TEST_MENTIONS
    root: Path = ROOT

    def folder(self, kind: str) -> Path:
        """Its folder below data, corpus, training or metrics."""
        return self.root / kind / self.name

    def corpus(self, split: str) -> Path:
        """The .spacy file of a split."""
        return self.folder("corpus") / f"{split}.spacy"

    @property
    def kb(self) -> Path:
        """The knowledge base's folder."""
        return self.folder("training") / "kb"

    @property
    def paths(self) -> dict[str, Path]:
        """Of the runner."""
        corpora = {split: self.corpus(split) for split in SPLITS}
        return {"config": self.root / CONFIG, **corpora, "kb": self.kb}


def folder_sums(folder: Path, suffix: str | tuple[str, ...] = "") -> dict[str, str]:
    """SHA-256 of every file below a folder whose name ends so."""
    return {name: sha256_of(folder / name) for name in files_in(folder) if name.endswith(suffix)}


def world_sources(root: Path) -> dict[str, str]:
    """SHA-256 of the scripts and word lists that make the mini world."""
    return folder_sums(root / "scripts" / "mini_world", (".py", ".txt"))


def world_seed(root: Path) -> int:
    """project.yml's. Raises RuntimeError if the language model was not pretrained for that world."""
    seed = srsly.read_yaml(root / "project.yml")["vars"].get("world_seed")
    path = f"{MODELS}/pretrain.json"
    try:
        content = json.loads((root / path).read_text(encoding="utf8"))
        pretrained = content["models"]["language_model"]["settings"]["seed"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RuntimeError(
            f"{path} does not say which world the language model was pretrained for (there is no such file, or no "
            f"models.language_model.settings.seed in it): restore it, or run `python -m spacy project run pretrain`"
        ) from error
    if seed is None or pretrained != seed:
        raise RuntimeError(
            f"the language model was pretrained for the world of seed {pretrained} ({path}), but world_seed in "
            f"project.yml is {seed}: put the models and the seed of one world there, or pretrain for this one "
            "(`python -m spacy project run pretrain`)"
        )
    return int(seed)


def split_sum(world: World, split: str) -> str:
    """Digest of a split: its captions and their pictures."""
    rows = world.folder("data") / f"{split}.jsonl"
    images = (json.loads(line)["image"] for line in rows.read_text(encoding="utf8").splitlines())
    return digest(sha256_of(rows), [sha256_of(rows.parent / image) for image in images])


def delete(world: World) -> None:
    """Remove what `prepare` makes."""
    for folder in (world.folder("corpus"), world.folder("data"), world.kb):
        shutil.rmtree(folder, ignore_errors=True)


def prepare(world: World) -> float:
    """Make the world, its corpora and its knowledge base, unless they are cached. Returns the seconds it took.

    Raises:
        RuntimeError: If a step fails, or if the models are another world's.
        ValueError: If another process is making it.
    """
    root, seed = world.root, world_seed(world.root)
    models = {name: folder_sums(root / MODELS / name) for name in MODEL_FOLDERS}
    key = digest(world_sources(root), models, seed, world.test)
    state = world.folder("corpus") / "prepared.json"
    lock = world.folder("corpus").with_name(f"{world.name}.lock")  # beside the folder, which may be made again
    with lock_file(lock, f"another process is making the mini world in {world.folder('data')}; wait for it"):
        content = cached(state, key, world.kb, world.folder("data"), *map(world.corpus, SPLITS))
        if content is None:
            delete(world)
            start = time.perf_counter()
            _make(world, seed)
            content = {"key": key, "seconds": round(time.perf_counter() - start, 1)}
            write_json(state, content)
    return float(content["seconds"])


def _make(world: World, seed: int) -> None:
    def relative(path: Path) -> str:
        return path.relative_to(world.root).as_posix()

    data, kb = relative(world.folder("data")), relative(world.kb)
    report(f"making {data}: {world.test} test mentions")
    generate = ("scripts/mini_world/generate.py", data, "--test", str(world.test), "--seed", str(seed))
    run_command(world.root, *generate)
    gemel = ("-m", "spacy_gemel")
    for split in SPLITS:
        output = relative(world.corpus(split))
        run_command(world.root, *gemel, "convert", "jsonl", f"{data}/{split}.jsonl", output, "--quiet")
    tokenizer = ("--tokenizer", f"{MODELS}/language_model", "--quiet")
    run_command(world.root, *gemel, "build-kb", f"{data}/entities.jsonl", kb, *tokenizer)
    run_command(world.root, *gemel, "check-kb", kb)
