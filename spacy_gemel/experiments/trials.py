"""One trial: its key, what is kept of it, and how it is made. All of it lies in one folder of output."""

import copy
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from spacy_gemel.evaluation.mentions import mentions_path
from spacy_gemel.evaluation.runner import EvaluateOptions
from spacy_gemel.experiments.configs import change, value_at, write_config
from spacy_gemel.experiments.grid import Grid
from spacy_gemel.experiments.inputs import Digests, models_sum
from spacy_gemel.experiments.keeping import digest, kept, kept_folder, make_folder, write_json
from spacy_gemel.experiments.plan import Plan, Training, Trial
from spacy_gemel.experiments.processes import CommandFailed, run
from spacy_gemel.experiments.worker import ERRORS
from spacy_gemel.kb.meta import META_FILE

PIPELINE = "model-best"
TRAINED_PEERS = ("entity_linker",)
"""Peers that choose among what they have learnt on the dev data."""
NEEDED = ("train", "dev", "test", "kb")
_HINTS = {"kb": "make it with `python -m spacy_gemel build-kb`"}


@dataclass
class Lab:
    """Where the trials of a grid are made and kept.

    steps: of a training, None for the config's. limit: docs of the test set, 0 for all.
    """

    grid: Grid
    plan: Plan
    output: Path
    steps: int | None = None
    limit: int = 0
    gpu_id: int = -1
    root: Path = field(default_factory=Path.cwd)
    _keys: dict[str, str] = field(default_factory=dict, init=False)

    @cached_property
    def digests(self) -> Digests:
        """Of all that the trials read."""
        return Digests(self.output / "digests.json")

    def problems(self, trials: Sequence[Trial]) -> list[str]:
        """What the trials need and is not there."""
        found = []
        for name in NEEDED:
            path = self.grid.paths.get(name)
            hint = _HINTS.get(name, "make it with `python -m spacy_gemel convert`")
            if path is None:
                found.append(f"the grid names no {name}; give --{name}, or {name} in {self.grid.path}")
            elif not path.exists():
                found.append(f"{name}: {path}: no such file or folder; {hint}")
        if any(trial.training and trial.training.language_model for trial in trials):
            entities = self.grid.paths.get("entities")
            if entities is None or not entities.is_file():
                found.append(
                    f"entities: {entities or 'not given'}: rows with another language model need a knowledge base "
                    "for its tokenizer, which is built from the entities' JSON lines; give --entities"
                )
        return found

    def metrics(self, trial: Trial) -> Path:
        """Where the trial's METRICS.json is kept."""
        return self.output / "trials" / f"{trial.id}.json"

    def folder(self, training: Training) -> Path:
        """Where the trained pipeline is kept."""
        return self.output / "trainings" / training.id

    def config(self, training: Training) -> dict[str, Any]:
        """The config as this training reads it. Raises ValueError where it has no place for a change."""
        config = copy.deepcopy(dict(self.plan.config))
        try:
            change(config, {**training.changes, "system.seed": training.seed})
        except ValueError as error:
            raise ValueError(f"{self.grid.paths['config']}, for {training.id}: {error}") from None
        return config

    def kb_key(self, training: Training | None) -> str:
        """Changes with the knowledge base."""
        if training is None or training.language_model is None:
            return self.digests.file(self.grid.paths["kb"] / META_FILE)
        name, revision = self._tokenizer(training.language_model)
        files = self.digests.tree(Path(name)) if Path(name).exists() else ""
        entities = self.grid.paths.get("entities")
        rows = "" if entities is None else self.digests.file(entities)
        return digest(rows, name, revision, files, self._max_name_tokens)

    def training_key(self, training: Training) -> str:
        """Changes with the config as it is read, the texts and images, the knowledge base and local models.

        Not with the package's own code nor with the versions of the libraries. Taken once: what is read must not change
        while it is worked with.
        """
        if training.id in self._keys:
            return self._keys[training.id]
        config = self.config(training)
        models = models_sum(self.digests, config, self.grid.paths["config"].parent)
        config.pop("paths", None)
        data = [self.digests.corpus(self.grid.paths[split]) for split in ("train", "dev")]
        key = self._keys[training.id] = digest(config, models, data, self.kb_key(training))
        return key

    def key(self, trial: Trial) -> str:
        """Changes with all that the trial's figures depend on; see `training_key`."""
        test = self.digests.corpus(self.grid.paths["test"])
        if trial.training is None:
            read = ("train", "dev") if trial.peer in TRAINED_PEERS else ("train",)
            data = [self.digests.corpus(self.grid.paths[split]) for split in read]
            return digest(trial.peer, data, test, self.kb_key(None), self.grid.tail_share, self.limit)
        return digest(self.training_key(trial.training), test, asdict(self._options(trial)))

    def found(self, trial: Trial) -> dict[str, Any] | None:
        """The kept metrics of a trial whose inputs have not changed since."""
        path = self.metrics(trial)
        return kept(path, self.key(trial), mentions_path(path)) if path.exists() else None

    def is_trained(self, training: Training) -> bool:
        """Whether the pipeline is kept."""
        return kept_folder(self.folder(training), self.training_key(training), PIPELINE) is not None

    def make(self, training: Training | None, trials: Sequence[Trial]) -> dict[str, str]:
        """Train and measure: {trial's id: what went wrong}. Raises RuntimeError, OSError or ValueError where nothing of
        it could be done.
        """
        if training is None:
            for trial in trials:
                self._peer(trial)
            return {}
        folder = self.folder(training)
        seconds = make_folder(
            folder, self.training_key(training), PIPELINE, lambda partial: self._train(training, partial)
        )
        job = {
            "pipeline": self._told(folder / PIPELINE),
            "data": self._told(self.grid.paths["test"]),
            "gpu_id": self.gpu_id,
            "trials": [
                {
                    "output": self._told(self.metrics(trial)),
                    "key": self.key(trial),
                    "options": asdict(self._options(trial)),
                    "trial": {
                        "id": trial.id,
                        "training": training.id,
                        "seed": training.seed,
                        "train_seconds": seconds,
                    },
                }
                for trial in trials
            ],
        }
        write_json(folder / "job.json", job)
        (folder / ERRORS).unlink(missing_ok=True)
        try:
            self._run(folder / "measuring.log", "spacy_gemel.experiments.worker", self._told(folder / "job.json"))
        except RuntimeError as error:
            if not (folder / ERRORS).exists():
                missing = [trial for trial in trials if self.found(trial) is None]
                return {trial.id: str(error) for trial in missing}
        errors = json.loads((folder / ERRORS).read_text(encoding="utf8"))
        return {trial.id: errors[path] for trial in trials if (path := self._told(self.metrics(trial))) in errors}

    def _options(self, trial: Trial) -> EvaluateOptions:
        return EvaluateOptions(tail_share=self.grid.tail_share, limit=self.limit, progress=False, **trial.options)

    def _train(self, training: Training, partial: Path) -> None:
        source, target = self.grid.paths["config"], partial / "train.cfg"
        config = self.config(training)
        write_config(config, source.absolute(), target.absolute())
        paths = {split: self.grid.paths[split] for split in ("train", "dev")} | {"kb": self._kb(training)}
        told = [word for name, path in paths.items() for word in (f"--paths.{name}", self._told(path))]
        told += ["--output", self._told(partial), "--gpu-id", str(self.gpu_id)]
        self._run(partial / "training.log", "spacy", "train", self._told(target), *told)
        shutil.rmtree(partial / "model-last", ignore_errors=True)

    def _kb(self, training: Training) -> Path:
        """The knowledge base for the training's language model, built where it is another than the config's."""
        if training.language_model is None:
            return self.grid.paths["kb"]
        name, revision = self._tokenizer(training.language_model)
        folder = self.output / "kb" / digest(name, revision)[:12]

        def build(partial: Path) -> None:
            told = ["--tokenizer", name, "--max-name-tokens", str(self._max_name_tokens), "--quiet"]
            told += ["--revision", revision] if revision else []
            entities = self._told(self.grid.paths["entities"])
            self._run(partial / "building.log", "spacy_gemel", "build-kb", entities, self._told(partial / "kb"), *told)

        make_folder(folder, self.kb_key(training), "kb", build)
        return folder / "kb"

    def _tokenizer(self, block: Mapping[str, Any]) -> tuple[str, str | None]:
        """The language model's name, of a folder as it can be opened, and its revision."""
        beside = self.grid.paths["config"].parent / str(block["name"])
        return (self._told(beside) if beside.exists() else str(block["name"])), block.get("revision")

    @property
    def _max_name_tokens(self) -> int:
        return int(value_at(self.plan.config, f"components.{self.plan.linker}.max_name_tokens") or 32)

    def _peer(self, trial: Trial) -> None:
        output = self.metrics(trial)
        output.unlink(missing_ok=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        train, test, kb = (self._told(self.grid.paths[name]) for name in ("train", "test", "kb"))
        made = output.with_suffix(".partial.json")
        start = time.perf_counter()
        told = [trial.peer, train, test, "--kb", kb, "--output", self._told(made)]
        told += ["--tail-share", str(self.grid.tail_share), "--limit", str(self.limit), "--quiet"]
        told += ["--dev", self._told(self.grid.paths["dev"])] if trial.peer in TRAINED_PEERS else []
        self._run(output.with_suffix(".log"), "spacy_gemel", "peer", *told)
        metrics = json.loads(made.read_text(encoding="utf8"))
        mentions_path(made).replace(mentions_path(output))
        made.unlink()
        told_of = {"id": trial.id, "seconds": round(time.perf_counter() - start, 1)}
        write_json(output, {"key": self.key(trial), **metrics, "trial": told_of})

    def _run(self, log: Path, *module: str) -> None:
        """`python -m module ...`. Raises RuntimeError with one line that says why, and where the rest stands."""
        try:
            with log.open("w", encoding="utf8") as file:
                run(self.root, "-m", *module, log=file)
        except CommandFailed as error:
            raise RuntimeError(f"{module[0]} {module[1]}: {error.why} (all of it in {self._told(log)})") from error

    def _told(self, path: Path) -> str:
        """A path for a command that is run in `root`, free of this machine's folders where that can be."""
        return Path(os.path.relpath(path, self.root)).as_posix()
