"""From a grid to what must be trained and measured: each setting once, however many rows show it."""

import copy
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from research.baselines.kinds import KINDS
from research.grid.claims import check_claims
from research.grid.configs import TOTAL_STEPS, change, is_path, read_config, value_at
from research.grid.described import demonstrations_follow_the_seed, describe
from research.grid.grid import AXES, MODELS, PREDICTION, Grid, Row, Table
from research.grid.keeping import digest
from spacy_gemel.pipeline.loaded import FACTORY

_SWITCHES = (("image", "use_image", "no-image"), ("constrained", "constrained", "unconstrained"))
"""axis, option of EvaluateOptions, word for a row without it."""


@dataclass(frozen=True, slots=True)
class Training:
    """One mapper. changes: dotted setting of the config -> value, a mapping for a whole block.

    language_model: its block where it is another than the config's, which takes a knowledge base of its own.
    """

    id: str
    seed: int
    changes: Mapping[str, Any] = field(default_factory=dict)
    language_model: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """One evaluation: of a training's pipeline, or of a peer.

    options: those of EvaluateOptions that are changed, or those of the peer (`peers.kinds.OPTIONS`).
    setting: what it is a measurement of, with the keys of `paper.SETTING`; empty for a peer.
    """

    id: str
    training: Training | None = None
    peer: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    setting: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """trials: by id, in the order of the tables. rows: (table's id, row's place) -> its trials' ids, one per seed."""

    config: Mapping[str, Any]
    linker: str
    trials: Mapping[str, Trial]
    rows: Mapping[tuple[str, int], tuple[str, ...]]

    def of(self, tables: Iterable[Table]) -> list[Trial]:
        """The trials of some tables, each once."""
        ids = [id for table in tables for index in range(len(table.rows)) for id in self.rows[table.id, index]]
        return [self.trials[id] for id in dict.fromkeys(ids)]


def groups(trials: Iterable[Trial]) -> list[tuple[Training | None, list[Trial]]]:
    """Those of one training together, the peers, each for itself, last."""
    found: dict[str, tuple[Training | None, list[Trial]]] = {}
    for trial in trials:
        key = trial.training.id if trial.training else f"peer {trial.id}"
        found.setdefault(key, (trial.training, []))[1].append(trial)
    return sorted(found.values(), key=lambda group: group[0] is None)


def make_plan(grid: Grid, steps: int | None = None) -> Plan:
    """steps: so many training steps in place of the config's. Raises ValueError where the config has no linker."""
    path = grid.paths["config"]
    config = read_config(path)
    components = config.get("components") or {}
    names = [name for name, block in components.items() if isinstance(block, dict) and block.get("factory") == FACTORY]
    if not names:
        raise ValueError(f"{path}: no component with factory = {FACTORY!r}, which is what the rows change")
    planner = _Planner(grid, config, names[0], steps)
    trials: dict[str, Trial] = {}
    rows = {}
    for table in grid.tables:
        for index, row in enumerate(table.rows):
            where = f"{grid.path}: {table.id}, {row.name}"
            found = [] if row.not_run else planner.trials(row, where)
            rows[table.id, index] = tuple(trial.id for trial in found)
            for trial in found:
                if trials.setdefault(trial.id, trial) != trial:  # names of files: two trials must never share one
                    raise ValueError(f"{where}: another row is called {trial.id} as well")
    return Plan(config, names[0], trials, rows)


@dataclass(frozen=True, slots=True)
class _Planner:
    grid: Grid
    config: Mapping[str, Any]
    linker: str
    steps: int | None

    def trials(self, row: Row, where: str) -> list[Trial]:
        """One per seed; one in all where the seed plays no part. Raises ValueError, with `where`, for a row that claims
        what it is not.
        """
        if row.peer:
            # the only model of a peer's is what entity_linker may have sentences' vectors from
            encoder = {"retriever": row.peer_options["encoder"]} if "encoder" in row.peer_options else {}
            check_claims(row, encoder, {}, self.grid.models, where)
            return self._peers(row)
        for name in row.changes.get("set", {}):
            if f"components.{self.linker}" == name:
                raise ValueError(f"{where}: set: {name} is the whole linker; give the settings that are to change")
        message = {axis: row.changes[axis] for axis in AXES if axis in row.changes and axis not in PREDICTION}
        if "set" in message:
            message["set"] = {name: value for name, value in message["set"].items() if self._is_new(name, value)}
        wanted = {name: value for axis, value in message.items() for name, value in self._settings(axis, value)}
        # a row that asks for what the config has is the config's own row
        changes = {name: value for name, value in wanted.items() if self._is_new(name, value)}
        words = [
            _word(axis, value)
            for axis, value in message.items()
            if any(self._is_new(*n) for n in self._settings(axis, value))
        ]
        config = copy.deepcopy(dict(self.config))
        try:
            change(config, {**changes, **self._short()})
        except ValueError as error:
            name = "-".join([*words, str(self.grid.seeds[0])])
            raise ValueError(f"{self.grid.paths['config']}, for {name}: {error}") from None
        options, of_prediction = self._prediction(row, config, where)
        setting = describe(config, self.linker, options, self.grid.dataset)
        idle = not setting["image"] and not demonstrations_follow_the_seed(config, self.linker)
        blocks = {axis: value_at(config, f"components.{self.linker}.{axis}") for axis in MODELS.values()}
        moved = {axis: {name: self._moved(b) for name, b in of.items()} for axis, of in self.grid.models.items()}
        check_claims(row, setting, blocks, moved, where)
        found = []
        for seed in self.grid.seeds[:1] if idle else self.grid.seeds:
            block = changes.get(f"components.{self.linker}.language_model")
            id = "-".join([*(words or ["full"]), str(seed)])
            training = Training(id, seed, {**changes, **self._short()}, block)
            found.append(Trial("-".join([id, *of_prediction]), training, options=options, setting=setting))
        return found

    def _peers(self, row: Row) -> list[Trial]:
        """One, or one per seed of a peer that takes some and is not told which."""
        message = dict(row.peer_options)
        words = [f"peer-{row.peer}", *([digest(message)[:6]] if message else [])]
        if "seed" not in KINDS[row.peer].options or "seed" in message:
            return [Trial("-".join(words), peer=row.peer, options=message)]
        return [
            Trial("-".join([*words, str(seed)]), peer=row.peer, options={**message, "seed": seed})
            for seed in self.grid.seeds
        ]

    def _prediction(self, row: Row, config: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
        """The options of the evaluation that differ from how the pipeline was trained, and words for them.

        Raises ValueError for a row that asks for images which the pipeline is trained without.
        """
        options: dict[str, Any] = {}
        words = []
        own = describe(config, self.linker, {})
        n = row.changes.get("n_at_prediction")
        if n is not None and n != own["n"]:
            options["n_demonstrations"] = n
            words.append(f"shown-{n}")
        for axis, option, negated in _SWITCHES:
            wanted = row.changes.get(axis)
            if wanted is not None and wanted != own[axis]:
                options[option] = wanted
                words.append(axis if wanted else negated)
        if options.get("use_image"):
            raise ValueError(
                f"{where}: image is true, but {self.grid.paths['config']} has use_image = false, so that its mapper is "
                "never shown an image: set it to true there, or leave image out"
            )
        return options, words

    def _settings(self, axis: str, value: Any) -> list[tuple[str, Any]]:
        """The settings of the config that a value of an axis stands for."""
        linker = f"components.{self.linker}"
        if axis == "set":
            return list(value.items())
        if axis in MODELS.values():
            return [(f"{linker}.{axis}", self._moved(self.grid.models[axis][value]))]
        return [(f"{linker}.n_demonstrations" if axis == "n" else f"{linker}.model.prefix_length", value)]

    def _moved(self, block: Mapping[str, Any]) -> dict[str, Any]:
        """A block whose paths, which stand in the grid file, are as the config would have them."""
        here, there = self.grid.path.parent, self.grid.paths["config"].parent
        found = dict(block)
        for key, value in block.items():
            if is_path(key, value, here):
                found[key] = Path(os.path.relpath(here / value, there)).as_posix()
        return found

    def _is_new(self, name: str, value: Any) -> bool:
        return bool(value_at(self.config, name) != value)

    def _short(self) -> dict[str, Any]:
        """Changes for so many training steps, evaluated at their end; none for the config's own.

        A learning rate that falls until the config's last step falls until the new one.
        """
        if self.steps is None:
            return {}
        changes = {"training.max_steps": self.steps, "training.eval_frequency": self.steps}
        if value_at(self.config, TOTAL_STEPS) == value_at(self.config, "training.max_steps") is not None:
            changes[TOTAL_STEPS] = self.steps
        return changes


def _word(axis: str, value: Any) -> str:
    """A value in the name of a file; told from others that look like it by a few digits of its digest."""
    if axis in ("n", "k"):
        return f"{axis}-{value}"
    if axis == "set":
        return f"set-{digest(value)[:6]}"
    text = f"{axis.split('_')[0]}-{value}"
    word = re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")
    return word if word == text else f"{word}-{digest(value)[:6]}"
