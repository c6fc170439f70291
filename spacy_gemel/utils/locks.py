"""One process at a time in a folder that is written to over hours."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(lock: Path, message: str) -> Iterator[int]:
    """Hold a lock file for the length of a with block, which gets its descriptor; the lock of a process that is killed
    goes with it. A command that is started with the descriptor (`pass_fds`) holds the lock as long as it lives.

    The file stays: taking it away would let a third process lock another one. Raises ValueError with the message
    where another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(message) from None
            except OSError:
                pass  # a file system without locks
        yield file.fileno()
