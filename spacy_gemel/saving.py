"""What of a pipe is saved, and how: in a folder or in bytes, never as a pickle."""

import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import srsly

from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.paths import files_in, link_folder, pack_folder, unpack_folder, write_whole
from spacy_gemel.prompt.demonstrations import DemonstrationStore
from spacy_gemel.settings import Settings, names

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
        "cfg": lambda path: _write(path, _state_as_json(pipe)),
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
        "cfg": lambda path: saved.read_state(path.read_bytes()),
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
        "cfg": lambda: _state_as_json(pipe),
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
        "cfg": lambda data: saved.read_state(data),
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
        self.settings = replace(pipe.settings)
        self.folders = dict(pipe.folders)
        self.store = pipe.store
        self.weights: bytes | None = None
        self.kb: KnowledgeBase | None = None
        self.added: list[Entity] | None = None

    def read_state(self, data: bytes) -> None:
        """Take the settings, and where what was not saved was found. Raises ValueError.

        The config's value of a setting holds where it is not what it was when the pipe was saved.
        """
        pipe = self.pipe
        state = _parsed(pipe, "cfg", lambda: dict(json.loads(data)))
        if state.get("format") != FORMAT:
            raise ValueError(
                f"{pipe.name}: saved in format {state.get('format')!r}, this version of spacy-gemel reads {FORMAT}."
            )
        models = {part: frozen.name for part, frozen in pipe.frozen_models.items()}
        if pipe.image_features is not None:
            models["image_features"] = pipe.image_features
        self.folders = _parsed(
            pipe,
            "cfg",
            lambda: {
                part: Path(place["folder"])
                for part, place in state["found"].items()
                if models.get(part) == place["name"] and Path(place["folder"]).is_dir()
            },
        )
        self.settings = _parsed(
            pipe,
            "cfg",
            lambda: replace(
                pipe.settings, temperature=state["temperature"], **_settings_to_take(pipe.config_settings, state)
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
        before = replace(pipe.settings), pipe.folders, pipe.store
        pipe.settings.take(self.settings)
        pipe.folders, pipe.store = self.folders, self.store
        try:
            pipe.load_parts(kb.without_added(), added)
        except BaseException:
            pipe.settings.take(before[0])
            _, pipe.folders, pipe.store = before
            raise
        if self.weights is not None:
            pipe.model.from_bytes(self.weights)


def _check_kb(pipe: "GemelLinker", exclude: tuple[str, ...]) -> None:
    """Before anything is written: what is saved is what lies in the folder, which need not be what is open."""
    if "kb" not in exclude:
        pipe.kb.check_in_place()


def _state(pipe: "GemelLinker") -> dict[str, Any]:
    """What the config does not say: settings that were changed, the calibration, where what is not saved was found."""
    found = {}
    for part, frozen in pipe.frozen_models.items():
        source = frozen.source(pipe.folders.get(part))
        if not pipe.bundle_models and Path(source).is_dir():
            found[part] = {"name": frozen.name, "folder": source}
    # what is bundled is to be shipped: no folder of this machine goes with it
    if not pipe.bundle_models and pipe.image_features is not None and pipe.feature_folder is not None:
        found["image_features"] = {"name": pipe.image_features, "folder": str(pipe.feature_folder.resolve())}
    now, config = ({name: getattr(of, name) for name in names()} for of in (pipe.settings, pipe.config_settings))
    return {
        "format": FORMAT,
        "temperature": pipe.settings.temperature,
        "found": found,
        "settings": now,
        "config": {name: value for name, value in config.items() if value != now[name]},
    }


def _state_as_json(pipe: "GemelLinker") -> bytes:
    # not by srsly, whose JSON does not give back every number as it was
    return json.dumps(_state(pipe), indent=2, ensure_ascii=False).encode("utf8")


def _settings_to_take(config: Settings, state: dict[str, Any]) -> dict[str, Any]:
    """The saved settings, but for those of which the config says something else than it did when they were saved.

    config: what it says now. Empty for a pipe that an earlier version saved. Raises ValueError for what is no setting.
    """
    saved = {name: value for name, value in state.get("settings", {}).items() if name in names()}
    changed = {name: value for name, value in state.get("config", {}).items() if name in saved}
    then = replace(config, **{**saved, **changed})
    return {name: value for name, value in saved.items() if _is_same(getattr(then, name), getattr(config, name))}


def _is_same(one: Any, other: Any) -> bool:
    """Whether a config that was written and read again has the same value: it rounds numbers."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)
    return bool(one == other)


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
