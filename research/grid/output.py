"""The folder that the trials of a grid are kept in: made, and kept for one data set."""

import os
from collections.abc import Iterable
from pathlib import Path

from research.grid.grid import Grid
from research.grid.keeping import STATE, read_object, write_json
from research.grid.plan import Trial
from research.grid.trials import Lab

_OF = "made_of.json"
_TOLD = ("config", "train", "dev", "test", "kb")


def check_folder(folder: Path) -> None:
    """Raises ValueError where it, or what it is to lie in, is no folder."""
    for path in (folder, *folder.parents):
        if path.exists():
            if not path.is_dir():
                raise ValueError(
                    f"--output {folder}: {path} is a file; name a folder, which is made where it is not there"
                )
            return


def check_data(lab: Lab, trials: Iterable[Trial]) -> None:
    """Raises ValueError where a trial or its training would take the place of one of another data set or config.

    What has changed under the same names may be replaced: it is the same work gone on with.
    """
    before, now = read_object(lab.output / _OF), _made_of(lab.grid, lab.output)
    changed = [name for name in now if name in before and before[name] != now[name]]
    for trial in trials if changed else ():
        others = [read_object(lab.metrics(trial)).get("key") not in (None, lab.key(trial))]
        if trial.training is not None:
            key = read_object(lab.folder(trial.training) / STATE).get("key")
            others.append(key not in (None, lab.training_key(trial.training)))
        if any(others):
            message = ", ".join(f"{name} {before[name]} and not {now[name]}" for name in changed)
            raise ValueError(
                f"--output {lab.output} holds trials of {message}, which these would replace, {trial.id} first: give "
                "another --output"
            )


def note_data(lab: Lab) -> None:
    """Write down what the trials are made of."""
    write_json(lab.output / _OF, _made_of(lab.grid, lab.output))


def _made_of(grid: Grid, folder: Path) -> dict[str, str]:
    """Paths as they are found from the folder, so that all of it may be moved together."""
    paths = {name: grid.paths[name] for name in _TOLD if name in grid.paths}
    return {"dataset": grid.dataset} | {
        name: Path(os.path.relpath(path, folder)).as_posix() for name, path in paths.items()
    }
