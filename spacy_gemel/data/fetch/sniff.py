"""What kind of file was fetched, by its content: what a server says of it decides nothing."""

import threading
from contextlib import nullcontext
from pathlib import Path

# What vision/image.py can read, by Pillow's names; formats that run other programs or draw vectors are not among them.
EXTENSIONS = {
    "JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "GIF": ".gif", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif",
    "AVIF": ".avif", "JPEG2000": ".jp2",
}  # fmt: skip


BROKEN = "a broken image"

# Large images are decoded one after the other: some hundred MB each.
_LARGE = threading.Lock()
_LARGE_PIXELS = 16_000_000


class NotAnImage(ValueError):
    """A file that is no image of a supported kind: `reason` is what it is counted under."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} {detail}".strip())
        self.reason = reason
        self.detail = detail


def extension_of(path: Path, said: str = "") -> str:
    """The right extension of an image file, with its dot. All of it is decoded, which finds one that was cut off.

    said: the content type that the server gave, for the message alone.
    Raises NotAnImage, OSError where the file cannot be read.
    """
    from PIL import Image, UnidentifiedImageError

    Image.init()
    known = [name for name in EXTENSIONS if name in Image.OPEN]
    beginning = _beginning(path)
    try:
        with Image.open(path, formats=known) as image:
            kind = image.format or ""
            image.draft("RGB", (1, 1))  # a JPEG is read whole all the same, but unfolded at an eighth of its size
            with _LARGE if image.width * image.height > _LARGE_PIXELS else nullcontext():
                image.load()
    except UnidentifiedImageError:
        if b"<svg" in beginning:
            raise NotAnImage("an SVG, which is no raster image") from None
        what = "empty" if not beginning else f"sent as {said or 'no type'}, begins with {beginning[:16]!r}"
        raise NotAnImage("not an image", what) from None
    except Image.DecompressionBombError as error:
        raise NotAnImage("an image of too many pixels", str(error)) from None
    except Exception as error:  # each of Pillow's plugins has its own for a broken file
        raise NotAnImage(BROKEN, str(error)) from None
    return EXTENSIONS[kind]


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2048)
