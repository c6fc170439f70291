"""Connections: to addresses that were judged first, and under the clock of the attempt that they serve."""

import ipaddress
import queue
import socket
import threading
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from spacy_gemel.data.fetch.attempt import current
from spacy_gemel.data.fetch.outcomes import Failed, GivenUp, one_line
from spacy_gemel.data.fetch.urls import host_of

PRIVATE = Failed("a private address", "give --allow-private to fetch from one's own network")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Found = list[tuple[Any, Any, int, str, Any]]  # as getaddrinfo has it


def is_private(url: str) -> bool:
    """Whether a URL says by itself that it leads to this machine or into a private network.

    A name says nothing: what it stands for is judged when it is connected to, except by a proxy that looks it up.
    """
    host = host_of(url)
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return not _is_public(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:  # 127.1, 0x7f.0.0.1 and 2130706433 are addresses to most systems
        return not _is_public(ipaddress.ip_address(socket.inet_aton(host)))
    except (OSError, UnicodeError):
        return False


def _is_public(address: _Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(inner)
    return address.is_global and not address.is_multicast


def look_up(host: str, port: int, seconds: float) -> _Found:
    """The addresses of a host, waited for no longer than some seconds. Raises GivenUp.

    The system's look-up knows no time limit and cannot be interrupted: it is left to a thread that nobody waits for.
    """
    answer: queue.SimpleQueue[_Found | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:
            answer.put(error)

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    try:
        found = answer.get(timeout=seconds)
    except queue.Empty:
        raise GivenUp(Failed("the host is not found", f"no answer after {seconds:g} s", again=True)) from None
    if isinstance(found, UnicodeError):  # a label that is too long or empty
        raise GivenUp(Failed("the URL is malformed", one_line(found)))
    if isinstance(found, Exception):
        raise GivenUp(Failed("the host is not found", one_line(found), again=True))
    return found


class _Watched(HTTPConnection):
    """A connection that the thread's attempt can cut at any moment of its life."""

    def _new_conn(self) -> socket.socket:
        """Connect to the addresses that were judged and no others: a second look-up may give other ones."""
        attempt = current()
        timeout = self.timeout if isinstance(self.timeout, int | float) else attempt.seconds
        found = look_up(self._dns_host, self.port, min(timeout, attempt.left()))
        if self.proxy is None and not attempt.allow_private:
            addresses = [ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in found]
            if not all(map(_is_public, addresses)):
                raise GivenUp(PRIVATE)
        problem: OSError = OSError("the host has no address")
        for family, kind, protocol, _, address in found:
            connection = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    connection.setsockopt(*option)
                connection.settimeout(min(timeout, attempt.left()))
                attempt.watch(connection.fileno())
                connection.connect(address)
                connection.settimeout(timeout)
                return connection
            except OSError as error:
                connection.close()
                problem = error
            except BaseException:
                connection.close()
                raise
        if isinstance(problem, TimeoutError):
            raise ConnectTimeoutError(self, f"no connection to {self.host} after {timeout:g} s") from problem
        raise NewConnectionError(self, str(problem)) from problem

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request; a connection that is used again serves another attempt now."""
        if self.sock is not None:
            current().watch(self.sock.fileno())
        super().request(*args, **kwargs)


class _WatchedTLS(_Watched, HTTPSConnection):
    """The same under TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Watched


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedTLS


_POOLS = {"http": _Pool, "https": _TLSPool}


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):  # which connects in its own way, with no clock but the timeouts
            manager.pool_classes_by_scheme = _POOLS
        return manager


_OF_THREAD = threading.local()


def ask(url: str, headers: dict[str, str], timeout: float) -> requests.Response:
    """Send a GET within this thread's attempt; the body is still to be read. Raises what requests raises, GivenUp.

    Connections are used again; there are no cookies and no passwords from ~/.netrc. The adapter is called without
    Session.send, which would read the whole body of a redirect, and unfold it, even where none are followed.
    """
    session: requests.Session | None = getattr(_OF_THREAD, "session", None)
    if session is None:
        session = _OF_THREAD.session = requests.Session()
        session.auth = _no_auth
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        session.mount("http://", _Adapter())
        session.mount("https://", _Adapter())
    request = session.prepare_request(requests.Request("GET", url, headers=headers))
    asked = request.url or ""  # as requests understands it
    if not current().allow_private and is_private(asked):
        raise GivenUp(PRIVATE)
    settings = session.merge_environment_settings(asked, {}, True, None, None)
    return session.get_adapter(asked).send(request, timeout=(timeout, timeout), **settings)


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
