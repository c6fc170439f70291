"""Read a source file in order, compressed or not, with bounded memory, and notice if it is cut off."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

CHUNK = 2**20
"""Bytes of a chunk, about."""

_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_UNSUPPORTED = {b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip", b"7z\xbc\xaf": "7z"}


class CutOffError(ValueError):
    """A source that ends too early or is damaged; the message says how far it was read."""


class Archive:
    """One source file; its first bytes tell whether it is compressed with gzip, bzip2 or xz.

    Args:
        path: the file, which may be a pipe.
        advance: is called with the number of bytes that were read from the disk.
    """

    def __init__(self, path: Path, advance: Callable[[int], object] = lambda n: None) -> None:
        self.path = path
        self._advance = advance
        self._bytes_read = 0

    def chunks(self) -> Iterator[bytes]:
        """Yield the content in chunks of about CHUNK bytes, never empty.

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
            source = _Counted(raw, self._count)
            opener = next((opener for magic, opener in _OPENERS.items() if beginning.startswith(magic)), None)
            if opener is None and self.path.suffix in (".gz", ".bz2", ".xz"):
                raise self.cut_off(f"it does not begin as a {self.path.suffix} file does")
            if opener is None:
                while chunk := source.read(CHUNK):
                    yield chunk
                return
            pieces, size, problem = [], 0, None
            with opener(source) as file:
                while problem is None:
                    try:
                        piece = file.read1(CHUNK)
                    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
                        piece, problem = b"", error
                    pieces.append(piece)
                    size += len(piece)
                    if size >= CHUNK or (size and not piece):
                        yield b"".join(pieces)
                        pieces, size = [], 0
                    if not piece:
                        break
            if problem is not None:
                raise self.cut_off(str(problem)) from problem

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


class _Counted:
    """A file whose bytes are counted as they are read."""

    def __init__(self, file: BufferedReader, count: Callable[[int], None]) -> None:
        self._file = file
        self._count = count

    def read(self, size: int) -> bytes:
        content = self._file.read1(size)  # not read, which waits until a pipe has as much
        self._count(len(content))
        return content
