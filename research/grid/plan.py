"""From a grid to what must be trained and measured: each setting once, however many rows share it."""

import copy
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research.cache import digest
from research.configs import TOTAL_STEPS, change, is_path, read_config, value_at
from research.grid.grid import AXES, MODELS, PREDICTION, Grid, Row, Table
from research.grid.setting import check_claims, demonstrations_follow_the_seed, describe
from research.runner import BASELINES, Training, Trial
from spacy_gemel.pipeline.loaded_pipeline import FACTORY

_SWITCHES = (("image", "use_image", "no-image"), ("constrained", "constrained", "unconstrained"))
"""Axis, option of EvaluateOptions, word for a row without it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """trials: by id, in the order of the tables. rows: (table's id, row's index) -> its trials' ids, one per seed."""

    config: Mapping[str, Any]
    linker: str
    trials: Mapping[str, Trial]
    rows: Mapping[tuple[str, int], tuple[str, ...]]

    def of(self, tables: Iterable[Table]) -> list[Trial]:
        """The trials of these tables, each once."""
        ids = [id_ for table in tables for index in range(len(table.rows)) for id_ in self.rows[table.id, index]]
        return [self.trials[id_] for id_ in dict.fromkeys(ids)]


def linker_in(config: Mapping[str, Any], path: Path) -> str:
    """The name of a config's linker. Raises ValueError if it has none."""
    components = config.get("components") or {}
    names = [name for name, block in components.items() if isinstance(block, dict) and block.get("factory") == FACTORY]
    if not names:
        raise ValueError(f"{path}: no component with factory = {FACTORY!r}, which is what the rows change")
    return names[0]


def shorter(config: Mapping[str, Any], steps: int | None) -> dict[str, Any]:
    """Changes for so many training steps, evaluated at their end; none for the config's own.

    A learning rate that falls until the config's last step falls until the new one.
    """
    if steps is None:
        return {}
    changes = {"training.max_steps": steps, "training.eval_frequency": steps}
    if value_at(config, TOTAL_STEPS) == value_at(config, "training.max_steps") is not None:
        changes[TOTAL_STEPS] = steps
    return changes


def make_plan(grid: Grid, steps: int | None = None) -> Plan:
    """Plan a grid.

    Args:
        grid: Its rows.
        steps: Training steps, in place of the config's.

    Raises:
        ValueError: If the config has no linker, or a row claims to be something else.
    """
    path = grid.paths["config"]
    config = read_config(path)
    planner = _Planner(grid, config, linker_in(config, path), steps)
    trials: dict[str, Trial] = {}
    rows = {}
    for table in grid.tables:
        for index, row in enumerate(table.rows):
            where = f"{grid.path}: {table.id}, {row.name}"
            of_row = [] if row.not_run else planner.trials(row, where)
            rows[table.id, index] = tuple(trial.id for trial in of_row)
            for trial in of_row:
                if trials.setdefault(trial.id, trial) != trial:  # ids are file names: two trials must never share one
                    raise ValueError(f"{where}: another row is called {trial.id} as well")
    return Plan(config, planner.linker, trials, rows)


@dataclass(frozen=True, slots=True)
class _Planner:
    grid: Grid
    config: Mapping[str, Any]
    linker: str
    steps: int | None

    def trials(self, row: Row, where: str) -> list[Trial]:
        """One per seed; one in all if the seed has no effect."""
        if row.baseline:
            # a baseline's only model is the encoder that entity_linker may have
            encoder = {"retriever": row.options["encoder"]} if "encoder" in row.options else {}
            check_claims(row, encoder, {}, self.grid.models, where)
            return self._baselines(row)
        if f"components.{self.linker}" in row.changes.get("set", {}):
            raise ValueError(
                f"{where}: set: components.{self.linker} is the whole linker; give the settings that are to change"
            )
        axes = {axis: row.changes[axis] for axis in AXES if axis in row.changes and axis not in PREDICTION}
        if "set" in axes:
            axes["set"] = {name: value for name, value in axes["set"].items() if self._is_new(name, value)}
        # a row that asks for what the config has is the config's own row
        new = {
            axis: {name: v for name, v in self._settings(axis, value).items() if self._is_new(name, v)}
            for axis, value in axes.items()
        }
        changes = {name: value for settings in new.values() for name, value in settings.items()}
        words = [_word(axis, axes[axis]) for axis, settings in new.items() if settings]
        short = shorter(self.config, self.steps)
        config = copy.deepcopy(dict(self.config))
        try:
            change(config, {**changes, **short})
        except ValueError as error:
            name = "-".join([*words, str(self.grid.seeds[0])])
            raise ValueError(f"{self.grid.paths['config']}, for {name}: {error}") from None
        options, option_words = self._prediction(row, config, where)
        setting = describe(config, self.linker, options, self.grid.dataset)
        current = {axis: value_at(config, f"components.{self.linker}.{axis}") for axis in MODELS.values()}
        models = {axis: {name: self._moved(b) for name, b in named.items()} for axis, named in self.grid.models.items()}
        check_claims(row, setting, current, models, where)
        idle = not setting["image"] and not demonstrations_follow_the_seed(config, self.linker)
        language_model = changes.get(f"components.{self.linker}.language_model")
        trials = []
        for seed in self.grid.seeds[:1] if idle else self.grid.seeds:
            id_ = "-".join([*(words or ["full"]), str(seed)])
            training = Training(id_, seed, {**changes, **short}, language_model)
            trials.append(Trial("-".join([id_, *option_words]), training, options=options, setting=setting))
        return trials

    def _baselines(self, row: Row) -> list[Trial]:
        """One, or one per seed of a baseline that takes a seed and has none."""
        options = dict(row.options)
        words = [f"baseline-{row.baseline}", *([digest(options)[:6]] if options else [])]
        if "seed" not in BASELINES[row.baseline] or "seed" in options:
            return [Trial("-".join(words), baseline=row.baseline, options=options)]
        return [
            Trial("-".join([*words, str(seed)]), baseline=row.baseline, options={**options, "seed": seed})
            for seed in self.grid.seeds
        ]

    def _prediction(self, row: Row, config: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
        """Changed options of EvaluateOptions, and their words in the id. config: as the row is trained with."""
        options: dict[str, Any] = {}
        words = []
        trained = describe(config, self.linker, {})
        n = row.changes.get("n_at_prediction")
        if n is not None and n != trained["n"]:
            options["n_demonstrations"] = n
            words.append(f"shown-{n}")
        for axis, option, negated in _SWITCHES:
            value = row.changes.get(axis)
            if value is not None and value != trained[axis]:
                options[option] = value
                words.append(axis if value else negated)
        if options.get("use_image"):
            raise ValueError(
                f"{where}: image is true, but {self.grid.paths['config']} has use_image = false, so that its mapper "
                "never gets an image: set it to true there, or leave image out"
            )
        return options, words

    def _settings(self, axis: str, value: Any) -> dict[str, Any]:
        """The settings of the config that an axis's value stands for."""
        linker = f"components.{self.linker}"
        if axis == "set":
            return dict(value)
        if axis in MODELS.values():
            return {f"{linker}.{axis}": self._moved(self.grid.models[axis][value])}
        return {f"{linker}.n_demonstrations" if axis == "n" else f"{linker}.model.prefix_length": value}

    def _moved(self, block: Mapping[str, Any]) -> dict[str, Any]:
        """A block with the paths of the grid file as the config would have them."""
        here, there = self.grid.path.parent, self.grid.paths["config"].parent
        paths = {
            key: Path(os.path.relpath(here / value, there)).as_posix()
            for key, value in block.items()
            if is_path(key, value, here)
        }
        return {**block, **paths}

    def _is_new(self, name: str, value: Any) -> bool:
        return bool(value_at(self.config, name) != value)


def _word(axis: str, value: Any) -> str:
    """A value in a file name, with a few digits of its digest if the name does not say it exactly."""
    if axis in ("n", "k"):
        return f"{axis}-{value}"
    if axis == "set":
        return f"set-{digest(value)[:6]}"
    text = f"{axis.split('_')[0]}-{value}"
    word = re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")
    return word if word == text else f"{word}-{digest(value)[:6]}"
