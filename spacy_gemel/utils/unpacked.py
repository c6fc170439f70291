"""Temporary folders of what was loaded from bytes: each goes when nothing uses it any more, and with its process."""

import os
import shutil
import tempfile
import weakref
from pathlib import Path

_LIVE: "weakref.WeakValueDictionary[Path, UnpackedFolder]" = weakref.WeakValueDictionary()


class UnpackedFolder:
    """A temporary folder that is there as long as this object is: whoever keeps a path in it keeps its `owner_of`."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="gemel_linker-")).absolute()
        self._finalizer = weakref.finalize(self, _remove, self.path, os.getpid())
        _LIVE[self.path] = self

    def remove(self) -> None:
        """Remove it now."""
        self._finalizer()

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        # a copy in this process shares it; another process has no say in how long it stays
        return owner_of, (self.path,)


def owner_of(path: Path) -> UnpackedFolder | None:
    """The unpacked folder of this process that a path lies in, or None."""
    path = path.absolute()
    return next((owner for folder in (path, *path.parents) if (owner := _LIVE.get(folder)) is not None), None)


def _remove(path: Path, process: int) -> None:
    if os.getpid() == process:  # not the copy in a process that was forked
        shutil.rmtree(path, ignore_errors=True)
