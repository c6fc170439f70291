"""What commands do with a whole pipeline: load it, find its linker, change settings, save the change."""

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import spacy
from spacy import util
from spacy.language import Language
from thinc.api import Config, require_gpu

from spacy_gemel.linking.decision import Decision
from spacy_gemel.pipeline.serialization import PART_NAMES
from spacy_gemel.utils import files
from spacy_gemel.utils.files import sha256_of
from spacy_gemel.utils.messages import UnusedSettingWarning

if TYPE_CHECKING:
    from spacy_gemel.pipeline.gemel_linker import GemelLinker

FACTORY = "gemel_linker"
_LARGE = 2**26  # bytes


def load_pipeline(path: str, *, gpu_id: int = -1) -> Language:
    """`spacy.load` on a GPU, or with -1 on the CPU. Raises OSError or ValueError if there is no pipeline."""
    if gpu_id >= 0:
        require_gpu(gpu_id)
    if Path(path).is_dir() and not (Path(path) / "config.cfg").is_file():
        raise ValueError(f"{path}: no spaCy pipeline in this folder (no config.cfg); try its model-best")
    return spacy.load(path)


def linker_name(nlp: Language) -> str:
    """The name of the pipeline's linker. Raises ValueError if it has none."""
    for name in nlp.pipe_names:
        if nlp.get_pipe_meta(name).factory == FACTORY:
            return name
    raise ValueError(f"the pipeline has no {FACTORY} among its pipes ({', '.join(nlp.pipe_names) or 'none'})")


def linker_of(nlp: Language) -> "GemelLinker":
    """The pipeline's linker. Raises ValueError if it has none."""
    return cast("GemelLinker", nlp.get_pipe(linker_name(nlp)))


def entity_pipes(nlp: Language) -> list[str]:
    """The pipes that set doc.ents themselves: a NER, an entity ruler and the like."""
    attributes = {"doc.ents", "token.ent_iob", "token.ent_type"}
    return [name for name in nlp.pipe_names if attributes & set(nlp.get_pipe_meta(name).assigns)]


def measured_settings(nlp: Language) -> dict[str, Any]:
    """The linker's settings in force and what it is made of, as JSON: what its figures belong to.

    A fitted decision is named by a digest. A part that the pipeline's config does not name is None. Raises ValueError
    if the pipeline has no linker.
    """
    linker = linker_of(nlp)
    settings = asdict(linker.settings)
    settings["labels_discard"] = list(settings["labels_discard"])
    settings["decision"] = None if linker.decision is None else files.digest(asdict(linker.decision))[:12]
    config: dict[str, Any] = nlp.config["components"].get(linker_name(nlp), {})
    for part, key in (("retriever", "@misc"), ("language_model", "name"), ("vision_encoder", "name")):
        settings[part] = (config.get(part) or {}).get(key)
    return settings | {"prefix_length": (config.get("model") or {}).get("prefix_length")}


def pipeline_digest(path: str) -> str:
    """Changes with the files of a pipeline, a folder or an installed package; large ones count by their size."""
    folder = util.get_package_path(path) if not Path(path).is_dir() and util.is_package(path) else Path(path)
    known = []
    for name in files.files_in(folder):
        if not name.endswith(".pyc"):
            size = (folder / name).stat().st_size
            known.append([name, size, sha256_of(folder / name) if size <= _LARGE else None])
    return files.digest(known)


@contextmanager
def overridden(linker: "GemelLinker", **changes: Any) -> Iterator["GemelLinker"]:
    """Change settings of the linker for the length of a with block. Raises ValueError as `configure` does."""
    previous = {name: getattr(linker.settings, name, None) for name in changes}
    linker.configure(**changes)
    try:
        yield linker
    finally:
        with warnings.catch_warnings(action="ignore", category=UnusedSettingWarning):  # of what held before
            linker.configure(**previous)


def save_changed(nlp: Language, changes: dict[str, Any], target: Path, decision: Decision) -> None:
    """Give the pipeline's linker a decision and settings, also in its config, and write its folder to `target`.

    The rest of the folder is the same, byte for byte. The new folder appears when it is complete; the knowledge base
    and bundled models are hard-linked. Raises OSError if the folder cannot be read or written, and ValueError if a
    setting is unknown or a value makes no sense.
    """
    name, linker = linker_name(nlp), linker_of(nlp)
    linker.configure(**changes)
    linker.use_decision(decision)
    linker.config_settings = linker.config_settings.replace(**changes)
    nlp.get_pipe_config(name).update(changes)
    source = cast(Path, nlp.path)
    config = Config().from_disk(source / "config.cfg", interpolate=False)
    config["components"][name].update(changes)
    changed = ("config.cfg", f"{name}/cfg", f"{name}/decision")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as work:
        copy = Path(work) / "copy"
        copy.mkdir()
        config.to_disk(copy / "config.cfg", interpolate=False)
        for relative in files.files_in(source):
            (copy / relative).parent.mkdir(parents=True, exist_ok=True)
            if relative.startswith((f"{name}/kb/", f"{name}/models/")):
                files.link_file(source / relative, copy / relative)
            elif relative not in changed:
                shutil.copyfile(source / relative, copy / relative)
        linker.to_disk(copy / name, exclude=[part for part in PART_NAMES if part not in ("cfg", "decision")])
        if target.is_dir():
            target.rmdir()  # it is empty; not every system moves a folder onto an empty one
        copy.replace(target)


def check_new_folder(pipeline: str, folder: Path) -> None:
    """Raise ValueError if the pipeline cannot be saved to a folder as a new one; called before the long work."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{folder}: there is something already; name a new folder")
    if folder.resolve().is_relative_to(Path(pipeline).resolve()) and Path(pipeline).is_dir():
        raise ValueError(f"{folder}: lies in the pipeline's own folder; name another one")
