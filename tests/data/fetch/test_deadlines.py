"""One deadline for all of a request, and Ctrl-C whatever the servers do."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from spacy_gemel.data.fetch.index import fetched
from tests.data.fetch.server import Server, picture
from tests.data.fetch.test_fetch import fetch, no_leftovers, only_failure

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("where", ["status", "name", "value", "interim", "body", "folded body", "redirect"])
def test_a_server_that_drips(where: str, server: Server, tmp_path: Path) -> None:
    """Each byte comes long before the timeout, and the last one never."""
    url = {
        "status": lambda: server.drip_headers("/x", 0.02, b"HTTP/1.0 2"),
        "name": lambda: server.drip_headers("/x", 0.02, b"HTTP/1.0 200 OK\r\nX-"),
        "value": lambda: server.drip_headers("/x", 0.02),
        "interim": lambda: server.go_on("/x"),
        "body": lambda: server.drip("/x", 0.02),
        "folded body": lambda: server.drip_headers(
            "/x", 0.02, b"HTTP/1.0 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x08\0\0\0\0\0\0"
        ),
        "redirect": lambda: server.drip_headers("/x", 0.02, b"HTTP/1.0 302 OK\r\nLocation: /y\r\nX: "),
    }[where]()
    good = server.send("/good", picture())
    start = time.monotonic()
    report = fetch([url, good], tmp_path, timeout=3.0, max_seconds=0.5, retries=1)
    assert time.monotonic() - start < 3.0
    assert [(failure.url, failure.reason, failure.tries) for failure in report.failures] == [(url, "too slow", 2)]
    assert "not done after 0.5 s" in report.failures[0].detail
    assert set(fetched(tmp_path)) == {good}
    no_leftovers(tmp_path)


def test_a_handshake_that_drips(tmp_path: Path) -> None:
    """TLS records that announce a lot, and come a byte at a time."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"\x16\x03\x03\x3f\x00\x02\x00\x3e\xf0")
                try:
                    while True:
                        connection.sendall(b"x")
                        time.sleep(0.02)
                except OSError:
                    pass

        threading.Thread(target=serve, daemon=True).start()
        start = time.monotonic()
        url = f"https://127.0.0.1:{port}/x"
        failure = only_failure(fetch([url], tmp_path, timeout=20.0, max_seconds=0.5, retries=0))
    assert time.monotonic() - start < 3.0
    assert failure.reason == "too slow"


def test_a_connection_that_is_used_again_has_a_clock_too(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.data.fetch.server._Handler.protocol_version", "HTTP/1.1")
    first = server.send("/1", picture(1))
    ports = []

    def answer(handler: Any) -> None:
        ports.append(handler.client_address[1])
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.02)

    right = server.answers["/1"]
    server.answers["/1"] = lambda handler: (ports.append(handler.client_address[1]), right(handler))[1]
    server.answers["/2"] = answer
    start = time.monotonic()
    report = fetch([first, server.url("/2")], tmp_path, workers=1, timeout=20.0, max_seconds=0.5, retries=0)
    assert time.monotonic() - start < 3.0
    assert (report.fetched, report.failures[0].reason) == (1, "too slow")
    assert ports[0] == ports[1]


def test_a_redirect_is_followed_without_its_body(server: Server, tmp_path: Path) -> None:
    end = server.send("/end", picture())
    endless = server.flood("/endless", "", status=302, Location=end)
    start = time.monotonic()
    assert fetch([endless], tmp_path, max_seconds=20.0).fetched == 1
    assert time.monotonic() - start < 5.0


def test_a_look_up_without_an_answer(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = socket.getaddrinfo
    hang = threading.Event()

    def slow(host: Any, *rest: Any, **more: Any) -> Any:
        if host == "slow.example.org":
            hang.wait(60)
        return right(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    good = server.send("/x", picture())
    start = time.monotonic()
    report = fetch(["http://slow.example.org/x", good], tmp_path, timeout=0.3, retries=1)
    hang.set()
    assert time.monotonic() - start < 4.0
    assert (report.fetched, report.failures[0].reason, report.failures[0].tries) == (1, "the host is not found", 2)


def test_many_addresses_that_do_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"10.0.0.{n}", 80)) for n in range(1, 200)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: many)

    class Deaf(socket.socket):
        def connect(self, address: Any) -> None:
            time.sleep(self.gettimeout() or 60)
            raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "socket", Deaf)
    start = time.monotonic()
    failure = only_failure(fetch(["http://a.example.org/x"], tmp_path, timeout=0.2, max_seconds=0.7, retries=0))
    assert time.monotonic() - start < 3.0
    assert failure.reason == "too slow"


def test_no_trust_no_picture(server: Server, tmp_path: Path) -> None:
    """TLS is spoken, and checked, through the connections of our own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("aNULL:@SECLEVEL=0")  # no certificate at all
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    url = server.send("/x", picture()).replace("http:", "https:")
    assert only_failure(fetch([url], tmp_path)).reason == "no trusted connection"


# Hangs where nothing can be cut: the system's look-up, and a picture that takes for ever to decode.
HANGING = """
import socket, sys, time
from spacy_gemel.data.fetch import download

look_up, decode = socket.getaddrinfo, download.extension_of
socket.getaddrinfo = lambda host, *rest, **more: time.sleep(60) if "slow" in host else look_up(host, *rest, **more)
download.extension_of = lambda path, said: time.sleep(60) if said == "text/slow" else decode(path, said)
from spacy_gemel.__main__ import app
app()
"""


def start_process(server: Server, urls: list[str], folder: Path) -> "subprocess.Popen[str]":
    source = folder.parent / "u.txt"
    source.write_text("\n".join(urls))
    options = ["--allow-private", "--delay", "0", "--per-host", "12", "--workers", "12", "--retries", "0", "--quiet"]
    return subprocess.Popen(
        [sys.executable, "-c", HANGING, "fetch-images", str(source), str(folder), *options],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupt_ends_it_whatever_the_servers_do(ending: signal.Signals, server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    good = [server.send(f"/{n}", picture(n)) for n in range(5)]
    bad = [
        server.drip_headers("/status", 0.05, b"HTTP/1.0 2"),
        server.drip_headers("/header", 0.05),
        server.go_on("/interim"),
        server.drip("/body", 0.05),
        server.send("/silent", b"", seconds=30.0),
        server.send("/decoded", picture(20), Content_Type="text/slow"),
    ]
    paths = ["/status", "/header", "/interim", "/body", "/silent", "/decoded"]
    process = start_process(server, [*bad, "http://slow.example.org/x", *good], folder)
    try:
        wait_for(lambda: len(fetched(folder)) == 5 and all(server.asked[path] for path in paths))
        sent = time.monotonic()
        process.send_signal(ending)
        _, said = process.communicate(timeout=30)
        took = time.monotonic() - sent
    finally:
        process.kill()
    assert took < 4.0  # two seconds, and what a busy machine adds
    if ending == signal.SIGINT:
        assert process.returncode == 130, said
        assert "the same command goes on from there" in said
        assert "Traceback" not in said
        assert json.loads("[" + ",".join((folder / "failed.jsonl").read_text().splitlines()) + "]") == []
    assert set(fetched(folder)) == set(good)
    index = (folder / "index.jsonl").read_bytes()
    assert index.endswith(b"\n")
    assert sorted(json.loads(line)["url"] for line in index.splitlines()) == sorted(good)
    # the servers come to their senses, and the same call goes on
    for number, path in enumerate(paths):
        server.send(path, picture(30 + number))
    report = fetch([*bad, *good], folder)
    assert (report.before, report.fetched, report.failures) == (5, 6, [])
    assert {server.asked[f"/{n}"] for n in range(5)} == {1}
    no_leftovers(folder)
