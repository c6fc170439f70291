"""Docs and lines that are wrong in some way, as strangers' data are: for the soak, and to be read."""

import base64
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def _png(width: int = 8, height: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (9, 99, 199)).save(buffer, "PNG")
    return buffer.getvalue()


def _encoded(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(buffer, form)
    return buffer.getvalue()


def _png_that_lies(width: int, height: int) -> bytes:
    """A header of many pixels over a few bytes."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(bytes(100)), b"IEND")
    body = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("picture.png", _png())
    return buffer.getvalue()


def _released() -> memoryview:
    view = memoryview(_png())
    view.release()
    return view


def _closed() -> io.BytesIO:
    file = io.BytesIO(_png())
    file.close()
    return file


def _unloaded() -> Image.Image:
    return Image.open(io.BytesIO(_encoded("PNG")[:300]))


class _Raises(os.PathLike):  # type: ignore[type-arg]
    def __fspath__(self) -> str:
        raise RuntimeError("a path that raises")


def _pipe(folder: Path) -> str:
    path = folder / "pipe.png"
    if hasattr(os, "mkfifo") and not path.exists():
        os.mkfifo(path)
    return str(path)


def _with_gradient() -> Any:
    import torch

    return torch.ones(8, requires_grad=True)


IMAGES: Mapping[str, Callable[[Path], Any]] = {
    "a path of nothing": lambda folder: str(folder / "gone.png"),
    "a folder": str,
    "a path of 10,000 characters": lambda _: "x" * 10_000,
    "a path with a zero byte": lambda _: "a\0b.png",
    "a path that is no text": lambda _: "\udcff.png",
    "a path that raises": lambda _: _Raises(),
    "a pipe": _pipe,
    "a device without an end": lambda _: "/dev/zero",
    "a URL": lambda _: "https://example.org/a.png",
    "a data URI": lambda _: "data:image/png;base64," + base64.b64encode(_png()).decode(),
    "base64": lambda _: base64.b64encode(_encoded("PNG")).decode(),
    "no bytes": lambda _: b"",
    "zero bytes": lambda _: bytes(1000),
    "random bytes": lambda _: np.random.default_rng(1).bytes(1000),
    "text": lambda _: b"not a picture at all",
    "HTML": lambda _: b"<!doctype html><title>404</title>",
    "SVG": lambda _: b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "PDF": lambda _: b"%PDF-1.4\n%%EOF",
    "EPS": lambda _: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF",
    "a zip archive": lambda _: _zip(),
    "half a PNG": lambda _: _encoded("PNG")[:200],
    "half a JPEG": lambda _: _encoded("JPEG")[:200],
    "half a GIF": lambda _: _encoded("GIF")[:40],
    "half a WebP": lambda _: _encoded("WEBP")[:60],
    "half a BMP": lambda _: _encoded("BMP")[:60],
    "half a TIFF": lambda _: _encoded("TIFF")[:60],
    "a PNG of one row": lambda _: _png(10_000, 1),
    "a PNG of one column": lambda _: _png(1, 10_000),
    "a header of 169 million pixels": lambda _: _png_that_lies(13_000, 13_000),
    "a header of no pixels": lambda _: _png_that_lies(0, 0),
    "an array of floats": lambda _: np.ones((8, 8, 3)),
    "an array without channels": lambda _: np.ones((8, 8), dtype=np.uint8),
    "an array without rows": lambda _: np.ones((0, 8, 3), dtype=np.uint8),
    "a PIL image of half a file": lambda _: _unloaded(),
    "a PIL image without rows": lambda _: Image.new("RGB", (0, 8)),
    "a released memoryview": lambda _: _released(),
    "a closed file in memory": lambda _: _closed(),
    "a number": lambda _: 7,
    "a list": lambda _: [1, 2],
    "an object": lambda _: {"path": "a.png"},
}
"""What stands as a doc's image: {way: a function of a folder}. The doc is linked from its text."""

FEATURES: Mapping[str, Callable[[], Any]] = {
    "features of another width": lambda: np.ones(3, dtype=np.float32),
    "features that are no numbers": lambda: np.full(64, np.nan, dtype=np.float32),
    "features without an end": lambda: np.full(64, np.inf, dtype=np.float32),
    "features in words": lambda: ["a", "b"],
    "features with a gradient": _with_gradient,
    "features of two images": lambda: np.ones((2, 64), dtype=np.float32),
}
"""What stands as a doc's image features."""

LINES: Mapping[str, bytes] = {
    "no JSON": b"{broken",
    "half a line": b'{"text": "A view of Bake',
    "an array": b"[1, 2]",
    "a number": b"7",
    "no UTF-8": b'{"text": "\xff\xfe"}',
    "UTF-16": '{"text": "A view"}'.encode("utf-16-be"),
    "no text": b'{"id": "x"}',
    "an empty text": b'{"text": "  "}',
    "a number for a text": b'{"text": 7}',
    "half a surrogate pair": b'{"text": "\\ud800"}',
    "an image that is a number": b'{"text": "A view", "image": 7}',
    "an id that is a list": b'{"text": "A view", "id": [1]}',
    "mentions that are no list": b'{"text": "A view", "mentions": "view"}',
    "nested 100,000 deep": b"[" * 100_000,
    "a number of 5,000 digits": b'{"text": "A view", "mentions": [{"start": ' + b"1" * 5000 + b', "end": 2}]}',
}
"""Lines that `link` cannot read: they fail, with a reason."""

MENTIONS: Mapping[str, Any] = {
    "outside the text": {"start": 900, "end": 905},
    "reversed": {"start": 9, "end": 2},
    "of floats": {"start": 0.5, "end": 2.5},
    "of words": {"start": "0", "end": "2"},
    "blank": {"start": 1, "end": 2},
    "no object": [0, 2],
}
"""Mentions that are left out of their row, which is linked without them."""

WAYS = len(IMAGES) + len(FEATURES) + len(LINES) + len(MENTIONS)


def bad_line(number: int, text: str) -> bytes:
    """A bad line of JSON lines: by turns of LINES, MENTIONS and images that are paths."""
    ways = [*LINES.values(), *MENTIONS.values(), "gone.png", "", "/dev/zero", "https://example.org/a.png"]
    way = ways[number % len(ways)]
    if isinstance(way, bytes):
        return way
    row: dict[str, Any] = {"text": text, "mentions": []}
    if isinstance(way, str):
        row["image"] = way
    else:
        row["mentions"] = [way]
    return json.dumps(row).encode()
