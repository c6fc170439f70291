"""Ctrl-C where it is waited for: between two lines of bookkeeping it would lose what has just come."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType


class Interrupts:
    """A with block in which an interrupt is put off until `heard`; a second one is raised wherever it comes.

    Changes nothing where somebody else handles interrupts, or outside of the main thread, which they do not reach.
    """

    def __init__(self) -> None:
        self._listening = False
        self._noted = False
        self._ours = False

    def __enter__(self) -> "Interrupts":
        main = threading.current_thread() is threading.main_thread()
        self._ours = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._ours:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if self._noted and kind is None:
                raise KeyboardInterrupt

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Interrupts are raised in here, the one that was put off before all."""
        self._listening = True
        try:
            if self._noted:
                self._noted = False
                raise KeyboardInterrupt
            yield
        finally:
            self._listening = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._listening or self._noted:
            self._noted = False
            raise KeyboardInterrupt
        self._noted = True
