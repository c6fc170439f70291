"""What of a pipe is saved, and how: in a folder or in bytes, never as a pickle."""

import tempfile
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import srsly

from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.paths import files_in, link_folder, pack_folder, unpack_folder, write_whole
from spacy_gemel.prompt.demonstrations import DemonstrationStore

if TYPE_CHECKING:
    from spacy_gemel.component import GemelLinker

FORMAT = 1
Part = TypeVar("Part")

# Folders of pipes that were loaded from bytes: they live as long as the process.
_UNPACKED: list[tempfile.TemporaryDirectory[str]] = []


def disk_writers(pipe: "GemelLinker", exclude: tuple[str, ...]) -> dict[str, Callable[[Path], Any]]:
    """What `to_disk` calls for each part."""

    def write_models(folder: Path) -> None:
        if not pipe.bundle_models:
            return
        for part, frozen in pipe.frozen_models.items():
            frozen.bundle(folder / part, pipe.folders.get(part))

    return {
        "vocab": lambda path: pipe.vocab.to_disk(path, exclude=exclude),
        "cfg": lambda path: srsly.write_json(path, _state(pipe)),
        "model": lambda path: _write(path, pipe.model.to_bytes()),
        "demonstrations": lambda path: _write(path, srsly.msgpack_dumps(pipe.store.to_plain())),
        "kb": lambda path: link_folder(pipe.kb.path, path, pipe.kb.files()),
        "added": lambda path: _write(path, _added(pipe)),
        "models": write_models,
    }


def disk_readers(
    pipe: "GemelLinker", exclude: tuple[str, ...]
) -> tuple[dict[str, Callable[[Path], Any]], Callable[[], None]]:
    """What `from_disk` calls for each part that is not excluded, and then in any case, to load the frozen models."""
    opened: dict[str, KnowledgeBase] = {}
    added: dict[str, Entity] = {}

    def load() -> None:
        pipe.load_parts(opened["kb"] if "kb" in opened else pipe.kb, added.values())  # noqa: SIM401 (raises if none)

    readers: dict[str, Callable[[Path], Any]] = {
        "vocab": lambda path: pipe.vocab.from_disk(path, exclude=exclude),
        "cfg": lambda path: _restore(pipe, _parsed(pipe, "cfg", lambda: srsly.read_json(path))),
        "model": lambda path: _parsed(pipe, "model", lambda: pipe.model.from_bytes(path.read_bytes())),
        "demonstrations": lambda path: _take_demonstrations(pipe, path.read_bytes()),
        "kb": lambda path: opened.update(kb=KnowledgeBase.open(path)),
        "added": lambda path: added.update(_entities(path.read_bytes()) if path.is_file() else {}),
        "models": lambda path: _use_bundles(pipe, path),
    }
    return readers, load


def bytes_writers(pipe: "GemelLinker", exclude: tuple[str, ...]) -> dict[str, Callable[[], bytes]]:
    """What `to_bytes` calls for each part."""

    def models() -> bytes:
        packed = {}
        if pipe.bundle_models:
            with tempfile.TemporaryDirectory() as name:
                for part, frozen in pipe.frozen_models.items():
                    frozen.bundle(Path(name) / part, pipe.folders.get(part))
                packed = pack_folder(Path(name), files_in(Path(name)))
        return bytes(srsly.msgpack_dumps(packed))

    return {
        "vocab": lambda: pipe.vocab.to_bytes(exclude=exclude),
        "cfg": lambda: srsly.json_dumps(_state(pipe)).encode("utf8"),
        "model": pipe.model.to_bytes,
        "demonstrations": lambda: srsly.msgpack_dumps(pipe.store.to_plain()),
        "kb": lambda: srsly.msgpack_dumps(pack_folder(pipe.kb.path, pipe.kb.files())),
        "added": lambda: _added(pipe),
        "models": models,
    }


def bytes_readers(
    pipe: "GemelLinker", exclude: tuple[str, ...]
) -> tuple[dict[str, Callable[[bytes], Any]], Callable[[], None]]:
    """What `from_bytes` calls for each part that is not excluded, and then in any case, to load the frozen models."""
    unpacked = tempfile.TemporaryDirectory(prefix="gemel_linker-")
    _UNPACKED.append(unpacked)
    folder = Path(unpacked.name)
    opened: dict[str, KnowledgeBase] = {}
    added: dict[str, Entity] = {}

    def read_kb(data: bytes) -> None:
        opened["kb"] = KnowledgeBase.open(unpack_folder(srsly.msgpack_loads(data), folder / "kb"))

    def read_models(data: bytes) -> None:
        unpack_folder(srsly.msgpack_loads(data), folder / "models")
        _use_bundles(pipe, folder / "models")

    def load() -> None:
        pipe.load_parts(opened["kb"] if "kb" in opened else pipe.kb, added.values())  # noqa: SIM401 (raises if none)

    readers: dict[str, Callable[[bytes], Any]] = {
        "vocab": lambda data: pipe.vocab.from_bytes(data, exclude=exclude),
        "cfg": lambda data: _restore(pipe, _parsed(pipe, "cfg", lambda: srsly.json_loads(data.decode("utf8")))),
        "model": lambda data: _parsed(pipe, "model", lambda: pipe.model.from_bytes(data)),
        "demonstrations": lambda data: _take_demonstrations(pipe, data),
        "kb": read_kb,
        "added": lambda data: added.update(_entities(data)),
        "models": read_models,
    }
    return readers, load


def _state(pipe: "GemelLinker") -> dict[str, Any]:
    """What the config does not say: the calibration, and where what is not saved was found."""
    found = {}
    for part, frozen in pipe.frozen_models.items():
        source = frozen.source(pipe.folders.get(part))
        if not pipe.bundle_models and Path(source).is_dir():
            found[part] = {"name": frozen.name, "folder": source}
    # what is bundled is to be shipped: no folder of this machine goes with it
    if not pipe.bundle_models and pipe.image_features is not None and pipe.feature_folder is not None:
        found["image_features"] = {"name": pipe.image_features, "folder": str(pipe.feature_folder.resolve())}
    return {"format": FORMAT, "temperature": pipe.settings.temperature, "found": found}


def _restore(pipe: "GemelLinker", state: dict[str, Any]) -> None:
    if state.get("format") != FORMAT:
        raise ValueError(
            f"{pipe.name}: saved in format {state.get('format')!r}, this version of spacy-gemel reads {FORMAT}."
        )
    pipe.settings.temperature = state["temperature"]
    names = {part: frozen.name for part, frozen in pipe.frozen_models.items()}
    if pipe.image_features is not None:
        names["image_features"] = pipe.image_features
    pipe.folders = {
        part: Path(place["folder"])
        for part, place in state["found"].items()
        if names.get(part) == place["name"] and Path(place["folder"]).is_dir()
    }


def _use_bundles(pipe: "GemelLinker", folder: Path) -> None:
    for part, frozen in pipe.frozen_models.items():
        if frozen.is_bundled(folder / part):
            pipe.folders[part] = folder / part


def _added(pipe: "GemelLinker") -> bytes:
    rows = [[*astuple(entity)] for entity in pipe.kb.added.entities]
    return bytes(srsly.msgpack_dumps(rows))


def _entities(data: bytes) -> dict[str, Entity]:
    rows = srsly.msgpack_loads(data)
    return {kb_id: Entity(kb_id, name, count, tuple(aliases), about) for kb_id, name, count, aliases, about in rows}


def _take_demonstrations(pipe: "GemelLinker", data: bytes) -> None:
    pipe.store = _parsed(pipe, "demonstrations", lambda: DemonstrationStore.from_plain(srsly.msgpack_loads(data)))


def _parsed(pipe: "GemelLinker", part: str, read: Callable[[], Part]) -> Part:
    """What `read` gives. Raises ValueError, naming the part, for what cannot be read."""
    try:
        return read()
    except OSError:
        raise  # names the file
    except Exception as error:  # msgpack, JSON, thinc and NumPy have one each for bytes that are not theirs
        raise ValueError(
            f"{pipe.name}: {part!r} of the saved pipe cannot be read ({error}): it is damaged. Copy the pipeline again."
        ) from error


def _write(path: Path, content: bytes) -> None:
    with write_whole(path) as partial:
        partial.write_bytes(content)
