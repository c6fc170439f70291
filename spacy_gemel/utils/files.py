"""Where a path named in a config lies, and how a file or folder is put in its place whole."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def config_folder() -> Path | None:
    """The folder of the config named on the command line (`spacy train configs/mini.cfg`), or None.

    spaCy does not tell a component where its config was read from; the command line does.
    """
    for argument in sys.argv[1:]:
        if argument.endswith(".cfg") and Path(argument).is_file():
            return Path(argument).resolve().parent
    return None


def resolve(path: str | os.PathLike[str], bases: Sequence[Path | None] = ()) -> Path:
    """The first place where a relative path exists: the given bases, the config's folder, the working folder.

    A path that exists nowhere is returned as the working folder has it, so that an error can name it.
    """
    given = Path(path).expanduser()
    if given.is_absolute():
        return given
    for base in (*bases, config_folder(), Path.cwd()):
        if base is not None and (base / given).exists():
            return (base / given).resolve()
    return given.absolute()


def link_file(source: Path, target: Path) -> None:
    """Put a file at target without writing its bytes again where the file system allows a hard link."""
    if target.exists():
        if target.samefile(source):
            return
        target.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without hard links
        partial = target.with_name(target.name + ".partial")
        shutil.copy2(source, partial)  # with its time, by which a model's files are known
        partial.replace(target)


def link_folder(source: Path, target: Path, names: Sequence[str], keep: Sequence[str] = ()) -> None:
    """Make target hold exactly the named files (paths relative to source), hard-linked where possible.

    keep: files of the target that stay. Nothing is done where source and target are one folder.
    Raises FileNotFoundError, before anything is done, for a file that is not in source.
    """
    for name in names:
        if not (source / name).is_file():
            raise FileNotFoundError(f"{target} cannot be written: {source / name} is not there (any more)")
    if source.resolve() == target.resolve():
        return
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        link_file(source / name, target / name)
    wanted = {*names, *keep}
    for path in list(target.rglob("*")):
        if path.is_file() and path.relative_to(target).as_posix() not in wanted:
            path.unlink()


def files_in(folder: Path) -> list[str]:
    """The files below a folder, as sorted relative POSIX paths."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and goes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        os.chmod(partial, 0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def pack_folder(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Some files below a folder as {relative path: bytes}."""
    return {name: (folder / name).read_bytes() for name in names}


def unpack_folder(files: dict[str, bytes], folder: Path) -> Path:
    """Write what `pack_folder` read. Raises ValueError for a path that leads out of the folder."""
    for name, content in files.items():
        target = folder / name
        if not target.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"A packed file would be written outside its folder: {name!r}.")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return folder
