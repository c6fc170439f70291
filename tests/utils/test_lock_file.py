"""One process at a time works in a folder, and a command that it started keeps the lock."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from spacy_gemel.utils import files
from spacy_gemel.utils.files import lock_file


def is_locked(lock: Path) -> bool:
    try:
        with lock_file(lock, "busy"):
            return False
    except ValueError as error:
        assert str(error) == "busy"
        return True


def test_a_lock_is_held_to_the_end_of_its_block_and_its_file_stays(tmp_path: Path) -> None:
    lock = tmp_path / "new" / ".lock"
    with lock_file(lock, "no"):
        assert is_locked(lock)
    inode = lock.stat().st_ino
    assert not is_locked(lock)
    assert lock.stat().st_ino == inode


@pytest.mark.skipif(sys.platform == "win32", reason="a command inherits no lock there")
def test_a_command_with_the_descriptor_holds_the_lock_as_long_as_it_lives(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with lock_file(lock, "no") as descriptor:
        command = [sys.executable, "-c", "input()"]
        child = subprocess.Popen(command, pass_fds=(descriptor,), stdin=subprocess.PIPE)
    assert is_locked(lock)
    child.communicate(b"\n")
    assert not is_locked(lock)


def test_a_file_system_without_locks_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, *, blocking: bool) -> bool:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(files, "lock_descriptor", refuse)
    with lock_file(tmp_path / ".lock", "no"):
        assert not is_locked(tmp_path / ".lock")
