"""What another process gets, sent as multiprocessing sends it to a worker."""

from multiprocessing import Pipe
from typing import Any


class Sent:
    """A small object on its way: it is received whenever `receive` is called, each time anew.

    size: bytes that went through the pipe.
    """

    def __init__(self, thing: Any) -> None:
        here, there = Pipe()
        here.send(thing)
        self._content = there.recv_bytes()
        self.size = len(self._content)

    def receive(self) -> Any:
        """The object as the other process has it. Raises what making it raises."""
        here, there = Pipe()
        here.send_bytes(self._content)
        return there.recv()
