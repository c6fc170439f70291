"""The tables of a grid file, and their rows."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from research.baselines.kinds import KINDS, OPTIONS
from research.grid import shapes
from research.paper import REPORTED
from spacy_gemel.evaluation.metrics import PARTS

MODELS = {"language_models": "language_model", "vision_encoders": "vision_encoder", "retrievers": "retriever"}
"""Section of the file -> the axis, and the block of the pipe, that its names are values of."""

PREDICTION = ("image", "constrained", "n_at_prediction")
"""Axes whose values share a training."""

Read = Callable[[Any, str], Any]
AXES: Mapping[str, Read] = {
    **dict.fromkeys(MODELS.values(), shapes.text),
    "n": shapes.whole,
    "k": lambda raw, where: shapes.whole(raw, where, 1),
    "set": lambda raw, where: _settings(raw, where),
    "image": shapes.flag,
    "constrained": shapes.flag,
    "n_at_prediction": shapes.whole,
}
"""What a row may change, and how its value is read."""

_ROW = {"name", "paper", "not_run", "peer", *AXES}
_TABLE = {"title", "note", "base", "rows", "axes", "parts"}
_AXIS_OF = {"n_demonstrations": "n", "use_image": "image", "constrained": "constrained", "model.prefix_length": "k"}
_IDENTITY = ("@misc", "name", "pretrained", "revision")
_OPTION: Mapping[type, Read] = {
    bool: shapes.flag,
    int: shapes.whole,
    str: shapes.text,
    float: lambda raw, where: shapes.number(raw, where, 1),
}

Models = Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table. changes: axis -> value. paper: what evaluation/paper.py calls the figure, by part where the
    row is told part by part. not_run: why it is not, "" where it is. peer: the kind of another linker, "" for GEMEL;
    peer_options: what it is told.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    paper: Mapping[str, str] = field(default_factory=dict)
    not_run: str = ""
    peer: str = ""
    peer_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """parts: kinds of mention that each row is told by, one line each, in place of one line for all mentions."""

    id: str
    title: str
    note: str
    rows: tuple[Row, ...]
    parts: tuple[str, ...] = ()


def read_table(name: str, raw: Any, models: Models, where: str) -> Table:
    """A table of the file. models: axis -> name -> block. Raises ValueError, with the place, for what is wrong."""
    found = shapes.mapping(raw, where, _TABLE)
    parts = tuple(shapes.sequence(found.get("parts"), f"{where}: parts"))
    if not all(part in PARTS for part in parts):
        raise ValueError(f"{where}: parts must be some of {', '.join(PARTS)}")
    reader = _Reader(
        _changes(shapes.mapping(found.get("base"), f"{where}: base", AXES), f"{where}: base"), parts, models
    )
    rows = [
        reader.row(row, f"{where}, row {index}")
        for index, row in enumerate(shapes.sequence(found.get("rows"), f"{where}: rows"), start=1)
    ]
    axes = {
        axis: shapes.sequence(values, f"{where}: axes: {axis}")
        for axis, values in shapes.mapping(found.get("axes"), f"{where}: axes", AXES).items()
    }
    for axis, listed in axes.items():
        if not listed or None in listed:
            raise ValueError(f"{where}: axes: {axis} is {listed!r}; it must list values of {axis}")
    for values in itertools.product(*axes.values()) if axes else ():
        message = dict(zip(axes, values, strict=True))
        title = ", ".join(f"{axis.replace('_', ' ')} = {value}" for axis, value in message.items())
        rows.append(reader.row({"name": title, **message}, f"{where}, {title}"))
    if not rows:
        raise ValueError(f"{where}: give rows, or axes whose values are to be combined")
    names = [row.name for row in rows]
    for row_name in names:
        if names.count(row_name) > 1:
            raise ValueError(f"{where}: two rows are called {row_name!r}; give each a name of its own")
    title, note = (shapes.text(found.get(key), f"{where}: {key}") for key in ("title", "note"))
    return Table(name, title or name, note, tuple(rows), parts)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the rows of one table. base: the changes of all of them."""

    base: Mapping[str, Any]
    parts: Sequence[str]
    models: Models

    def row(self, raw: Any, where: str) -> Row:
        found = shapes.mapping(raw, where, _ROW)
        name = shapes.text(found.get("name"), f"{where}: name")
        if not name:
            raise ValueError(f"{where}: a row needs a name")
        not_run = shapes.text(found.get("not_run"), f"{where}: not_run")
        own = _changes({axis: found[axis] for axis in AXES if axis in found}, where)
        paper = _papers(found.get("paper"), self.parts, where)
        if "peer" in found:
            if own:
                raise ValueError(f"{where}: a peer has no {', '.join(own)}; leave that out, or the peer")
            if paper:
                raise ValueError(f"{where}: the paper's figures are GEMEL's, not a peer's: leave paper out")
            peer, options = _peer(found["peer"], where)
            return Row(name, not_run=not_run, peer=peer, peer_options=options)
        changes = {**self.base, **own}
        for axis, value in changes.items():
            if axis in self.models and value not in self.models[axis] and not not_run:
                known = ", ".join(self.models[axis]) or "none"
                raise ValueError(f"{where}: {axis} is {value!r}, which the grid does not define; it has {known}")
        for setting in changes.get("set", {}):
            _check_set(setting, changes, where)
        return Row(name, changes, paper, not_run)


def _changes(found: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {axis: AXES[axis](value, f"{where}: {axis}") for axis, value in found.items()}


def _settings(raw: Any, where: str) -> dict[str, Any]:
    """Of `set`: null is a value here."""
    shapes.mapping(raw, where)
    return {str(name): value for name, value in raw.items()}


def _check_set(setting: str, changes: Mapping[str, Any], where: str) -> None:
    """Refuse a setting that is an axis of the grid's, which would be told twice."""
    root, _, below = (*setting.split(".", 2), "", "")[:3]
    if setting in ("system", "system.seed", "training.seed"):
        raise ValueError(f"{where}: set: {setting}: the seeds are the grid's own; give `seeds` at the head of the file")
    if root != "components" or not below:
        return
    block, _, key = below.partition(".")
    axis = _AXIS_OF.get(below)
    if block in MODELS.values() and (not key or key.split(".")[0] in _IDENTITY):
        axis = block
    if below == "model" and "k" in changes:
        axis = "k"
    if axis is not None:
        raise ValueError(f"{where}: set: {setting} is what the axis {axis} changes; give {axis} in its place")
    if block in MODELS.values() and block in changes:
        raise ValueError(f"{where}: {setting} is part of the {block} that the row names: set it where that is defined")


def _peer(raw: Any, where: str) -> tuple[str, dict[str, Any]]:
    """The kind, and its options by name."""
    found = {"kind": raw} if isinstance(raw, str) else shapes.mapping(raw, f"{where}: peer")
    kind = shapes.text(found.pop("kind", None), f"{where}: peer")
    if kind not in KINDS:
        raise ValueError(f"{where}: peer is {kind!r}; there are {', '.join(KINDS)}")
    taken = KINDS[kind].options & OPTIONS.keys()
    for name in found:
        if name not in taken:
            raise ValueError(f"{where}: peer: {kind} takes no {name}; it takes {', '.join(sorted(taken)) or 'nothing'}")
    return kind, {name: _OPTION[OPTIONS[name]](value, f"{where}: peer: {name}") for name, value in found.items()}


def _papers(raw: Any, parts: Sequence[str], where: str) -> dict[str, str]:
    """{part: figure}; the part of a row that is told whole is ""."""
    if raw is None:
        return {}
    papers = {"": raw} if isinstance(raw, str) else raw
    wanted = f"it must name, for {' and '.join(parts) or 'the row'}, one of {', '.join(REPORTED)}"
    if not isinstance(papers, Mapping):
        raise ValueError(f"{where}: paper is {raw!r}; {wanted}")
    for part, name in papers.items():
        if part not in (parts or ("",)) or not isinstance(name, str) or name not in REPORTED:
            raise ValueError(f"{where}: paper is {raw!r}; {wanted}")
        if REPORTED[name].part != part:
            message = REPORTED[name].part or "all"
            raise ValueError(f"{where}: paper: {name} is the figure of {message} mentions, not of {part or 'all'}")
    return dict(papers)
