"""Reading a source file in order, packed or not, with bounded memory, and knowing whether it ended where it should."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Protocol

_RAW = 2**18
BLOCK = 2**20
"""Bytes of a block, unpacked, at most."""

_REFUSED = {b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip", b"7z\xbc\xaf": "7z"}


class CutOffError(ValueError):
    """A source that ends before its end, or whose packed bytes are damaged; the message says how far it was read."""


class Archive:
    """One file, read from its beginning to its end; its first bytes tell what it is packed with (gzip, bzip2, xz).

    advance is called with the number of bytes read from the disk. Raises OSError.
    """

    def __init__(self, path: Path, advance: Callable[[int], object] = lambda n: None) -> None:
        self.path = path
        self.unpacked = 0
        """Bytes given out so far."""
        self.raw = 0
        """Bytes read from the disk so far."""
        self._advance = advance

    def blocks(self) -> Iterator[bytes]:
        """The unpacked bytes in blocks of at most BLOCK bytes, never empty.

        Raises CutOffError once all that is sound was given out, ValueError for a kind of archive that is not read.
        """
        with self.path.open("rb") as file:
            first = file.peek(6)  # no seek: it may be a pipe
            for magic, name in _REFUSED.items():
                if first.startswith(magic):
                    raise ValueError(f"{self.path} is packed with {name}: unpack it first, or use gzip, bzip2 or xz")
            make = _decompressor_for(first)
            if make is None and self.path.suffix in _SUFFIXES:
                raise self.cut_off(f"it does not begin as a {self.path.suffix} file does")
            for block in self._plain(file) if make is None else self._packed(file, make):
                self.unpacked += len(block)
                yield block

    def lines(self, longest: int) -> Iterator[tuple[int, bytes | None]]:
        """The lines with their numbers from 1, without their ends; None for one of more than `longest` bytes."""
        number, rest, skipping = 1, b"", False
        for block in self.blocks():
            parts = (rest + block).split(b"\n")
            rest = parts.pop()
            for part in parts:
                yield number, None if skipping or len(part) > longest else part.removesuffix(b"\r")
                number, skipping = number + 1, False
            if len(rest) > longest:
                rest, skipping = b"", True
        if rest or skipping:
            yield number, None if skipping else rest.removesuffix(b"\r")

    def cut_off(self, why: str) -> CutOffError:
        """The error that says how far this file was read."""
        size = self.path.stat().st_size
        return CutOffError(
            f"{self.path} is cut off or damaged ({why}): read {self.raw:,} of its {size:,} bytes, "
            f"{self.unpacked:,} unpacked. Get it again, or use what there is with --keep-going"
        )

    def _plain(self, file: BufferedReader) -> Iterator[bytes]:
        while raw := self._read(file, BLOCK):
            yield raw

    def _packed(self, file: BufferedReader, make: Callable[[], _Decompressor]) -> Iterator[bytes]:
        """Unpack one stream after another: both gzip and bzip2 files may hold several."""
        raw = self._read(file, _RAW)
        while raw:
            unpacker = make()
            while not unpacker.eof:
                try:
                    block = unpacker.unpack(raw)
                except (zlib.error, OSError, lzma.LZMAError, ValueError) as error:
                    raise self.cut_off(str(error)) from error
                if block:
                    yield block
                raw = b""
                if unpacker.hungry and not unpacker.eof:
                    raw = self._read(file, _RAW)
                    if not raw:
                        raise self.cut_off("the archive goes on beyond the end of the file")
            # padding with zeros may follow
            raw = (unpacker.left or self._read(file, _RAW)).lstrip(b"\0")
            while not raw and (more := self._read(file, _RAW)):
                raw = more.lstrip(b"\0")

    def _read(self, file: BufferedReader, size: int) -> bytes:
        raw = file.read1(size)  # not read, which would wait for more from a pipe in spite of Ctrl-C
        self.raw += len(raw)
        self._advance(len(raw))
        return raw


class _Decompressor(Protocol):
    """What the three unpackers have in common here; hungry: it needs more packed bytes."""

    @property
    def eof(self) -> bool: ...
    @property
    def hungry(self) -> bool: ...
    @property
    def left(self) -> bytes: ...
    def unpack(self, raw: bytes) -> bytes: ...


class _Gzip:
    def __init__(self) -> None:
        self._unpacker = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._unpacker.eof

    @property
    def hungry(self) -> bool:
        return not self._unpacker.unconsumed_tail

    @property
    def left(self) -> bytes:
        return self._unpacker.unused_data

    def unpack(self, raw: bytes) -> bytes:
        return self._unpacker.decompress(self._unpacker.unconsumed_tail + raw, BLOCK)


class _Stream:
    def __init__(self, unpacker: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._unpacker = unpacker

    @property
    def eof(self) -> bool:
        return self._unpacker.eof

    @property
    def hungry(self) -> bool:
        return self._unpacker.needs_input

    @property
    def left(self) -> bytes:
        return self._unpacker.unused_data

    def unpack(self, raw: bytes) -> bytes:
        return self._unpacker.decompress(raw, BLOCK)


_SUFFIXES = {".gz", ".bz2", ".xz"}


def _decompressor_for(first: bytes) -> Callable[[], _Decompressor] | None:
    if first.startswith(b"\x1f\x8b"):
        return _Gzip
    if first.startswith(b"BZh"):
        return lambda: _Stream(bz2.BZ2Decompressor())
    if first.startswith(b"\xfd7zXZ\0"):
        return lambda: _Stream(lzma.LZMADecompressor())
    return None
