"""One GET request, to public addresses only: an image file in the folder, a redirect, or the reason why not."""

import hashlib
import ipaddress
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import DecodeError, HTTPError, TimeoutError

from spacy_gemel.data.fetch.urls import host_of
from spacy_gemel.images.image import FORMATS, ImageError, UnknownFormatError, decode
from spacy_gemel.utils.files import write_whole
from spacy_gemel.utils.messages import one_line

_SESSION = requests.Session()  # only for what it knows of the environment and of redirects
_CURRENT = threading.local()  # the options and the Cut of the thread's request, for its connections
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Special networks (IANA's registries of IPv4 and IPv6 special-purpose addresses, RFC 3879 and 4291) that Python 3.11's
# ipaddress takes for public: local translation, old site-local addresses, IPv4 in IPv6, documentation, segment
# routing, and anycast relays of 6to4.
_SPECIAL = [
    ipaddress.ip_network(network)
    for network in ("64:ff9b:1::/48", "fec0::/10", "::/96", "3fff::/20", "5f00::/16", "192.88.99.0/24")
]
# Directives of X-Robots-Tag by which a host says that a picture is not for collections.
_NOT_FOR_COLLECTIONS = {"noai", "noimageai", "noindex", "noimageindex", "none"}
_CHUNK = 64 * 1024
_WORTH_A_RETRY = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """Options of `fetch-images`, see its --help. Times are in seconds."""

    user_agent: str | None = None
    workers: int = 8
    per_host: int = 2
    delay: float = 0.5
    retries: int = 3
    timeout: float = 30.0
    max_seconds: float = 300.0
    max_bytes: int = 64 * 2**20
    allow_private: bool = False


@dataclass(eq=False)
class FetchError(Exception):
    """A request without an image, counted under `reason`.

    retry: another try can succeed. pause: seconds for which a busy host asks to be left alone, 0 if it names none.
    """

    reason: str
    detail: str = ""
    retry: bool = False
    pause: float | None = None


class Cut(threading.Event):
    """Ends a request from another thread by shutting its socket: a server that drips bytes never times out."""

    connection: socket.socket | None = None

    def watch(self, descriptor: int) -> None:
        """Name the socket of the request. A duplicate is stored, as TLS takes the descriptor from its object."""
        self.close()
        self.connection = socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM)  # any family: only to shut
        if self.is_set():
            self.set()

    def set(self) -> None:  # noqa: D102
        super().set()
        if self.connection is not None:
            with suppress(OSError):  # the server hung up
                self.connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Forget the socket."""
        if self.connection is not None:
            self.connection.close()


def download(url: str, options: FetchOptions, adapter: HTTPAdapter, folder: Path, cut: Cut) -> tuple[str, int] | str:
    """Request a URL, without cookies and ~/.netrc, and store the image as a file named by its content.

    Returns the name and size of the file, or the URL that a redirect leads to. Nothing is stored once `cut` is set.

    Raises FetchError for anything that the host, the network or the content does, and OSError for the folder.
    """
    _CURRENT.options, _CURRENT.cut = options, cut
    agent = options.user_agent or f"spacy-gemel/{version('spacy-gemel')}"
    headers = {"User-Agent": agent, "Accept": "image/*", "Accept-Encoding": "identity"}
    try:
        request = requests.Request("GET", url, headers=headers).prepare()
        if not options.allow_private:
            with suppress(OSError):  # connecting tells; a proxy may know more names
                check_public(host_of(request.url or ""))
        settings = _SESSION.merge_environment_settings(url, {}, True, None, None)  # proxies, certificates
        with adapter.send(request, timeout=options.timeout, **settings) as response:
            if location := _SESSION.get_redirect_target(response):
                return urljoin(url, location)
            status = response.status_code
            if status != 200:
                pause = _retry_after(response.headers.get("Retry-After", "")) if status in (429, 503) else None
                raise FetchError(f"HTTP {status}", response.reason or "", status in _WORTH_A_RETRY, pause)
            if directive := _forbidding_directive(response.headers.get("X-Robots-Tag", "")):
                raise FetchError("not for collections", f"the host answers X-Robots-Tag: {directive}")
            body = bytearray()
            while (chunk := response.raw.read1(_CHUNK, decode_content=True)) and not cut.is_set():
                body += chunk
                if len(body) > options.max_bytes:
                    raise FetchError("too large", f"more than {options.max_bytes} bytes")
            if cut.is_set():
                raise FetchError("too slow")
            name = hashlib.blake2b(body, digest_size=16).hexdigest() + _extension(body, response)
            with write_whole(folder / name) as partial:
                partial.write_bytes(body)
            return name, len(body)
    except Exception as error:
        is_network_error = isinstance(error, (requests.RequestException, HTTPError, UnicodeError))
        if isinstance(error, FetchError) or (isinstance(error, OSError) and not is_network_error):
            raise
        timed_out = isinstance(error, (requests.Timeout, TimeoutError))
        reason = "timed out" if timed_out else "connection failed" if is_network_error else "unexpected error"
        final = isinstance(error, (ValueError, DecodeError, requests.exceptions.SSLError))  # ValueError: bad URLs
        detail = f"{type(error).__name__}: {one_line(error)}"
        raise FetchError(reason, detail, retry=is_network_error and not final) from error


def _forbidding_directive(header: str) -> str | None:
    """The directive by which an X-Robots-Tag header keeps a picture out of collections, or None.

    Directives for a crawler of another name ("otherbot: noindex") are not for us.
    """
    for part in header.lower().split(","):
        agent, _, directive = (word.strip() for word in part.rpartition(":"))
        if directive in _NOT_FOR_COLLECTIONS and agent in ("", "spacy-gemel"):
            return directive
    return None


def _retry_after(value: str) -> float:
    """Seconds of a Retry-After header, which has seconds or a date; 0 if it has neither."""
    if value.isdecimal():
        return float(value[:12])
    with suppress(ValueError, OverflowError):
        date = parsedate_to_datetime(value)
        return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    return 0.0


def _extension(body: bytearray, response: requests.Response) -> str:
    """The extension of an image by its content, which is decoded to find out whether it is whole."""
    try:
        return FORMATS[decode(bytes(body), "it", smallest=True).format or ""]
    except UnknownFormatError:
        kind = "SVG" if b"<svg" in body[:2048] else response.headers.get("Content-Type", "no type")[:80]
        raise FetchError("not an image", f"sent as {kind}, begins with {bytes(body[:16])!r}") from None
    except ImageError as error:
        raise FetchError("broken image", one_line(error), retry="Content-Length" not in response.headers) from None


def check_public(host: str) -> list[str]:
    """The addresses of a host. Raises FetchError if one is not public, and OSError if there are none."""
    addresses = [str(row[4][0]) for row in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    for address in addresses:
        check_address(address)
    return addresses


def check_address(address: str) -> None:
    """Raise FetchError if an IP address does not belong to the public internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        nat64 = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None
        ip = nat64 or ip.ipv4_mapped or ip.sixtofour or ip
    if not ip.is_global or ip.is_multicast or any(ip in network for network in _SPECIAL):
        raise FetchError("private address", "use --allow-private to fetch from your own network")


class _Connection(HTTPConnection):
    """A connection that its request's Cut can shut, to addresses that were all checked before."""

    def _new_conn(self) -> socket.socket:
        host, error = self._dns_host, HTTPError("the host has no address")
        unchecked = _CURRENT.options.allow_private or self.proxy is not None
        for self._dns_host in [host] if unchecked else check_public(host):
            try:
                connection = super()._new_conn()
                _CURRENT.cut.watch(connection.fileno())
                return connection
            except HTTPError as problem:
                error = problem
            finally:
                self._dns_host = host  # which TLS checks
        raise error

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:  # perhaps the connection of an earlier request
            _CURRENT.cut.watch(self.sock.fileno())
        super().request(*args, **kwargs)


class _TLSConnection(_Connection, HTTPSConnection):
    pass


class Adapter(HTTPAdapter):
    """Connects to public addresses only unless the options allow others, or to the user's own proxy."""

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        classes = {HTTPConnection: _Connection, HTTPSConnection: _TLSConnection}  # SOCKS has its own way to connect
        pool.ConnectionCls = classes.get(pool.ConnectionCls, pool.ConnectionCls)
        return pool
