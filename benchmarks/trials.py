"""Trials on a mini world: a mapper trained, a pipeline measured; kept by key."""

import argparse
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from benchmarks.keeping import digest
from benchmarks.running import run
from benchmarks.worlds import Ready, World
from research.grid.configs import TOTAL_STEPS, change, read_config
from research.grid.keeping import make_folder
from spacy_gemel.evaluation.results import MentionResult

if TYPE_CHECKING:
    from spacy.language import Language

    from spacy_gemel.evaluation.runner import EvaluateOptions

CONFIG = "configs/mini.cfg"
RETRIEVER = "components.gemel_linker.retriever"
TAIL_SHARE = 0.2


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
        message: dict[str, Any] = {
            f"paths.{name}": path.relative_to(world.root).as_posix() for name, path in paths.items()
        }
        return message | {"system.seed": self.seed, **self.overrides}

    def config(self, world: World) -> dict[str, Any]:
        """The config as this training reads it: the retriever swapped, the options in place."""
        config = read_config(world.root / CONFIG)
        blocks = {} if self.retriever is None else {RETRIEVER: self.retriever}
        change(config, {**blocks, **self.options(world)})
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


def parser_of(command: str, about: str | None, seeds: Sequence[int]) -> argparse.ArgumentParser:
    """What every command that makes trials can be told."""
    parser = argparse.ArgumentParser(prog=command, description=about)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds), help="mappers: one per seed and settings")
    parser.add_argument("--steps", type=int, help="training steps; default: the config's")
    parser.add_argument("--fresh", action="store_true", help="forget the trials and the world that are kept")
    return parser


def steps_of(steps: int | None) -> dict[str, Any]:
    """Overrides for so many training steps, evaluated half way and at the end; none for the config's own."""
    if steps is None:
        return {}
    return {"training.max_steps": steps, "training.eval_frequency": max(1, steps // 2), TOTAL_STEPS: steps}


def train(ready: Ready, training: Training, folder: Path) -> Trained:
    """The pipeline in `folder`, trained now unless it is kept there. Raises RuntimeError where spaCy fails."""

    def make(partial: Path) -> None:
        with (partial / "training.log").open("w", encoding="utf8") as log:
            _train(ready.world, training, partial.relative_to(ready.world.root).as_posix(), log)
        shutil.rmtree(partial / "model-last", ignore_errors=True)

    return Trained(folder / "model-best", make_folder(folder, training.key(ready), "model-best", make))


def _train(world: World, training: Training, out: str, log: IO[str]) -> None:
    config = CONFIG
    if training.retriever is not None:
        config = f"{out}/train.cfg"
        block = [f"{name}={_as_option(value)}" for name, value in training.retriever.items()]
        run(world.root, "scripts/swap_block.py", CONFIG, config, RETRIEVER, *block, log=log)
    message = training.options(world)
    pairs = [word for name, value in message.items() for word in (f"--{name}", _as_option(value))]
    run(world.root, "-m", "spacy", "train", config, "--output", out, *pairs, "--gpu-id", "-1", log=log)


def _as_option(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def measure(
    nlp: "Language", data: Path, options: "EvaluateOptions", pipeline: Path
) -> tuple[dict[str, Any], list[MentionResult], float]:
    """The metrics of a loaded pipeline on a .spacy file, its mentions, and the seconds that took."""
    from spacy_gemel.evaluation.runner import evaluate

    start = time.perf_counter()
    metrics, results = evaluate(nlp, data, options, pipeline=pipeline.as_posix())
    return metrics, results, round(time.perf_counter() - start, 1)


def distinct(numbers: Sequence[int]) -> list[int]:
    """The numbers without repeats, in their order: a seed counts once."""
    return list(dict.fromkeys(numbers))
