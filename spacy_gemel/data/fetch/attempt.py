"""The time that one request may take, and the way to end it from another thread wherever it waits."""

import socket
import threading
import time
from contextlib import suppress
from types import TracebackType

from spacy_gemel.data.fetch.outcomes import Failed, GivenUp

_OF_THREAD = threading.local()


def current() -> "Attempt":
    """The attempt that this thread is making. Raises RuntimeError where it makes none."""
    attempt: Attempt | None = getattr(_OF_THREAD, "attempt", None)
    if attempt is None:
        raise RuntimeError("a connection of fetch/ was used outside of an attempt")
    return attempt


class Attempt:
    """One request, from the look-up of its host to the last byte of its body, as a with block.

    A socket's own timeout counts from the last byte, so that a server that sends one byte every few seconds is waited
    for without an end, in the handshake, the headers or the body. Here a timer shuts the socket instead, which wakes
    whoever reads from it; what that looks like to the reader (mostly like an end) says nothing: ask `over`.
    """

    def __init__(self, seconds: float, allow_private: bool = False) -> None:
        self.seconds = seconds
        self.allow_private = allow_private
        self.over: Failed | None = None
        self._whole = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._end = 0.0
        late = Failed("too slow", f"not done after {seconds:g} s", again=True)
        self._timer = threading.Timer(seconds, self.cut, [late])
        self._timer.daemon = True

    def __enter__(self) -> "Attempt":
        self._end = time.monotonic() + self.seconds
        _OF_THREAD.attempt = self
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        _OF_THREAD.attempt = None
        with self._lock:
            self._forget()

    def cut(self, why: Failed) -> None:
        """End the request now, from any thread; nothing happens once the body is whole."""
        with self._lock:
            if self.over is None and not self._whole:
                self.over = why
                if self._socket is not None:
                    with suppress(OSError):  # it was not connected yet, or no longer
                        self._socket.shutdown(socket.SHUT_RDWR)

    def watch(self, connection: int) -> None:
        """Name the socket, by its file descriptor, that the request goes through. Raises GivenUp.

        A duplicate of the descriptor is kept: TLS takes a socket away from its object, and a number may be used again.
        """
        with self._lock:
            if self.over is not None:
                raise GivenUp(self.over)
            self._forget()
            self._socket = socket.fromfd(connection, socket.AF_INET, socket.SOCK_STREAM)  # any family: only to be shut

    def left(self) -> float:
        """Seconds that are left. Raises GivenUp where none are."""
        left = self._end - time.monotonic()
        if self.over is not None or left <= 0:
            raise GivenUp(self.over or Failed("too slow", f"not done after {self.seconds:g} s", again=True))
        return left

    def whole(self) -> None:
        """The body has come: from here on nothing is waited for. Raises GivenUp where its end was a cut."""
        with self._lock:
            if self.over is not None:
                raise GivenUp(self.over)
            self._whole = True

    def _forget(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
