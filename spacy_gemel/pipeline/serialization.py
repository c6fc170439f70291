"""Saving and loading a linker's state, in a folder or in bytes, never as a pickle."""

import gc
import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import srsly
from spacy.vocab import Vocab
from thinc.api import Model

from spacy_gemel.kb.entity import Entity, KBError
from spacy_gemel.kb.meta import read_meta
from spacy_gemel.linking.decision import Decision
from spacy_gemel.linking.demonstrations import DemonstrationStore
from spacy_gemel.linking.settings import LinkerSettings, config_names
from spacy_gemel.models.frozen import BUNDLE, FrozenModel, bundle_problems, copy_bundle
from spacy_gemel.utils import files
from spacy_gemel.utils.files import sha256_of

if TYPE_CHECKING:
    from spacy_gemel.kb.knowledge_base import KnowledgeBase
    from spacy_gemel.models.causal_lm import CausalLM
    from spacy_gemel.models.vision_encoder import VisionEncoder

FORMAT = 1
_FILES = ("cfg", "model", "demonstrations", "decision", "added")  # the parts that are one file each
PART_NAMES = ("vocab", "cfg", "model", "demonstrations", "decision", "kb", "added", "models")
_NO_DECISION = b"null"
_DEFAULTS = {"decision": _NO_DECISION, "added": b"\x90"}  # of a pipe that was saved without them
_SUMS = "sums"  # the file with the checksums of the others, which says what was saved together
_NEW = ".new"  # at the end of a file that is about to replace another
PartT = TypeVar("PartT")

Sources = Mapping[str, tuple[str, Path]]
"""Frozen models and image features that are not saved: {part: (name in the config, folder where it was found)}."""


def settings_to_json(settings: LinkerSettings, config: LinkerSettings, sources: Sources) -> dict[str, Any]:
    """The content of `cfg`: the settings in force, the values of the config that differ, and the sources."""
    names = config_names()
    return {
        "format": FORMAT,
        "found": {part: {"name": name, "folder": str(folder)} for part, (name, folder) in sources.items()},
        "settings": {name: getattr(settings, name) for name in names},
        "config": {name: getattr(config, name) for name in names if getattr(config, name) != getattr(settings, name)},
    }


def settings_from_json(cfg: Mapping[str, Any], config: LinkerSettings, name: str) -> tuple[LinkerSettings, Sources]:
    """The settings and sources that a linker of this config and name takes from `cfg`; raises ValueError if damaged.

    A value of the config holds if the linker was saved with another one in its config: it was overridden, or edited.
    """

    def read() -> tuple[LinkerSettings, Sources]:
        values = {name: value for name, value in cfg.get("settings", {}).items() if name in config_names()}
        saved_config = config.replace(**values | {k: v for k, v in cfg.get("config", {}).items() if k in values})
        unchanged = {k: v for k, v in values.items() if _is_same(getattr(saved_config, k), getattr(config, k))}
        sources = {part: (source["name"], Path(source["folder"])) for part, source in cfg["found"].items()}
        return config.replace(**unchanged), sources

    return parse(name, "cfg", read)


def _is_same(value: Any, other: Any) -> bool:
    """Whether two values are the same in a config that was written and read again, which rounds numbers."""
    if isinstance(value, float) and isinstance(other, float):
        return math.isclose(value, other, rel_tol=1e-9)
    return bool(value == other)


@dataclass
class LinkerState:
    """What is saved of a linker. A part that was left out is None."""

    cfg: Mapping[str, Any] | None = None  # see settings_to_json
    mapper: bytes | None = None  # the weights, as Thinc writes them
    store: DemonstrationStore | None = None
    decision: Decision | None = None
    has_decision: bool = False  # whether the decision, or that there is none, was saved or is to be
    kb: "KnowledgeBase | None" = None
    added: Sequence[Entity] | None = None
    models: Mapping[str, tuple[FrozenModel[Any], Path | None]] | None = None  # to bundle, and where each is from
    models_folder: Path | None = None  # when loading: where the bundled models are

    def to_disk(self, path: str | Path, vocab: Vocab, exclude: Collection[str]) -> None:
        """Write a folder, in which files of the knowledge base and of models are hard-linked if possible.

        Killed at any moment, it leaves the old parts or the new ones: these lie beside the old until the checksums of
        the new replace those of the old, and the reader takes of each part what fits its checksum. Of a knowledge base
        or a model that is there already, each file is replaced by itself.
        """
        folder = Path(path)
        folder.mkdir(exist_ok=True)
        if "vocab" not in exclude:
            vocab.to_disk(folder / "vocab", exclude=exclude)
        contents = self._contents()
        for name, content in contents.items():
            with files.write_whole(folder / (name + _NEW), through_links=False) as new:
                new.write_bytes(content)
        self._write_kb(folder)
        models = self._write_models(folder)
        left_out = {part: value for part, value in _read_sums(folder).items() if part in exclude}
        sums = {**left_out, **self._sums(contents, models)}
        with files.write_whole(folder / _SUMS, through_links=False) as new:
            new.write_bytes(files.to_json(sums))
        for name in contents:
            (folder / (name + _NEW)).replace(folder / name)
        self._put_in_place(folder, sums)

    def _write_kb(self, folder: Path) -> None:
        """Write the knowledge base, beside another one that is there."""
        if self.kb is None:
            return
        target = folder / "kb"
        is_same = _kb_fits(target, self.kb.meta.sha256) and not target.is_symlink()
        if self.kb.files_at(target) and not is_same and self.kb.path.resolve() != target.resolve():
            target = folder / ("kb" + _NEW)
        files.link_folder(self.kb.path, target, self.kb.files(), self.kb.files_at(target))

    def _write_models(self, folder: Path) -> Path:
        """Bundle the models, beside others that are there. Returns the folder that holds them."""
        models = folder / "models"
        if self.models and models.exists() and not self._are_loaded_from(models):
            same = (
                isinstance(frozen, FrozenModel)
                and not (models / part).is_symlink()
                and frozen.is_saved_in(models / part, source)
                for part, (frozen, source) in self.models.items()
            )
            if models.is_symlink() or not all(same):
                models = folder / ("models" + _NEW)
        self._bundle(models)
        return models

    def _put_in_place(self, folder: Path, sums: Mapping[str, Any]) -> None:
        """Replace the knowledge base and the models of an earlier save by what was written beside them.

        What tells whether a folder fits the checksums, meta.json and bundle.json, is replaced last.
        """
        kb, models = folder / "kb", folder / "models"
        new_kb, new_models = folder / ("kb" + _NEW), folder / ("models" + _NEW)
        if self.kb is not None:
            if _kb_fits(new_kb, sums["kb"]):
                files.link_folder(new_kb, kb, self.kb.files(), self.kb.files_at(kb))
            if self.kb.path.resolve() != new_kb.resolve():
                files.remove_folder(new_kb)
        if self.models is None:
            return
        if models.is_symlink() and not self._are_loaded_from(models):
            models.unlink()
        if not self.models:  # an earlier bundle there, maybe of other models, counts no longer; its files stay
            for marker in models.glob(f"*/{BUNDLE}"):
                (marker.parent if marker.parent.is_symlink() else marker).unlink()
        if self.models and _models_fit(new_models, sums["models"]):
            for part in self.models:
                copy_bundle(new_models / part, models / part)
        if not self._are_loaded_from(new_models):
            files.remove_folder(new_models)

    def _sums(self, contents: Mapping[str, bytes], models: Path) -> dict[str, Any]:
        """The checksum of each part; of the bundled models those of their lists of files."""
        sums: dict[str, Any] = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        if self.kb is not None:
            sums["kb"] = self.kb.meta.sha256
        if self.models is not None:
            sums["models"] = {part: sha256_of(models / part / BUNDLE) for part in self.models}
        return sums

    def to_bytes(self, vocab: Vocab, exclude: Collection[str]) -> bytes:
        """The same as bytes."""
        contents = self._contents()
        if "vocab" not in exclude:
            contents["vocab"] = vocab.to_bytes(exclude=exclude)
        if self.kb is not None:
            contents["kb"] = srsly.msgpack_dumps(files.pack_folder(self.kb.path, self.kb.files()))
        with tempfile.TemporaryDirectory() as name:
            self._bundle(Path(name))
            sums = self._sums({part: content for part, content in contents.items() if part != "kb"}, Path(name))
            if self.models is not None:
                contents["models"] = srsly.msgpack_dumps(files.pack_folder(Path(name), files.files_in(Path(name))))
        ordered = {name: contents[name] for name in PART_NAMES if name in contents}
        return bytes(srsly.msgpack_dumps({**ordered, _SUMS: files.to_json(sums)}))

    def _contents(self) -> dict[str, bytes]:
        """The parts that are one file each."""
        contents: dict[str, bytes] = {}
        if self.cfg is not None:  # not by srsly, whose JSON does not give back every number as it was
            contents["cfg"] = files.to_json(self.cfg)
        if self.mapper is not None:
            contents["model"] = self.mapper
        if self.store is not None:
            contents["demonstrations"] = srsly.msgpack_dumps(self.store.to_dict())
        if self.has_decision:
            contents["decision"] = _NO_DECISION if self.decision is None else self.decision.to_json()
        if self.added is not None:
            contents["added"] = srsly.msgpack_dumps([[*astuple(entity)] for entity in self.added])
        return contents

    def _are_loaded_from(self, folder: Path) -> bool:
        """Whether there are models to bundle, and all of them are those in a folder."""
        sources = {part: source for part, (_, source) in (self.models or {}).items()}
        same = (source and source.resolve() == (folder / part).resolve() for part, source in sources.items())
        return bool(sources) and all(same)

    def _bundle(self, folder: Path) -> None:
        for part, (frozen, source) in (self.models or {}).items():
            frozen.bundle(folder / part, source)


def read_folder(
    path: str | Path, vocab: Vocab, exclude: Collection[str], name: str, *, verify: bool = False
) -> LinkerState:
    """Read what `to_disk` wrote. Raises ValueError and OSError, and has then read the vocab at most.

    Of the large files, those of the knowledge base and of models, only the sizes are compared, with `verify` all bytes.
    """
    folder = Path(path)
    sums = parse(name, _SUMS, lambda: _read_sums(folder))
    contents = {part: _read_part(folder, part, sums, name) for part in _FILES if part not in exclude}
    fits = {"kb": partial(_kb_fits, value=sums.get("kb")), "models": partial(_models_fit, values=sums.get("models"))}
    folders = {part: _choose(folder, part, fits[part]) for part in fits if part not in exclude}
    if not sums.get("models"):  # a bundle there is an earlier save's
        folders.pop("models", None)
    state = _state_from(contents, folders, name, verify=verify)
    _check_folders(state, sums, name, verify=verify)
    if "vocab" not in exclude:
        parse(name, "vocab", lambda: vocab.from_disk(folder / "vocab", exclude=exclude))
    return state


def _read_sums(folder: Path) -> dict[str, Any]:
    path = folder / _SUMS
    return dict(json.loads(path.read_bytes())) if path.is_file() else {}


def _read_part(folder: Path, part: str, sums: Mapping[str, Any], name: str) -> bytes:
    """A part's file, or the one that was about to replace it: whichever was saved with the others."""
    for path in (folder / part, folder / (part + _NEW)):
        if path.is_file():
            content = path.read_bytes()
            if _fits(part, content, sums):
                return content
    if part not in sums and part in _DEFAULTS:  # it was left out
        return _DEFAULTS[part]
    if not (folder / part).is_file():
        raise FileNotFoundError(f"{folder / part}: there is no such file, so this is no saved {name}, or not all of it")
    raise _not_saved_with(part, name)


def _choose(folder: Path, part: str, fits: Callable[[Path], bool]) -> Path:
    """A part's folder, or the one that was about to replace it if that alone was saved with the others."""
    path, new = folder / part, folder / (part + _NEW)
    return new if fits(new) and not fits(path) else path


def _kb_fits(path: Path, value: str | None) -> bool:
    try:
        return read_meta(path).sha256 == value
    except KBError:
        return False


def _models_fit(path: Path, values: Mapping[str, str] | None) -> bool:
    markers = {path / part / BUNDLE: value for part, value in (values or {}).items()}
    return bool(markers) and all(marker.is_file() and sha256_of(marker) == markers[marker] for marker in markers)


def _fits(part: str, content: Any, sums: Mapping[str, Any]) -> bool:
    if not isinstance(content, bytes):
        return False
    return part in ("kb", "models") or hashlib.sha256(content).hexdigest() == sums.get(part)


def _not_saved_with(part: str, name: str) -> ValueError:
    return ValueError(
        f"{name}: {part!r} of the saved pipe is not what was saved with its other parts: it was damaged, replaced, or "
        "saved by another version. Copy the pipeline again, or save it again."
    )


def _check_folders(state: LinkerState, sums: Mapping[str, Any], name: str, *, verify: bool) -> None:
    """Raise ValueError if the knowledge base or a bundled model is not what was saved with the other parts."""
    if state.kb is not None and state.kb.meta.sha256 != sums.get("kb"):
        raise _not_saved_with("kb", name)
    for part, value in sums.get("models", {}).items() if state.models_folder is not None else ():
        folder = state.models_folder / part
        problems = bundle_problems(folder, verify=verify)
        if problems or sha256_of(folder / BUNDLE) != value:
            raise ValueError(f"{_not_saved_with('models', name)} {'; '.join(problems)}".strip())


@contextmanager
def read_bytes(
    data: bytes, vocab: Vocab, exclude: Collection[str], name: str, *, verify: bool = False
) -> Iterator[LinkerState]:
    """Read what `to_bytes` gave. Raises ValueError, and has then read the vocab at most.

    Knowledge base and bundled models are unpacked into a temporary folder, which lives as long as something uses it,
    and goes at once if the with block raises.
    """
    message = f"{name}: these bytes are not what to_bytes of a linker gave, or are damaged"
    try:
        contents = parse(name, "bytes", lambda: srsly.msgpack_loads(data))
    except ValueError as error:
        raise ValueError(f"{message} ({error.__cause__}).") from error
    known = [part for part in sorted(PART_NAMES) if part != "vocab"]
    if not isinstance(contents, dict) or not {*known} & {*contents}:
        is_dict = isinstance(contents, dict)
        content = f"has {', '.join(map(str, contents))}" if is_dict else f"is {type(contents).__name__}"
        raise ValueError(f"{message}: what is packed in them {content}, and none of {', '.join(known)}.")
    sums = parse(name, _SUMS, lambda: dict(json.loads(contents.pop(_SUMS, b"{}"))))
    contents = {part: content for part, content in contents.items() if part not in exclude}
    for part in sorted({*sums, *contents} - {*exclude}, key=str):
        if part not in PART_NAMES or part not in contents or not _fits(part, contents[part], sums):
            raise _not_saved_with(part, name)
    contents |= {part: content for part, content in _DEFAULTS.items() if part not in {*contents, *exclude}}
    temporary = files.TemporaryFolder()
    try:
        folders = {part: temporary.path / part for part in ("kb", "models") if part in contents}
        for part, folder in folders.items():
            content = parse(name, part, partial(srsly.msgpack_loads, contents[part]))
            parse(name, part, partial(files.unpack_folder, content, folder))
        state = _state_from(contents, folders, name, verify=verify)
        _check_folders(state, sums, name, verify=verify)
        if "vocab" in contents:
            parse(name, "vocab", lambda: vocab.from_bytes(contents["vocab"], exclude=exclude))
        yield state
    except BaseException:
        temporary.remove()
        raise


def _state_from(contents: Mapping[str, bytes], folders: Mapping[str, Path], name: str, *, verify: bool) -> LinkerState:
    from spacy_gemel.kb.additions import check_entities  # not earlier: pyarrow
    from spacy_gemel.kb.knowledge_base import KnowledgeBase

    def read_entities() -> list[Entity]:
        rows: list[list[Any]] = srsly.msgpack_loads(contents["added"])  # each in the order of Entity's fields
        rows = [[tuple(value) if isinstance(value, list) else value for value in row] for row in rows]
        return check_entities(Entity(*row) for row in rows)

    def read_store() -> DemonstrationStore:
        return DemonstrationStore.from_dict(srsly.msgpack_loads(contents["demonstrations"]))

    state = LinkerState(mapper=contents.get("model"), models_folder=folders.get("models"))
    if "cfg" in contents:
        state.cfg = cfg = parse(name, "cfg", lambda: dict(json.loads(contents["cfg"])))
        if cfg.get("format") != FORMAT:
            raise ValueError(f"{name}: saved in format {cfg.get('format')!r}, this version reads {FORMAT}.")
    if "demonstrations" in contents:
        state.store = parse(name, "demonstrations", read_store)
    if (decision := contents.get("decision")) is not None:
        state.has_decision = True
        if decision != _NO_DECISION:
            state.decision = parse(name, "decision", lambda: Decision.from_json(decision))
    if "added" in contents:
        state.added = parse(name, "added", read_entities)
    if "kb" in folders:
        state.kb = KnowledgeBase.open(folders["kb"], verify=verify)
    return state


def parse(name: str, part: str, read: Callable[[], PartT]) -> PartT:
    """What `read` gives. Raises ValueError that names the pipe and the part if it cannot be read."""
    collector_on = gc.isenabled()
    try:
        return read()
    except OSError:
        raise  # names the file
    except Exception as error:  # msgpack, JSON, thinc and NumPy have one each for damaged bytes
        raise ValueError(
            f"{name}: {part!r} of the saved pipe cannot be read ({error}): it is damaged. Copy the pipeline again."
        ) from error
    finally:  # srsly switches the collector off to read, and on again only if that ends well
        if collector_on:  # never off: another thread may just have been reading when this one began
            gc.enable()


def check_fit(
    name: str,
    mapper: Model[Any, Any],
    prefix_length: int,
    language_model: "CausalLM",
    encoder: "VisionEncoder",
    store: DemonstrationStore,
) -> None:
    """Raise ValueError if a trained mapper and its demonstrations do not fit what the config of the pipe names."""

    def error(setting: str, problem: str) -> ValueError:
        return ValueError(
            f"{name}: what is loaded was trained with {problem}: leave components.{name}.{setting} as it was then, or "
            "train the pipe anew."
        )

    trained = mapper.attrs["prefix_length"]
    if trained != prefix_length:
        raise error("model.prefix_length", f"prefix_length = {trained}, and the config says {prefix_length}")
    widths = {mapper.get_dim("nI")} if mapper.has_dim("nI") else set()
    if len(store.features):
        widths.add(store.features.shape[1])
    if widths - {encoder.width}:
        trained_on = " and ".join(map(str, sorted(widths)))
        problem = f"image features of width {trained_on}; the configured encoder gives {encoder.width}"
        raise error("vision_encoder", problem)
    if mapper.has_dim("nO") and mapper.get_dim("nO") != prefix_length * language_model.width:
        sizes = f"{mapper.get_dim('nO') / prefix_length:g}; the configured model has {language_model.width}"
        raise error("language_model", f"embeddings of width {sizes}")
