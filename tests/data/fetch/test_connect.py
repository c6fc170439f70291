"""Which addresses are connected to: those that were judged, whatever a redirect or a second look-up says."""

import ipaddress
import socket
from pathlib import Path
from typing import Any

import pytest

from spacy_gemel.data.fetch import connect
from spacy_gemel.data.fetch.connect import is_private
from spacy_gemel.data.fetch.index import fetched
from tests.data.fetch.server import Server, picture
from tests.data.fetch.test_fetch import fetch, only_failure

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "no_proxy", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("127.0.0.1", True),
        ("localhost:8080", True),
        ("LocalHost.", True),
        ("a.localhost", True),
        ("10.1.2.3", True),
        ("169.254.169.254", True),
        ("100.64.0.1", True),
        ("224.0.0.1", True),
        ("[::1]", True),
        ("[fd00::1]", True),
        ("[::ffff:127.0.0.1]", True),
        ("[2002:7f00:1::]", True),
        ("[64:ff9b::10.0.0.1]", True),
        ("0.0.0.0", True),
        ("127.1", True),
        ("0x7f.0.0.1", True),
        ("2130706433", True),
        ("93.184.216.34", False),
        ("[2606:2800:220:1::1]", False),
        ("[64:ff9b::93.184.216.34]", False),
        ("pictures.example.org", False),
    ],
)
def test_private_addresses(host: str, private: bool) -> None:
    assert is_private(f"http://{host}/x") is private


class Names:
    """The system's look-up and its connections, of which none is made to the outside."""

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
        self.asked.append(host)
        if host == "127.0.0.1":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
        answers = self.answers[host.partition(".")[0]]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (item, port)) for item in found.split()]


def test_a_name_that_stands_for_a_private_address(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, inside=["127.0.0.1"], both=["93.184.216.34 10.0.0.1"])
    port = server.server_address[1]
    urls = [f"http://inside.example.org:{port}/x", f"http://both.example.org:{port}/x", server.send("/x", picture())]
    report = fetch(urls, tmp_path, allow_private=False)
    assert {failure.url: failure.reason for failure in report.failures} == dict.fromkeys(urls, "a private address")
    assert not names.connected
    assert not server.asked
    assert fetch(urls[:1], tmp_path).fetched == 1


def test_a_name_that_changes_its_address_after_it_was_judged(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, changing=["93.184.216.34", "127.0.0.1"])
    server.send("/x", picture())
    url = f"http://changing.example.org:{server.server_address[1]}/x"
    failure = only_failure(fetch([url], tmp_path, allow_private=False, retries=0))
    assert failure.reason == "the connection broke"
    assert names.connected == ["93.184.216.34"]
    assert not server.asked


@pytest.mark.parametrize("location", ["http://10.0.0.1/x", "http://inside.example.org/x", "http://localhost/x"])
def test_a_redirect_into_the_private_network(
    location: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, inside=["192.168.1.1"])
    judge = connect._is_public
    here = ipaddress.ip_address("127.0.0.1")
    monkeypatch.setattr(connect, "_is_public", lambda address: address == here or judge(address))
    failure = only_failure(fetch([server.redirect("/x", location)], tmp_path, allow_private=False))
    assert failure.reason == "a private address"
    assert set(names.connected) == {"127.0.0.1"}


def test_the_next_address_is_tried(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, two=["10.0.0.1 127.0.0.1"])
    server.send("/x", picture())
    assert fetch([f"http://two.example.org:{server.server_address[1]}/x"], tmp_path).fetched == 1
    assert names.connected == ["10.0.0.1", "127.0.0.1"]


def test_a_proxy_looks_names_up_and_may_be_near(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy is the user's own; addresses are judged all the same, and names without it where it is for others."""
    names = Names(monkeypatch, inside=["192.168.1.1"])
    monkeypatch.setenv("http_proxy", server.url(""))
    monkeypatch.setenv("no_proxy", "inside.example.org")
    server.answers["http://pictures.example.org/a.png"] = server.answers[server.send("/x", picture()) and "/x"]
    urls = ["http://pictures.example.org/a.png", "http://10.0.0.1/a.png", "http://inside.example.org/a.png"]
    report = fetch(urls, tmp_path, allow_private=False)
    assert list(fetched(tmp_path)) == urls[:1]
    assert {failure.url: failure.reason for failure in report.failures} == dict.fromkeys(urls[1:], "a private address")
    assert set(names.asked) == {"127.0.0.1", "inside.example.org"}
    assert set(names.connected) == {"127.0.0.1"}
