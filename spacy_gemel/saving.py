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
    """What `to_disk` calls for each part. Raises KBError where the knowledge base is not in its folder any more."""
    _check_kb(pipe, exclude)

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
    """What `from_disk` calls for each part that is not excluded, and then in any case, to load what was read."""
    saved = _Saved(pipe)
    readers: dict[str, Callable[[Path], Any]] = {
        "vocab": lambda path: pipe.vocab.from_disk(path, exclude=exclude),
        "cfg": lambda path: saved.read_state(lambda: srsly.read_json(path)),
        "model": lambda path: saved.read_model(path.read_bytes()),
        "demonstrations": lambda path: saved.read_store(path.read_bytes()),
        "kb": lambda path: saved.read_kb(path),
        # not there in what the first versions saved
        "added": lambda path: saved.read_added(path.read_bytes() if path.is_file() else srsly.msgpack_dumps([])),
        "models": lambda path: saved.read_models(path),
    }
    return readers, saved.load


def bytes_writers(pipe: "GemelLinker", exclude: tuple[str, ...]) -> dict[str, Callable[[], bytes]]:
    """What `to_bytes` calls for each part. Raises KBError where the knowledge base is not in its folder any more."""
    _check_kb(pipe, exclude)

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
    """What `from_bytes` calls for each part that is not excluded, and then in any case, to load what was read."""
    unpacked = tempfile.TemporaryDirectory(prefix="gemel_linker-")
    _UNPACKED.append(unpacked)
    folder = Path(unpacked.name)
    saved = _Saved(pipe)

    def unpack(data: bytes, part: str) -> Path:
        return _parsed(pipe, part, lambda: unpack_folder(srsly.msgpack_loads(data), folder / part))

    readers: dict[str, Callable[[bytes], Any]] = {
        "vocab": lambda data: pipe.vocab.from_bytes(data, exclude=exclude),
        "cfg": lambda data: saved.read_state(lambda: srsly.json_loads(data.decode("utf8"))),
        "model": lambda data: saved.read_model(data),
        "demonstrations": lambda data: saved.read_store(data),
        "kb": lambda data: saved.read_kb(unpack(data, "kb")),
        "added": lambda data: saved.read_added(data),
        "models": lambda data: saved.read_models(unpack(data, "models")),
    }
    return readers, saved.load


class _Saved:
    """What has been read of a saved pipe. The pipe itself changes in `load` alone, and there wholly or not at all."""

    def __init__(self, pipe: "GemelLinker") -> None:
        self.pipe = pipe
        self.temperature = pipe.settings.temperature
        self.folders = dict(pipe.folders)
        self.store = pipe.store
        self.weights: bytes | None = None
        self.kb: KnowledgeBase | None = None
        self.added: list[Entity] | None = None

    def read_state(self, read: Callable[[], Any]) -> None:
        """Take the calibration, and where what was not saved was found. Raises ValueError."""
        pipe = self.pipe
        state = _parsed(pipe, "cfg", lambda: dict(read()))
        if state.get("format") != FORMAT:
            raise ValueError(
                f"{pipe.name}: saved in format {state.get('format')!r}, this version of spacy-gemel reads {FORMAT}."
            )
        names = {part: frozen.name for part, frozen in pipe.frozen_models.items()}
        if pipe.image_features is not None:
            names["image_features"] = pipe.image_features
        self.temperature, self.folders = _parsed(
            pipe,
            "cfg",
            lambda: (
                float(state["temperature"]),
                {
                    part: Path(place["folder"])
                    for part, place in state["found"].items()
                    if names.get(part) == place["name"] and Path(place["folder"]).is_dir()
                },
            ),
        )

    def read_model(self, data: bytes) -> None:
        """Take the mapper's weights. Raises ValueError for what is none."""
        _parsed(self.pipe, "model", lambda: self.pipe.model.copy().from_bytes(data))
        self.weights = data

    def read_store(self, data: bytes) -> None:
        """Take the demonstrations. Raises ValueError for what is none."""
        self.store = _parsed(
            self.pipe, "demonstrations", lambda: DemonstrationStore.from_plain(srsly.msgpack_loads(data))
        )

    def read_kb(self, folder: Path) -> None:
        """Take the knowledge base. Raises KBError."""
        self.kb = KnowledgeBase.open(folder)

    def read_added(self, data: bytes) -> None:
        """Take the entities that were added to the knowledge base. Raises ValueError for what is none."""
        self.added = _parsed(
            self.pipe,
            "added",
            lambda: [
                Entity(kb_id, name, count, tuple(aliases), about)
                for kb_id, name, count, aliases, about in srsly.msgpack_loads(data)
            ],
        )

    def read_models(self, folder: Path) -> None:
        """Take the frozen models that are bundled in a folder."""
        for part, frozen in self.pipe.frozen_models.items():
            if frozen.is_bundled(folder / part):
                self.folders[part] = folder / part

    def load(self) -> None:
        """Make all of it the pipe's own, with the frozen models. Raises ValueError, and leaves the pipe as it was."""
        pipe = self.pipe
        kb = pipe.kb if self.kb is None else self.kb  # raises where there is none at all
        added = self.added
        if added is None:
            added = [*pipe.kb.added.entities] if pipe.has_kb else []
        before = pipe.settings.temperature, pipe.folders, pipe.store
        pipe.settings.temperature, pipe.folders, pipe.store = self.temperature, self.folders, self.store
        try:
            pipe.load_parts(kb.without_added(), added)
        except BaseException:
            pipe.settings.temperature, pipe.folders, pipe.store = before
            raise
        if self.weights is not None:
            pipe.model.from_bytes(self.weights)


def _check_kb(pipe: "GemelLinker", exclude: tuple[str, ...]) -> None:
    """Before anything is written: what is saved is what lies in the folder, which need not be what is open."""
    if "kb" not in exclude:
        pipe.kb.check_in_place()


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


def _added(pipe: "GemelLinker") -> bytes:
    rows = [[*astuple(entity)] for entity in pipe.kb.added.entities]
    return bytes(srsly.msgpack_dumps(rows))


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
