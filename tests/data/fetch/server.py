"""A web server on this machine that misbehaves in every way a test asks for, and counts who asks."""

import io
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int = 0, kind: str = "PNG") -> bytes:
    """An image of noise, encoded."""
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Answers each path with what was said for it, 404 elsewhere."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Callable[[Any], None]] = {}
        self.asked: Counter[str] = Counter()
        self.starts: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.active = self.most_active = 0
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_address[1]}{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are what the tests are about."""

    def send(self, path: str, body: bytes, status: int = 200, seconds: float = 0.0, **headers: str) -> str:
        """Answer a path with a body after some seconds; returns its URL. Header names take _ for -."""

        def answer(handler: Any) -> None:
            time.sleep(seconds)
            handler.send_response(status)
            for name, value in {"Content_Length": str(len(body)), **headers}.items():
                if value:
                    handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()
            handler.wfile.write(body)

        self.answers[path] = answer
        return self.url(path)

    def redirect(self, path: str, location: str, status: int = 302) -> str:
        return self.send(path, b"", status, Location=location)

    def drip(self, path: str, pause: float) -> str:
        """A body that comes a byte at a time and never ends."""

        def answer(handler: Any) -> None:
            handler.send_response(200)
            handler.end_headers()
            while True:
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(pause)

        self.answers[path] = answer
        return self.url(path)

    def drip_headers(self, path: str, pause: float, begin: bytes = b"HTTP/1.0 200 OK\r\nX-Long: ") -> str:
        """Headers that come a byte at a time and never end."""

        def answer(handler: Any) -> None:
            handler.wfile.write(begin)
            while True:
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(pause)

        self.answers[path] = answer
        return self.url(path)

    def go_on(self, path: str) -> str:
        """Interim answers without an end."""

        def answer(handler: Any) -> None:
            while True:
                handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                time.sleep(0.005)

        self.answers[path] = answer
        return self.url(path)

    def flood(self, path: str, length: str, status: int = 200, **headers: str) -> str:
        """A body without an end, whatever its length is said to be."""

        def answer(handler: Any) -> None:
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            if length:
                handler.send_header("Content-Length", length)
            handler.end_headers()
            handler.wfile.write(picture())
            while True:
                handler.wfile.write(b"x" * 65536)

        self.answers[path] = answer
        return self.url(path)

    def reset(self, path: str) -> str:
        """Hang up in the middle, the hard way."""

        def answer(handler: Any) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(b"x" * 10)
            handler.wfile.flush()
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()

        self.answers[path] = answer
        return self.url(path)

    def first(self, path: str, failing: int, fail: Callable[[str], str], then: bytes) -> str:
        """Misbehave for the first so many requests, then send a body."""
        fail(path)
        bad = self.answers[path]
        self.send(path, then)
        good = self.answers[path]

        def answer(handler: Any) -> None:
            (bad if self.asked[path] <= failing else good)(handler)

        self.answers[path] = answer
        return self.url(path)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.asked[self.path] += 1
            server.starts.append(time.monotonic())
            server.headers.append(dict(self.headers))
            server.active += 1
            server.most_active = max(server.most_active, server.active)
        try:
            server.answers.get(self.path, lambda handler: handler.send_error(404))(self)
        finally:
            with server.lock:
                server.active -= 1

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
