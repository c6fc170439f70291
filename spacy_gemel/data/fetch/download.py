"""The answer to one request: an image file in the folder, a redirect, or the reason why not."""

import hashlib
import os
import tempfile
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urljoin

import requests
import urllib3
from requests.adapters import HTTPAdapter

from spacy_gemel.data.fetch.request import SESSION, FetchError, Request
from spacy_gemel.utils.messages import one_line

PARTIAL = ".partial-"
_CHUNK = 64 * 1024
_WORTH_A_RETRY = {408, 425, 429, 500, 502, 503, 504}
# What Pillow can read without running other programs, by its names.
_EXTENSIONS = {
    "JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "GIF": ".gif", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif",
    "AVIF": ".avif", "JPEG2000": ".jp2",
}  # fmt: skip
_LARGE_PIXELS = 16_000_000
_LARGE = threading.Lock()  # large images are decoded one after the other: some hundred MB each


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image in the folder."""

    file: str
    bytes: int


def download(request: Request, adapter: HTTPAdapter, folder: Path) -> ImageFile | str:
    """Send a request and store the image as a file named by its content.

    Returns:
        The file, or the URL that a redirect leads to.

    Raises:
        FetchError: for anything that the host, the network or the content does.
        OSError: if the folder cannot be written.
    """
    try:
        with request.send(adapter) as response:
            if location := SESSION.get_redirect_target(response):
                return urljoin(request.url, location)
            status = response.status_code
            if status != 200:
                raise FetchError(
                    f"HTTP {status}",
                    response.reason or "",
                    retry=status in _WORTH_A_RETRY,
                    busy=status in (429, 503),
                    retry_after=_seconds(response.headers.get("Retry-After", "")),
                )
            return _store(request, response, folder)
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
            raise
        raise _explain(error) from error


_REASONS: list[tuple[type[Exception] | tuple[type[Exception], ...], str, bool]] = [
    ((requests.Timeout, urllib3.exceptions.TimeoutError), "timed out", True),
    ((requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, UnicodeError), "malformed URL", False),
    (requests.exceptions.SSLError, "no trusted connection", False),
    (urllib3.exceptions.DecodeError, "damaged compression", False),
    ((requests.RequestException, urllib3.exceptions.HTTPError), "connection failed", True),
]


def _explain(error: Exception) -> FetchError:
    if isinstance(error, FetchError):
        return error
    for kinds, reason, retry in _REASONS:
        if isinstance(error, kinds):
            return FetchError(reason, one_line(error), retry)
    return FetchError("unexpected error", f"{type(error).__name__}: {one_line(error)}")


def _seconds(retry_after: str) -> float | None:
    """The seconds of a Retry-After header, which has seconds or a date; None if it has neither."""
    if retry_after.strip().isdecimal():
        return float(retry_after.strip()[:12])
    try:
        moment = parsedate_to_datetime(retry_after)
        return max(0.0, (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError, TypeError):
        return None


def _store(request: Request, response: requests.Response, folder: Path) -> ImageFile:
    """Read the body into the folder, at most `max_bytes` after decompression."""
    digest = hashlib.blake2b(digest_size=16)
    size = 0
    handle, name = tempfile.mkstemp(dir=folder, prefix=PARTIAL)
    try:
        with os.fdopen(handle, "wb") as file:
            while chunk := response.raw.read(_CHUNK, decode_content=True):
                size += len(chunk)
                if size > request.options.max_bytes:
                    raise FetchError("too large", f"more than {request.options.max_bytes} bytes")
                digest.update(chunk)
                file.write(chunk)
        request.check()  # a connection that was cut looks like the end of the body
        target = folder / (digest.hexdigest() + _extension(Path(name), response))
        Path(name).chmod(0o644)  # mkstemp makes private files
        Path(name).replace(target)
        return ImageFile(target.name, size)
    finally:
        Path(name).unlink(missing_ok=True)


def _extension(path: Path, response: requests.Response) -> str:
    """The extension of an image by its content, which is decoded to find out whether it is whole."""
    from PIL import Image, UnidentifiedImageError

    Image.init()
    with path.open("rb") as file:
        beginning = file.read(2048)
    try:
        with Image.open(path, formats=[name for name in _EXTENSIONS if name in Image.OPEN]) as image:
            image.draft("RGB", (1, 1))  # reads a JPEG whole, but decodes it at an eighth of its size
            with _LARGE if image.width * image.height > _LARGE_PIXELS else nullcontext():
                image.load()
            return _EXTENSIONS[image.format or ""]
    except UnidentifiedImageError:
        if b"<svg" in beginning:
            raise FetchError("SVG, not a raster image") from None
        kind = response.headers.get("Content-Type", "no type")[:80]
        detail = f"sent as {kind}, begins with {beginning[:16]!r}" if beginning else "empty"
        raise FetchError("not an image", detail) from None
    except Image.DecompressionBombError as error:
        raise FetchError("too many pixels", str(error)) from None
    except Exception as error:  # each of Pillow's plugins raises errors of its own
        has_end = {"Content-Length", "Transfer-Encoding"} & set(response.headers)
        raise FetchError("broken image", str(error), retry=not has_end) from None
