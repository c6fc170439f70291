"""Changes of valid files for `benchmarks.fuzz`: bits and bytes, and the values inside what is packed in them."""

import gzip
import json
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import srsly

MAX_BYTES = 2**22
MAX_DEPTH = 100_000
SAFE_DEPTH = 400  # what json and msgpack can still write
INTEGERS = (0, 1, -1, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64)
TOKENS = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\\ud800",
    b"\r",
    b"\n",
    b"\xe2\x80\xa8",
    b'"',
    b"'",
    b",",
    b";",
    b"\\",
    b"null",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"-0",
    b"-1",
    b"0.5",
    b"9" * 30,
    b"9" * 5000,
    b"../../../../etc/passwd",
    b"/dev/zero",
    b"a" * 70_000,
    b"[" * MAX_DEPTH,
    b'{"a":' * MAX_DEPTH,
    b"(" * MAX_DEPTH,
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    *INTEGERS,
    -(2**63) - 1,
    10**400,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    "",
    " ",
    "\0",
    "\ud800",
    "\u202e",
    "a" * 70_000,
    "../../../../etc/passwd",
    "/dev/zero",
    b"",
    b"\xff",
    [],
    {},
    [[]],
    {"": None},
    [None] * 1000,
)


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """A file changed in one to four places; `others` are files to take parts from."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        data = rng.choice((_packed, _structured, _structured, _plain))(data, others, rng)[:MAX_BYTES]
    return data


def _plain(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    return rng.choice(PLAIN)(data, others, rng)


def _place(data: bytes, rng: random.Random) -> int:
    """Any place, one in three near the start, where headers are."""
    size = len(data) + 1
    return rng.randrange(min(size, 64)) if rng.random() < 1 / 3 else rng.randrange(size)


def flip_bits(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    """Some bits."""
    changed = bytearray(data)
    for _each in range(rng.choice((1, 1, 2, 8)) if data else 0):
        changed[_place(data[:-1], rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    """Cut off the end."""
    return data[: _place(data, rng)]


def drop(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    """Leave some bytes out."""
    start = _place(data, rng)
    return data[:start] + data[start + rng.choice((1, 2, 4, 8, 100, 1000)) :]


def repeat(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    """Some bytes again, a few times or many."""
    start, size = _place(data, rng), rng.choice((1, 4, 16, 100))
    return data[: start + size] + data[start : start + size] * rng.choice((1, 2, 1000)) + data[start + size :]


def splice(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """The beginning of one file and the end of another."""
    other = rng.choice(others)
    return data[: _place(data, rng)] + other[_place(other, rng) :]


def insert(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    """Something odd, between two bytes or over them."""
    start, token = _place(data, rng), rng.choice(TOKENS)
    return data[:start] + token + data[start + rng.choice((0, len(token))) :]


def number(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    """A number at the edge of its type over some bytes."""
    size, start = rng.choice((1, 2, 4, 8)), _place(data, rng)
    value = (rng.choice(INTEGERS) % 2 ** (8 * size)).to_bytes(size, rng.choice(("little", "big")))
    return data[:start] + value + data[start + size :]


def digits(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    """Another number in the place of one that is written out."""
    places = [index for index, byte in enumerate(data[:100_000]) if 48 <= byte <= 57]
    if not places:
        return data
    start = end = rng.choice(places)
    while end < len(data) and 48 <= data[end] <= 57:
        end += 1
    return data[:start] + rng.choice((str(rng.choice(INTEGERS)).encode(), *TOKENS)) + data[end:]


PLAIN = (flip_bits, flip_bits, truncate, drop, repeat, splice, insert, number, number, digits)


def change_value(value: Any, rng: random.Random) -> Any:
    """A value with one of those inside it changed, left out, repeated or nested deeply."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.85:
        keys = [*value] if isinstance(value, dict) else range(len(value))
        key = rng.choice(keys)
        changed = dict(value) if isinstance(value, dict) else list(value)
        action = rng.random()
        if action < 0.1:
            del changed[key]
        elif action < 0.2 and isinstance(changed, list):
            changed += [value[key]] * rng.choice((1, 1000))
        elif action < 0.2 and isinstance(changed, dict):
            changed[rng.choice(("", "\0", "../x", "x" * 1000, 7))] = value[key]
        else:
            changed[key] = change_value(value[key], rng)
        return changed
    if rng.random() < 0.1:
        for _ in range(SAFE_DEPTH):
            value = [value]
        return value
    if isinstance(value, (str, bytes)) and value and rng.random() < 0.3:
        content = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        content = _plain(content, [content], rng)
        return content.decode("utf-8", "surrogateescape") if isinstance(value, str) else content
    if isinstance(value, (int, float)) and rng.random() < 0.3:
        return value + rng.choice((1, -1, 0.5))
    return rng.choice(VALUES)


def _structured(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """A file of JSON, JSON lines, msgpack or PNG with one of its values changed; any other by its bytes."""
    for change in (_json, _png, _msgpack):
        with suppress(ValueError, TypeError, RecursionError, OverflowError, struct.error, UnicodeError):
            return change(data, rng)
    return _plain(data, others, rng)


def _json(data: bytes, rng: random.Random) -> bytes:
    with suppress(ValueError):
        return _dumps(change_value(json.loads(data), rng))
    lines = data.split(b"\n")
    index = rng.randrange(len(lines))
    lines[index] = _dumps(change_value(json.loads(lines[index]), rng))
    return b"\n".join(lines)


def _dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


def _msgpack(data: bytes, rng: random.Random) -> bytes:
    value = srsly.msgpack_loads(data)
    if not isinstance(value, (dict, list)):
        raise ValueError("no container")
    return bytes(srsly.msgpack_dumps(change_value(value, rng)))


def _png(data: bytes, rng: random.Random) -> bytes:
    """One chunk of a PNG changed, with the checksum that it then needs."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("no PNG")
    start, chunks = 8, []
    while start + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        chunks.append((kind, data[start + 8 : start + 8 + length]))
        start += 12 + length
    index = rng.randrange(len(chunks))
    kind, content = chunks[index]
    chunks[index] = kind, _packed(content, [content], rng)
    parts = (struct.pack(">I4s", len(c), k) + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return data[:8] + b"".join(parts)


PACKERS: tuple[tuple[bytes, Callable[[bytes], bytes], Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", gzip.decompress, lambda data: gzip.compress(data, 1)),
    (b"\x78", zlib.decompress, lambda data: zlib.compress(data, 1)),
)


def _packed(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """A packed file with a change of what is in it; any other by its bytes."""
    for magic, unpack, pack in PACKERS:
        if data.startswith(magic):
            with suppress(OSError, EOFError, zlib.error):
                return pack(_structured(unpack(data), others, rng))
    return _plain(data, others, rng)
