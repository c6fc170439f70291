"""What of a pipe is saved, and how: in a folder or in bytes, never as a pickle."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import srsly

from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.paths import files_in, link_folder, pack_folder, unpack_folder, write_whole
from spacy_gemel.prompt.demonstrations import DemonstrationStore

if TYPE_CHECKING:
    from spacy_gemel.component import GemelLinker

FORMAT = 1

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
        "models": write_models,
    }


def disk_readers(pipe: "GemelLinker", folder: Path, exclude: tuple[str, ...]) -> dict[str, Callable[[Path], Any]]:
    """What `from_disk` calls for each part; the last one loads the frozen models."""
    opened: dict[str, KnowledgeBase] = {}

    def read_models(path: Path) -> None:
        _use_bundles(pipe, path)
        pipe.load_parts(opened["kb"] if "kb" in opened else pipe.kb)  # noqa: SIM401 (not loaded: raises)

    return {
        "vocab": lambda path: pipe.vocab.from_disk(path, exclude=exclude),
        "cfg": lambda path: _restore(pipe, srsly.read_json(path)),
        "model": lambda path: pipe.model.from_bytes(path.read_bytes()),
        "demonstrations": lambda path: _take_demonstrations(pipe, path.read_bytes()),
        "kb": lambda path: opened.update(kb=KnowledgeBase.open(path)),
        "models": read_models,
    }


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
        "models": models,
    }


def bytes_readers(pipe: "GemelLinker", exclude: tuple[str, ...]) -> dict[str, Callable[[bytes], Any]]:
    """What `from_bytes` calls for each part; the last one loads the frozen models."""
    unpacked = tempfile.TemporaryDirectory(prefix="gemel_linker-")
    _UNPACKED.append(unpacked)
    folder = Path(unpacked.name)
    opened: dict[str, KnowledgeBase] = {}

    def read_kb(data: bytes) -> None:
        opened["kb"] = KnowledgeBase.open(unpack_folder(srsly.msgpack_loads(data), folder / "kb"))

    def read_models(data: bytes) -> None:
        unpack_folder(srsly.msgpack_loads(data), folder / "models")
        _use_bundles(pipe, folder / "models")
        pipe.load_parts(opened["kb"] if "kb" in opened else pipe.kb)  # noqa: SIM401 (not loaded: raises)

    return {
        "vocab": lambda data: pipe.vocab.from_bytes(data, exclude=exclude),
        "cfg": lambda data: _restore(pipe, srsly.json_loads(data.decode("utf8"))),
        "model": lambda data: pipe.model.from_bytes(data),
        "demonstrations": lambda data: _take_demonstrations(pipe, data),
        "kb": read_kb,
        "models": read_models,
    }


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


def _take_demonstrations(pipe: "GemelLinker", data: bytes) -> None:
    pipe.store = DemonstrationStore.from_plain(srsly.msgpack_loads(data))


def _write(path: Path, content: bytes) -> None:
    with write_whole(path) as partial:
        partial.write_bytes(content)
