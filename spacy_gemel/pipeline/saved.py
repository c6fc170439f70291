"""What has been read of a saved pipe, until it is made a pipe's own."""

import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import srsly
from thinc.api import Model, get_torch_default_device

from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.linking.demonstrations import DemonstrationStore
from spacy_gemel.linking.settings import LinkerSettings, config_names
from spacy_gemel.models.frozen import model_lock

if TYPE_CHECKING:
    from spacy_gemel.pipeline.gemel_linker import GemelLinker

FORMAT = 1
Part = TypeVar("Part")


class Saved:
    """What has been read of a saved pipe. The pipe itself changes in `load` alone, and there wholly or not at all.

    What was not read is None: it stays as the pipe has it when it is loaded, not as it had it when reading began.
    """

    def __init__(self, pipe: "GemelLinker") -> None:
        self.pipe = pipe
        self.settings: LinkerSettings | None = None
        self.folders: dict[str, Path] | None = None
        self.bundled: dict[str, Path] = {}
        self.store: DemonstrationStore | None = None
        self.mapper: Model[Any, Any] | None = None
        self.weights: bytes | None = None
        self.kb: KnowledgeBase | None = None
        self.added: list[Entity] | None = None

    def read_state(self, data: bytes) -> None:
        """Take the settings, and where what was not saved was found. Raises ValueError.

        The config's value of a setting holds where it is not what it was when the pipe was saved.
        """
        pipe = self.pipe
        state = parsed(pipe, "cfg", lambda: dict(json.loads(data)))
        if state.get("format") != FORMAT:
            raise ValueError(
                f"{pipe.name}: saved in format {state.get('format')!r}, this version of spacy-gemel reads {FORMAT}."
            )
        models = {part: frozen.name for part, frozen in pipe.frozen_models.items()}
        if pipe.image_features is not None:
            models["image_features"] = pipe.image_features
        self.folders = parsed(
            pipe,
            "cfg",
            lambda: {
                part: Path(index["folder"])
                for part, index in state["found"].items()
                if models.get(part) == index["name"] and Path(index["folder"]).is_dir()
            },
        )
        self.settings = parsed(
            pipe,
            "cfg",
            lambda: pipe.config_settings.replace(  # not pipe.settings, which may have been changed since
                temperature=state["temperature"],
                **_settings_to_take(pipe.config_settings, state),
            ),
        )

    def read_model(self, data: bytes) -> None:
        """Take the mapper's weights. Raises ValueError for what is none."""
        self.mapper = parsed(self.pipe, "model", lambda: self.pipe.model.copy().from_bytes(data))
        self.weights = data

    def read_store(self, data: bytes) -> None:
        """Take the demonstrations. Raises ValueError for what is none."""
        self.store = parsed(
            self.pipe, "demonstrations", lambda: DemonstrationStore.from_dict(srsly.msgpack_loads(data))
        )

    def read_kb(self, folder: Path) -> None:
        """Take the knowledge base. Raises KBError."""
        self.kb = KnowledgeBase.open(folder)

    def read_added(self, data: bytes) -> None:
        """Take the entities that were added to the knowledge base. Raises ValueError for what is none."""
        self.added = parsed(
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
                self.bundled[part] = folder / part

    def load(self) -> None:
        """Make all of it the pipe's own, with the frozen models. Raises ValueError, and leaves the pipe as it was.

        Warns of settings that have no effect.
        """
        with model_lock():  # all of it: who links meanwhile has the pipe as it was, or as it will be
            self._load()
        self.pipe.warn_unused_settings()

    def _load(self) -> None:
        pipe = self.pipe
        if self.kb is None and not pipe.has_kb:
            raise ValueError(
                f"{pipe.name}: loaded without a knowledge base: 'kb' was excluded or is not in what was saved, and the "
                "pipe has none of its own. Give it one before it is loaded, such as "
                "set_kb(lambda vocab: KnowledgeBase.open(folder)), or load it with the saved one."
            )
        kb = pipe.kb if self.kb is None else self.kb
        added = self.added
        if added is None:
            added = [*pipe.kb.added.entities] if pipe.has_kb else []
        before = pipe.settings, pipe.folders, pipe.store
        pipe.folders = {**(pipe.folders if self.folders is None else self.folders), **self.bundled}
        if self.settings is not None:
            pipe.use_settings(self.settings)
        if self.store is not None:
            pipe.store = self.store
        try:
            pipe.load_parts(kb.without_added(), added, self.mapper)
        except BaseException:
            pipe.use_settings(before[0])
            _, pipe.folders, pipe.store = before
            with suppress(Exception):  # back to the encoder that made its vectors; it is in memory
                pipe.retriever.load(str(get_torch_default_device()), pipe.folders.get("retriever"))
            raise
        if self.weights is not None:
            pipe.model.from_bytes(self.weights)


def _settings_to_take(config: LinkerSettings, state: dict[str, Any]) -> dict[str, Any]:
    """The saved settings, but for those of which the config says something else than it did when they were saved.

    config: what it says now. Empty for a pipe that an earlier version saved. Raises ValueError for what is no setting.
    """
    saved = {name: value for name, value in state.get("settings", {}).items() if name in config_names()}
    changed = {name: value for name, value in state.get("config", {}).items() if name in saved}
    then = config.replace(**{**saved, **changed})
    return {name: value for name, value in saved.items() if _is_same(getattr(then, name), getattr(config, name))}


def _is_same(one: Any, other: Any) -> bool:
    """Whether a config that was written and read again has the same value: it rounds numbers."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)
    return bool(one == other)


def parsed(pipe: "GemelLinker", part: str, read: Callable[[], Part]) -> Part:
    """What `read` gives. Raises ValueError, naming the part, for what cannot be read."""
    try:
        return read()
    except OSError:
        raise  # names the file
    except Exception as error:  # msgpack, JSON, thinc and NumPy have one each for bytes that are not theirs
        raise ValueError(
            f"{pipe.name}: {part!r} of the saved pipe cannot be read ({error}): it is damaged. Copy the pipeline again."
        ) from error
