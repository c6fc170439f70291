"""Read a source file in order, compressed or not, with bounded memory, and notice if it is cut off."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm.utils import CallbackIOWrapper

CHUNK = 2**20  # bytes, at most

_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_UNSUPPORTED = {b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip", b"7z\xbc\xaf": "7z"}


class CutOffError(ValueError):
    """A source that ends too early or is damaged; the message says how far it was read."""


class Archive:
    """One source file, plain or compressed; `advance` is called with each number of bytes read from the disk."""

    def __init__(self, path: Path, advance: Callable[[int], object] = lambda n: None) -> None:
        self.path = path
        self._advance = advance
        self._bytes_read = 0

    def chunks(self) -> Iterator[bytes]:
        """Yield the content in chunks of at most CHUNK bytes, never empty.

        Raises:
            CutOffError: after all readable content, if the file is cut off or damaged.
            ValueError: if the file is compressed in another way.
            OSError: if the file cannot be read.
        """
        with self.path.open("rb") as raw:
            beginning = raw.peek(6)  # no seek: it may be a pipe
            for magic, name in _UNSUPPORTED.items():
                if beginning.startswith(magic):
                    raise ValueError(f"{self.path} is compressed with {name}: unpack it, or use gzip, bzip2 or xz")
            opener = next((opener for magic, opener in _OPENERS.items() if beginning.startswith(magic)), None)
            if opener is None:
                if self.path.suffix in (".gz", ".bz2", ".xz"):
                    raise self.cut_off(f"it does not begin as a {self.path.suffix} file does")
                while chunk := raw.read1(CHUNK):  # read would wait until a pipe has as much
                    self._count(len(chunk))
                    yield chunk
                return
            with opener(CallbackIOWrapper(self._count, raw)) as file:
                try:
                    while chunk := file.read1(CHUNK):  # read would lose what precedes the damage
                        yield chunk
                except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
                    raise self.cut_off(str(error)) from error

    def lines(self, longest: int) -> Iterator[tuple[int, bytes | None]]:
        """Yield each line without its end, and its number from 1; None for a line of more than `longest` bytes."""
        number, rest, skipping = 1, b"", False
        for chunk in self.chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield number, None if skipping or len(line) > longest else line.removesuffix(b"\r")
                number, skipping = number + 1, False
            if len(rest) > longest:
                rest, skipping = b"", True
        if rest or skipping:
            yield number, None if skipping else rest.removesuffix(b"\r")

    def cut_off(self, problem: str) -> CutOffError:
        """Make the error that says how far the file was read."""
        return CutOffError(
            f"{self.path} is cut off or damaged ({problem}): read {self._bytes_read:,} of its "
            f"{self.path.stat().st_size:,} bytes. Get it again, or use what there is with --keep-going"
        )

    def _count(self, number: int) -> None:
        self._bytes_read += number
        self._advance(number)
