"""One request for one image: a file of the folder, a redirect, or the reason why not."""

import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urljoin

import requests
import urllib3

from spacy_gemel.data.fetch.attempt import Attempt
from spacy_gemel.data.fetch.connect import ask
from spacy_gemel.data.fetch.outcomes import (
    CannotStore,
    Failed,
    GivenUp,
    Limits,
    Outcome,
    Redirected,
    Stored,
    one_line,
    unexpected,
)
from spacy_gemel.data.fetch.sniff import BROKEN, NotAnImage, extension_of

PARTIAL = ".partial-"
_CHUNK = 64 * 1024
_DIGEST_BYTES = 16
_WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}
_REDIRECTS = {301, 302, 303, 307, 308}
_FOLDED = {"gzip", "x-gzip", "deflate"}


def download(url: str, folder: Path, limits: Limits, attempt: Attempt | None = None) -> Outcome:
    """Ask for a URL once and keep what comes as a file named by its content's hash.

    attempt: the clock to run under, for one who may want to cut it. Never raises for what the network does, nor for
    anything else that goes wrong with this URL alone; CannotStore where the folder cannot be written.
    """
    attempt = attempt or Attempt(limits.max_seconds, limits.allow_private)
    outcome: Outcome
    with attempt:
        try:
            outcome = _ask(url, folder, limits, attempt)
        except CannotStore:
            raise
        except Exception as error:
            outcome = _why(error)
    # to whoever read from it a socket that was shut has ended or broken: that is not why
    return outcome if attempt.over is None or isinstance(outcome, Stored) else attempt.over


def _ask(url: str, folder: Path, limits: Limits, attempt: Attempt) -> Outcome:
    headers = {"User-Agent": limits.user_agent, "Accept": "image/*", "Accept-Encoding": "identity"}
    with ask(url, headers, limits.timeout) as response:
        refusal = _answer_to_status(url, response)
        if refusal is not None:
            return refusal
        try:
            return _keep_body(response, folder, limits, attempt)
        except OSError as error:  # the network's errors are urllib3's here, and no OSErrors
            raise CannotStore(error.errno, error.strerror or str(error), error.filename) from error


def _why(error: Exception) -> Failed:
    """What an error means to the URL that it came with."""
    if isinstance(error, GivenUp):
        return error.why
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return Failed("timed out", one_line(error), again=True)
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema | UnicodeError):
        return Failed("the URL is malformed", one_line(error))
    if isinstance(error, requests.exceptions.SSLError):
        return Failed("no trusted connection", one_line(error))
    if isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError | _Broken):
        return Failed("the connection broke", one_line(error), again=True)
    return unexpected(error)


class _Broken(Exception):
    """The body ended too early."""


def _answer_to_status(url: str, response: requests.Response) -> Redirected | Failed | None:
    """What the status says; None where the body is to be read."""
    status = response.status_code
    if status in _REDIRECTS:
        location = response.headers.get("Location")
        if not location:
            return Failed("a redirect to nowhere", f"HTTP {status}")
        with suppress(UnicodeError):  # headers are latin-1 to Python, and UTF-8 to most servers
            location = location.encode("latin-1").decode("utf-8")
        try:
            return Redirected(urljoin(url, location))
        except ValueError:
            return Failed("a redirect to nowhere", location[:200])
    if status == 200:
        return None
    return Failed(
        f"HTTP {status}",
        (response.reason or "")[:100],
        again=status in _WORTH_ANOTHER_TRY,
        wait=_retry_after(response.headers.get("Retry-After")) if status in (429, 503) else None,
        busy=status == 429,
    )


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date; None where it holds neither."""
    if value is None:
        return None
    value = value.strip()
    if value.isdecimal():
        return float(value[:12])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError, TypeError):  # whatever a server may write for a date
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _keep_body(response: requests.Response, folder: Path, limits: Limits, attempt: Attempt) -> Stored | Failed:
    """Read the body into the folder, up to the limits, and name it by its content. Raises OSError, GivenUp."""
    coded = response.headers.get("Content-Encoding", "").strip().lower()
    folded = coded in _FOLDED
    body = _chunks(response, limits.max_bytes)
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    size = 0
    handle, name = tempfile.mkstemp(dir=folder, prefix=PARTIAL)
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            for chunk in _unfolded(body) if folded else body:
                size += len(chunk)
                if size > limits.max_bytes:
                    return _too_large(limits.max_bytes)
                digest.update(chunk)
                file.write(chunk)
        attempt.whole()
        extension = extension_of(partial, response.headers.get("Content-Type", "")[:80])
        target = folder / (digest.hexdigest() + extension)
        partial.chmod(0o644)  # mkstemp makes files private
        partial.replace(target)
        return Stored(target.name, size)
    except NotAnImage as error:
        if coded not in ("", "identity") and not folded:
            return Failed("a compressed body", f"Content-Encoding: {coded[:80]}, where only identity was asked for")
        # without a length that was told, a connection that was cut looks like an end
        message = "Content-Length" in response.headers or "chunked" in response.headers.get("Transfer-Encoding", "")
        return Failed(error.reason, error.detail, again=error.reason == BROKEN and not message)
    finally:
        partial.unlink(missing_ok=True)


def _chunks(response: requests.Response, most: int) -> Iterator[bytes]:
    """The body as it was sent. Raises _Broken for one that ends too early, GivenUp for one that is too long."""
    raw = response.raw
    size = 0
    while data := raw.read(_CHUNK, decode_content=False):
        size += len(data)
        if size > most:
            raise GivenUp(_too_large(most))
        yield data
    if raw.length_remaining:
        raise _Broken(f"{raw.length_remaining} bytes of the body are missing")


def _unfolded(body: Iterator[bytes]) -> Iterator[bytes]:
    """What gzip or deflate folded, a piece at a time: a few bytes can stand for gigabytes.

    Nobody asked for it to be folded, but some stores of files do so. Raises _Broken, GivenUp.
    """
    unfold = zlib.decompressobj(wbits=47)  # either of the two, told by its header
    try:
        for data in body:
            while data and not unfold.eof:
                yield unfold.decompress(data, _CHUNK)
                data = unfold.unconsumed_tail
            if unfold.eof:
                return  # what follows is not read
        while rest := unfold.decompress(b"", _CHUNK):
            yield rest
    except zlib.error as error:
        raise GivenUp(Failed("a compressed body", f"it does not unfold: {one_line(error)}")) from None
    if not unfold.eof:
        raise _Broken("the compressed body ends too early")


def _too_large(most: int) -> Failed:
    return Failed("too large", f"more than {most} bytes")
