"""A grid file: the data, the models by name, and the tables with their rows; docs/experiments.md tells it all.

Reading it touches neither data nor models, so that a grid can be looked at where there are none.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spacy_gemel.evaluation.outcomes import PARTS
from spacy_gemel.evaluation.paper import REPORTED

MODELS = {"language_models": "language_model", "vision_encoders": "vision_encoder", "retrievers": "retriever"}
"""Section of the file -> the axis, and the block of the pipe, that its names are values of."""

PREDICTION = {"image": bool, "constrained": bool, "n_at_prediction": int}
AXES: dict[str, type] = {**dict.fromkeys(MODELS.values(), str), "n": int, "k": int, "set": dict, **PREDICTION}
"""What a row may change, and the type of its values. PREDICTION: those that share a training."""

PEERS = ("shortcut", "entity_linker", "alias")
PATHS = ("config", "train", "dev", "test", "kb", "entities")
_KNOWN = {*PATHS, *MODELS, "dataset", "note", "tail_share", "seeds", "estimate", "tables"}
_ROW = {"name", "paper", "not_run", "peer", *AXES}
_TABLE = {"title", "note", "base", "rows", "axes", "parts"}

BUILT_IN = {
    "none": {"@misc": "spacy_gemel.NoRetriever.v1"},
    "random": {"@misc": "spacy_gemel.RandomRetriever.v1", "seed": "${system.seed}"},
    "bm25": {"@misc": "spacy_gemel.BM25Retriever.v1"},
}
"""Retrievers that a grid need not define."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table. changes: axis -> value. paper: what evaluation/paper.py calls the figure, by part where the
    row is told part by part. not_run: why it is not, "" where it is. peer: the kind of another linker, "" for GEMEL.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    paper: Mapping[str, str] = field(default_factory=dict)
    not_run: str = ""
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """parts: kinds of mention that each row is told by, one line each, in place of one line for all mentions."""

    id: str
    title: str
    note: str
    rows: tuple[Row, ...]
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid file as it was read.

    paths: of PATHS, those given, as they can be opened. models: axis -> name -> the block that the config gets.
    estimate: seconds of one `training` and one `evaluation`, where nothing has been timed yet.
    """

    path: Path
    dataset: str
    note: str
    paths: Mapping[str, Path]
    models: Mapping[str, Mapping[str, Mapping[str, Any]]]
    tables: tuple[Table, ...]
    tail_share: float = 0.05
    seeds: tuple[int, ...] = (42,)
    estimate: Mapping[str, float] = field(default_factory=dict)

    def only(self, wanted: Sequence[str]) -> tuple[Table, ...]:
        """The tables of these ids, all where none is named. Raises ValueError for one that there is not."""
        ids = [table.id for table in self.tables]
        for name in wanted:
            if name not in ids:
                raise ValueError(f"{self.path}: there is no table {name!r}; it has {', '.join(ids)}")
        return tuple(table for table in self.tables if not wanted or table.id in wanted)


def read_grid(path: Path, given: Mapping[str, Path] | None = None) -> Grid:
    """Read a grid file. given: paths of PATHS that take the place of the file's, from the working folder.

    The file's own relative paths are found from its folder. Raises ValueError, with the place, for what is wrong in it.
    """
    import srsly

    if not path.is_file():
        raise ValueError(f"{path}: no such file; configs/experiments.yml is an example of a grid")
    try:
        raw = srsly.read_yaml(path)
    except Exception as error:  # the YAML library's errors have no common base
        raise ValueError(f"{path}: not YAML ({error})") from error
    where = str(path)
    _check_keys(raw, _KNOWN, where)
    own = {name: Path(os.path.normpath(path.parent / str(raw[name]))) for name in PATHS if raw.get(name)}
    paths = {**own, **(given or {})}
    if "config" not in paths:
        raise ValueError(f"{where}: no config; name the training config that the rows change")
    models = {axis: _blocks(raw.get(section), axis, f"{where}: {section}") for section, axis in MODELS.items()}
    models["retriever"] = {**BUILT_IN, **models["retriever"]}
    tables = raw.get("tables")
    if not isinstance(tables, dict) or not tables:
        raise ValueError(f"{where}: tables must name at least one table with its rows")
    return Grid(
        path,
        str(raw.get("dataset", path.stem)),
        str(raw.get("note", "")),
        paths,
        models,
        tuple(_table(str(name), table, models, f"{where}: {name}") for name, table in tables.items()),
        _number(raw.get("tail_share", 0.05), f"{where}: tail_share"),
        _seeds(raw.get("seeds", [42]), where),
        {str(name): _number(value, f"{where}: estimate") for name, value in (raw.get("estimate") or {}).items()},
    )


def _table(name: str, raw: Any, models: Mapping[str, Mapping[str, Any]], where: str) -> Table:
    _check_keys(raw, _TABLE, where)
    base = raw.get("base") or {}
    _check_keys(base, set(AXES), f"{where}: base")
    parts = tuple(raw.get("parts") or ())
    if not set(parts) <= set(PARTS):
        raise ValueError(f"{where}: parts must be some of {', '.join(PARTS)}")
    rows = [
        _row(row, base, parts, models, f"{where}, row {place}")
        for place, row in enumerate(raw.get("rows") or (), start=1)
    ]
    axes = raw.get("axes") or {}
    _check_keys(axes, set(AXES), f"{where}: axes")
    if axes:
        for values in itertools.product(*axes.values()):
            told = dict(zip(axes, values, strict=True))
            title = ", ".join(f"{axis.replace('_', ' ')} = {value}" for axis, value in told.items())
            rows.append(_row({"name": title, **told}, base, parts, models, f"{where}, {title}"))
    if not rows:
        raise ValueError(f"{where}: give rows, or axes whose values are to be combined")
    return Table(name, str(raw.get("title", name)), str(raw.get("note", "")), tuple(rows), parts)


def _row(
    raw: Any, base: Mapping[str, Any], parts: Sequence[str], models: Mapping[str, Mapping[str, Any]], where: str
) -> Row:
    _check_keys(raw, _ROW, where)
    if "name" not in raw:
        raise ValueError(f"{where}: a row needs a name")
    changes = {**base, **{axis: raw[axis] for axis in AXES if axis in raw}}
    not_run, peer = str(raw.get("not_run", "")), str(raw.get("peer", ""))
    if peer and peer not in PEERS:
        raise ValueError(f"{where}: peer is {peer!r}; there are {', '.join(PEERS)}")
    for axis, value in changes.items():
        _check_value(axis, value, where)
        if axis in models and value not in models[axis] and not not_run:
            known = ", ".join(models[axis]) or "none"
            raise ValueError(f"{where}: {axis} is {value!r}, which the grid does not define; it has {known}")
    for setting in changes.get("set", {}):
        for axis in models:
            if axis in changes and f".{axis}." in setting:
                raise ValueError(
                    f"{where}: {setting} is part of the {axis} that the row names: set it where that is defined"
                )
    return Row(str(raw["name"]), changes, _papers(raw.get("paper"), parts, where), not_run, peer)


def _check_value(axis: str, value: Any, where: str) -> None:
    kind = AXES[axis]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{where}: {axis} is {value!r}; it must be {kind.__name__}")
    least = 1 if axis == "k" else 0
    if isinstance(value, int) and value < least:
        raise ValueError(f"{where}: {axis} is {value}; it must be {least} or more")


def _papers(raw: Any, parts: Sequence[str], where: str) -> dict[str, str]:
    """{part: figure}; the part of a row that is told whole is ""."""
    papers = {"": raw} if isinstance(raw, str) else dict(raw or {})
    for part, name in papers.items():
        if part not in (parts or ("",)) or name not in REPORTED:
            raise ValueError(
                f"{where}: paper is {raw!r}; it must name, for {parts or 'the row'}, {', '.join(REPORTED)}"
            )
    return papers


def _blocks(raw: Any, axis: str, where: str) -> dict[str, dict[str, Any]]:
    found = {}
    for name, block in (raw or {}).items():
        if not isinstance(block, dict):
            raise ValueError(f"{where}: {name} must be the settings of a block, such as {{name: org/model}}")
        block = dict(block)
        if axis == "language_model":
            block = {"@misc": "spacy_gemel.CausalLM.v1", **block}
        if "@misc" not in block:
            raise ValueError(f'{where}: {name} needs "@misc", the registered function that loads it')
        found[str(name)] = block
    return found


def _seeds(raw: Any, where: str) -> tuple[int, ...]:
    if not isinstance(raw, list) or not raw or not all(isinstance(seed, int) for seed in raw):
        raise ValueError(f"{where}: seeds must be a list of whole numbers")
    return tuple(dict.fromkeys(int(seed) for seed in raw))


def _number(raw: Any, where: str) -> float:
    if not isinstance(raw, int | float) or isinstance(raw, bool):
        raise ValueError(f"{where} is {raw!r}; it must be a number")
    return float(raw)


def _check_keys(raw: Any, known: set[str], where: str) -> None:
    if not isinstance(raw, dict):
        raise ValueError(f"{where}: must be settings with names")
    for key in raw:
        if key not in known:
            raise ValueError(f"{where}: unknown setting {key!r}; there are {', '.join(sorted(known))}")
