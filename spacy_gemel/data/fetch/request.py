"""One GET request, to public addresses only, which another thread can cut."""

import ipaddress
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NewConnectionError, TimeoutError

from spacy_gemel.data.fetch.urls import host_of
from spacy_gemel.utils.messages import one_line

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_THREAD = threading.local()
SESSION = requests.Session()  # only for what it knows of the environment and of redirects


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """Options of `fetch-images`, see its --help. Times are in seconds; `backoff` doubles with each further try."""

    user_agent: str | None = None
    workers: int = 8
    per_host: int = 2
    delay: float = 0.5
    retries: int = 3
    backoff: float = 1.0
    timeout: float = 30.0
    max_seconds: float = 300.0
    max_wait: float = 600.0
    max_bytes: int = 64 * 2**20
    allow_private: bool = False


@dataclass(eq=False)
class FetchError(Exception):
    """A request without an image.

    It is counted under `reason`. retry: another try can succeed. busy: the host asks for fewer requests, and to wait
    `retry_after` seconds.
    """

    reason: str
    detail: str = ""
    retry: bool = False
    busy: bool = False
    retry_after: float | None = None


class Request:
    """One request, which its thread sends and another thread can cut while it connects or reads.

    A socket's timeout starts again with each byte: alone it would never stop a server that sends a byte now and then.
    """

    def __init__(self, url: str, options: FetchOptions) -> None:
        self.url = url
        self.options = options
        self._is_cut = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def cut(self) -> None:
        """Shut the socket, which wakes the thread that waits for it."""
        with self._lock:
            self._is_cut = True
            if self._socket is not None:
                with suppress(OSError):  # not connected yet, or not any more
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # TLS sockets have a shutdown of their own

    def check(self, connection: socket.socket | None = None) -> None:
        """Raise FetchError if the request was cut; else a cut is going to shut `connection`."""
        with self._lock:
            self._socket = connection
            if self._is_cut:
                raise FetchError("too slow", retry=True)

    def send(self, adapter: HTTPAdapter) -> requests.Response:
        """Send the request, without cookies and ~/.netrc, and leave redirects and the body to the caller.

        Raises:
            FetchError: if the address is private or the host unknown.
            requests.RequestException: for other errors of the network.
        """
        _THREAD.request = self
        agent = self.options.user_agent or f"spacy-gemel/{version('spacy-gemel')}"
        headers = {"User-Agent": agent, "Accept": "image/*", "Accept-Encoding": "identity"}
        request = requests.Request("GET", self.url, headers=headers).prepare()
        url = request.url or ""
        if not self.options.allow_private and is_private(url):
            raise private_address()
        settings = SESSION.merge_environment_settings(url, {}, True, None, None)  # proxies, certificates
        return adapter.send(request, timeout=self.options.timeout, **settings)


def private_address() -> FetchError:
    """The error for an address that is not public."""
    return FetchError("private address", "use --allow-private to fetch from your own network")


def is_private(url: str) -> bool:
    """Whether the URL's host is localhost or an address that is not public; other names are checked on connecting."""
    host = host_of(url)
    try:  # inet_aton knows 127.1 and 2130706433 too
        return not is_public(host if ":" in host else socket.inet_ntoa(socket.inet_aton(host)))
    except (OSError, ValueError):
        return host == "localhost" or host.endswith(".localhost")


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet. Raises ValueError if it is not an address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        nat64 = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None
        ip = ip.ipv4_mapped or ip.sixtofour or nat64 or ip
    return ip.is_global and not ip.is_multicast


class _Connection(HTTPConnection):
    """Connects for the request of the thread, to the addresses that were checked: a second look-up may differ."""

    def _new_conn(self) -> socket.socket:
        request: Request = _THREAD.request
        host = self._dns_host
        try:
            addresses = [str(row[4][0]) for row in socket.getaddrinfo(host, self.port, type=socket.SOCK_STREAM)]
        except OSError as error:
            raise FetchError("host not found", one_line(error), retry=True) from error
        if self.proxy is None and not request.options.allow_private and not all(map(is_public, addresses)):
            raise private_address()
        problem: Exception = NewConnectionError(self, "the host has no address")
        try:
            for self._dns_host in addresses:
                request.check()
                try:
                    connection = super()._new_conn()
                except (NewConnectionError, TimeoutError) as error:
                    problem = error
                else:
                    request.check(connection)
                    return connection
            raise problem
        finally:
            self._dns_host = host

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request, on a connection that may have served another one before."""
        if self.sock is not None:
            _THREAD.request.check(self.sock)
        super().request(*args, **kwargs)


class _TLSConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class Adapter(HTTPAdapter):
    """Makes the connections of this module, directly and by a proxy; all threads share one."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: D102
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:  # noqa: D102
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):  # SOCKS has connections of its own
            manager.pool_classes_by_scheme = self.poolmanager.pool_classes_by_scheme
        return manager
