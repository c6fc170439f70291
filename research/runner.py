"""The one runner of all experiments: trainings and trials by key, each done once, in one folder.

The folder holds `trials/ID.json` (as `evaluate` writes it, with the trial's key) and `trials/ID.mentions.jsonl`,
`trainings/ID/` with the pipeline in `model-best`, and `kb/` with knowledge bases for other language models. A trial
runs again only if something that it reads has changed. Changes of this package's code, or of the libraries, are not
noticed.
"""

import copy
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from research.cache import STATE, Digests, cached_folder, digest, folder_seconds, read_object, seconds_in
from research.commands import CommandFailed, Progress, report, run_command
from research.configs import change, interpolated, is_path, named_files, value_at, write_config
from research.worker import CURRENT, ERRORS
from spacy_gemel.evaluation.results import mentions_path
from spacy_gemel.evaluation.runner import EvaluateOptions
from spacy_gemel.kb.meta import META_FILE
from spacy_gemel.utils.files import lock_file, sha256_of, write_json

PIPELINE = "model-best"
LOG = "training.log"
BASELINES: Mapping[str, tuple[str, ...]] = {
    "most-frequent": ("ignore_case",),
    "alias": ("ignore_case",),
    "entity_linker": ("dev", "encoder", "epochs", "held_out", "seed", "vector_length"),
}
"""Other linkers on the same data, and the options that each takes."""

NO_BETTER = (
    "no update after the first made it better on dev data, so that the best checkpoint is the mapper as it was "
    "initialized: try another learning rate"
)
EVALUATED_ONCE = (
    "it was evaluated on dev data once, after the first update, so that the best checkpoint is the mapper as it was "
    "initialized: give it a smaller eval_frequency, or more steps"
)
_CONVERT = "make it with `python -m spacy_gemel convert`"
_HINTS = {**dict.fromkeys(("train", "dev", "test"), _CONVERT), "kb": "make it with `python -m spacy_gemel build-kb`"}
_RULE = re.compile(r"-{2,}( +-{2,})+\s*")


@dataclass(frozen=True, slots=True)
class Training:
    """One mapper.

    Attributes:
        id: Its folder's name.
        seed: The config's `system.seed`.
        changes: Dotted setting of the config -> value, a mapping for a whole block.
        language_model: Its block if it is not the config's; it then needs a knowledge base of its own.
    """

    id: str
    seed: int
    changes: Mapping[str, Any] = field(default_factory=dict)
    language_model: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """One evaluation, of a training's pipeline or of a baseline.

    Attributes:
        id: Its files' name.
        training: None for a baseline.
        baseline: One of BASELINES, or "".
        options: Changed options of `EvaluateOptions`, or the baseline's options.
        setting: What is measured, with the keys of `paper.SETTING`; empty for a baseline.
    """

    id: str
    training: Training | None = None
    baseline: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    setting: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """What is missing of one training, or one baseline. expected: seconds; None if unknown."""

    training: Training | None
    trials: tuple[Trial, ...]
    train: bool
    expected: float | None

    @property
    def description(self) -> str:
        """In words."""
        return f"{'train, measure' if self.train else 'measure'} {', '.join(trial.id for trial in self.trials)}"


class RunResult(NamedTuple):
    """failed: trial's id -> reason. ran: how many trials were not cached."""

    failed: dict[str, str]
    interrupted: bool
    ran: int


def by_training(trials: Iterable[Trial]) -> list[tuple[Training | None, list[Trial]]]:
    """Trials of one training together; baselines last, one by one."""
    groups: dict[str, tuple[Training | None, list[Trial]]] = {}
    for trial in trials:
        key = trial.training.id if trial.training else f"baseline {trial.id}"
        groups.setdefault(key, (trial.training, []))[1].append(trial)
    return sorted(groups.values(), key=lambda group: group[0] is None)


@dataclass
class Runner:
    """Trains and measures in a folder.

    Attributes:
        folder: Where everything is cached.
        paths: config, train, dev, test, kb, entities; those that there are.
        config: The training config as written.
        linker: The linker's name in the config.
        dataset: What the data are called.
        tail_share: Share of all counts that the tail's entities hold.
        limit: Test docs; 0 for all.
        models: The folder that a baseline's encoder may lie in.
        estimate: Seconds of a `training`, an `evaluation` and a `baseline`, until there are timings.
        prompt_lengths: Whether trials also have the lengths of their prompts in tokens.
        gpu_id: -1 for the CPU.
        root: The working folder of commands.
    """

    folder: Path
    paths: Mapping[str, Path]
    config: Mapping[str, Any]
    linker: str
    dataset: str = ""
    tail_share: float = 0.05
    limit: int = 0
    models: Path = Path()
    estimate: Mapping[str, float] = field(default_factory=dict)
    prompt_lengths: bool = False
    gpu_id: int = -1
    root: Path = field(default_factory=Path.cwd)
    _keys: dict[str, str] = field(default_factory=dict, init=False)
    _lock: tuple[int, ...] = field(default=(), init=False)

    @cached_property
    def digests(self) -> Digests:
        """Of all that the trials read."""
        return Digests(self.folder / "digests.json")

    # What is cached

    def metrics_path(self, trial: Trial) -> Path:
        """The trial's METRICS.json."""
        return self.folder / "trials" / f"{trial.id}.json"

    def training_folder(self, training: Training) -> Path:
        """Its pipeline, its config and its logs."""
        return self.folder / "trainings" / training.id

    def metrics(self, trial: Trial) -> dict[str, Any] | None:
        """The cached metrics of a trial; None if its inputs have changed, or if its files are damaged."""
        metrics = read_object(self.metrics_path(trial))
        mentions = metrics.get("mentions")
        if metrics.get("key") != self.key(trial) or not isinstance(mentions, dict):
            return None
        # mentions that were cut off would give figures, too
        complete = self.digests.file(mentions_path(self.metrics_path(trial))) == mentions.get("sha256") != ""
        return metrics if complete and seconds_in(metrics.get("trial")) is not None else None

    def failure(self, trial: Trial) -> str | None:
        """Why the trial failed when it was last tried with these inputs; None if it did not."""
        failure = self._failures().get(trial.id, {})
        return str(failure["reason"]) if failure.get("key") == self.key(trial) and "reason" in failure else None

    def _failures(self) -> dict[str, dict[str, Any]]:
        content = read_object(self.folder / "failures.json")
        return {id_: failure for id_, failure in content.items() if isinstance(failure, dict)}

    def _write_failures(self, trials: Iterable[Trial], failed: Mapping[str, str]) -> None:
        previous = self._failures()
        failures = {id_: failure for id_, failure in previous.items() if id_ not in {trial.id for trial in trials}}
        failures |= {t.id: {"key": self.key(t), "reason": failed[t.id]} for t in trials if t.id in failed}
        if failures != previous:
            write_json(self.folder / "failures.json", failures)

    # Keys

    def training_key(self, training: Training) -> str:
        """Changes with the config as it is read, texts, images, knowledge base and local models. Computed once."""
        if training.id not in self._keys:
            config = self.changed_config(training)
            # the files of [paths] count by their content
            config["paths"] = {**(config.get("paths") or {}), **dict.fromkeys(("train", "dev", "kb"))}
            read = {name: section for name, section in interpolated(config).items() if name != "paths"}
            named = named_files(read, self.paths["config"].parent)
            models = {name: self.digests.tree(path) for name, path in named}
            data = [self.digests.corpus(self.paths[split]) for split in ("train", "dev")]
            self._keys[training.id] = digest(read, models, data, self.kb_key(training))
        return self._keys[training.id]

    def kb_key(self, training: Training | None) -> str:
        """Changes with the knowledge base."""
        if training is None or training.language_model is None:
            return self.digests.file(self.paths["kb"] / META_FILE)
        name, revision = self._tokenizer(training.language_model)
        files = self.digests.tree(Path(name)) if Path(name).exists() else ""
        entities = self.paths.get("entities")
        rows = "" if entities is None else self.digests.file(entities)
        return digest(rows, name, revision, files, self._max_name_tokens)

    def key(self, trial: Trial) -> str:
        """Changes with everything that the trial's figures depend on."""
        test = self.digests.corpus(self.paths["test"])
        if trial.training is not None:
            return digest(self.training_key(trial.training), test, asdict(self._options(trial)))
        splits = ("train", "dev") if self._reads_dev(trial) else ("train",)
        options = dict(trial.options)
        if "encoder" in options:
            options["encoder"] = self._encoder(options["encoder"])
            options["encoder's files"] = self.digests.tree(Path(options["encoder"]))
        how = [trial.baseline, options, self._lang, self.tail_share, self.limit]
        return digest(how, [self.digests.corpus(self.paths[split]) for split in splits], test, self.kb_key(None))

    def changed_config(self, training: Training) -> dict[str, Any]:
        """The training's config. Raises ValueError if a changed setting has no section."""
        config = copy.deepcopy(dict(self.config))
        try:
            change(config, {**training.changes, "system.seed": training.seed})
        except ValueError as error:
            raise ValueError(f"{self.paths['config']}, for {training.id}: {error}") from None
        return config

    # Running

    def problems(self, trials: Sequence[Trial]) -> list[str]:
        """What the trials need and is missing."""
        problems = []
        for name, hint in _HINTS.items():
            path = self.paths.get(name)
            if path is None:
                problems.append(f"the grid names no {name}; give --{name}, or {name} in the grid")
            elif not path.exists():
                problems.append(f"{name}: {path}: no such file or folder; {hint}")
        entities = self.paths.get("entities")
        has_language_model = any(trial.training and trial.training.language_model for trial in trials)
        if has_language_model and (entities is None or not entities.is_file()):
            problems.append(
                f"entities: {entities or 'not given'}: rows with another language model need a knowledge base for its "
                "tokenizer, which is built from the entities' JSON lines; give --entities"
            )
        return problems

    def steps(self, trials: Sequence[Trial], *, use_cache: bool = True) -> list[Step]:
        """What is not cached."""
        seconds = self._seconds()
        steps = []
        for training, group in by_training(trials):
            missing = tuple(trial for trial in group if not use_cache or self.metrics(trial) is None)
            if missing:
                train = training is not None and not (use_cache and self._is_trained(training))
                kinds = ["training"] * train + ["baseline" if t.baseline else "evaluation" for t in missing]
                known = all(kind in seconds for kind in kinds)
                steps.append(Step(training, missing, train, sum(seconds[k] for k in kinds) if known else None))
        return steps

    def run(self, trials: Sequence[Trial], *, fresh: bool = False, progress: Progress | None = None) -> RunResult:
        """Train and measure what is not cached; one failure ends no other trial.

        Args:
            trials: What to run.
            fresh: Delete first what is cached of these trials.
            progress: Of several runs; by default this run's own.

        Raises:
            ValueError: If data are missing, another process is running here, or trials of other data are cached here.
        """
        if problems := self.problems(trials):
            raise ValueError("; ".join(problems))
        busy = (
            f"{self.folder}: another process is running experiments here, or a command that outlived the one it was "
            "started by; wait for it"
        )
        with lock_file(self.folder / ".lock", busy) as lock:
            self._lock = (lock,)
            self._check_data(trials)
            if fresh:
                self._delete(trials)
            steps = self.steps(trials)
            write_json(self.folder / "made_of.json", self._data())
            self.digests.save()
            ran = sum(len(step.trials) for step in steps)
            if progress is None:
                report(f"{len(trials)} trials: {len(trials) - ran} kept, {ran} to run")
            failed: dict[str, str] = {}
            try:
                self._run_steps(steps, failed, progress or Progress(len(steps)))
            except KeyboardInterrupt:
                return RunResult(failed, True, ran)
            finally:
                self.digests.save()
        return RunResult(failed, False, ran)

    def _run_steps(self, steps: Sequence[Step], failed: dict[str, str], progress: Progress) -> None:
        for index, step in enumerate(steps):
            expected = [later.expected for later in steps[index:]]
            known = [seconds for seconds in expected if seconds is not None]
            progress.report(step.description, sum(known) if len(known) == len(expected) else None)
            start = time.perf_counter()
            try:
                errors = self._run_step(step)
            except Exception as error:  # the other trials still have to run
                errors = {trial.id: str(error) or type(error).__name__ for trial in step.trials}
            for reason in dict.fromkeys(errors.values()):
                report(f"failed: {', '.join(id_ for id_ in errors if errors[id_] == reason)}: {reason}")
            progress.seconds.append(time.perf_counter() - start)
            failed |= errors
            self._write_failures(step.trials, errors)
            self.digests.save()

    def _run_step(self, step: Step) -> dict[str, str]:
        if step.training is None:
            for trial in step.trials:
                self._run_baseline(trial)
            return {}
        folder, training = self.training_folder(step.training), step.training
        key = self.training_key(training)
        seconds = cached_folder(folder, key, PIPELINE, lambda partial: self._train(training, partial))
        return self._measure(training, step.trials, seconds)

    def _train(self, training: Training, partial: Path) -> None:
        target = partial / "train.cfg"
        write_config(self.changed_config(training), self.paths["config"].absolute(), target.absolute())
        paths = {"train": self.paths["train"], "dev": self.paths["dev"], "kb": self._kb(training)}
        options = [word for name, path in paths.items() for word in (f"--paths.{name}", self._relative(path))]
        options += ["--output", self._relative(partial), "--gpu-id", str(self.gpu_id)]
        self._command(partial / LOG, "spacy", "train", self._relative(target), *options)
        shutil.rmtree(partial / "model-last", ignore_errors=True)

    def _measure(self, training: Training, trials: Sequence[Trial], seconds: float) -> dict[str, str]:
        """Measure the trials. Returns {trial's id: reason} of those that failed.

        A worker that dies fails its current trial, or all if it had not loaded the pipeline; another one measures the
        rest.
        """
        folder = self.training_folder(training)
        why = failed_to_improve(folder / LOG, folder / PIPELINE, self.linker)
        about = {"training": training.id, "seed": training.seed, "train_seconds": seconds, "led_nowhere": why}
        remaining, failed, attempt = list(trials), dict[str, str](), 0
        while remaining:
            attempt += 1
            self._write_job(folder, remaining, about)
            log = folder / ("measuring.log" if attempt == 1 else f"measuring-{attempt}.log")
            reason = ""
            try:
                self._command(log, "research.worker", self._relative(folder / "job.json"))
            except RuntimeError as error:
                reason = str(error)
            outputs = {trial.id: self._relative(self.metrics_path(trial)) for trial in remaining}
            if not reason or (folder / ERRORS).exists():
                errors = read_object(folder / ERRORS)
                return failed | {id_: str(errors[output]) for id_, output in outputs.items() if output in errors}
            current = read_object(folder / CURRENT).get("output")
            remaining = [trial for trial in remaining if self.metrics(trial) is None]
            failed |= {t.id: reason for t in remaining if current is None or outputs[t.id] == current}
            remaining = [trial for trial in remaining if trial.id not in failed]
        return failed

    def _write_job(self, folder: Path, trials: Sequence[Trial], about: Mapping[str, Any]) -> None:
        for name in (ERRORS, CURRENT):
            (folder / name).unlink(missing_ok=True)
        rows = [
            {
                "output": self._relative(self.metrics_path(trial)),
                "key": self.key(trial),
                "options": asdict(self._options(trial)),
                "trial": {"id": trial.id, **about},
            }
            for trial in trials
        ]
        job = {
            "pipeline": self._relative(folder / PIPELINE),
            "data": self._relative(self.paths["test"]),
            "trials": rows,
        }
        write_json(folder / "job.json", {**job, "gpu_id": self.gpu_id, "prompt_lengths": self.prompt_lengths})

    def _run_baseline(self, trial: Trial) -> None:
        output = self.metrics_path(trial)
        output.unlink(missing_ok=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = output.with_suffix(".partial.json")
        train, test, kb = (self._relative(self.paths[name]) for name in ("train", "test", "kb"))
        options = ["--kb", kb, "--output", self._relative(partial), "--tail-share", str(self.tail_share)]
        options += ["--limit", str(self.limit), "--lang", self._lang, "--quiet"]
        options += ["--dev", self._relative(self.paths["dev"])] if self._reads_dev(trial) else []
        for name, value in trial.options.items():
            text = self._encoder(value) if name == "encoder" else str(value)
            options += [f"--{name.replace('_', '-')}", *([] if value is True else [text])] if value is not False else []
        command = (
            ("research", "baseline", train, test)
            if trial.baseline == "entity_linker"
            else ("spacy_gemel", "evaluate", train, test, "--baseline", trial.baseline)
        )
        start = time.perf_counter()
        self._command(output.with_suffix(".log"), *command, *options)
        metrics, mentions = read_object(partial), mentions_path(output)
        if not metrics or not mentions_path(partial).is_file():
            raise ValueError(f"{partial}: evaluate has not written it")
        mentions_path(partial).replace(mentions)
        about = {"id": trial.id, "seconds": round(time.perf_counter() - start, 1)}
        record = {"n": mentions.read_bytes().count(b"\n"), "sha256": sha256_of(mentions)}
        write_json(output, {"key": self.key(trial), **metrics, "trial": about, "mentions": record})
        partial.unlink()

    def _kb(self, training: Training) -> Path:
        """The knowledge base for the training's language model, built if it is not the config's."""
        if training.language_model is None:
            return self.paths["kb"]
        name, revision = self._tokenizer(training.language_model)

        def build(partial: Path) -> None:
            options = ["--tokenizer", name, "--max-name-tokens", str(self._max_name_tokens), "--quiet"]
            options += ["--revision", revision] if revision else []
            rows, kb = self._relative(self.paths["entities"]), self._relative(partial / "kb")
            self._command(partial / "building.log", "spacy_gemel", "build-kb", rows, kb, *options)

        cached_folder(self._kb_folder(training), self.kb_key(training), "kb", build)
        return self._kb_folder(training) / "kb"

    def _command(self, log: Path, *module: str) -> None:
        """`python -m module ...`. Raises RuntimeError with the reason in one line, and where its output is."""
        try:
            with log.open("w", encoding="utf8") as file:
                run_command(self.root, "-m", *module, log=file, keep_open=self._lock)
        except CommandFailed as error:
            raise RuntimeError(
                f"{module[0]} {module[1]}: {error.reason} (all of it in {self._relative(log)})"
            ) from error

    def _check_data(self, trials: Iterable[Trial]) -> None:
        """Raises ValueError if trials or trainings of another data set or config would be replaced.

        Data that changed under the same name may be replaced: it is the same work, continued.
        """
        previous, data = read_object(self.folder / "made_of.json"), self._data()
        changed = [name for name in data if name in previous and previous[name] != data[name]]
        for trial in trials if changed else ():
            keys = {read_object(self.metrics_path(trial)).get("key"): self.key(trial)}
            if trial.training is not None:
                key = read_object(self.training_folder(trial.training) / STATE).get("key")
                keys[key] = self.training_key(trial.training)
            if any(old not in (None, new) for old, new in keys.items()):
                names = ", ".join(f"{name} {previous[name]} and not {data[name]}" for name in changed)
                raise ValueError(
                    f"--output {self.folder} holds trials of {names}, which these would replace, {trial.id} first: "
                    "give another --output"
                )

    def _data(self) -> dict[str, str]:
        """The data set and the paths, relative to the folder, so that everything may be moved together."""
        names = [name for name in ("config", "train", "dev", "test", "kb") if name in self.paths]
        paths = {name: Path(os.path.relpath(self.paths[name], self.folder)).as_posix() for name in names}
        return {"dataset": self.dataset, **paths}

    def _delete(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            for path in (self.metrics_path(trial), mentions_path(self.metrics_path(trial))):
                path.unlink(missing_ok=True)
            if trial.training is not None:
                shutil.rmtree(self.training_folder(trial.training), ignore_errors=True)
                if trial.training.language_model is not None:
                    shutil.rmtree(self._kb_folder(trial.training), ignore_errors=True)
        self._write_failures(trials, {})

    # Helpers

    def _seconds(self) -> dict[str, float]:
        """Seconds of a training, an evaluation and a baseline: the mean of those cached, else the estimate."""
        timings: dict[str, list[float]] = {}
        for path in self.folder.glob(f"trainings/*/{STATE}"):
            if (seconds := seconds_in(read_object(path))) is not None:
                timings.setdefault("training", []).append(seconds)
        for path in self.folder.glob("trials/*.json"):
            trial = read_object(path).get("trial")
            if mentions_path(path).exists() and (seconds := seconds_in(trial)) is not None:
                kind = "evaluation" if isinstance(trial, dict) and "seed" in trial else "baseline"
                timings.setdefault(kind, []).append(seconds)
        return {**self.estimate, **{kind: sum(values) / len(values) for kind, values in timings.items()}}

    def _is_trained(self, training: Training) -> bool:
        return folder_seconds(self.training_folder(training), self.training_key(training), PIPELINE) is not None

    def _options(self, trial: Trial) -> EvaluateOptions:
        return EvaluateOptions(tail_share=self.tail_share, limit=self.limit, progress=False, **trial.options)

    def _kb_folder(self, training: Training) -> Path:
        return self.folder / "kb" / digest(*self._tokenizer(training.language_model or {}))[:12]

    def _tokenizer(self, block: Mapping[str, Any]) -> tuple[str, str | None]:
        """The language model's name, or its folder as it can be opened, and its revision."""
        folder = self.paths["config"].parent / str(block["name"])
        return (self._relative(folder) if folder.exists() else str(block["name"])), block.get("revision")

    def _encoder(self, name: str) -> str:
        return self._relative(self.models / name) if is_path("name", name, self.models) else str(name)

    def _reads_dev(self, trial: Trial) -> bool:
        return "dev" in BASELINES[trial.baseline] and not trial.options.get("held_out")

    @property
    def _max_name_tokens(self) -> int:
        return int(value_at(self.config, f"components.{self.linker}.max_name_tokens") or 32)

    @property
    def _lang(self) -> str:
        return str(value_at(self.config, "nlp.lang") or "en")

    def _relative(self, path: Path) -> str:
        """A path for a command in `root`, without this machine's folders if possible."""
        return Path(os.path.relpath(path, self.root)).as_posix()


def failed_to_improve(log: Path, pipeline: Path, linker: str) -> str:
    """Why the pipeline is spaCy's first checkpoint, which comes after one update; "" if it is not, or unknown.

    The figures of an untrained mapper are no result. The table that `spacy train` logs and the pipeline's meta.json
    both have the loss of an evaluation.
    """
    performance = read_object(pipeline / "meta.json").get("performance")
    loss = performance.get(f"{linker}_loss") if isinstance(performance, dict) else None
    lines = log.read_text(encoding="utf8", errors="replace").splitlines() if log.is_file() else []
    rules = [index for index, line in enumerate(lines) if _RULE.fullmatch(line)]
    if not isinstance(loss, int | float) or not rules or not rules[-1]:
        return ""
    pipes = lines[rules[-1] - 1].count("LOSS ")
    # epoch and step come first
    losses = [line.split()[2 : 2 + pipes] for line in lines[rules[-1] + 1 :] if line[:3].strip().isdigit()]
    if not losses or f"{loss:.2f}" not in losses[0]:
        return ""
    return NO_BETTER if len(losses) > 1 else EVALUATED_ONCE
