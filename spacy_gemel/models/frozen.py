"""Frozen models are named in a config, not held: loaded when needed, once per process, and bundled on request."""

import importlib
import json
import multiprocessing
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, SupportsIndex, TypeVar, cast
from weakref import WeakValueDictionary

from spacy_gemel.utils.files import files_in, link_file, link_folder, resolve, write_whole

ModelT = TypeVar("ModelT")
Settings = tuple[tuple[str, Any], ...]

_LOADED: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()
_TURN = threading.RLock()
_BUNDLE = "bundle.json"
_WHAT_IT_IS = (".safetensors", ".json", ".txt", ".model")
"""Endings of the files that decide what a model is; others, such as a README, may change."""


@dataclass(frozen=True)
class FrozenModel(Generic[ModelT]):
    """A model by name.

    loader: "module:function", imported when the model is loaded; called as
        `loader(name, device=..., **settings)`.
    bundler: "module:function" that writes a model that has no folder of its own: `bundler(name, folder, **settings)`.
    name: a local folder (relative ones: see paths.resolve), or what the library finds on its hub.
    device: where it runs; None for spaCy's own choice.
    """

    what: str
    loader: str
    bundler: str
    name: str
    device: str | None
    settings: Settings

    def source(self, folder: Path | None = None) -> str:
        """What is loaded: `folder` if it is there (a bundle), else a local folder, else the hub's name.

        Raises ValueError for a name that can only be a path and does not exist.
        """
        if folder is not None and folder.is_dir():
            return str(folder.resolve())
        local = resolve(self.name)
        if local.is_dir():
            return str(local)
        if self.name.startswith((".", "/", "~")) or self.name.count("/") > 1 or "\\" in self.name:
            gone = "" if folder is None else f", and {folder}, from which it was loaded, is gone"
            raise ValueError(
                f"The {self.what} {self.name!r} is not there: no folder {self.name!r} beside the config or in the "
                f"working folder{gone}. Correct `name` in the config, or make the folder (for the mini models: "
                "`python -m spacy project run pretrain`)."
            )
        return self.name

    def load(self, device: str, folder: Path | None = None) -> ModelT:
        """The model; the same object for the same source, settings and device while its files are the same.

        See `source` for folder.
        """
        return cast(ModelT, _load(self.loader, self.source(folder), self.device or device, self.settings))

    @property
    def _marker(self) -> dict[str, Any]:
        which = {key: value for key, value in self.settings if key in ("revision", "pretrained")}
        return {"name": self.name, **which}

    def is_bundled(self, folder: Path) -> bool:
        """Whether a folder is the bundle of this very model: the config may have come to name another one."""
        marker = folder / _BUNDLE
        return marker.is_file() and bool(json.loads(marker.read_text(encoding="utf8")) == self._marker)

    def check_in_place(self, model: object, folder: Path | None = None) -> None:
        """Raise ValueError where a bundle would not be the model that was loaded: its files are gone or have changed.

        model: what `load` gave; of one that is no `Loaded`, only that there are files is checked. A model of a hub is
        not judged: whether this machine still has it, bundling it tells.
        """
        source = self.source(folder)
        if not Path(source).is_dir():
            return
        self._files_to_bundle(Path(source))
        origin = model.origin if isinstance(model, Loaded) else None
        if origin is None or origin.is_in(source):
            return
        problem = (
            f"{source} no longer holds what was loaded, which the pipe works with: weights, settings or words of the "
            "tokenizer have changed since, or are gone. Put the files back as they were, or train again"
            if source == origin.source
            else f"{origin.source}, which it was loaded from, is gone, and {source} need not hold the same. Put the "
            "folder back, or load the pipeline again"
        )
        raise ValueError(
            f"The {self.what} {self.name!r} cannot be saved: {problem}. To save the pipe without its models, set its "
            "bundle_models = False."
        )

    def _files_to_bundle(self, source: Path) -> list[str]:
        files = _model_files(source)
        if not files:
            raise ValueError(
                f"The {self.what} {self.name!r} cannot be saved: {source} holds no file of it (any more). Put the "
                "folder's files back, or load the pipeline again."
            )
        return files

    def bundle(self, target: Path, folder: Path | None = None) -> None:
        """Write the model's files to a folder, hard-linked where they lie in one; nothing where they are there.

        What is no longer in the model's folder goes from the target too: `check_in_place` comes first. Raises
        ValueError where the files are gone.
        """
        source = Path(self.source(folder))
        if source.is_dir():  # each time, as another pipe may have saved its own there; what is there costs nothing
            link_folder(source, target, self._files_to_bundle(source), keep=(_BUNDLE,))
        elif self.is_bundled(target):
            return
        else:
            target.mkdir(parents=True, exist_ok=True)
            try:
                _import(self.bundler)(self.name, target, **dict(self.settings))
            except OSError as error:
                if folder is None:
                    raise
                raise ValueError(
                    f"The {self.what} {self.name!r} cannot be saved: {folder}, from which it was loaded, is gone, and "
                    f"this machine has no other copy ({error})."
                ) from error
        with write_whole(target / _BUNDLE) as partial:
            partial.write_text(json.dumps(self._marker), encoding="utf8")


@dataclass(frozen=True)
class _Origin:
    """How a model was loaded, and what lay in its folder then: (file, bytes, time) of what decides it."""

    loader: str
    source: str
    device: str
    settings: Settings
    files: tuple[tuple[str, int, int], ...]

    def is_in(self, source: str) -> bool:
        """Whether a folder has all of these files as they were. What has come since, such as a log, was not loaded."""
        return set(self.files) <= set(_files_of(source))


class Loaded:
    """A frozen model in memory. Another process loads it again by its name: no weights are sent, nor what cannot be.

    Sending one raises ValueError where its folder is no longer what was loaded. One that no FrozenModel has loaded goes
    as any object does.
    """

    origin: _Origin | None = None

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        origin = self.origin
        if origin is None:
            return super().__reduce_ex__(protocol)
        if not origin.is_in(origin.source):
            raise ValueError(
                f"The model in {origin.source!r} has changed since it was loaded, or is gone: another process cannot "
                "load the same one (nlp.pipe with n_process does so where processes are not forked). Load the pipeline "
                "again, or use n_process=1."
            )
        return _load_again, (origin.loader, origin.source, origin.device, origin.settings)


def _load(loader: str, source: str, device: str, settings: Settings) -> Any:
    key = (loader, source, settings, device)
    with _TURN:
        model = _LOADED.get(key)
        if model is None or (isinstance(model, Loaded) and model.origin is not None and not model.origin.is_in(source)):
            files = _files_of(source)  # before they are read: a change meanwhile is then a change
            model = _import(loader)(source, device=device, **dict(settings))
            if isinstance(model, Loaded):
                model.origin = _Origin(loader, source, device, settings, files)
            _LOADED[key] = model
    return model


def _load_again(loader: str, source: str, device: str, settings: Settings) -> Any:
    """What another process gets in place of a model that this one has loaded."""
    # not parent_process(), which there is none of yet while a new process receives what it is to do
    if multiprocessing.current_process().name != "MainProcess":
        import torch

        torch.set_num_threads(1)
    return _load(loader, source, device, settings)


def _files_of(source: str) -> tuple[tuple[str, int, int], ...]:
    """The weights, settings and tokenizer in a model's folder; empty for a name on a hub."""
    folder = Path(source)
    names = _model_files(folder) if folder.is_dir() else []
    status = [(name, (folder / name).stat()) for name in names if name.endswith(_WHAT_IT_IS)]
    return tuple((name, found.st_size, found.st_mtime_ns) for name, found in status)


def link_snapshot(name: str, folder: Path, revision: str | None = None, **_settings: Any) -> None:
    """Bundle a model of the Hugging Face hub from the files that loading it has put in the cache."""
    from huggingface_hub import snapshot_download

    snapshot = Path(snapshot_download(name, revision=revision, local_files_only=True))
    for file in _model_files(snapshot):
        link_file(snapshot / file, folder / file)


def _model_files(folder: Path) -> list[str]:
    """The files of a model's folder, less weights in other forms than safetensors, and what is hidden."""
    return [
        name
        for name in files_in(folder)
        if name != _BUNDLE
        and not name.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".msgpack", ".onnx"))
        and not any(part.startswith(".") for part in Path(name).parts)
    ]


def model_lock() -> AbstractContextManager[object]:
    """Hold the frozen models, which the pipes of all threads share: one thread works with them at a time.

    Nothing is lost by it, as a forward pass keeps all cores busy. A process is not forked meanwhile, so that none
    starts with a lock that nobody holds.
    """
    return _TURN


@cache
def one_thread_in_forks() -> None:
    """Let processes that fork from this one run torch on one thread: with more, `nlp.pipe(n_process=2)` hangs.

    Those that are started in another way run on one thread as well, from when they load a model: they would not hang,
    but together have as many threads for each core as there are processes.
    """
    import torch

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
        os.register_at_fork(before=_TURN.acquire, after_in_parent=_TURN.release, after_in_child=_TURN.release)


def _import(path: str) -> Callable[..., Any]:
    module, _, function = path.partition(":")
    return cast(Callable[..., Any], getattr(importlib.import_module(module), function))
