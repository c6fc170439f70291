"""Frozen models are named in a config, not held: loaded when needed, once per process, and bundled on request."""

import json
import multiprocessing
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Generic, SupportsIndex, TypeVar, cast
from weakref import WeakValueDictionary

from spacy_gemel.utils.files import (
    FileRecord,
    file_problems,
    files_in,
    is_inside,
    link_file,
    link_folder,
    own_folder,
    resolve,
    sha256_of,
    write_json,
)
from spacy_gemel.utils.messages import first_line

if TYPE_CHECKING:
    import torch

ModelT = TypeVar("ModelT")
Options = tuple[tuple[str, Any], ...]

_LOADED: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()
_LOCK = threading.RLock()
BUNDLE = "bundle.json"
_FILES = "files"  # its list of what an earlier save has put beside it
# Files that decide what a model computes; others, such as a README, may change.
_WEIGHTS = ".safetensors"
_IDENTIFYING = (_WEIGHTS, ".json", ".txt", ".model")
# Settings that change what is made of a model's files, not which files they are.
_USES = ("dtype", "bos", "quantization", "projection", "pooling", "text")
# Without it transformers asks on stdin whether to run code that lies beside a model, and takes a "y" from there.
NO_REMOTE_CODE = {"trust_remote_code": False}
_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf")


@dataclass(frozen=True)
class FrozenModel(Generic[ModelT]):
    """A pretrained model by name."""

    what: str  # what messages call it, such as "language model"
    loader: str  # "module:function", called as `loader(name, device=..., **settings)`
    bundler: str  # the same for a model without a local folder, called as `bundler(name, folder, **settings)`
    name: str  # a local folder or GGUF file (relative: see `utils.files.resolve`), or a name on the library's hub
    device: str | None  # where it runs; None for spaCy's default
    settings: Options  # the loader's other arguments

    def source(self, folder: Path | None = None) -> str:
        """What to load: `folder` if it exists (a bundle), else a local folder or GGUF file, else the name on the hub.

        Raises ValueError if the name can only be a path, and does not exist.
        """
        if folder is not None and folder.exists():
            return str(folder.resolve())
        local = resolve(self.name)
        if local.is_dir() or (is_gguf(local) and local.is_file()):
            return str(local)
        is_path = self.name.startswith((".", "/", "~")) or self.name.count("/") > 1 or "\\" in self.name
        if is_path or is_gguf(self.name):
            gone = "" if folder is None else f", and {folder}, from which it was loaded, is gone"
            raise ValueError(
                f"The {self.what} {self.name!r} does not exist: there is no {self.name!r} beside the config or in the "
                f"working folder{gone}. Correct `name` in the config, or create it (for the mini models: `python -m "
                "spacy project run pretrain`; for those in assets/real: `python -m spacy project run real-models`)."
            )
        return self.name

    def load(self, device: str, folder: Path | None = None) -> ModelT:
        """The model: one object per source, settings and device, until its files change. For `folder` see `source`."""
        return cast(ModelT, _load(self.loader, self.source(folder), self.device or device, self.settings))

    @property
    def _marker(self) -> dict[str, Any]:
        return {"name": self.name, **{key: value for key, value in self.settings if key not in _USES}}

    def is_bundled(self, folder: Path) -> bool:
        """Whether a folder is a bundle of this model; the config may name another model by now."""
        marker = folder / BUNDLE
        # a setting that is newer than the bundle is not in it
        return marker.is_file() and self._marker | _read_marker(folder)[0] == self._marker

    def check_in_place(self, model: object, folder: Path | None = None) -> None:
        """Check that a bundle would hold `model`, which `load` returned. Raises ValueError if its files have changed.

        A model on a hub is not checked: `bundle` fails if this machine no longer has it.
        """
        source = self.source(folder)
        origin = model.origin if isinstance(model, LoadedModel) else None
        if not Path(source).is_dir() and not is_gguf(source):
            return
        if not _identifying_files(source):
            problem = f"{source} holds none of its files. Restore them, or load the pipeline again"
        elif origin is None or origin.is_in(source):
            return
        elif source == origin.source:
            changed = "weights, config or tokenizer have changed or are missing. Restore the files, or train again"
            problem = f"{source} no longer holds the model that was loaded: {changed}"
        else:
            gone = f"{origin.source}, from which it was loaded, is gone, and {source} may hold another model"
            problem = f"{gone}. Restore the folder, or load the pipeline again"
        advice = "To save the pipe without its models, set its bundle_models = False."
        raise ValueError(f"The {self.what} {self.name!r} cannot be saved: {problem}. {advice}")

    def is_saved_in(self, target: Path, folder: Path | None = None) -> bool:
        """Whether a bundle holds what `bundle` would put there now, by the checksums that it lists."""
        source = Path(self.source(folder))
        if not is_inside(target, BUNDLE):
            return False
        if source.is_dir():
            return _read_marker(target) == (self._marker, _records(source, _model_files(source)))
        return not is_gguf(source) and self.is_bundled(target)

    def bundle(self, target: Path, folder: Path | None = None) -> None:
        """Make `target` hold the model's files; call `check_in_place` first. Raises ValueError if there is no copy."""
        source = Path(self.source(folder))
        saved = [*_read_marker(target)[1]]
        if source.is_dir():  # even if it is bundled: another pipe may have been saved there since
            names = _model_files(source)
            lost = sorted({*_model_files(source, links=True)} - {*names})
            if weights := next((name for name in lost if name.endswith(_WEIGHTS)), None):
                problem = f"{source / weights} is a link that leads out of its folder: copy the file there"
                raise ValueError(f"The {self.what} {self.name!r} cannot be saved: {problem}.")
            link_folder(source, target, names, saved)
        elif is_gguf(source):
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as temporary:
                folder = Path(temporary)
                resolve_name(self.bundler)(str(source), folder, **dict(self.settings))
                names = files_in(folder)
                link_folder(folder, target, names, saved)
        elif self.is_bundled(target):
            return
        else:
            own_folder(target)
            try:
                resolve_name(self.bundler)(self.name, target, **dict(self.settings))
            except OSError as error:
                if folder is None:
                    raise
                gone = f"{folder}, from which it was loaded, is gone, and this machine has no other copy ({error})"
                raise ValueError(f"The {self.what} {self.name!r} cannot be saved: {gone}.") from error
            names = _model_files(target)
        records = {name: asdict(record) for name, record in _records(target, names).items()}
        write_json(target / BUNDLE, self._marker | {_FILES: records}, through_links=False)


@dataclass(frozen=True)
class _Origin:
    """How a model was loaded; files: (name, bytes, time) of the identifying files in its folder then."""

    loader: str
    source: str
    device: str
    settings: Options
    files: tuple[tuple[str, int, int], ...]

    def is_in(self, source: str) -> bool:
        """Whether a folder still has these files. New ones, such as a log, make no difference."""
        return set(self.files) <= set(_identifying_files(source))


class LoadedModel:
    """A frozen model in memory. Pickling sends its name; the other process loads the model itself.

    Pickling raises ValueError if its folder has changed since. A model that no `FrozenModel` loaded is pickled whole.
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
        return _load_in_process, (origin.loader, origin.source, origin.device, origin.settings)


def _load(loader: str, source: str, device: str, settings: Options) -> Any:
    key = (loader, source, settings, device)
    with _LOCK:
        model = _LOADED.get(key)
        origin = model.origin if isinstance(model, LoadedModel) else None
        if model is None or (origin is not None and not origin.is_in(source)):
            files = _identifying_files(source)  # before loading, so that a change meanwhile is noticed
            model = resolve_name(loader)(source, device=device, **dict(settings))
            if isinstance(model, LoadedModel):
                model.origin = _Origin(loader, source, device, settings, files)
            _LOADED[key] = model
    return model


def _load_in_process(loader: str, source: str, device: str, settings: Options) -> Any:
    """Load a model that was pickled by its name, on one thread in a process of its own, to share the cores."""
    # parent_process() is not set yet while a spawned process receives its arguments
    if multiprocessing.current_process().name != "MainProcess":
        import torch

        torch.set_num_threads(1)
    return _load(loader, source, device, settings)


def _identifying_files(source: str) -> tuple[tuple[str, int, int], ...]:
    """(name, bytes, time) of the model's files in a folder, or of a GGUF file; empty for a name on a hub."""
    path = Path(source)
    # one that has none at its top is no model's, but maybe a home: it is not walked through
    is_model = path.is_dir() and any(child.name.endswith(_IDENTIFYING) for child in path.iterdir())
    names = [name for name in _model_files(path, links=True) if name.endswith(_IDENTIFYING)] if is_model else []
    if is_gguf(path) and path.is_file():
        path, names = path.parent, [path.name]
    status = [(name, (path / name).stat()) for name in names]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in status)


def is_gguf(name: str | Path) -> bool:
    """Whether a name means a GGUF file; it may not exist."""
    return Path(name).suffix.lower() == ".gguf"


def _read_marker(folder: Path) -> tuple[dict[str, Any], dict[str, FileRecord]]:
    """What a bundle says of its model, and the files that were saved there; nothing if there is none."""
    if not is_inside(folder, BUNDLE):
        return {}, {}
    try:
        marker = dict(json.loads((folder / BUNDLE).read_text(encoding="utf8")))
        records = {n: r if isinstance(r, dict) else {} for n, r in dict(marker.pop(_FILES, {})).items()}
        return marker, {n: FileRecord(r.get("bytes", -1), r.get("sha256", "")) for n, r in records.items()}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / BUNDLE} is damaged ({error}): copy the pipeline again.") from error


def bundle_problems(folder: Path, *, verify: bool = False) -> list[str]:
    """Files of a bundle that are missing or of another size; with `verify` also those with other bytes."""
    if not is_inside(folder, BUNDLE):
        return [f"{folder / BUNDLE} is missing"]
    return file_problems(folder, _read_marker(folder)[1], verify=verify)


def copy_bundle(source: Path, target: Path) -> None:
    """Make a folder hold another's bundle, which its marker says when all else of it is there."""
    names, saved = ([*_read_marker(folder)[1]] for folder in (source, target))
    link_folder(source, target, [*names, BUNDLE], saved)


def _records(folder: Path, names: Sequence[str]) -> dict[str, FileRecord]:
    """What a bundle says of its files."""
    status = {name: (folder / name).stat() for name in names}
    return {
        name: FileRecord(s.st_size, _known_sha256((folder / name).resolve(), s.st_size, s.st_mtime_ns))
        for name, s in status.items()
    }


@lru_cache(maxsize=1024)  # training saves the same models again and again
def _known_sha256(path: Path, _size: int, _time: int) -> str:
    return sha256_of(path)


def _model_files(folder: Path, *, links: bool = False) -> list[str]:
    """A model's files, without hidden files and weights in other formats than safetensors.

    `links` counts those too that lead out of the folder, which are never read or saved by this package.
    """
    names = files_in(folder)
    if links:
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = [name for name in names if name != BUNDLE and not name.endswith(_OTHER_WEIGHTS)]
    return [name for name in names if not any(part.startswith(".") for part in name.split("/"))]


def link_snapshot(name: str, folder: Path, revision: str | None = None, **_settings: Any) -> None:
    """Bundle a model of the Hugging Face hub from the local cache."""
    from huggingface_hub import snapshot_download

    snapshot = Path(snapshot_download(name, revision=revision, local_files_only=True))
    for file in _model_files(snapshot):
        link_file(snapshot / file, folder / file)


def model_lock() -> AbstractContextManager[object]:
    """Lock the frozen models, which the pipes of all threads share, since one forward pass keeps all cores busy.

    No process is forked while it is held, so that no child starts with a lock that is never released.
    """
    return _LOCK


@cache
def one_thread_in_forks() -> None:
    """Run torch on one thread in forked processes; with more threads, `nlp.pipe(n_process=2)` hangs."""
    import torch

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
        os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)


def missing_model_message(what: str, name: str, error: Exception) -> str:
    """The message for a frozen model that cannot be loaded."""
    remedy = "a name on the Hugging Face hub that this machine can reach and your login may read"
    if is_gguf(name):
        remedy = "a GGUF file of an architecture that the installed transformers reads (Llama, Mistral, Qwen2, ...)"
    problem = f"The {what} {name!r} could not be loaded ({first_line(error)})."
    return f"{problem} Give a local folder that holds it, or {remedy}."


@contextmanager
def loading(what: str, name: str) -> Iterator[None]:
    """Raise ValueError for whatever the libraries raise in the block for files that they cannot read, each its own.

    An error that means that memory ran out is passed on.
    """
    from spacy_gemel.models.memory import is_out_of_memory  # not earlier: torch

    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(missing_model_message(what, name, error)) from error


def check_weights(missing: Sequence[str], what: str, name: str, remedy: str | None = None) -> None:
    """Raise ValueError if a model's files lack weights, which transformers would initialise at random."""
    if missing:
        problem = f"lacks {len(missing)} of its weights ({missing[0]} first), which would be random"
        remedy = remedy or "give a folder or a name that holds all of them."
        raise ValueError(f"The {what} {name!r} {problem}: {remedy}")


def torch_dtype(name: str | None) -> "torch.dtype":
    """The torch type of a name in a config; float32 for None. Raises ValueError for any other name."""
    import torch

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name is not None and name not in dtypes:
        raise ValueError(f"dtype = {name!r} is not known: use one of {', '.join(dtypes)}, or null for float32.")
    return dtypes[name or "float32"]


def dtype_argument(version: str) -> str:
    """The name of transformers' dtype argument: `torch_dtype` became `dtype` in 4.56."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return "dtype" if (major, minor) >= (4, 56) else "torch_dtype"
