"""What of a pipe is saved, and how: in a folder or in bytes, never as a pickle."""

import gc
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import srsly
from spacy import util

from spacy_gemel.linking.settings import config_names
from spacy_gemel.models.frozen import FrozenModel, model_lock
from spacy_gemel.pipeline.saved import FORMAT, Saved, parsed
from spacy_gemel.utils.files import TemporaryFolder, files_in, link_folder, pack_folder, unpack_folder, write_whole

if TYPE_CHECKING:
    from spacy_gemel.pipeline.gemel_linker import GemelLinker


@contextmanager
def _collector_stays_on() -> Iterator[None]:
    """Leave the garbage collector on: srsly switches it off to read, and on again only where that ends well."""
    collects = gc.isenabled()
    try:
        yield
    finally:
        if collects:  # never off: another thread may just have been reading when this one began
            gc.enable()


def to_disk(pipe: "GemelLinker", path: str | Path, exclude: tuple[str, ...]) -> None:
    """Write a folder.

    Raises KBError and ValueError, before that, where the knowledge base or a model to be bundled is no longer in its
    folder as it was loaded.
    """

    def write_models(folder: Path) -> None:
        if not pipe.bundle_models:
            return
        for part, frozen in pipe.frozen_models.items():
            frozen.bundle(folder / part, pipe.folders.get(part))

    writers: dict[str, Callable[[Path], Any]] = {
        "vocab": lambda path: pipe.vocab.to_disk(path, exclude=exclude),
        "cfg": lambda path: _write(path, _state(pipe)),
        "model": lambda path: _write(path, pipe.model.to_bytes()),
        "demonstrations": lambda path: _write(path, srsly.msgpack_dumps(pipe.store.to_dict())),
        "kb": lambda path: link_folder(pipe.kb.path, path, pipe.kb.files()),
        "added": lambda path: _write(path, _added(pipe)),
        "models": write_models,
    }
    with model_lock():  # what another thread loads or adds meanwhile is saved wholly or not at all
        _check_in_place(pipe, exclude)
        util.to_disk(path, writers, exclude)


@_collector_stays_on()
def from_disk(pipe: "GemelLinker", path: str | Path, exclude: tuple[str, ...]) -> None:
    """Load what `to_disk` wrote. Raises ValueError and OSError, and leaves the pipe as it was but for its vocab."""
    saved = Saved(pipe)
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
    util.from_disk(path, readers, exclude)
    saved.load()


def to_bytes(pipe: "GemelLinker", exclude: tuple[str, ...]) -> bytes:
    """All of it as bytes. Raises KBError and ValueError as `to_disk` does."""

    def models() -> bytes:
        packed = {}
        if pipe.bundle_models:
            with tempfile.TemporaryDirectory() as name:
                for part, frozen in pipe.frozen_models.items():
                    frozen.bundle(Path(name) / part, pipe.folders.get(part))
                packed = pack_folder(Path(name), files_in(Path(name)))
        return bytes(srsly.msgpack_dumps(packed))

    writers: dict[str, Callable[[], bytes]] = {
        "vocab": lambda: pipe.vocab.to_bytes(exclude=exclude),
        "cfg": lambda: _state(pipe),
        "model": pipe.model.to_bytes,
        "demonstrations": lambda: srsly.msgpack_dumps(pipe.store.to_dict()),
        "kb": lambda: srsly.msgpack_dumps(pack_folder(pipe.kb.path, pipe.kb.files())),
        "added": lambda: _added(pipe),
        "models": models,
    }
    with model_lock():
        _check_in_place(pipe, exclude)
        return util.to_bytes(writers, exclude)


@_collector_stays_on()
def from_bytes(pipe: "GemelLinker", data: bytes, exclude: tuple[str, ...]) -> None:
    """Load what `to_bytes` gave. Raises ValueError, and leaves the pipe as it was but for its vocab.

    Knowledge base and bundled models are unpacked into a temporary folder, which goes when nothing uses it any more.
    """
    saved, unpacked = Saved(pipe), TemporaryFolder()

    def unpack(data: bytes, part: str) -> Path:
        return parsed(pipe, part, lambda: unpack_folder(srsly.msgpack_loads(data), unpacked.path / part))

    readers: dict[str, Callable[[bytes], Any]] = {
        "vocab": lambda data: pipe.vocab.from_bytes(data, exclude=exclude),
        "cfg": lambda data: saved.read_state(data),
        "model": lambda data: saved.read_model(data),
        "demonstrations": lambda data: saved.read_store(data),
        "kb": lambda data: saved.read_kb(unpack(data, "kb")),
        "added": lambda data: saved.read_added(data),
        "models": lambda data: saved.read_models(unpack(data, "models")),
    }
    try:
        util.from_dict(_parts_in(pipe, data, {*readers} - {"vocab"}), readers, exclude)
        saved.load()
    except BaseException:
        unpacked.remove()
        raise


def _parts_in(pipe: "GemelLinker", data: bytes, known: set[str]) -> dict[str, bytes]:
    """What is packed in some bytes. Raises ValueError where they are no saved pipe."""
    message = f"{pipe.name}: these bytes are not what to_bytes of a linker gave, or are damaged"
    try:
        parts = srsly.msgpack_loads(data)
    except Exception as error:  # msgpack has many
        raise ValueError(f"{message} ({error}).") from error
    if not isinstance(parts, dict) or not known & {*parts}:
        what = f"has {', '.join(map(str, parts))}" if isinstance(parts, dict) else f"is {type(parts).__name__}"
        raise ValueError(f"{message}: what is packed in them {what}, and none of {', '.join(sorted(known))}.")
    return parts


def _check_in_place(pipe: "GemelLinker", exclude: tuple[str, ...]) -> None:
    """Before anything is written: what is saved is what lies in the folders, which need not be what is open."""
    if "kb" not in exclude:
        pipe.kb.check_in_place()
    if pipe.bundle_models and "models" not in exclude:
        for part, frozen in pipe.frozen_models.items():
            if isinstance(frozen, FrozenModel):  # one of another kind says so itself when it bundles
                frozen.check_in_place(pipe.loaded_models.get(part), pipe.folders.get(part))


def _state(pipe: "GemelLinker") -> bytes:
    """What the config does not say: settings that were changed, the calibration, where what is not saved was found."""
    found = {}
    for part, frozen in pipe.frozen_models.items():
        source = frozen.source(pipe.folders.get(part))
        if not pipe.bundle_models and Path(source).is_dir():
            found[part] = {"name": frozen.name, "folder": source}
    # what is bundled is to be shipped: no folder of this machine goes with it
    if not pipe.bundle_models and pipe.image_features is not None and pipe.feature_folder is not None:
        found["image_features"] = {"name": pipe.image_features, "folder": str(pipe.feature_folder.resolve())}
    now, config = ({name: getattr(of, name) for name in config_names()} for of in (pipe.settings, pipe.config_settings))
    state = {
        "format": FORMAT,
        "temperature": pipe.settings.temperature,
        "found": found,
        "settings": now,
        "config": {name: value for name, value in config.items() if value != now[name]},
    }
    # not by srsly, whose JSON does not give back every number as it was
    return json.dumps(state, indent=2, ensure_ascii=False).encode("utf8")


def _added(pipe: "GemelLinker") -> bytes:
    rows = [[*astuple(entity)] for entity in pipe.kb.added.entities]
    return bytes(srsly.msgpack_dumps(rows))


def _write(path: Path, content: bytes) -> None:
    with write_whole(path) as partial:
        partial.write_bytes(content)
