"""Files and folders: found from a config, written whole or not at all, locked, linked, packed."""

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from filelock import lock_descriptor

MAX_LINE = 2**24
"""Bytes of the longest line that is read: a file without line breaks must not fill the memory."""


def resolve(path: str | os.PathLike[str], bases: Sequence[Path | None] = ()) -> Path:
    """A path, if it is relative from the first folder that has it: `bases`, the config's, the working folder.

    A path that exists nowhere is returned as in the working folder, so that an error can name it.
    """
    path = Path(path)
    with suppress(RuntimeError, ValueError):  # there is no such user
        path = path.expanduser()
    # spaCy does not tell a component where its config was read from; the command line (`spacy train mini.cfg`) does
    configs = (Path(argument) for argument in sys.argv[1:] if argument.endswith(".cfg"))
    config_folder = next((config.resolve().parent for config in configs if config.is_file()), None)
    for base in () if path.is_absolute() else (*bases, config_folder, Path.cwd()):
        if base is not None and (base / path).exists():
            return (base / path).resolve()
    return path.absolute()


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """The bytes of a regular file.

    Raises:
        OSError: if there is none, if it is a folder, a pipe or a device, which is not waited for, or larger than the
            limit in bytes; its `strerror` says so.
    """
    status = Path(path).stat()  # not opened blindly: that alone may wait for a writer, or move a tape
    if stat.S_ISREG(status.st_mode):
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
        with open(os.open(path, flags), "rb") as file:  # noqa: PTH123
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_size <= limit:
                return file.read(status.st_size)
    if stat.S_ISREG(status.st_mode):
        raise OSError(errno.EFBIG, f"has {status.st_size} bytes, and at most {limit} are read", os.fspath(path))
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder", os.fspath(path))
    raise OSError(errno.EINVAL, "is no regular file but a pipe or a device", os.fspath(path))


_NO_TEXT = {
    b"\xff\xfe": "is UTF-16: save it as UTF-8",
    b"\xfe\xff": "is UTF-16: save it as UTF-8",
    b"\x1f\x8b": "is packed by gzip, which its name does not say: unpack it",
    b"PK\x03\x04": "is a zip file: unpack it",
    b"BZh": "is packed by bzip2, which its name does not say: unpack it",
    b"\xfd7zXZ": "is packed by xz, which its name does not say: unpack it",
    b"\x28\xb5\x2f\xfd": "is packed by zstd: unpack it",
    b"PAR1": "is a Parquet file: let its name end in .parquet",
}


def check_text(start: bytes, name: object, *, json_lines: bool = False) -> None:
    """Raise ValueError if a file begins as no text in UTF-8 does, or not as JSON lines do.

    Args:
        start: The file's first line, or some of it.
        name: The file's.
        json_lines: Whether each line must be an object.
    """
    for magic, problem in _NO_TEXT.items():
        if start.startswith(magic):
            raise ValueError(f"{name} {problem}")
    if json_lines and start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        raise ValueError(f"{name} is a JSON array: write one object per line, as `jq -c '.[]'` does")


def read_lines(file: IO[bytes], *, json_lines: bool = False) -> Iterator[bytes]:
    """The lines of a file, of one that is longer than MAX_LINE only so much and a byte: a packed one may never end.

    Raises ValueError: if it is no text; see `check_text`.
    """
    is_first = True
    while line := file.readline(MAX_LINE + 1):
        if is_first:
            check_text(line, getattr(file, "name", "the input"), json_lines=json_lines)
            is_first = False
        rest = line
        while len(line) > MAX_LINE and rest and not rest.endswith(b"\n"):
            rest = file.readline(2**20)
        yield line


def unpacked_limit(size: int) -> int:
    """How many bytes a packed file of so many may unpack to; text shrinks to a tenth, and zeros to a thousandth."""
    return max(2**30, 100 * size)


def link_file(source: Path, target: Path) -> None:
    """Put a file at target, as a hard link if the file system allows it, else as a copy; never half of one."""
    if target.exists() and target.samefile(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)  # what a killed process left there may be the source itself
    try:
        os.link(source.resolve(), partial)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, partial)  # with its time, by which a model's files are known
    partial.replace(target)


def link_folder(source: Path, target: Path, names: Sequence[str], saved: Sequence[str] = ()) -> None:
    """Make target hold the named files (paths relative to source), hard-linked if possible.

    Of what else is there, only the files go that `saved` names, the list of an earlier save. Links in the place of
    target and of its folders are replaced: nothing is written or deleted where they lead. Nothing is done if source and
    target are the same folder. Raises FileNotFoundError, before anything is done, for a file that is not in source.
    """
    for name in names:
        if not is_inside(source, name):
            raise FileNotFoundError(f"{target} cannot be written: {source / name} is not there (any more)")
    if source.resolve() == target.resolve():
        return
    for folder in dict.fromkeys([target, *(target / each for name in names for each in _folders_of(name))]):
        own_folder(folder)
    for name in names:
        link_file(source / name, target / name)
    for name in {*saved} & {*files_in(target)} - {*names}:
        (target / name).unlink()


def remove_folder(folder: Path) -> None:
    """Remove a folder with what is in it, or a link in its place; nothing where that leads, or if there is none."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.is_dir():
        shutil.rmtree(folder)


def own_folder(folder: Path) -> None:
    """Make a folder, in the place of a link if there is one: nothing is written where that leads."""
    if folder.is_symlink():
        folder.unlink()
    folder.mkdir(parents=True, exist_ok=True)


def _folders_of(name: str) -> list[str]:
    """The folders that a relative path leads through, the outermost first."""
    return [parent.as_posix() for parent in reversed(PurePosixPath(name).parents)][1:]


def files_in(folder: Path) -> list[str]:
    """The files below a folder that are `is_inside`, as sorted relative POSIX paths."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return sorted(name for name in names if is_inside(folder, name))


def visible_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files below a folder whose names end so, sorted; what is hidden or no regular file is no data."""
    paths = (path for path in folder.rglob("*") if path.name.endswith(suffixes) and path.is_file())
    return sorted(p for p in paths if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def is_inside(folder: Path, name: str) -> bool:
    """Whether a relative path is a regular file in a folder. A link is one only if it leads to a file in the folder.

    In a snapshot of the Hugging Face hub, all files are links to others of its repository.
    """
    root, path = folder.resolve(), folder / name
    root = root.parent.parent if root.parent.name == "snapshots" else root
    return path.is_file() and path.resolve().is_relative_to(root)


@contextmanager
def write_whole(path: Path, *, through_links: bool = True) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it at the end of the block, or is removed if the block fails.

    A file that is replaced keeps its mode; the umask decides that of a new one. A link stays, and the file that it
    leads to is written, but in a folder that may be a stranger's: there `through_links` must be False.

    Raises:
        OSError: at once, if a folder, a device or a pipe is there, which would be lost.
    """
    path = path.resolve() if through_links and path.is_symlink() else path
    mode = path.stat().st_mode if path.exists() else None
    if mode is not None and not stat.S_ISREG(mode):
        raise OSError(errno.EEXIST, "is no regular file, and is not replaced: name another output", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield partial
        if mode is not None:
            partial.chmod(stat.S_IMODE(mode))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def pack_folder(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Some files below a folder as {relative path: bytes}. Raises FileNotFoundError for one that is not in it."""
    if outside := [name for name in names if not is_inside(folder, name)]:
        raise FileNotFoundError(f"{folder / outside[0]} is not there, or is a link that leads out of its folder")
    return {name: (folder / name).read_bytes() for name in names}


def unpack_folder(files: dict[str, bytes], folder: Path) -> None:
    """Write what `pack_folder` read. Raises ValueError for a path that leads out of the folder."""
    for name, content in files.items():
        target = folder / name
        if not target.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"A packed file would be written outside its folder: {name!r}.")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def write_json(path: Path, content: Any, *, through_links: bool = True) -> None:
    """Write plain values as indented JSON, whole or not at all; see `write_whole`."""
    with write_whole(path, through_links=through_links) as partial:
        partial.write_bytes(to_json(content) + b"\n")


def to_json(content: Any) -> bytes:
    """Plain values as indented JSON, every number as it is."""
    return json.dumps(content, indent=2, ensure_ascii=False).encode("utf8")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Size in bytes and SHA-256 of one file."""

    bytes: int
    sha256: str


def file_problems(folder: Path, records: Mapping[str, FileRecord], *, verify: bool = False) -> list[str]:
    """Listed files that are missing or of another size; with `verify`, also those with changed bytes."""
    problems = []
    for name, record in records.items():
        path = folder / name
        try:
            if not path.exists():
                problems.append(f"{path} is missing")
            elif not is_inside(folder, name):
                problems.append(f"{path} is a link that leads out of its folder, or no regular file")
            elif (size := path.stat().st_size) != record.bytes:
                problems.append(f"{path} has {size} bytes instead of {record.bytes}")
            elif verify and sha256_of(path) != record.sha256:
                problems.append(f"{path} does not match its checksum: its bytes have changed")
        except OSError as error:
            problems.append(f"{path} cannot be read: {error}")
    return problems


def digest(*values: Any) -> str:
    """SHA-256, in hex, of some plain values as canonical JSON."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


@contextmanager
def lock_file(lock: Path, message: str) -> Iterator[int]:
    """Hold a lock file for the length of a with block, which gets its descriptor.

    The lock of a killed process goes with it. On Unix a command started with the descriptor (`pass_fds`) holds the lock
    as long as it lives. The file stays: removing it would let a third process lock another one.

    Raises:
        ValueError: with `message`, if another process holds the lock.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        locked = True
        with suppress(OSError):  # a file system without locks
            locked = lock_descriptor(file.fileno(), blocking=False)
        if not locked:
            raise ValueError(message)
        yield file.fileno()  # closed at the end, not unlocked: a command's copy still holds the lock


class TemporaryFolder:
    """A temporary folder that lives as long as this object: keep `folder_owner(path)` along with a path in it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="gemel_linker-")).absolute()
        self._finalizer = weakref.finalize(self, _remove_folder, self.path, os.getpid())
        _FOLDERS[self.path] = self

    def remove(self) -> None:
        """Remove it now."""
        self._finalizer()

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        # A copy in this process shares the folder; another process has no say in how long it stays.
        return folder_owner, (self.path,)


_FOLDERS: "weakref.WeakValueDictionary[Path, TemporaryFolder]" = weakref.WeakValueDictionary()


def folder_owner(path: Path) -> TemporaryFolder | None:
    """The temporary folder of this process that a path lies in, or None."""
    path = path.absolute()
    return next((owner for folder in (path, *path.parents) if (owner := _FOLDERS.get(folder)) is not None), None)


def _remove_folder(path: Path, process: int) -> None:
    if os.getpid() == process:  # not the copy in a forked process
        shutil.rmtree(path, ignore_errors=True)
