"""Training configs with some settings changed: read, and written elsewhere without losing the files they name."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from thinc.api import Config

from spacy_gemel.utils.files import write_whole

TOTAL_STEPS = "training.optimizer.learn_rate.total_steps"
"""The end of a falling learning rate; not a variable in a config, because spaCy resolves the optimizer by itself."""
_MODEL_NAMES = ("name", "encoder")


def read_config(path: Path) -> dict[str, Any]:
    """A config as it is written, with its variables. Raises ValueError, with the file, if it is no config."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; it should be a training config")
    try:
        return Config().from_disk(path, interpolate=False)
    except Exception as error:  # thinc raises errors of many kinds
        raise ValueError(f"{path}: not a training config ({error})") from error


def interpolated(config: Mapping[str, Any]) -> dict[str, Any]:
    """With its variables resolved; unchanged if one is missing, which spaCy reports at training."""
    try:
        return dict(Config(config).interpolate())
    except Exception:  # thinc's errors have no common base
        return dict(config)


def value_at(config: Mapping[str, Any], name: str) -> Any:
    """The value of a dotted setting; None if there is none."""
    value: Any = config
    for key in name.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value


def change(config: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Set dotted settings in place; a mapping replaces the whole block. Raises ValueError for a missing section."""
    for name, value in changes.items():
        *parents, last = name.split(".")
        section: Any = config
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            raise ValueError(f"there is no section [{'.'.join(parents)}] in the config to set {last} in")
        section[last] = dict(value) if isinstance(value, Mapping) else value


def write_config(config: dict[str, Any], source: Path, target: Path) -> None:
    """Write a config that was read at `source`; its relative paths are rewritten, in place, for beside `target`."""
    _move_paths(config, source.parent, target.parent)
    with write_whole(target) as partial:
        Config(config).to_disk(partial, interpolate=False)


def is_path(key: str, value: Any, folder: Path) -> bool:
    """Whether a setting is a relative path of something in `folder`.

    A name without a slash is one only if it names a model, as `{name: my-model}`: the pipe looks for a folder first.
    """
    if not isinstance(value, str) or not value or Path(value).is_absolute():
        return False
    return (folder / value).exists() if "/" in value else key in _MODEL_NAMES and (folder / value).is_dir()


def _move_paths(section: dict[str, Any], old: Path, new: Path) -> None:
    for key, value in section.items():
        if isinstance(value, dict):
            _move_paths(value, old, new)
        elif is_path(key, value, old):
            section[key] = Path(os.path.relpath(old / value, new)).as_posix()


def named_files(section: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, Path]]:
    """(string, path) of each existing file and folder that a section names, from `folder` or the working folder."""
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from named_files(value, folder)
        elif isinstance(value, str) and value:
            for base in (folder, Path()):
                if is_path(key, value, base) or (Path(value).is_absolute() and Path(value).exists()):
                    yield value, base / value
                    break
