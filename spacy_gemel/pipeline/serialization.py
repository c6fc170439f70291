"""A linker's state in a folder or in bytes, never as a pickle; it knows no pipe."""

import gc
import json
import math
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, TypeVar

import srsly
from spacy.vocab import Vocab

from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.linking.demonstrations import DemonstrationStore
from spacy_gemel.linking.settings import LinkerSettings, config_names
from spacy_gemel.models.frozen import FrozenModel
from spacy_gemel.utils.files import (
    TemporaryFolder,
    files_in,
    link_folder,
    pack_folder,
    unpack_folder,
    write_whole,
)

FORMAT = 1
PART_NAMES = ("vocab", "cfg", "model", "demonstrations", "kb", "added", "models")
PartT = TypeVar("PartT")


Sources = Mapping[str, tuple[str, Path]]
"""Frozen models and image features that are not saved: {part: (name in the config, folder where it was found)}."""


def settings_to_json(settings: LinkerSettings, config: LinkerSettings, sources: Sources) -> dict[str, Any]:
    """The content of `cfg`: the settings in force, the values of the config that differ, and the sources."""
    names = config_names()
    return {
        "format": FORMAT,
        "temperature": settings.temperature,
        "found": {part: {"name": name, "folder": str(folder)} for part, (name, folder) in sources.items()},
        "settings": {name: getattr(settings, name) for name in names},
        "config": {name: getattr(config, name) for name in names if getattr(config, name) != getattr(settings, name)},
    }


def settings_from_json(cfg: Mapping[str, Any], config: LinkerSettings) -> tuple[LinkerSettings, Sources]:
    """The settings and sources that a linker with this config takes from `cfg`.

    A value of the config holds if the linker was saved with another one in its config: it was overridden, or edited.
    Earlier versions saved only the temperature. Raises any error for content that makes no sense.
    """
    values = {name: value for name, value in cfg.get("settings", {}).items() if name in config_names()}
    saved_config = config.replace(**{**values, **{k: v for k, v in cfg.get("config", {}).items() if k in values}})
    taken = {name: values[name] for name in values if _is_same(getattr(saved_config, name), getattr(config, name))}
    sources = {part: (source["name"], Path(source["folder"])) for part, source in cfg["found"].items()}
    return config.replace(temperature=cfg["temperature"], **taken), sources


def _is_same(value: Any, other: Any) -> bool:
    """Whether two values are the same in a config that was written and read again, which rounds numbers."""
    if isinstance(value, float) and isinstance(other, float):
        return math.isclose(value, other, rel_tol=1e-9)
    return bool(value == other)


@dataclass
class LinkerState:
    """What is saved of a linker. A part that was left out is None.

    Attributes:
        cfg: See settings_to_json.
        mapper: The mapper's weights, as Thinc writes them.
        store: The demonstrations.
        kb: The knowledge base.
        added: The entities that were added to it.
        models: When saving, the frozen models to bundle, each with the folder that it was loaded from, by part.
        models_folder: When loading, the folder of the bundled models.
    """

    cfg: Mapping[str, Any] | None = None
    mapper: bytes | None = None
    store: DemonstrationStore | None = None
    kb: KnowledgeBase | None = None
    added: Sequence[Entity] | None = None
    models: Mapping[str, tuple[FrozenModel[Any], Path | None]] | None = None
    models_folder: Path | None = None

    def to_disk(self, path: str | Path, vocab: Vocab, exclude: Collection[str]) -> None:
        """Write a folder, in which files of the knowledge base and of models are hard-linked if possible."""
        folder = Path(path)
        folder.mkdir(exist_ok=True)
        if "vocab" not in exclude:
            vocab.to_disk(folder / "vocab", exclude=exclude)
        for name, content in self._files().items():
            with write_whole(folder / name) as partial:
                partial.write_bytes(content)
        if self.kb is not None:
            link_folder(self.kb.path, folder / "kb", self.kb.files())
        self._bundle(folder / "models")

    def to_bytes(self, vocab: Vocab, exclude: Collection[str]) -> bytes:
        """The same as bytes."""
        parts = self._files()
        if "vocab" not in exclude:
            parts["vocab"] = vocab.to_bytes(exclude=exclude)
        if self.kb is not None:
            parts["kb"] = srsly.msgpack_dumps(pack_folder(self.kb.path, self.kb.files()))
        if self.models is not None:
            with tempfile.TemporaryDirectory() as name:
                self._bundle(Path(name))
                parts["models"] = srsly.msgpack_dumps(pack_folder(Path(name), files_in(Path(name))))
        return bytes(srsly.msgpack_dumps({name: parts[name] for name in PART_NAMES if name in parts}))

    def _files(self) -> dict[str, bytes]:
        """The parts that are one file each."""
        files: dict[str, bytes] = {}
        if self.cfg is not None:  # not by srsly, whose JSON does not give back every number as it was
            files["cfg"] = json.dumps(self.cfg, indent=2, ensure_ascii=False).encode("utf8")
        if self.mapper is not None:
            files["model"] = self.mapper
        if self.store is not None:
            files["demonstrations"] = srsly.msgpack_dumps(self.store.to_dict())
        if self.added is not None:
            files["added"] = srsly.msgpack_dumps([[*astuple(entity)] for entity in self.added])
        return files

    def _bundle(self, folder: Path) -> None:
        for part, (frozen, source) in (self.models or {}).items():
            frozen.bundle(folder / part, source)


def read_folder(path: str | Path, vocab: Vocab, exclude: Collection[str], name: str) -> LinkerState:
    """Read what `to_disk` wrote. Raises ValueError and OSError, and has then read the vocab at most."""
    folder = Path(path)
    # versions before entities could be added wrote no "added"
    files = {
        part: (folder / part).read_bytes() if part != "added" or (folder / part).is_file() else b"\x90"
        for part in ("cfg", "model", "demonstrations", "added")
        if part not in exclude
    }
    folders = {part: folder / part for part in ("kb", "models") if part not in exclude}
    state = _state_from(files, folders, name)
    if "vocab" not in exclude:
        with _collector_on():
            vocab.from_disk(folder / "vocab", exclude=exclude)
    return state


@contextmanager
def read_bytes(data: bytes, vocab: Vocab, exclude: Collection[str], name: str) -> Iterator[LinkerState]:
    """Read what `to_bytes` gave. Raises ValueError, and has then read the vocab at most.

    Knowledge base and bundled models are unpacked into a temporary folder. It goes when nothing uses it any more, or
    at once if the with block raises.
    """
    message = f"{name}: these bytes are not what to_bytes of a linker gave, or are damaged"
    try:
        with _collector_on():
            parts = srsly.msgpack_loads(data)
    except Exception as error:  # msgpack has many
        raise ValueError(f"{message} ({error}).") from error
    known = [part for part in sorted(PART_NAMES) if part != "vocab"]
    if not isinstance(parts, dict) or not {*known} & {*parts}:
        content = f"has {', '.join(map(str, parts))}" if isinstance(parts, dict) else f"is {type(parts).__name__}"
        raise ValueError(f"{message}: what is packed in them {content}, and none of {', '.join(known)}.")
    parts = {part: content for part, content in parts.items() if part not in exclude}
    temporary = TemporaryFolder()
    try:
        folders = {
            part: parse(name, part, lambda: unpack_folder(srsly.msgpack_loads(parts[part]), temporary.path / part))  # noqa: B023
            for part in ("kb", "models")
            if part in parts
        }
        state = _state_from(parts, folders, name)
        if "vocab" in parts:
            with _collector_on():
                vocab.from_bytes(parts["vocab"], exclude=exclude)
        yield state
    except BaseException:
        temporary.remove()
        raise


def _state_from(files: Mapping[str, bytes], folders: Mapping[str, Path], name: str) -> LinkerState:
    state = LinkerState(mapper=files.get("model"), models_folder=folders.get("models"))
    if "cfg" in files:
        state.cfg = cfg = parse(name, "cfg", lambda: dict(json.loads(files["cfg"])))
        if cfg.get("format") != FORMAT:
            raise ValueError(f"{name}: saved in format {cfg.get('format')!r}, this version reads {FORMAT}.")
    if "demonstrations" in files:
        state.store = parse(
            name, "demonstrations", lambda: DemonstrationStore.from_dict(srsly.msgpack_loads(files["demonstrations"]))
        )
    if "added" in files:
        state.added = parse(
            name,
            "added",
            lambda: [
                Entity(kb_id, entity, count, tuple(aliases), description)
                for kb_id, entity, count, aliases, description in srsly.msgpack_loads(files["added"])
            ],
        )
    if "kb" in folders:
        state.kb = KnowledgeBase.open(folders["kb"])
    return state


def parse(name: str, part: str, read: Callable[[], PartT]) -> PartT:
    """What `read` gives. Raises ValueError that names the pipe and the part if it cannot be read."""
    try:
        with _collector_on():
            return read()
    except OSError:
        raise  # names the file
    except Exception as error:  # msgpack, JSON, thinc and NumPy have one each for damaged bytes
        raise ValueError(
            f"{name}: {part!r} of the saved pipe cannot be read ({error}): it is damaged. Copy the pipeline again."
        ) from error


@contextmanager
def _collector_on() -> Iterator[None]:
    """Leave the garbage collector on: srsly switches it off to read, and on again only if that ends well."""
    was_on = gc.isenabled()
    try:
        yield
    finally:
        if was_on:  # never off: another thread may just have been reading when this one began
            gc.enable()
