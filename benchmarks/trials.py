"""Trials on a mini world of their own: the world made ready, a mapper trained, a pipeline measured; kept by key."""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import srsly
from filelock import FileLock
from thinc.api import Config

from spacy_gemel.evaluation.mentions import MentionResult
from spacy_gemel.kb.meta import sha256_of
from spacy_gemel.paths import files_in, write_whole

if TYPE_CHECKING:
    from spacy.language import Language

    from spacy_gemel.evaluation.runner import EvaluateOptions

ROOT = Path(__file__).resolve().parent.parent
CONFIG = "configs/mini.cfg"
MODELS = "assets/mini"
MODEL_FOLDERS = ("language_model", "vision_encoder", "sentence_encoder")
RETRIEVER = "components.gemel_linker.retriever"
TEST_MENTIONS = 2000
TAIL_SHARE = 0.2
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


@dataclass(frozen=True, slots=True)
class Training:
    """One mapper: `spacy train` on configs/mini.cfg with some settings changed.

    overrides: dotted setting -> value. retriever: the block in place of the config's, if another.
    """

    name: str
    seed: int
    overrides: Mapping[str, Any] = field(default_factory=dict)
    retriever: Mapping[str, Any] | None = None

    def options(self, world: World) -> dict[str, Any]:
        """Dotted setting -> value: all that `spacy train` is told on its command line."""
        paths = {split: world.corpus(split) for split in ("train", "dev")} | {"kb": world.kb}
        told: dict[str, Any] = {
            f"paths.{name}": path.relative_to(world.root).as_posix() for name, path in paths.items()
        }
        return told | {"system.seed": self.seed, **self.overrides}

    def config(self, world: World) -> dict[str, Any]:
        """The config as this training reads it: the retriever swapped, the options in place."""
        config = Config().from_disk(world.root / CONFIG, interpolate=False)
        blocks = {} if self.retriever is None else {RETRIEVER: dict(self.retriever)}
        for name, value in {**blocks, **self.options(world)}.items():
            *parents, last = name.split(".")
            section: Any = config
            for parent in parents:
                section = section[parent]
            section[last] = value
        return config

    def key(self, ready: Ready) -> str:
        """Changes with the config as it is read, the captions, pictures, entities and models.

        Not with the package's own code nor with the versions of the libraries: after a change of those, --fresh.
        """
        return digest(self.config(ready.world), ready.inputs)


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained pipeline's folder, and the seconds of its training."""

    pipeline: Path
    seconds: float


def digest(*parts: Any) -> str:
    """SHA-256 of some plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def kept(path: Path, key: str, *needed: Path) -> dict[str, Any] | None:
    """What was written at `path` under this key; None where there is nothing, something else, or `needed` is gone."""
    if not all(other.exists() for other in needed):
        return None
    try:
        found = json.loads(path.read_text(encoding="utf8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("key") == key else None


@contextmanager
def alone(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Keep other processes from the trial at `path` meanwhile; a process that dies lets go.

    Raises filelock.Timeout where another one has it and this one shall not wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(path.name + ".lock"), timeout=-1 if wait else 0):
        yield


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write it whole or not at all."""
    with write_whole(path) as partial:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf8")


def steps_of(steps: int | None) -> dict[str, Any]:
    """Overrides for so many training steps, evaluated half way and at the end; none for the config's own."""
    return {} if steps is None else {"training.max_steps": steps, "training.eval_frequency": max(1, steps // 2)}


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
        told = json.loads((root / report).read_text(encoding="utf8"))
        pretrained = told["models"]["language_model"]["settings"]["seed"]
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

    Raises RuntimeError where a step fails, or where the models are another world's.
    """
    root = world.root
    seed = world_seed(root)
    models = model_sums(root)
    key = digest(world_sources(root), models, seed, world.test)
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
    inputs = digest(
        sha256_of(world.folder("data") / "entities.jsonl"),
        split_sum(world, "train"),
        split_sum(world, "dev"),
        models,
    )
    return Ready(world, inputs, found["seconds"])


def train(ready: Ready, training: Training, folder: Path) -> Trained:
    """The pipeline in `folder`, trained now unless it is kept there. Raises RuntimeError where spaCy fails."""
    world, key, state, pipeline = ready.world, training.key(ready), folder / "trial.json", folder / "model-best"
    found = kept(state, key, pipeline)
    if found is None:
        partial = folder.with_name(folder.name + ".partial")
        for old in (folder, partial):
            shutil.rmtree(old, ignore_errors=True)
        partial.mkdir(parents=True)
        start = time.perf_counter()
        with (partial / "training.log").open("w", encoding="utf8") as log:
            _train(world, training, partial.relative_to(world.root).as_posix(), log)
        shutil.rmtree(partial / "model-last", ignore_errors=True)
        found = {"key": key, "seconds": round(time.perf_counter() - start, 1)}
        write_json(partial / state.name, found)
        partial.rename(folder)
    return Trained(pipeline, found["seconds"])


def _train(world: World, training: Training, out: str, log: IO[str]) -> None:
    config = CONFIG
    if training.retriever is not None:
        config = f"{out}/train.cfg"
        block = [f"{name}={_as_option(value)}" for name, value in training.retriever.items()]
        run(world.root, "scripts/swap_block.py", CONFIG, config, RETRIEVER, *block, log=log)
    told = training.options(world)
    pairs = [word for name, value in told.items() for word in (f"--{name}", _as_option(value))]
    run(world.root, "-m", "spacy", "train", config, "--output", out, *pairs, "--gpu-id", "-1", log=log)


def _as_option(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def run(root: Path, *arguments: str, log: IO[str] | None = None) -> None:
    """Run Python on some arguments in `root`, what it says to `log` or else to stderr.

    Raises RuntimeError, with the end of the log, where it fails.
    """
    done = subprocess.run(
        [sys.executable, *arguments], cwd=root, stdout=log or sys.stderr, stderr=subprocess.STDOUT if log else None
    )
    if done.returncode:
        said = "" if log is None else f"; the end of {log.name}:\n{_tail(Path(log.name))}"
        raise RuntimeError(f"python {' '.join(arguments)} ended with {done.returncode}{said}")


def _tail(path: Path, lines: int = 20) -> str:
    return "\n".join(path.read_text(encoding="utf8", errors="replace").splitlines()[-lines:])


def measure(
    nlp: "Language", data: Path, options: "EvaluateOptions", pipeline: Path
) -> tuple[dict[str, Any], list[MentionResult], float]:
    """The metrics of a loaded pipeline on a .spacy file, its mentions, and the seconds that took."""
    from spacy_gemel.evaluation.runner import evaluate

    start = time.perf_counter()
    metrics, results = evaluate(nlp, data, options, pipeline=pipeline.as_posix())
    return metrics, results, round(time.perf_counter() - start, 1)


def say(line: str) -> None:
    """One line of progress."""
    print(line, file=sys.stderr, flush=True)


class Progress:
    """A line per trial: which, for how long it has gone on, and about how long it still will."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.place = 0
        self.ran: list[float] = []
        self.start = time.perf_counter()

    def say(self, what: str) -> None:
        """Before a trial; `ran` holds the seconds of those that were not kept."""
        gone = time.perf_counter() - self.start
        left = ""
        if self.ran:
            left = f", about {sum(self.ran) / len(self.ran) * (self.total - self.place) / 60:.0f} min left"
        self.place += 1
        say(f"[{self.place}/{self.total}] {what} ({gone / 60:.1f} min gone{left})")


def distinct(numbers: Sequence[int]) -> list[int]:
    """The numbers without repeats, in their order: a seed counts once."""
    return list(dict.fromkeys(numbers))
