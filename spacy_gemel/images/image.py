"""Reading an image from what a document may hold: a path, encoded bytes, an array, a PIL image."""

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import srsly

if TYPE_CHECKING:
    from PIL.Image import Image

_ENCODER = "spacy_gemel_images"


class ImageError(ValueError):
    """An image that cannot be used; the message says why."""


def read_image(source: Any) -> "Image":
    """Decode and check one image; RGB, upright, transparency on white.

    The source is a path (str or os.PathLike), encoded bytes, a uint8 array (height, width, 3), or a PIL image.
    Raises ImageError for anything else, and for a file that is missing or broken.
    """
    from PIL import Image, ImageOps

    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or 0 in source.shape:
            form = f"{source.dtype} of shape {source.shape}"
            raise ImageError(f"an array must be uint8 of shape (height, width, 3), not {form}")
        return Image.fromarray(np.ascontiguousarray(source))
    if isinstance(source, Image.Image):
        image: Image.Image = source
    elif isinstance(source, (bytes, bytearray, memoryview)):
        image = _open(io.BytesIO(bytes(source)), f"{len(source)} bytes")
    elif isinstance(source, (str, os.PathLike)):
        image = _open(os.fspath(source), f"the file {os.fspath(source)!r}")
    else:
        forms = "a path, encoded bytes, a uint8 array (height, width, 3) or a PIL image"
        raise ImageError(f"an image is {forms}, not {type(source).__name__}")
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode == "I" or image.mode.startswith("I;16"):
            levels = np.asarray(image)
            if levels.max(initial=0) > 255:  # not 8 bits as 16; Pillow's conversion clips at 255, which leaves it white
                image = Image.fromarray((np.clip(levels, 0, 65535) >> 8).astype(np.uint8))
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        return image.convert("RGB")
    except Exception as error:  # each of Pillow's plugins has its own for a broken file
        raise ImageError(f"the image is broken: {error}") from error


def _open(source: Any, name: str) -> "Image":
    """Open and decode at once, so that a truncated file is noticed here and its handle is closed."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(source) as image:
            image.load()
            return image
    except Exception as error:  # each of Pillow's plugins has its own for a broken file
        problems: dict[type, str] = {FileNotFoundError: "does not exist", IsADirectoryError: "is a folder"}
        problems[UnidentifiedImageError] = "is not an image that Pillow can read"
        raise ImageError(f"{name} {problems.get(type(error), f'cannot be decoded: {error}')}") from error


def encode_png(image: "Image") -> bytes:
    """The image as PNG bytes, which a Doc can be serialised with."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def register_msgpack_encoder() -> None:
    """Let `Doc.to_bytes` and DocBins take path objects and PIL images; they come back as str and bytes.

    Docs need it before any linker sees them: `nlp.pipe(n_process=2)` serialises them first.
    """
    if _ENCODER not in srsly.msgpack_encoders:
        srsly.msgpack_encoders.register(_ENCODER, func=_encode)


def _encode(value: Any, chain: Callable[[Any], Any] | None = None) -> Any:
    """A path object as a str, a PIL image as PNG bytes; msgpack calls this for a value that it does not know."""
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    pil = sys.modules.get("PIL.Image")  # if nothing has imported it, there is no such image
    if pil is not None and isinstance(value, pil.Image):
        with suppress(ImageError):  # reported when the image is read
            return encode_png(read_image(value))
    return value if chain is None else chain(value)
