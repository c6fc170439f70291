"""A grid file: the data, the models by name, and the tables with their rows; docs/experiments.md tells it all.

Reading it touches neither data nor models, so that a grid can be looked at where there are none.
"""

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from research.grid import shapes
from research.grid.rows import AXES, MODELS, PREDICTION, Row, Table, read_table
from research.paper import DATA_SETS

__all__ = ["AXES", "MODELS", "PATHS", "PREDICTION", "Grid", "Row", "Table", "read_grid"]

PATHS = ("config", "train", "dev", "test", "kb", "entities")
ESTIMATES = ("training", "evaluation", "peer")
_KNOWN = {*PATHS, *MODELS, "dataset", "note", "tail_share", "seeds", "estimate", "tables"}
_GREATEST_SEED = 2**32 - 1  # NumPy's

BUILT_IN = {
    "none": {"@misc": "spacy_gemel.NoRetriever.v1"},
    "random": {"@misc": "spacy_gemel.RandomRetriever.v1", "seed": "${system.seed}"},
    "bm25": {"@misc": "spacy_gemel.BM25Retriever.v1"},
}
"""Retrievers that a grid need not define."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid file as it was read.

    paths: of PATHS, those given, as they can be opened. models: axis -> name -> the block that the config gets.
    estimate: seconds of one `training`, one `evaluation` and one `peer`, where nothing has been timed yet.
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
    found = shapes.mapping(raw, where, _KNOWN)
    message = {name: shapes.text(found.get(name), f"{where}: {name}") for name in (*PATHS, "dataset", "note")}
    own = {name: Path(os.path.normpath(path.parent / message[name])) for name in PATHS if message[name]}
    paths = {**own, **(given or {})}
    if "config" not in paths:
        raise ValueError(f"{where}: no config; name the training config that the rows change")
    models = {axis: _blocks(found.get(section), axis, f"{where}: {section}") for section, axis in MODELS.items()}
    models["retriever"] = {**BUILT_IN, **models["retriever"]}
    tables = shapes.mapping(found.get("tables"), f"{where}: tables")
    if not tables:
        raise ValueError(f"{where}: tables must name at least one table with its rows")
    estimate = shapes.mapping(found.get("estimate"), f"{where}: estimate", ESTIMATES)
    return Grid(
        path,
        _dataset(message["dataset"]) or path.stem,
        message["note"],
        paths,
        models,
        tuple(read_table(name, table, models, f"{where}: {name}") for name, table in tables.items()),
        shapes.number(found.get("tail_share", 0.05), f"{where}: tail_share", 1),
        _seeds(found.get("seeds", [42]), f"{where}: seeds"),
        {name: shapes.number(value, f"{where}: estimate: {name}") for name, value in estimate.items()},
    )


def _dataset(name: str) -> str:
    """The paper's own spelling of its data sets: their figures go by it."""
    return next((known for known in DATA_SETS if known.casefold() == name.strip().casefold()), name)


def _blocks(raw: Any, axis: str, where: str) -> dict[str, dict[str, Any]]:
    found = {}
    for name, settings in shapes.mapping(raw, where).items():
        if not isinstance(settings, dict):
            raise ValueError(f"{where}: {name} must be the settings of a block, such as {{name: org/model}}")
        block = {str(key): value for key, value in settings.items()}
        if axis == "language_model":
            block = {"@misc": "spacy_gemel.CausalLM.v1", **block}
        _check_block(block, f"{where}: {name}")
        found[name] = block
    return found


def _check_block(block: Mapping[str, Any], where: str) -> None:
    """Refuse what spaCy would refuse when the training starts."""
    from spacy.util import registry

    function = block.get("@misc")
    if not isinstance(function, str):
        raise ValueError(f'{where} needs "@misc", the registered function that loads it')
    if not registry.has("misc", function):
        raise ValueError(f'{where}: "@misc" is {function!r}, which is not registered; see docs/experiments.md')
    if "name" in block:
        shapes.text(block["name"], f"{where}: name")
    parameters = inspect.signature(registry.get("misc", function)).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    for parameter in parameters:
        if parameter.default is parameter.empty and block.get(parameter.name) in (None, ""):
            raise ValueError(f"{where} needs {parameter.name!r}, a setting of {function}")
    known = [parameter.name for parameter in parameters]
    for key in block:
        if key != "@misc" and key not in known:
            raise ValueError(f"{where}: {function} has no setting {key!r}; it has {', '.join(known) or 'none'}")


def _seeds(raw: Any, where: str) -> tuple[int, ...]:
    if not isinstance(raw, list) or not raw:
        raise ValueError(f"{where} must be a list of whole numbers")
    seeds = [shapes.whole(seed, where) for seed in raw]
    if max(seeds) > _GREATEST_SEED:
        raise ValueError(f"{where}: {max(seeds)} is too large for a seed; the greatest is {_GREATEST_SEED}")
    return tuple(dict.fromkeys(seeds))
