"""One trial: its key, what is kept of it, and how it is made. All of it lies in one folder of output."""

import copy
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from research.baselines.kinds import KINDS
from research.grid.configs import change, interpolated, is_path, value_at, write_config
from research.grid.failures import Failures
from research.grid.grid import Grid
from research.grid.inputs import Digests, models_sum
from research.grid.keeping import digest, kept_folder, make_folder, read_object, write_json
from research.grid.measured import adopt, read_measured
from research.grid.plan import Plan, Training, Trial
from research.grid.processes import CommandFailed, run
from research.grid.trained import led_nowhere
from research.grid.worker import AT, ERRORS
from spacy_gemel.evaluation.runner import EvaluateOptions
from spacy_gemel.kb.meta import META_FILE

PIPELINE = "model-best"
LOG = "training.log"
NEEDED = ("train", "dev", "test", "kb")
_HINTS = {"kb": "make it with `python -m spacy_gemel build-kb`"}


@dataclass
class Lab:
    """Where the trials of a grid are made and kept.

    steps: of a training, None for the config's. limit: docs of the test set, 0 for all. keep_open: descriptors that
    every command gets, as of the lock of `output`.
    """

    grid: Grid
    plan: Plan
    output: Path
    steps: int | None = None
    limit: int = 0
    gpu_id: int = -1
    root: Path = field(default_factory=Path.cwd)
    keep_open: tuple[int, ...] = ()
    _keys: dict[str, str] = field(default_factory=dict, init=False)

    @cached_property
    def digests(self) -> Digests:
        """Of all that the trials read."""
        return Digests(self.output / "digests.json")

    @cached_property
    def failures(self) -> Failures:
        """What went wrong with trials when they were last tried."""
        return Failures(self.output / "failures.json")

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
        config = self._as_read(training)
        models = models_sum(self.digests, config, self.grid.paths["config"].parent)
        data = [self.digests.corpus(self.grid.paths[split]) for split in ("train", "dev")]
        key = self._keys[training.id] = digest(config, models, data, self.kb_key(training))
        return key

    def _as_read(self, training: Training) -> dict[str, Any]:
        """The config with its variables resolved, but for the paths that the grid gives: their files are counted."""
        config = self.config(training)
        config["paths"] = {**(config.get("paths") or {}), **dict.fromkeys(("train", "dev", "kb"))}
        return {name: section for name, section in interpolated(config).items() if name != "paths"}

    def key(self, trial: Trial) -> str:
        """Changes with all that the trial's figures depend on; see `training_key`."""
        test = self.digests.corpus(self.grid.paths["test"])
        if trial.training is None:
            read = ("train", "dev") if self._takes_dev(trial) else ("train",)
            data = [self.digests.corpus(self.grid.paths[split]) for split in read]
            options = dict(trial.options)
            if "encoder" in options:
                options["encoder"] = self._named(str(options["encoder"]))
                options["encoder's files"] = self.digests.tree(Path(options["encoder"]))
            message = [trial.peer, options, self._lang, self.grid.tail_share, self.limit]
            return digest(message, data, test, self.kb_key(None))
        return digest(self.training_key(trial.training), test, asdict(self._options(trial)))

    def found(self, trial: Trial) -> dict[str, Any] | None:
        """The kept metrics of a trial whose inputs have not changed since."""
        return read_measured(self.metrics(trial), self.key(trial), self.digests)

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
        return self._measure(training, trials, seconds)

    def _measure(self, training: Training, trials: Sequence[Trial], seconds: float) -> dict[str, str]:
        """{trial's id: what went wrong}.

        A worker that dies fails the trial that it was at, or all where it had not loaded the pipeline yet; another one
        goes on with the rest.
        """
        folder = self.folder(training)
        message = {
            "train_seconds": seconds,
            "led_nowhere": led_nowhere(folder / LOG, folder / PIPELINE, self.plan.linker),
        }
        left, failed = list(trials), dict[str, str]()
        model_lock = 0
        while left:
            model_lock += 1
            self._write_job(folder, training, left, message)
            log = folder / ("measuring.log" if model_lock == 1 else f"measuring-{model_lock}.log")
            why = ""
            try:
                self._run(log, "research.grid.worker", self._told(folder / "job.json"))
            except RuntimeError as error:
                why = str(error)
            if not why or (folder / ERRORS).exists():
                errors = read_object(folder / ERRORS)
                return failed | {t.id: str(errors[p]) for t in left if (p := self._told(self.metrics(t))) in errors}
            at = read_object(folder / AT).get("output")
            left = [trial for trial in left if self.found(trial) is None]
            failed |= {t.id: why for t in left if at is None or self._told(self.metrics(t)) == at}
            left = [trial for trial in left if trial.id not in failed]
        return failed

    def _write_job(
        self, folder: Path, training: Training, trials: Sequence[Trial], trained: Mapping[str, object]
    ) -> None:
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
                        **trained,
                    },
                }
                for trial in trials
            ],
        }
        for name in (ERRORS, AT):
            (folder / name).unlink(missing_ok=True)
        write_json(folder / "job.json", job)

    def _options(self, trial: Trial) -> EvaluateOptions:
        return EvaluateOptions(tail_share=self.grid.tail_share, limit=self.limit, progress=False, **trial.options)

    def _train(self, training: Training, partial: Path) -> None:
        source, target = self.grid.paths["config"], partial / "train.cfg"
        config = self.config(training)
        write_config(config, source.absolute(), target.absolute())
        paths = {split: self.grid.paths[split] for split in ("train", "dev")} | {"kb": self._kb(training)}
        message = [word for name, path in paths.items() for word in (f"--paths.{name}", self._told(path))]
        message += ["--output", self._told(partial), "--gpu-id", str(self.gpu_id)]
        self._run(partial / LOG, "spacy", "train", self._told(target), *message)
        shutil.rmtree(partial / "model-last", ignore_errors=True)

    def kb_folder(self, training: Training) -> Path:
        """Where the knowledge base for its own language model is kept."""
        return self.output / "kb" / digest(*self._tokenizer(training.language_model or {}))[:12]

    def _kb(self, training: Training) -> Path:
        """The knowledge base for the training's language model, built where it is another than the config's."""
        if training.language_model is None:
            return self.grid.paths["kb"]
        name, revision = self._tokenizer(training.language_model)
        folder = self.kb_folder(training)

        def build(partial: Path) -> None:
            message = ["--tokenizer", name, "--max-name-tokens", str(self._max_name_tokens), "--quiet"]
            message += ["--revision", revision] if revision else []
            entities = self._told(self.grid.paths["entities"])
            self._run(
                partial / "building.log", "spacy_gemel", "build-kb", entities, self._told(partial / "kb"), *message
            )

        make_folder(folder, self.kb_key(training), "kb", build)
        return folder / "kb"

    def _tokenizer(self, block: Mapping[str, Any]) -> tuple[str, str | None]:
        """The language model's name, of a folder as it can be opened, and its revision."""
        beside = self.grid.paths["config"].parent / str(block["name"])
        return (self._told(beside) if beside.exists() else str(block["name"])), block.get("revision")

    @property
    def _max_name_tokens(self) -> int:
        return int(value_at(self.plan.config, f"components.{self.plan.linker}.max_name_tokens") or 32)

    @property
    def _lang(self) -> str:
        return str(value_at(self.plan.config, "nlp.lang") or "en")

    def _takes_dev(self, trial: Trial) -> bool:
        return "dev" in KINDS[trial.peer].options and not trial.options.get("held_out")

    def _named(self, model: str) -> str:
        """A model that the grid names: a folder beside it as it can be opened, else what it is called on its hub."""
        here = self.grid.path.parent
        return self._told(here / model) if is_path("name", model, here) else model

    def _peer(self, trial: Trial) -> None:
        output = self.metrics(trial)
        output.unlink(missing_ok=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        train, test, kb = (self._told(self.grid.paths[name]) for name in ("train", "test", "kb"))
        made = output.with_suffix(".partial.json")
        start = time.perf_counter()
        message = [trial.peer, train, test, "--kb", kb, "--output", self._told(made)]
        message += [
            "--tail-share",
            str(self.grid.tail_share),
            "--limit",
            str(self.limit),
            "--lang",
            self._lang,
            "--quiet",
        ]
        message += ["--dev", self._told(self.grid.paths["dev"])] if self._takes_dev(trial) else []
        for name, value in trial.options.items():
            if value is not False:
                given = self._named(value) if name == "encoder" else value
                message += [f"--{name.replace('_', '-')}", *([] if value is True else [str(given)])]
        self._run(output.with_suffix(".log"), "spacy_gemel", "peer", *message)
        adopt(made, output, self.key(trial), {"id": trial.id, "seconds": round(time.perf_counter() - start, 1)})

    def _run(self, log: Path, *module: str) -> None:
        """`python -m module ...`. Raises RuntimeError with one line that says why, and where the rest stands."""
        try:
            with log.open("w", encoding="utf8") as file:
                run(self.root, "-m", *module, log=file, keep_open=self.keep_open)
        except CommandFailed as error:
            raise RuntimeError(f"{module[0]} {module[1]}: {error.why} (all of it in {self._told(log)})") from error

    def _told(self, path: Path) -> str:
        """A path for a command that is run in `root`, free of this machine's folders where that can be."""
        return Path(os.path.relpath(path, self.root)).as_posix()
