"""What a long benchmark keeps: one process at each thing. Keys and files are those of the package's experiments."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from benchmarks.running import say
from research.grid.keeping import digest, kept, write_json

__all__ = ["alone", "digest", "kept", "write_json"]


@contextmanager
def alone(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Keep other processes from what is made at `path` meanwhile; a process that dies lets go.

    The lock lies beside it, at `path`.lock, and stays. Says so where it has to wait for another process; raises
    filelock.Timeout there if it shall not wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise
        say(f"waiting for another process, which is at {path.name}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
