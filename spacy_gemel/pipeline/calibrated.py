"""A pipeline's folder with another temperature and threshold: a new one, or the same in place."""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from spacy_gemel.evaluation.calibration import Decision
from spacy_gemel.pipeline.loaded import linker_name, linker_of
from spacy_gemel.utils.files import files_in, link_file, write_whole

if TYPE_CHECKING:
    from spacy.language import Language

# What of a linker is never edited in place, as the pipe itself hard-links it.
_LINKED = ("kb", "models")
_OTHER_PARTS = ("vocab", "model", "demonstrations", *_LINKED)


def decision_of(nlp: "Language") -> Decision:
    """How the pipeline decides now. Raises ValueError where it has no linker."""
    settings = linker_of(nlp).settings
    return Decision(settings.temperature, settings.threshold)


def check_target(pipeline: str, save: Path | None, *, in_place: bool) -> None:
    """Raises ValueError where the pipeline could not be saved so; asked before the long work."""
    if save is not None and in_place:
        raise ValueError("--save and --in-place: give one of them")
    if save is not None:
        check_new_folder(pipeline, save, f", or give --in-place for {pipeline}")
    if in_place and not Path(pipeline).is_dir():
        raise ValueError(f"{pipeline}: --in-place needs the pipeline's folder; an installed package is not changed")


def check_new_folder(pipeline: str, folder: Path, otherwise: str = "") -> None:
    """Raises ValueError where the pipeline cannot be saved to a folder as a new one. otherwise: what else to do."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{folder}: there is something already; name a new folder{otherwise}")
    if folder.resolve().is_relative_to(Path(pipeline).resolve()) and Path(pipeline).is_dir():
        raise ValueError(f"{folder}: lies in the pipeline's own folder; name another one{otherwise}")


def save_calibrated(nlp: "Language", decision: Decision, target: Path) -> None:
    """Set the decision on the pipeline, and write its folder with it to `target`, which may be the folder itself.

    See save_changed.
    """
    pipe: Any = nlp.get_pipe(linker_name(nlp))
    pipe.configure(temperature=decision.temperature)
    save_changed(nlp, {"threshold": decision.threshold}, target)


def save_changed(nlp: "Language", changes: dict[str, Any], target: Path) -> None:
    """Set some settings of the linker, as its config names them, and write the pipeline's folder with them to `target`.

    The rest of the folder is as it was, byte for byte. A new folder appears when it is whole; in place, the two files
    that change are each replaced whole. The linker's knowledge base and bundled models are hard-linked, as by its own
    to_disk. Raises OSError where the folder cannot be read or written.
    """
    name = linker_name(nlp)
    pipe: Any = nlp.get_pipe(name)
    pipe.configure(**changes)
    pipe.config_settings = pipe.config_settings.replace(**changes)
    nlp.get_pipe_config(name).update(changes)
    source = cast(Path, nlp.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as work:
        made = Path(work) / "changed"
        made.mkdir()
        changed = _changed_files(source, name, pipe, changes, made)
        if target.resolve() == source.resolve():
            for path, relative in changed.items():
                with write_whole(target / relative) as partial:
                    shutil.copyfile(path, partial)
            return
        whole = Path(work) / "whole"
        _copy(source, whole, name)
        for path, relative in changed.items():
            (whole / relative).unlink()
            path.replace(whole / relative)
        if target.is_dir():
            target.rmdir()  # it is empty; a folder cannot everywhere be moved onto one
        whole.replace(target)


def _changed_files(source: Path, name: str, pipe: Any, changes: dict[str, Any], folder: Path) -> dict[Path, str]:
    """Make the files that hold the settings: {new file: its place in a pipeline's folder}."""
    from thinc.api import Config

    config = Config().from_disk(source / "config.cfg", interpolate=False)
    config["components"][name].update(changes)
    config.to_disk(folder / "config.cfg", interpolate=False)
    pipe.to_disk(folder / name, exclude=_OTHER_PARTS)
    return {folder / "config.cfg": "config.cfg", folder / name / "cfg": f"{name}/cfg"}


def _copy(source: Path, target: Path, name: str) -> None:
    for relative in files_in(source):
        path = target / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        if any(relative.startswith(f"{name}/{part}/") for part in _LINKED):
            link_file(source / relative, path)
        else:
            shutil.copyfile(source / relative, path)
