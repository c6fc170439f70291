"""Folders that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from spacy_gemel.kb.errors import KBError


def check_replaceable(target: Path, files: Collection[str]) -> None:
    """Raise KBError if ``target`` exists and holds anything but ``files``: it would be lost."""
    if target.is_dir():
        others = sorted({path.name for path in target.iterdir()} - set(files))
        if others:
            raise KBError(f"{target} holds {others[0]}, which is no part of a KB: give another folder")
    elif target.exists():
        raise KBError(f"{target} is a file: give a folder")


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A new folder beside the target, which takes the target's place at the end.

    On any error, an interrupt included, the new folder is removed and the target stays as it was. Processes
    that have files of the old target mapped keep them. Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    mark = f"{os.getpid()}-{secrets.token_hex(4)}"
    folder = target.with_name(f".{target.name}.building-{mark}")
    old = target.with_name(f".{target.name}.replaced-{mark}")
    folder.mkdir()
    try:
        yield folder
        if target.exists():
            target.rename(old)
        try:
            folder.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
