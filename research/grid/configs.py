"""Training configs with some settings changed: read, and written elsewhere without losing the files they name."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from thinc.api import Config

from spacy_gemel.utils.files import write_whole

NAMES_OF_MODELS = ("name", "encoder")
"""Settings that name a model, by folder or on a hub."""
TOTAL_STEPS = "training.optimizer.learn_rate.total_steps"
"""When a falling learning rate is at its end; no variable in a config, as spaCy resolves the optimizer by itself."""


def read_config(path: Path) -> dict[str, Any]:
    """A config as it is written, its variables left in place. Raises ValueError, with the file, where it is none."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; it should be a training config")
    try:
        return Config().from_disk(path, interpolate=False)
    except Exception as error:  # thinc raises errors of many kinds for a config it cannot read
        raise ValueError(f"{path}: not a training config ({error})") from error


def interpolated(config: Mapping[str, Any]) -> dict[str, Any]:
    """With its variables resolved; as it is where one is not there, which is told when it is trained."""
    try:
        return dict(Config(config).interpolate())
    except Exception:  # thinc's errors have no common base
        return dict(config)


def value_at(config: Mapping[str, Any], name: str) -> Any:
    """The value of a dotted setting, None where there is none."""
    found: Any = config
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def change(config: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Set dotted settings in place; a mapping takes the place of the whole block.

    Raises ValueError where the section that a setting would stand in is not there.
    """
    for name, value in changes.items():
        *parents, last = name.split(".")
        section: Any = config
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            raise ValueError(f"there is no section [{'.'.join(parents)}] in the config to set {last} in")
        section[last] = dict(value) if isinstance(value, Mapping) else value


def write_config(config: dict[str, Any], source: Path, target: Path) -> None:
    """Write a config that was read at `source` to `target`.

    Its relative paths that exist beside `source` are rewritten, in place, to be found from beside `target`.
    """
    move_paths(config, source.parent, target.parent)
    with write_whole(target) as partial:
        Config(config).to_disk(partial, interpolate=False)


def is_path(key: str, value: Any, folder: Path) -> bool:
    """Whether a setting is a relative path of something in `folder`: of a model, or of what has a slash in its name.

    A model's own name may be a folder's, as `{name: my-model}`: the pipe looks for it there first, too.
    """
    if not isinstance(value, str) or not value or Path(value).is_absolute():
        return False
    return (folder / value).exists() if "/" in value else key in NAMES_OF_MODELS and (folder / value).is_dir()


def move_paths(section: dict[str, Any], old: Path, new: Path) -> None:
    """Rewrite, in place, each string that is a relative path below `old`, so that it is found from `new`."""
    for key, value in section.items():
        if isinstance(value, dict):
            move_paths(value, old, new)
        elif is_path(key, value, old):
            section[key] = Path(os.path.relpath(old / value, new)).as_posix()


def files_named(section: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, Path]]:
    """(the string, the path) of each file and folder that exists and that a section names, from `folder`."""
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from files_named(value, folder)
        elif isinstance(value, str) and value:
            for base in (folder, Path()):
                if is_path(key, value, base) or (Path(value).is_absolute() and Path(value).exists()):
                    yield value, base / value
                    break
