"""Threads that nobody has to wait for."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Workers(Generic[T]):
    """Calls functions in at most so many threads.

    Unlike those of concurrent.futures these threads hold up neither `close` nor the end of the program: what a thread
    may hang in (a look-up, a picture that takes long to decode) is not ours to end.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._threads: list[threading.Thread] = []
        self._calls: queue.SimpleQueue[tuple[Future[T], Callable[[], T]] | None] = queue.SimpleQueue()

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Call a function as soon as a thread is free."""
        future: Future[T] = Future()
        self._calls.put((future, function))
        if len(self._threads) < self._count:
            thread = threading.Thread(target=self._work, name=f"fetch-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def close(self) -> None:
        """Let each thread end when it is done with what it does; returns at once."""
        for _ in self._threads:
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function = call
            try:
                future.set_result(function())
            except BaseException as error:  # whoever asks for the result is told
                future.set_exception(error)
