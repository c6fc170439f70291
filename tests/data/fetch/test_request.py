"""Which addresses are connected to, and how a request ends that takes too long."""

import gzip
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest

from spacy_gemel.data.fetch import request
from spacy_gemel.data.fetch.index import read_index
from spacy_gemel.data.fetch.request import is_private
from tests.data.fetch.server import GENEROUS, Server, only_failure, picture

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "no_proxy", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost:8080", "LocalHost.", "a.localhost", "10.1.2.3", "169.254.169.254", "100.64.0.1",
        "224.0.0.1", "0.0.0.0", "127.1", "0x7f.0.0.1", "2130706433", "[::1]", "[fd00::1]", "[::ffff:127.0.0.1]",
        "[2002:7f00:1::]", "[64:ff9b::10.0.0.1]",
    ],
)  # fmt: skip
def test_private_addresses(host: str) -> None:
    assert is_private(f"http://{host}/x")


@pytest.mark.parametrize(
    "host", ["93.184.216.34", "[2606:2800:220:1::1]", "[64:ff9b::93.184.216.34]", "pictures.example.org"]
)
def test_public_addresses(host: str) -> None:
    assert not is_private(f"http://{host}/x")


class Names:
    """The system's look-up and its connections, none of which leads outside."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: list[str]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.connected: list[str] = []
        monkeypatch.setattr(socket, "getaddrinfo", self.getaddrinfo)
        names = self

        class Socket(socket.socket):
            def connect(self, address: Any) -> None:
                names.connected.append(address[0])
                if address[0] != "127.0.0.1":
                    raise ConnectionRefusedError(111, "refused")
                super().connect(address)

        monkeypatch.setattr(socket, "socket", Socket)

    def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        if host[0].isdigit():
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
        self.asked.append(host)
        answers = self.answers[host.partition(".")[0]]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses.split()]


def test_a_name_with_a_private_address(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, inside=["127.0.0.1"], both=["93.184.216.34 10.0.0.1"])
    port = server.server_address[1]
    urls = [f"http://inside.example.org:{port}/x", f"http://both.example.org:{port}/x", server.send("/x", picture())]
    report = server.fetch(urls, tmp_path, allow_private=False)
    assert {failure.url: failure.reason for failure in report.failures} == dict.fromkeys(urls, "private address")
    assert not names.connected
    assert not server.asked
    assert server.fetch(urls[:1], tmp_path).fetched == 1


def test_a_name_that_changes_its_address_after_the_check(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, changing=["93.184.216.34", "127.0.0.1"])
    server.send("/x", picture())
    url = f"http://changing.example.org:{server.server_address[1]}/x"
    failure = only_failure(server.fetch([url], tmp_path, allow_private=False, retries=0))
    assert failure.reason == "connection failed"
    assert names.connected == ["93.184.216.34"]
    assert not server.asked


@pytest.mark.parametrize("location", ["http://10.0.0.1/x", "http://inside.example.org/x", "http://localhost/x"])
def test_a_redirect_into_the_private_network(
    location: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, inside=["192.168.1.1"])
    is_public = request.is_public
    monkeypatch.setattr(request, "is_public", lambda address: address == "127.0.0.1" or is_public(address))
    failure = only_failure(server.fetch([server.redirect("/x", location)], tmp_path, allow_private=False))
    assert failure.reason == "private address"
    assert set(names.connected) == {"127.0.0.1"}


def test_the_next_address_is_tried(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, two=["10.0.0.1 127.0.0.1"])
    server.send("/x", picture())
    assert server.fetch([f"http://two.example.org:{server.server_address[1]}/x"], tmp_path).fetched == 1
    assert names.connected == ["10.0.0.1", "127.0.0.1"]


def test_a_proxy_looks_names_up_and_may_be_near(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy is the user's own; addresses are checked all the same, and names that do not use it."""
    names = Names(monkeypatch, inside=["192.168.1.1"])
    monkeypatch.setenv("http_proxy", server.url(""))
    monkeypatch.setenv("no_proxy", "inside.example.org")
    urls = ["http://pictures.example.org/a.png", "http://10.0.0.1/a.png", "http://inside.example.org/a.png"]
    server.send(urls[0], picture())
    report = server.fetch(urls, tmp_path, allow_private=False)
    assert list(read_index(tmp_path)) == urls[:1]
    assert {failure.url: failure.reason for failure in report.failures} == dict.fromkeys(urls[1:], "private address")
    assert names.asked == ["inside.example.org"]
    assert set(names.connected) == {"127.0.0.1"}


@pytest.mark.parametrize(
    "beginning",
    [
        b"HTTP/1.0 2",
        b"HTTP/1.0 200 OK\r\nX-Long: x",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n" + picture()[:100],
        b"HTTP/1.0 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"")[:10],
        b"HTTP/1.0 302 OK\r\nLocation: /y\r\nX: ",
    ],
    ids=["status", "header", "interim answer", "body", "compressed body", "redirect"],
)
def test_a_server_that_does_not_go_on_is_cut(beginning: bytes, server: Server, tmp_path: Path) -> None:
    url = server.stop("/x", beginning)
    good = server.send("/good", picture())
    report = server.fetch([good, url], tmp_path, workers=1, retries=1)
    assert [(failure.url, failure.reason, failure.tries) for failure in report.failures] == [(url, "too slow", 2)]
    assert report.failures[0].detail == "not done after 300 s"
    server.wait_for(lambda: server.hung_up["/x"] == 2)
    assert set(read_index(tmp_path)) == {good}


def test_a_connection_that_is_used_again_can_be_cut(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.data.fetch.server._Handler.protocol_version", "HTTP/1.1")
    urls = [server.send("/1", picture(1)), server.stop("/2")]
    ports = []
    for path, answer in list(server.answers.items()):
        server.answers[path] = lambda handler, answer=answer: (  # type: ignore[misc]
            ports.append(handler.client_address[1]) or answer(handler)  # type: ignore[func-returns-value]
        )
    report = server.fetch(urls, tmp_path, workers=1, retries=0)
    assert (report.fetched, report.failures[0].reason) == (1, "too slow")
    assert ports[0] == ports[1]
    server.wait_for(lambda: server.hung_up["/2"] == 1)


def test_a_handshake_that_does_not_end(server: Server, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        over = threading.Event()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"\x16\x03\x03\x3f\x00\x02\x00\x3e\xf0")  # announces more than it sends
                server.clock.sleep(1000)
                over.wait(GENEROUS)

        threading.Thread(target=serve, daemon=True).start()
        url = f"https://127.0.0.1:{listening.getsockname()[1]}/x"
        assert only_failure(server.fetch([url], tmp_path, retries=0)).reason == "too slow"
        over.set()


def test_a_look_up_without_an_answer(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    getaddrinfo, over = socket.getaddrinfo, threading.Event()

    def slow(host: Any, *rest: Any, **more: Any) -> Any:
        if host == "slow.example.org":
            server.clock.sleep(1000)
            over.wait(GENEROUS)
        return getaddrinfo(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    good = server.send("/x", picture())
    report = server.fetch([good, "http://slow.example.org/x"], tmp_path, workers=1, retries=0)
    over.set()
    assert (report.fetched, report.failures[0].reason) == (1, "too slow")


def test_a_silent_server_times_out(server: Server, tmp_path: Path) -> None:
    failure = only_failure(server.fetch([server.stop("/x", seconds=0)], tmp_path, timeout=0.1, retries=1))
    assert (failure.reason, failure.tries) == ("timed out", 2)


def test_a_certificate_is_required(server: Server, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("aNULL:@SECLEVEL=0")  # no certificate at all
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    url = server.send("/x", picture()).replace("http:", "https:")
    assert only_failure(server.fetch([url], tmp_path)).reason == "no trusted connection"


def test_no_passwords_and_no_cookies(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    urls = [server.send("/1", picture(1), Set_Cookie="id=7"), server.send("/2", picture(2))]
    server.fetch(urls, tmp_path / "out", workers=1, user_agent="study/1 (me@example.org)")
    assert len(server.headers) == 2
    for headers in server.headers:
        assert not {"Authorization", "Cookie"} & set(headers)
        assert headers["User-Agent"] == "study/1 (me@example.org)"
        assert headers["Accept-Encoding"] == "identity"
