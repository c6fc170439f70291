"""What one request may take, and what can come of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may take.

    user_agent: as sent. max_bytes: a longer body is left where it is. timeout: seconds to connect, and without a byte.
    max_seconds: for all of it, from the look-up of the host to the last byte. allow_private: ask hosts in private
    networks and on this machine, too.
    """

    user_agent: str
    max_bytes: int
    timeout: float
    max_seconds: float
    allow_private: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """The image lies in the folder under this name."""

    file: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Redirected:
    """The server sends on to another URL."""

    url: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Why there is no image. reason: what it is counted under.

    again: another try may do. wait: seconds that the server asks to be left alone. busy: it says it is asked too much.
    """

    reason: str
    detail: str = ""
    again: bool = False
    wait: float | None = None
    busy: bool = False


Outcome = Stored | Redirected | Failed


class GivenUp(Exception):
    """A request that is not gone on with, from wherever in it that is found out."""

    def __init__(self, why: Failed) -> None:
        super().__init__(why.reason, why.detail)
        self.why = why


class CannotStore(OSError):
    """The folder cannot be written, which no other URL would change."""


def unexpected(error: Exception) -> Failed:
    """What nobody has thought of, told for its URL alone."""
    return Failed("an unexpected error", f"{type(error).__name__}: {one_line(error)}")


def one_line(error: Exception) -> str:
    """An error's message for a list of failures."""
    return " ".join(str(error).split())[:300]
