"""A web server on this machine that misbehaves in every way a test asks for, and counts requests."""

import io
import json
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spacy_gemel.data.fetch.download import FetchOptions
from spacy_gemel.data.fetch.run import FetchReport, fetch_images
from spacy_gemel.data.fetch.urls import Failure

GENEROUS = 60.0
"""Seconds within which an event must come, on any machine."""


def picture(seed: int = 0, kind: str = "PNG") -> bytes:
    """An image of noise, encoded."""
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


class Clock:
    """A time that passes only when somebody sleeps, or a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Server(ThreadingHTTPServer):
    """Answers each path as it was told to, other paths with 404."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Callable[[Any], None]] = {}
        self.clock = Clock()
        self.asked: Counter[str] = Counter()
        self.starts: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.active: Counter[str] = Counter()
        self.most_active: Counter[str] = Counter()
        self.changed = threading.Condition()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_address[1]}{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are what the tests are about."""

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the counts holds."""
        with self.changed:
            assert self.changed.wait_for(condition, GENEROUS)

    def send(
        self, path: str, body: bytes, status: int = 200, until: Callable[[], bool] = lambda: True, **headers: str
    ) -> str:
        """Answer a path with a body as soon as `until` holds; returns its URL. Header names take _ for -."""

        def answer(handler: Any) -> None:
            self.wait_for(until)
            handler.send_response(status)
            for name, value in {"Content_Length": str(len(body)), **headers}.items():
                if value:
                    handler.send_header(name.replace("_", "-"), value)
            handler.end_request()  # before the last byte: the client may begin the next one when it has that
            handler.end_headers()
            handler.wfile.write(body)

        self.answers[path] = answer
        return self.url(path)

    def redirect(self, path: str, location: str, status: int = 302) -> str:
        return self.send(path, b"", status, Location=location)

    def stop(self, path: str, beginning: bytes = b"", seconds: float = 1000.0) -> str:
        """Begin an answer, let some time pass on the clock, and go on only when the client hangs up."""

        def answer(handler: Any) -> None:
            handler.wfile.write(beginning)
            self.clock.sleep(seconds)
            handler.connection.settimeout(GENEROUS)
            assert handler.rfile.read(1) == b""

        self.answers[path] = answer
        return self.url(path)

    def drip(self, path: str, beginning: bytes) -> str:
        """Begin an answer, let time pass on the clock, and send a byte now and then until the client hangs up."""

        def answer(handler: Any) -> None:
            handler.wfile.write(beginning)
            self.clock.sleep(1000.0)
            while not select.select([handler.connection], [], [], 0.01)[0]:  # readable: hung up
                handler.wfile.write(b"x")

        self.answers[path] = answer
        return self.url(path)

    def flood(self, path: str, length: str, status: int = 200, **headers: str) -> str:
        """A body without an end, whatever its length is said to be."""

        def answer(handler: Any) -> None:
            handler.send_response(status)
            for name, value in {**headers, "Content-Length": length}.items():
                if value:
                    handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(picture())
            while True:
                handler.wfile.write(b"x" * 65536)

        self.answers[path] = answer
        return self.url(path)

    def reset(self, path: str) -> str:
        """Hang up in the middle, the hard way."""

        def answer(handler: Any) -> None:
            handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 10)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()

        self.answers[path] = answer
        return self.url(path)

    def first(self, path: str, failing: int, fail: Callable[[str], str], then: bytes) -> str:
        """Misbehave for the first requests, then send a body."""
        fail(path)
        bad = self.answers[path]
        self.send(path, then)
        good = self.answers[path]
        self.answers[path] = lambda handler: (bad if self.asked[path] <= failing else good)(handler)
        return self.url(path)

    def fetch(self, urls: Sequence[str], folder: Path, **changes: Any) -> FetchReport:
        """Fetch by the server's clock."""
        options = {"delay": 0.0, "timeout": GENEROUS, "allow_private": True, **changes}
        return fetch_images(urls, folder, FetchOptions(**options), progress=False)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        server = self.server
        self.host: str | None = (self.headers["Host"] or "").partition(":")[0]
        with server.changed:
            server.asked[self.path] += 1
            server.starts.append(server.clock.now)
            server.headers.append(dict(self.headers))
            for counter in (self.host, "all"):
                server.active[counter] += 1
                server.most_active[counter] = max(server.most_active[counter], server.active[counter])
            server.changed.notify_all()
        try:
            server.answers.get(self.path, lambda _: self.send_error(404))(self)
        finally:
            self.end_request()

    def end_request(self) -> None:
        """Count the request out, once."""
        with self.server.changed:
            if self.host is not None:
                self.server.active.subtract([self.host, "all"])
                self.host = None

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def only_failure(report: FetchReport) -> Failure:
    assert report.fetched == 0
    [failure] = report.failures
    return failure


def failed_rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "failed.jsonl").read_text().splitlines()]


def check_folder(folder: Path) -> None:
    """The folder has nothing but whole images and the files about them."""
    for path in folder.iterdir():
        if path.name not in ("index.jsonl", "failed.jsonl", ".lock"):
            with Image.open(path) as image:
                image.load()
