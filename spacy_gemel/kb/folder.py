"""Folders that are written whole or not at all, and the work folder that an interrupted build goes on from."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from spacy_gemel.kb.errors import KBError

_LOCK = "lock"
_OLD = "old"


def work_path(target: Path) -> Path:
    """Where the work folder of a target lies: beside it, so that a rename can put its content in place."""
    return target.with_name(f".{target.name}.building")


@contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """The work folder of a target, held by this build alone where the file system has locks.

    It goes when the block ends well or by a KBError, which the same input would only raise again, and with it what
    ``Replacement`` has left there of the old folder. After any other error, an interrupt included, what the block has
    put there stays for the next build.

    Raises KBError where another build holds it, and OSError.
    """
    work = work_path(target)
    with _held(work, target):
        for left in work.parent.glob(f"{glob.escape(_aside(target))}*"):
            shutil.rmtree(left, ignore_errors=True)
        if (work / _OLD).exists() and not target.exists():
            (work / _OLD).rename(target)  # a build was killed just while it put its folder in place
        done = False
        try:
            yield work
            done = True
        except KBError:
            done = True
            raise
        finally:
            if done or {path.name for path in work.iterdir()} <= {_LOCK}:
                _remove(work, target)


def _aside(target: Path) -> str:
    return f".{target.name}.removed-"


def _remove(work: Path, target: Path) -> None:
    """Delete the work folder. First it gets another name: a build that starts now makes one of its own."""
    aside = work.with_name(f"{_aside(target)}{os.getpid()}")
    try:
        work.rename(aside)
    except OSError:  # Windows, where the lock is open
        aside = work
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _held(work: Path, target: Path) -> Iterator[None]:
    """Make the work folder and lock it; the lock of a process that is killed goes with it."""
    while True:
        work.mkdir(parents=True, exist_ok=True)
        try:
            lock = (work / _LOCK).open("a")
        except FileNotFoundError:  # whoever held it has just removed it
            continue
        with lock:
            if not _lock(lock, target):
                continue
            yield
            return


def _lock(lock: IO[str], target: Path) -> bool:
    """Lock the file until it is closed; False where it has been removed since it was opened.

    Where there is no flock (Windows, some network file systems) nothing is locked. Raises KBError where another
    process holds it.
    """
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"Another build is writing {target}: wait until it has ended, or give another folder"
            raise KBError(message) from None
        except OSError:
            return True  # a file system without locks
    try:
        return os.path.samestat(os.fstat(lock.fileno()), Path(lock.name).stat())
    except FileNotFoundError:
        return False


class Replacement:
    """Writes a folder that takes the place of ``target`` whole or not at all.

    target: where it is to be, symbolic links resolved. files: what a folder may hold that is replaced; raises KBError
    if there is anything else, if it is a file, or a mount point, which cannot be moved.
    """

    def __init__(self, target: Path, files: Collection[str]) -> None:
        self.target = target
        self.files = frozenset(files)
        self.done = False
        """Whether the new folder is in its place."""
        self._check()

    def _check(self) -> None:
        if os.path.ismount(self.target):
            raise KBError(f"{self.target} is a mount point, which cannot be replaced: give a folder inside of it")
        if self.target.is_dir():
            others = sorted({path.name for path in self.target.iterdir()} - self.files)
            if others:
                raise KBError(f"{self.target} holds {others[0]}, which is no part of a KB: give another folder")
        elif self.target.exists():
            raise KBError(f"{self.target} is a file: give a folder")

    @contextmanager
    def written(self, work: Path) -> Iterator[Path]:
        """A new folder in ``work``, which takes the target's place at the end, once the disk has all of it.

        The old folder is then at ``work / "old"``; it goes with the work folder, or when the next build begins.
        On any error, an interrupt included, the new folder is removed and the target stays as it was. Processes
        that have files of the old target mapped keep them. Raises OSError, also where the target by now holds what
        would be lost.
        """
        new, old, target = work / "new", work / _OLD, self.target
        for left in (new, old):
            if left.exists():
                shutil.rmtree(left)
        new.mkdir()
        try:
            yield new
            for path in new.iterdir():
                _sync(path)
            _sync(new)
            try:
                self._check()  # the build may have taken hours
            except KBError as error:
                raise FileExistsError(str(error)) from error
            try:
                if target.exists():
                    target.rename(old)
                new.rename(target)
            except BaseException:
                if old.exists() and not target.exists():
                    old.rename(target)
                raise
            # else the old folder could be gone from the disk, and the new one not yet there
            _sync(work)
            _sync(target.parent)
        finally:
            self.done = not new.exists()
            shutil.rmtree(new, ignore_errors=True)


def _sync(path: Path) -> None:
    """Have the disk hold a file's bytes, or the names in a folder. Raises OSError."""
    folder = path.is_dir()
    if folder and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        # some file systems do not take folders
        if not folder or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
