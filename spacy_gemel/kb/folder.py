"""Folders that are written whole or not at all, and the work folder from which an interrupted build resumes."""

import errno
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from spacy_gemel.kb.entity import KBError
from spacy_gemel.utils.files import lock_file

_LOCK = "lock"
_OLD = "old"


def work_path(target: Path) -> Path:
    """The work folder of a target: beside it, so that a rename can put its content in place."""
    return target.with_name(f".{target.name}.building")


@contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """The work folder of a target, locked for this build.

    It is removed, with the old folder that ``Replacement`` moved there, when the block ends well or with a KBError: the
    same input would only raise it again. After any other error its content stays for the next build.
    Raises KBError if another build has locked it, and OSError.
    """
    work = work_path(target)
    with _locked(work, target):
        for path in work.parent.glob(f"{glob.escape(work.stem)}.removed-*"):
            shutil.rmtree(path, ignore_errors=True)
        if (work / _OLD).exists() and not target.exists():
            (work / _OLD).rename(target)  # a build was killed just while it put its folder in place
        try:
            yield work
        except BaseException as error:
            if isinstance(error, KBError) or {path.name for path in work.iterdir()} <= {_LOCK}:
                _remove(work)
            raise
        _remove(work)


def _remove(work: Path) -> None:
    """Rename the work folder, then delete it: a build that starts meanwhile makes a new one."""
    removed = work.with_name(f"{work.stem}.removed-{os.getpid()}")
    try:
        work.rename(removed)
    except OSError:  # Windows, while the lock is open
        removed = work
    shutil.rmtree(removed, ignore_errors=True)


@contextmanager
def _locked(work: Path, target: Path) -> Iterator[None]:
    """Create the work folder and hold its lock. Raises KBError if another process holds it."""
    message = f"Another build is writing {target}: wait until it has ended, or give another folder"
    while True:
        with ExitStack() as stack:
            try:
                descriptor = stack.enter_context(lock_file(work / _LOCK, message))
                is_current = os.path.samestat(os.fstat(descriptor), (work / _LOCK).stat())
            except FileNotFoundError:  # the previous holder has just removed the folder
                continue
            except ValueError as error:
                raise KBError(str(error)) from None
            if is_current:
                yield
                return


class Replacement:
    """Replaces the folder `target` (no symbolic link) by a new one, whole or not at all; `done` once it is in place.

    Raises KBError if the target holds anything but `files`, is a file, or is a mount point, which cannot be renamed.
    """

    def __init__(self, target: Path, files: set[str]) -> None:
        self.target, self.files, self.done = target, files, False
        self._check()

    def _check(self) -> None:
        if os.path.ismount(self.target):
            raise KBError(f"{self.target} is a mount point, which cannot be replaced: give a folder inside of it")
        if self.target.is_dir():
            if unknown := sorted({path.name for path in self.target.iterdir()} - self.files):
                raise KBError(f"{self.target} holds {unknown[0]}, which is no part of a KB: give another folder")
        elif self.target.exists():
            raise KBError(f"{self.target} is a file: give a folder")

    @contextmanager
    def written(self, work: Path) -> Iterator[Path]:
        """A new folder in `work`, which replaces the target once everything is on the disk.

        The old folder is moved to ``work / "old"``. On any error, an interrupt included, the new folder is removed and
        the target stays as it was. Processes that have files of the old folder mapped keep them.
        Raises OSError if the disk fails, or if the target now holds something that would be lost.
        """
        new, old, target = work / "new", work / _OLD, self.target
        for path in (new, old):
            if path.exists():
                shutil.rmtree(path)
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
            # otherwise the old folder could be gone from the disk before the new one is there
            _sync(work)
            _sync(target.parent)
        finally:
            self.done = not new.exists()
            shutil.rmtree(new, ignore_errors=True)


def _sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk. Raises OSError."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some file systems cannot flush folders
        if not is_folder or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
