"""A grid file: the data, the models by name, and the tables with their rows; docs/experiments.md explains it.

Reading it needs neither data nor models, so that a grid can be looked at anywhere.
"""

import inspect
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from research.paper import DATA_SETS, REPORTED
from research.runner import BASELINES
from spacy_gemel.evaluation.metrics import SUBSETS

PATHS = ("config", "train", "dev", "test", "kb", "entities")
MODELS = {"language_models": "language_model", "vision_encoders": "vision_encoder", "retrievers": "retriever"}
"""Section of the file -> the axis, and the block of the pipe, whose values it names."""
PREDICTION = ("image", "constrained", "n_at_prediction")
"""Axes whose values share a training."""
BUILT_IN = {
    "none": {"@misc": "spacy_gemel.NoRetriever.v1"},
    "random": {"@misc": "spacy_gemel.RandomRetriever.v1", "seed": "${system.seed}"},
    "bm25": {"@misc": "spacy_gemel.BM25Retriever.v1"},
}
"""Retrievers that a grid need not define."""

_AXIS_OF = {"n_demonstrations": "n", "use_image": "image", "constrained": "constrained", "model.prefix_length": "k"}
_NAMES_OF_MODEL = ("@misc", "name", "pretrained", "revision")

Text = Annotated[str, StringConstraints(min_length=1)]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


_Model = TypeVar("_Model", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Changes(_Strict):
    """What a row may change; only what is given counts."""

    language_model: Text = ""
    vision_encoder: Text = ""
    retriever: Text = ""
    n: Count = 0
    k: Annotated[int, Field(ge=1)] = 1
    set: dict[str, Any] = {}
    image: bool = True
    constrained: bool = True
    n_at_prediction: Count = 0


AXES = tuple(_Changes.model_fields)


class _Baseline(_Strict):
    kind: Text
    ignore_case: bool = False
    epochs: Annotated[int, Field(ge=1)] = 1
    seed: Seed = 0
    vector_length: Annotated[int, Field(ge=1)] = 1
    encoder: Text = ""
    held_out: Share = 0.0


class _Row(_Changes):
    name: Text
    paper: Any = None
    not_run: Text = ""
    baseline: Any = None


class _Table(_Strict):
    title: Text | None = None
    note: Text = ""
    base: _Changes = _Changes()
    rows: list[dict[str, Any]] = []
    axes: dict[str, list[Any]] = {}
    kinds: list[str] = Field([], alias="parts")


class _Estimate(_Strict):
    training: Seconds = 0.0
    evaluation: Seconds = 0.0
    baseline: Seconds = 0.0


class _File(_Strict):
    config: Text = ""
    train: Text = ""
    dev: Text = ""
    test: Text = ""
    kb: Text = ""
    entities: Text = ""
    dataset: str = ""
    note: str = ""
    tail_share: Share = 0.05
    seeds: Annotated[list[Seed], Field(min_length=1)] = [42]
    estimate: _Estimate = _Estimate()
    language_models: dict[str, dict[str, Any]] = {}
    vision_encoders: dict[str, dict[str, Any]] = {}
    retrievers: dict[str, dict[str, Any]] = {}
    tables: Annotated[dict[str, _Table], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Attributes:
        name: Its title.
        changes: Axis -> value.
        paper: Part -> the figure's name in paper.REPORTED; the part "" is all mentions.
        not_run: Why it is not run; "" if it is.
        baseline: Another linker, one of runner.BASELINES; "" for GEMEL.
        options: The baseline's.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    paper: Mapping[str, str] = field(default_factory=dict)
    not_run: str = ""
    baseline: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """kinds: of mentions, with one line of each row for each, in place of one line for all mentions."""

    id: str
    title: str
    note: str
    rows: tuple[Row, ...]
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid file.

    Attributes:
        path: Of the file.
        dataset: Its title.
        note: For the readers of the tables.
        paths: Those of PATHS that there are, as they can be opened.
        models: Axis -> name -> the block that the config gets.
        tables: In the file's order.
        tail_share: Share of all counts that the tail's entities hold.
        seeds: One mapper of each row for each.
        estimate: Seconds of a `training`, an `evaluation` and a `baseline`.
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

    def only(self, names: Sequence[str]) -> tuple[Table, ...]:
        """The tables of these ids; all if none is named. Raises ValueError for an unknown one."""
        ids = [table.id for table in self.tables]
        for name in names:
            if name not in ids:
                raise ValueError(f"{self.path}: there is no table {name!r}; it has {', '.join(ids)}")
        return tuple(table for table in self.tables if not names or table.id in names)


def read_grid(path: Path, paths: Mapping[str, Path] | None = None) -> Grid:
    """Read a grid file.

    Args:
        path: Relative paths in the file are found from its folder.
        paths: Of PATHS, in place of the file's; from the working folder.

    Raises:
        ValueError: With the place, for an error in the file.
    """
    import srsly

    if not path.is_file():
        raise ValueError(f"{path}: no such file; configs/experiments.yml is an example of a grid")
    try:
        content = srsly.read_yaml(path)
    except Exception as error:  # the YAML library's errors have no common base
        raise ValueError(f"{path}: not YAML ({error})") from error
    file = _validate(_File, _without_nulls(content), str(path))
    named = {name: getattr(file, name) for name in PATHS if getattr(file, name)}
    all_paths = {name: Path(os.path.normpath(path.parent / value)) for name, value in named.items()} | dict(paths or {})
    if "config" not in all_paths:
        raise ValueError(f"{path}: no config; name the training config that the rows change")
    models = {
        axis: _read_models(getattr(file, section), axis, f"{path}: {section}") for section, axis in MODELS.items()
    }
    models["retriever"] = {**BUILT_IN, **models["retriever"]}
    return Grid(
        path,
        # the paper's spelling of its data sets: their figures go by it
        next((name for name in DATA_SETS if name.casefold() == file.dataset.strip().casefold()), file.dataset)
        or path.stem,
        file.note,
        all_paths,
        models,
        tuple(_read_table(name, table, models, f"{path}: {name}") for name, table in file.tables.items()),
        file.tail_share,
        tuple(dict.fromkeys(file.seeds)),
        file.estimate.model_dump(exclude_unset=True),
    )


def _validate(model: type[_Model], content: Any, where: str) -> _Model:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        location = ": ".join([where, *(str(key) for key in first["loc"])])
        if first["type"] == "extra_forbidden":
            raise ValueError(
                f"{location}: unknown setting; there are {', '.join(sorted(model.model_fields))}"
            ) from None
        if first["type"] == "missing":
            raise ValueError(f"{location}: is missing") from None
        raise ValueError(f"{location}: is {first['input']!r}; {first['msg'][:1].lower()}{first['msg'][1:]}") from None


def _without_nulls(content: Any, key: str = "") -> Any:
    """Leave out null, except in `set`."""
    if isinstance(content, dict):
        return {name: _without_nulls(v, name) for name, v in content.items() if v is not None or key == "set"}
    return [_without_nulls(value) for value in content] if isinstance(content, list) else content


def _read_models(section: Mapping[str, Mapping[str, Any]], axis: str, where: str) -> dict[str, dict[str, Any]]:
    default = {"@misc": "spacy_gemel.CausalLM.v1"} if axis == "language_model" else {}
    sections = {name: {**default, **block} for name, block in section.items()}
    for name, block in sections.items():
        _check_block(block, f"{where}: {name}")
    return sections


def _check_block(block: Mapping[str, Any], where: str) -> None:
    """Refuse what spaCy would refuse when the training starts."""
    from spacy.util import registry

    function = block.get("@misc")
    if not isinstance(function, str):
        raise ValueError(f'{where} needs "@misc", the registered function that loads it')
    if not registry.has("misc", function):
        raise ValueError(f'{where}: "@misc" is {function!r}, which is not registered; see docs/experiments.md')
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


def _read_table(name: str, table: _Table, models: Mapping[str, Mapping[str, Any]], where: str) -> Table:
    if not all(part in SUBSETS for part in table.kinds):
        raise ValueError(f"{where}: parts must be some of {', '.join(SUBSETS)}")
    contents = [(content, f"{where}, row {number}") for number, content in enumerate(table.rows, start=1)]
    for axis, values in table.axes.items():
        if axis not in AXES or not values:
            raise ValueError(f"{where}: axes: {axis} is {values!r}; it must list values of one of {', '.join(AXES)}")
    for combination in itertools.product(*table.axes.values()) if table.axes else ():
        changes = dict(zip(table.axes, combination, strict=True))
        title = ", ".join(f"{axis.replace('_', ' ')} = {value}" for axis, value in changes.items())
        contents.append(({"name": title, **changes}, f"{where}, {title}"))
    if not contents:
        raise ValueError(f"{where}: give rows, or axes whose values are to be combined")
    base = table.base.model_dump(exclude_unset=True)
    rows = tuple(
        _read_row(_validate(_Row, row, location), base, table.kinds, models, location) for row, location in contents
    )
    names = [row.name for row in rows]
    for row_name in names:
        if names.count(row_name) > 1:
            raise ValueError(f"{where}: two rows are called {row_name!r}; give each another name")
    return Table(name, table.title or name, table.note, rows, tuple(table.kinds))


def _read_row(
    row: _Row, base: Mapping[str, Any], kinds: Sequence[str], models: Mapping[str, Mapping[str, Any]], where: str
) -> Row:
    content = row.model_dump(exclude_unset=True)
    changes = {axis: content[axis] for axis in AXES if axis in content}
    paper = {} if row.paper is None else _read_paper(row.paper, kinds, where)
    if row.baseline is not None:
        if changes or paper:
            lost = ", ".join([*changes, *(["paper"] if paper else [])])
            raise ValueError(f"{where}: a baseline has no {lost}; leave that out, or the baseline")
        kind, options = _read_baseline(row.baseline, where)
        return Row(row.name, not_run=row.not_run, baseline=kind, options=options)
    changes = {**base, **changes}
    for axis, value in changes.items():
        if axis in models and value not in models[axis] and not row.not_run:
            known = ", ".join(models[axis]) or "none"
            raise ValueError(f"{where}: {axis} is {value!r}, which the grid does not define; it has {known}")
    for setting in changes.get("set", {}):
        _check_set(setting, changes, where)
    return Row(row.name, changes, paper, row.not_run)


def _check_set(setting: str, changes: Mapping[str, Any], where: str) -> None:
    """Refuse a setting that is an axis of the grid, which would be set twice."""
    root, _, below = (*setting.split(".", 2), "", "")[:3]
    if setting in ("system", "system.seed", "training.seed"):
        raise ValueError(f"{where}: set: {setting}: the seeds are the grid's; give `seeds` at the head of the file")
    if root != "components" or not below:
        return
    block, _, key = below.partition(".")
    axis = _AXIS_OF.get(below)
    if block in MODELS.values() and (not key or key.split(".")[0] in _NAMES_OF_MODEL):
        axis = block
    if below == "model" and "k" in changes:
        axis = "k"
    if axis is not None:
        raise ValueError(f"{where}: set: {setting} is what the axis {axis} changes; give {axis} in its place")
    if block in MODELS.values() and block in changes:
        raise ValueError(f"{where}: {setting} is part of the {block} that the row names: set it where that is defined")


def _read_baseline(content: Any, where: str) -> tuple[str, dict[str, Any]]:
    baseline = _validate(_Baseline, {"kind": content} if isinstance(content, str) else content, f"{where}: baseline")
    if baseline.kind not in BASELINES:
        raise ValueError(f"{where}: baseline is {baseline.kind!r}; there are {', '.join(BASELINES)}")
    options = baseline.model_dump(exclude_unset=True, exclude={"kind"})
    for name in options:
        if name not in BASELINES[baseline.kind]:
            takes = ", ".join(BASELINES[baseline.kind])
            raise ValueError(f"{where}: baseline: {baseline.kind} takes no {name}; it takes {takes}")
    return baseline.kind, options


def _read_paper(content: Any, kinds: Sequence[str], where: str) -> dict[str, str]:
    papers = {"": content} if isinstance(content, str) else content
    rows = " and ".join(kinds) or "the row"
    if not isinstance(papers, dict) or not papers.keys() <= set(kinds or ("",)) or set(papers.values()) - set(REPORTED):
        raise ValueError(f"{where}: paper is {content!r}; it must name, for {rows}, one of {', '.join(REPORTED)}")
    for part, name in papers.items():
        if REPORTED[name].part != part:
            figure = REPORTED[name].part or "all"
            raise ValueError(f"{where}: paper: {name} is the figure of {figure} mentions, not of {part or 'all'}")
    return papers
