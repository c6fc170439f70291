"""Folders that are written whole or not at all, and the work folder that an interrupted build goes on from."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from spacy_gemel.kb.errors import KBError

_LOCK = "lock"


def check_replaceable(target: Path, files: Collection[str]) -> None:
    """Raise KBError if ``target`` exists and holds anything but ``files``: it would be lost."""
    if target.is_dir():
        others = sorted({path.name for path in target.iterdir()} - set(files))
        if others:
            raise KBError(f"{target} holds {others[0]}, which is no part of a KB: give another folder")
    elif target.exists():
        raise KBError(f"{target} is a file: give a folder")


def work_path(target: Path) -> Path:
    """Where the work folder of a target lies: beside it, so that a rename can put its content in place."""
    return target.with_name(f".{target.name}.building")


@contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """The work folder of a target, held by this build alone.

    It goes when the block ends well or by a KBError, which the same input would only raise again. After any other
    error, an interrupt included, what the block has put there stays for the next build.

    Raises KBError where another build holds it, and OSError.
    """
    work = work_path(target)
    work.mkdir(parents=True, exist_ok=True)
    with (work / _LOCK).open("a") as lock:
        _hold(lock, target)
        done = False
        try:
            yield work
            done = True
        except KBError:
            done = True
            raise
        finally:
            if done or {path.name for path in work.iterdir()} <= {_LOCK}:
                shutil.rmtree(work, ignore_errors=True)


def _hold(lock: IO[str], target: Path) -> None:
    """Lock the file until it is closed; the lock of a process that is killed goes with it."""
    held = True
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # whoever held it may have removed it since it was opened here
            held = os.path.samestat(os.fstat(lock.fileno()), Path(lock.name).stat())
        except (BlockingIOError, FileNotFoundError):
            held = False
        except OSError:
            pass  # a file system without locks
    if not held:
        raise KBError(f"Another build is writing {target}: wait until it has ended, or give another folder")


@contextmanager
def written_whole(target: Path, work: Path) -> Iterator[Path]:
    """A new folder in ``work``, which takes the target's place at the end.

    On any error, an interrupt included, the new folder is removed and the target stays as it was. Processes
    that have files of the old target mapped keep them. Raises OSError.
    """
    new, old = work / "new", work / "old"
    if old.exists() and not target.exists():
        old.rename(target)  # a build was killed just while it put its folder in place
    for left in (new, old):
        if left.exists():
            shutil.rmtree(left)
    new.mkdir()
    try:
        yield new
        try:
            if target.exists():
                target.rename(old)
            new.rename(target)
        except BaseException:
            if old.exists() and not target.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
