"""One request for one image: a file of the folder, a redirect, or the reason why not."""

import hashlib
import ipaddress
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from urllib.parse import urljoin

import requests
import urllib3

from spacy_gemel.fetch.sniff import BROKEN, NotAnImage, extension_of
from spacy_gemel.fetch.urls import host_of

PARTIAL = ".partial-"
_CHUNK = 64 * 1024
_DIGEST_BYTES = 16
_WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}
_REDIRECTS = {301, 302, 303, 307, 308}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may take.

    user_agent: as sent. max_bytes: a longer body is left where it is. timeout: seconds to connect, and without a byte.
    max_seconds: for one body. allow_private: ask hosts in private networks and on this machine, too.
    """

    user_agent: str
    max_bytes: int
    timeout: float
    max_seconds: float
    allow_private: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """The image lies in the folder under this name."""

    file: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Redirected:
    """The server sends on to another URL."""

    url: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Why there is no image. reason: what it is counted under.

    again: another try may do. wait: seconds that the server asks to be left alone. busy: it says it is asked too much.
    """

    reason: str
    detail: str = ""
    again: bool = False
    wait: float | None = None
    busy: bool = False


Outcome = Stored | Redirected | Failed


def download(url: str, folder: Path, limits: Limits, stop: threading.Event) -> Outcome:
    """Ask for a URL once and keep what comes as a file named by its content's hash.

    stop: once set, the body that is being read is given up. Never raises for what the network does; OSError where
    the folder cannot be written.
    """
    try:
        if not limits.allow_private and is_private(url):
            return Failed("a private address", "give --allow-private to fetch from one's own network")
    except OSError as error:
        return Failed("the host is not found", str(error), again=True)
    try:
        headers = {"User-Agent": limits.user_agent, "Accept": "image/*", "Accept-Encoding": "identity"}
        with _session().get(
            url, headers=headers, stream=True, allow_redirects=False, timeout=(limits.timeout, limits.timeout)
        ) as response:
            refusal = _answer_to_status(url, response)
            return _keep_body(response, folder, limits, stop) if refusal is None else refusal
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        return Failed("timed out", _short(error), again=True)
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, UnicodeError) as error:
        return Failed("the URL is malformed", _short(error))
    except requests.exceptions.SSLError as error:
        return Failed("no trusted connection", _short(error))
    except (requests.RequestException, urllib3.exceptions.HTTPError, _Broken) as error:
        return Failed("the connection broke", _short(error), again=True)


def is_private(url: str) -> bool:
    """Whether a URL leads to this machine or into a private network. Raises OSError for a host without an address.

    Behind a proxy only addresses and localhost are judged: the proxy looks names up. The address is looked up once
    here and once for the request; this guards against lists of URLs, not against an attacker's name server.
    """
    host = host_of(url)
    try:
        addresses = [ipaddress.ip_address(host)]
    except ValueError:
        if host == "localhost" or host.endswith(".localhost"):
            return True
        # Not any proxy of the environment: NO_PROXY alone is none, and one for http is none for https.
        if requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url)):
            return False
        addresses = [ipaddress.ip_address(address) for address in _addresses(host)]
    return any(not address.is_global or address.is_multicast for address in addresses)


@lru_cache(maxsize=4096)
def _addresses(host: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except UnicodeError as error:  # a label that is too long or empty
        raise OSError(str(error)) from error
    return tuple({str(item[4][0]).partition("%")[0] for item in found})


class _Broken(Exception):
    """The body ended too early."""


_OF_THREAD = threading.local()


def _session() -> requests.Session:
    """This thread's session: connections are used again; no cookies, no passwords from ~/.netrc."""
    session: requests.Session | None = getattr(_OF_THREAD, "session", None)
    if session is None:
        session = _OF_THREAD.session = requests.Session()
        session.auth = _no_auth
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return session


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


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


def _keep_body(response: requests.Response, folder: Path, limits: Limits, stop: threading.Event) -> Stored | Failed:
    """Read the body into the folder, up to the limits, and name it by its content."""
    end = time.monotonic() + limits.max_seconds
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    size = 0
    handle, name = tempfile.mkstemp(dir=folder, prefix=PARTIAL)
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            for chunk in _chunks(response):
                size += len(chunk)
                if size > limits.max_bytes:
                    return Failed("too large", f"more than {limits.max_bytes} bytes")
                if stop.is_set():
                    return Failed("interrupted")
                if time.monotonic() > end:
                    return Failed("too slow", f"not done after {limits.max_seconds:g} s ({size} bytes)", again=True)
                digest.update(chunk)
                file.write(chunk)
        extension = extension_of(partial, response.headers.get("Content-Type", "")[:80])
        target = folder / (digest.hexdigest() + extension)
        partial.chmod(0o644)  # mkstemp makes files private
        partial.replace(target)
        return Stored(target.name, size)
    except NotAnImage as error:
        # without a length that was told, a connection that was cut looks like an end
        told = "Content-Length" in response.headers or "chunked" in response.headers.get("Transfer-Encoding", "")
        return Failed(error.reason, error.detail, again=error.reason == BROKEN and not told)
    finally:
        partial.unlink(missing_ok=True)


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """The body as it comes in, so that a slow one can be given up. Raises _Broken for a body that ends too early."""
    raw = response.raw
    if not hasattr(raw, "read1"):  # urllib3 before 2
        yield from response.iter_content(4096)
        return
    while data := raw.read1(_CHUNK, decode_content=True):
        yield data
    if raw.length_remaining:
        raise _Broken(f"{raw.length_remaining} bytes of the body are missing")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
