"""The mini world that a long benchmark works on: drawn, converted, its knowledge base built; kept by key."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import srsly

from benchmarks.keeping import alone, digest, kept, write_json
from benchmarks.running import run, say
from spacy_gemel.kb.meta import sha256_of
from spacy_gemel.utils.files import files_in

ROOT = Path(__file__).resolve().parent.parent
MODELS = "assets/mini"
MODEL_FOLDERS = ("language_model", "vision_encoder", "sentence_encoder")
TEST_MENTIONS = 2000
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True, slots=True)
class World:
    """A mini world, and the folders called `name` below data, corpus, training and metrics where it all lies."""

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


@dataclass(frozen=True, slots=True)
class Ready:
    """A world with its corpora and its knowledge base.

    inputs: digest of all that a training reads but its config: captions, pictures, entities, models. seconds: what
    making it ready took when that was done.
    """

    world: World
    inputs: str
    seconds: float


def folder_sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    return {name: sha256_of(folder / name) for name in files_in(folder)}


def model_sums(root: Path) -> dict[str, dict[str, str]]:
    """SHA-256 of every file of the three models; what is told about them beside them changes no trial."""
    return {name: folder_sums(root / MODELS / name) for name in MODEL_FOLDERS}


def world_sources(root: Path) -> dict[str, str]:
    """SHA-256 of the scripts and word lists that the mini world is made with."""
    sums = folder_sums(root / "scripts" / "mini_world")
    return {name: value for name, value in sums.items() if name.endswith((".py", ".txt"))}


def world_seed(root: Path) -> int:
    """project.yml's. Raises RuntimeError where that is not the world that the language model was pretrained for."""
    seed = srsly.read_yaml(root / "project.yml")["vars"].get("world_seed")
    report = f"{MODELS}/pretrain.json"
    try:
        message = json.loads((root / report).read_text(encoding="utf8"))
        pretrained = message["models"]["language_model"]["settings"]["seed"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RuntimeError(
            f"{report} does not say which world the language model was pretrained for (there is no such file, or no "
            f"models.language_model.settings.seed in it): restore it, or run `python -m spacy project run pretrain`"
        ) from error
    if seed is None or pretrained != seed:
        raise RuntimeError(
            f"the language model was pretrained for the world of seed {pretrained} ({report}), but world_seed in "
            f"project.yml is {seed}: put the models and the seed of one world there, or pretrain for this one "
            "(`python -m spacy project run pretrain`)"
        )
    return int(seed)


def split_sum(world: World, split: str) -> str:
    """Digest of a split: its captions and their pictures."""
    rows = world.folder("data") / f"{split}.jsonl"
    images = (json.loads(line)["image"] for line in rows.read_text(encoding="utf8").splitlines())
    return digest(sha256_of(rows), [sha256_of(rows.parent / image) for image in images])


def forget(world: World) -> None:
    """Take away what `prepare` makes."""
    for folder in (world.folder("corpus"), world.folder("data"), world.kb):
        shutil.rmtree(folder, ignore_errors=True)


def prepare(world: World) -> Ready:
    """Make the world, its corpora and its knowledge base, unless they are there as they would be made now.

    Waits where another process is at it.

    Raises RuntimeError where a step fails, or where the models are another world's.
    """
    root = world.root
    seed = world_seed(root)
    models = model_sums(root)
    key = digest(world_sources(root), models, seed, world.test)
    with alone(world.folder("corpus")):  # the lock lies beside the folder, which may be made again
        seconds = _make(world, key, seed)
    inputs = digest(
        sha256_of(world.folder("data") / "entities.jsonl"),
        split_sum(world, "train"),
        split_sum(world, "dev"),
        models,
    )
    return Ready(world, inputs, seconds)


def _make(world: World, key: str, seed: int) -> float:
    """Make the world unless it is kept under this key; the seconds that took when it was done."""
    root = world.root
    state = world.folder("corpus") / "prepared.json"
    found = kept(state, key, world.kb, world.folder("data"), *map(world.corpus, SPLITS))
    if found is None:
        forget(world)
        start = time.perf_counter()
        data = world.folder("data").relative_to(root).as_posix()
        say(f"making {data}: {world.test} test mentions")
        run(root, "scripts/mini_world/generate.py", data, "--test", str(world.test), "--seed", str(seed))
        for split in SPLITS:
            out = world.corpus(split).relative_to(root).as_posix()
            run(root, "-m", "spacy_gemel", "convert", "jsonl", f"{data}/{split}.jsonl", out, "--quiet")
        kb = world.kb.relative_to(root).as_posix()
        tokenizer = f"{MODELS}/language_model"
        run(root, "-m", "spacy_gemel", "build-kb", f"{data}/entities.jsonl", kb, "--tokenizer", tokenizer, "--quiet")
        run(root, "-m", "spacy_gemel", "check-kb", kb)
        found = {"key": key, "seconds": round(time.perf_counter() - start, 1)}
        write_json(state, found)
    return float(found["seconds"])
