"""Reading an image from what a document may hold: a path, encoded bytes, an array, a PIL image."""

import io
import os
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageError(ValueError):
    """An image that cannot be used, and why."""


def read_image(source: Any) -> "Image":
    """Decode and check one image; RGB, upright, transparency on white.

    source: a path (str or os.PathLike), encoded bytes, a uint8 array (height, width, 3), or a PIL image.
    Raises ImageError with the reason for anything else, and for a file that is missing or broken.
    """
    from PIL import Image, ImageOps

    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        image: Image.Image = source
    elif isinstance(source, (bytes, bytearray, memoryview)):
        image = _open(io.BytesIO(bytes(source)), f"{len(source)} bytes")
    elif isinstance(source, (str, os.PathLike)):
        image = _open(os.fspath(source), f"the file {os.fspath(source)!r}")
    else:
        raise ImageError(
            f"an image is a path, encoded bytes, a uint8 array (height, width, 3) or a PIL image, "
            f"not {type(source).__name__}"
        )
    try:
        image = _eight_bits(ImageOps.exif_transpose(image))
        if image.has_transparency_data:
            layer = image.convert("RGBA")
            white = Image.new("RGBA", layer.size, "white")
            return Image.alpha_composite(white, layer).convert("RGB")
        return image.convert("RGB")
    except Exception as error:  # each of Pillow's plugins has its own for a broken file
        raise ImageError(f"the image is broken: {error}") from error


def encode_png(image: "Image") -> bytes:
    """The image as PNG bytes: plain data that a Doc can be serialised with."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _eight_bits(image: "Image") -> "Image":
    """A greyscale image of 16 bits with 8; Pillow's own conversion cuts all above 255, which leaves it white."""
    from PIL import Image

    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    levels = np.asarray(image)
    if levels.max(initial=0) <= 255:
        return image  # as some tools write 8 bits
    return Image.fromarray((np.clip(levels, 0, 65535) >> 8).astype(np.uint8))


def _from_array(array: np.ndarray) -> "Image":
    from PIL import Image

    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ImageError(
            f"an array must be uint8 of shape (height, width, 3), not {array.dtype} of shape {array.shape}"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _open(source: Any, name: str) -> "Image":
    """Open and decode at once, so that a truncated file is found here and its handle is closed."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(source) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist") from None
    except IsADirectoryError:
        raise ImageError(f"{name} is a folder") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name} is no image that Pillow can read") from None
    except Exception as error:  # each of Pillow's plugins has its own for a broken file
        raise ImageError(f"{name} cannot be decoded: {error}") from error
