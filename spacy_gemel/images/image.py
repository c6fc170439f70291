"""Reading an image from what a document may hold: a path, encoded bytes, an array, a PIL image.

What it may cost is judged before it is decoded: by its format, its bytes, and the pixels that its header gives.
"""

import base64
import io
import math
import os
import re
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import srsly
from numpy.typing import NDArray

from spacy_gemel.utils.files import read_regular
from spacy_gemel.utils.messages import excerpt, first_line

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = {
    "JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "GIF": ".gif", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif",
    "AVIF": ".avif", "JPEG2000": ".jp2", "ICO": ".ico", "PPM": ".ppm",
}  # fmt: skip
"""What is read, by Pillow's names, and the usual extension; Pillow hands others, such as EPS, to other programs."""
MAX_BYTES = 2**28
"""Of an image file."""
MAX_PIXELS = 2**26
"""Of what is decoded; of a larger JPEG a half, a quarter or an eighth is."""
MAX_RATIO = 100
"""Of the longer side to the shorter: encoders scale the shorter side to a fixed number of pixels."""

_ENCODER = "spacy_gemel_images"
_REDUCED_PIXELS = 2**24  # far more than any encoder sees
_JPEG_PIXELS_PER_BYTE = 600  # a white one has 256
_LEVELS = (8, 12, 16, 24, 32)  # bits that files have for a level of grey
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_PNG = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112  # of EXIF, 2 to 8; how each is undone, by Pillow's numbers
_UPRIGHT = (0, 3, 1, 5, 4, 6, 2)
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


class ImageError(ValueError):
    """An image that cannot be used; the message says why."""


class UnknownFormatError(ImageError):
    """Bytes that are no image in one of `FORMATS`."""


def read_image(source: Any) -> "Image":
    """Decode and check one image; RGB, upright, transparency on white.

    The source is a path (str or os.PathLike), encoded bytes, a uint8 array (height, width, 3), or a PIL image.
    Raises ImageError, and nothing else, for any other source and for one that is missing, broken or too large.
    """
    from PIL import Image

    try:
        source = to_plain(source)
        if isinstance(source, np.ndarray):
            if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
                form = f"{source.dtype} of shape {source.shape}"
                raise ImageError(f"an array must be uint8 of shape (height, width, 3), not {form}")
            _check_size(source.shape[1], source.shape[0])
            image = Image.fromarray(np.ascontiguousarray(source))
        elif isinstance(source, Image.Image):
            _check_size(*source.size)
            image = source
        elif isinstance(source, (bytes, str)):
            image = decode(*_bytes_of(source))
        else:
            forms = "a path, encoded bytes, a uint8 array (height, width, 3) or a PIL image"
            raise ImageError(f"an image is {forms}, not {type(source).__name__}")
        return _to_rgb(image)
    except Exception as error:  # each of Pillow's plugins has its own for a broken file
        raise as_image_error(error) from error


def as_image_error(error: Exception) -> ImageError:
    """Any error about one image as an ImageError."""
    if isinstance(error, ImageError):
        return error
    return ImageError(f"the image is broken: {type(error).__name__}: {excerpt(first_line(error), 200)}")


def to_plain(source: Any) -> Any:
    """A path as a str, encoded bytes of any kind as bytes, a tensor as an array; others as they are.

    What a path object or a released memoryview raises is passed on.
    """
    if isinstance(source, os.PathLike):
        return os.fsdecode(source)
    if isinstance(source, (bytearray, memoryview)):
        return bytes(source)
    if isinstance(source, io.BytesIO):
        return source.getvalue()
    torch = sys.modules.get("torch")  # if nothing has imported it, there is no tensor
    return source.detach().cpu().numpy() if torch is not None and isinstance(source, torch.Tensor) else source


def inside(source: Any, root: str | None) -> Any:
    """An image's source, its path with links followed. Raises ImageError if there is a root and it is outside."""
    if root is None or not isinstance(source, (str, os.PathLike)):
        return source
    try:
        path = Path(to_plain(source)).resolve()
    except Exception as error:
        raise as_image_error(error) from error
    if not path.is_relative_to(Path(root).expanduser().resolve()):
        raise ImageError(f"the file {excerpt(str(path), 100)} lies outside image_root")
    return str(path)


def _bytes_of(source: bytes | str) -> tuple[bytes, str]:
    """The encoded image, and what messages call it."""
    if isinstance(source, bytes):
        return source, f"{len(source)} bytes"
    name = f"the file {excerpt(source, 100)}"
    try:
        return read_regular(source, MAX_BYTES), name
    except (OSError, ValueError) as error:
        if re.search(r"data:[\w/+.-]*;base64,", source):
            reason = "is no path but a data URI: give its bytes, decoded"
        elif _URL.match(source):
            reason = "is no path but a URL: fetch-images downloads it"
        elif len(source) > 200 and re.fullmatch(r"[\w+/=\s-]+", source):
            reason = "is no path but base64: give its bytes, decoded"
        elif isinstance(error, FileNotFoundError):
            reason = "does not exist"
        else:
            reason = getattr(error, "strerror", None) or first_line(error)
        raise ImageError(f"{name} {reason}") from error


@cache
def _formats() -> list[str]:
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def decode(data: bytes, name: str, *, smallest: bool = False) -> "Image":
    """Decode the bytes of an image file at once, so that damage shows here; with `smallest` a JPEG at an eighth.

    Raises UnknownFormatError if it is in no format of `FORMATS`, else ImageError; `name` is what messages call it.
    """
    from PIL import UnidentifiedImageError

    try:
        try:
            return _decode(data, smallest)
        except ImageError:
            raise
        except Exception:  # of a PNG maybe only about a text, a profile or a date beside the pixels
            if (pixels := _without_metadata(data)) is None:
                raise
            return _decode(pixels, smallest)
    except UnidentifiedImageError as error:
        raise UnknownFormatError(f"{name} is not an image in a format that is read, such as JPEG or PNG") from error
    except ImageError as error:
        raise ImageError(f"{name} cannot be decoded: {error}") from error
    except Exception as error:  # each of Pillow's plugins has its own for a broken file
        raise ImageError(f"{name} cannot be decoded: {first_line(error)}") from error


def _decode(data: bytes, smallest: bool) -> "Image":
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=_formats()) as image:
        width, height = image.size
        if image.format in ("JPEG", "MPO") and width * height > _JPEG_PIXELS_PER_BYTE * len(data):
            raise ImageError(f"its header says {width} x {height} pixels, far more than {len(data)} bytes can hold")
        if smallest or width * height > MAX_PIXELS:
            image.draft("RGB", (1, 1) if smallest else (width // 8, height // 8))
        _check_size(*image.size)
        image.load()
        return image


def _check_size(width: int, height: int) -> None:
    """Raise ImageError if an image has no pixels or too many, or is too thin."""
    if not width or not height:
        raise ImageError(f"it has no pixels: {width} x {height}")
    if width * height > MAX_PIXELS:
        raise ImageError(f"it has {width} x {height} pixels, and at most {MAX_PIXELS} are read: make it smaller")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise ImageError(f"it has {width} x {height} pixels: one side is more than {MAX_RATIO} times the other")


def _without_metadata(data: bytes) -> bytes | None:
    """A PNG with nothing beside its pixels; None for other data."""
    if not data.startswith(_PNG):
        return None
    start, chunks = len(_PNG), [_PNG]
    while start + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if kind in _PNG_PIXELS:
            chunks.append(data[start:end])
        start = end
    return b"".join(chunks)


def _to_rgb(image: "Image") -> "Image":
    """An image of any mode as RGB of 8 bits, upright, transparency on white."""
    from PIL import Image

    with suppress(Exception):  # a picture whose EXIF block is broken is taken as it lies
        orientation = image.getexif().get(_ORIENTATION, 1)
        if 2 <= orientation <= 8:
            image = image.transpose(Image.Transpose(_UPRIGHT[orientation - 2]))
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(_to_8_bits(np.asarray(image)))
    if image.width * image.height > _REDUCED_PIXELS:
        mode = {"P": "RGBA" if image.has_transparency_data else "RGB", "1": "L"}.get(image.mode, image.mode)
        image = image.convert(mode).reduce(math.ceil((image.width * image.height / _REDUCED_PIXELS) ** 0.5))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    image = image.convert("RGB")  # a copy
    image.info = {}  # else it would be turned once more when it is read again
    return image


def _to_8_bits(levels: NDArray[Any]) -> NDArray[np.uint8]:
    """Levels of grey (height, width) of more than 8 bits as 8; how many they have is told by the highest.

    Pillow's own conversion clips at 255, which leaves nearly all of them white, and fractions black.
    """
    finite = np.nan_to_num(levels.astype(np.float32), copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    finite -= min(0.0, float(finite.min()))
    top = float(finite.max())
    if levels.dtype.kind == "f" and top <= 1.0:
        finite *= 255.0
    else:
        bits = next((bits for bits in _LEVELS if top < 2**bits), None)
        finite *= 256.0 / (2**bits if bits else top)
    return np.clip(finite, 0, 255, out=finite).astype(np.uint8)


def encode_png(image: "Image") -> bytes:
    """The image as PNG bytes, which a Doc can be serialised with."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def data_uri(source: Any, side: int, *, quality: int = 75) -> str | None:
    """An image, its longer side at most `side` pixels, as a WebP in a data URI; None if it cannot be read."""
    try:
        small = read_image(source)
    except ImageError:
        return None
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def register_msgpack_encoder() -> None:
    """Let `Doc.to_bytes` and DocBins take what an image may be: a path object, a PIL image, a BytesIO, a tensor.

    They come back as str, bytes and array. Docs need it before any linker sees them: `nlp.pipe(n_process=2)` serialises
    them first. An image that cannot be read comes back as no bytes, and is reported when it is read.
    """
    if _ENCODER not in srsly.msgpack_encoders:
        srsly.msgpack_encoders.register(_ENCODER, func=_encode)


def _encode(value: Any, chain: Callable[[Any], Any] | None = None) -> Any:
    """A value for msgpack, which calls this for one that it does not know."""
    pil = sys.modules.get("PIL.Image")  # if nothing has imported it, there is no such image
    try:
        if pil is not None and isinstance(value, pil.Image):
            return encode_png(read_image(value))
        plain = to_plain(value)
    except Exception:
        return b""
    return plain if chain is None or isinstance(plain, (bytes, str)) else chain(plain)
