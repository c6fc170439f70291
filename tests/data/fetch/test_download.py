"""What becomes of an answer, which addresses are connected to, and how a request ends that takes too long."""

import gzip
import io
import socket
import ssl
import threading
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spacy_gemel import __version__
from spacy_gemel.data.fetch import download
from spacy_gemel.data.fetch.download import FetchError, check_public
from spacy_gemel.data.fetch.urls import host_of, read_index
from tests.data.fetch.server import Server, check_folder, failed_rows, only_failure, picture


def test_images_are_named_by_content_and_type(server: Server, tmp_path: Path) -> None:
    one = server.send("/a.jpg", picture(1, "PNG"), Content_Type="text/plain")  # neither name nor type is right
    same = server.send("/b?x=1", picture(1, "PNG"))
    other = server.send("/ü.gif", picture(2, "JPEG"))
    server.answers["/%C3%BC.gif"] = server.answers["/ü.gif"]
    webp = server.send("/c", picture(3, "WEBP"), Content_Length="")  # its end is the end of the connection
    report = server.fetch([one, same, other, webp], tmp_path)
    assert (report.fetched, report.failures, len(report.files)) == (4, [], 3)
    images = read_index(tmp_path)
    assert [images[url].suffix for url in (one, same, other, webp)] == [".png", ".png", ".jpg", ".webp"]
    assert images[one] == images[same]
    assert images[one].read_bytes() == picture(1, "PNG")
    assert images[one].stat().st_mode & 0o777 == 0o644
    check_folder(tmp_path)
    assert server.headers[0]["User-Agent"] == f"spacy-gemel/{__version__}"


@pytest.mark.parametrize(
    ("status", "tries"), [(404, 1), (403, 1), (410, 1), (400, 1), (204, 1), (500, 3), (502, 3), (429, 3)]
)
def test_a_status_is_tried_again_only_if_it_can_pass(status: int, tries: int, server: Server, tmp_path: Path) -> None:
    url = server.send("/x", b"", status)
    failure = only_failure(server.fetch([url], tmp_path, retries=2))
    assert (failure.reason, failure.tries, server.asked["/x"]) == (f"HTTP {status}", tries, tries)
    assert failed_rows(tmp_path)[0]["url"] == url


def test_a_hiccup_is_overcome(server: Server, tmp_path: Path) -> None:
    urls = [
        server.first("/500", 2, lambda path: server.send(path, b"", 500), picture(1)),
        server.first("/reset", 2, server.reset, picture(2)),
        server.first("/cut", 1, lambda path: server.send(path, b"x", Content_Length="99"), picture(3)),
    ]
    report = server.fetch(urls, tmp_path)
    assert (report.fetched, report.failures) == (3, [])
    assert server.asked == {"/500": 3, "/reset": 3, "/cut": 2}


def test_truncated_bodies_are_failures(server: Server, tmp_path: Path) -> None:
    body = picture()
    cut = server.send("/cut", body[:200], Content_Length=str(len(body)))
    chunked = server.send("/chunked", b"64\r\n" + body[:100], Content_Length="", Transfer_Encoding="chunked")
    silent = server.send("/silent", body[:200], Content_Length="")  # no length: only decoding shows it
    report = server.fetch([cut, chunked, silent, server.reset("/reset")], tmp_path, retries=1)
    assert {failure.url: failure.reason for failure in report.failures} == {
        cut: "connection failed",
        chunked: "connection failed",
        silent: "broken image",
        server.url("/reset"): "connection failed",
    }
    assert set(server.asked.values()) == {2}
    assert read_index(tmp_path) == {}
    check_folder(tmp_path)


@pytest.mark.parametrize("length", ["", "100", "99999999999"])
def test_a_huge_body_is_left_at_the_limit(length: str, server: Server, tmp_path: Path) -> None:
    failure = only_failure(server.fetch([server.flood("/x", length)], tmp_path, max_bytes=300_000))
    # a length that is too small ends the body there, and the rest is not a whole image
    assert failure.reason == ("too large" if length != "100" else "broken image")
    check_folder(tmp_path)


def test_a_compressed_body_counts_after_decompression(server: Server, tmp_path: Path) -> None:
    bomb = server.send("/bomb", gzip.compress(b"\0" * 300_000_000), Content_Encoding="gzip")
    fine = server.send("/fine", gzip.compress(picture(4)), Content_Encoding="gzip")
    other = server.send("/other", zlib.compress(picture(5)), Content_Encoding="Deflate")
    odd = server.send("/odd", picture(6), Content_Encoding="aws-chunked")  # not compressed, as it happens
    tracemalloc.start()
    report = server.fetch([bomb, fine, other, odd], tmp_path, max_bytes=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(failure.url, failure.reason) for failure in report.failures] == [(bomb, "too large")]
    images = read_index(tmp_path)
    assert {images[url].read_bytes() for url in (fine, other, odd)} == {picture(n) for n in (4, 5, 6)}
    assert peak < 20_000_000


def test_a_damaged_compressed_body(server: Server, tmp_path: Path) -> None:
    cut = server.send("/cut", gzip.compress(picture(4))[:300], Content_Encoding="gzip")
    wrong = server.send("/wrong", b"x" * 500, Content_Encoding="gzip")
    report = server.fetch([cut, wrong], tmp_path, retries=1)
    assert {failure.url: failure.reason for failure in report.failures} == {
        cut: "broken image",
        wrong: "connection failed",
    }
    check_folder(tmp_path)


@pytest.mark.parametrize(
    "header", ["noai", "NoIndex", "nofollow, noai", "none", "spacy-gemel: noindex", "otherbot: noindex, noimageai"]
)
def test_a_host_keeps_a_picture_out_of_collections(header: str, server: Server, tmp_path: Path) -> None:
    kept = server.send("/kept.png", picture(), X_Robots_Tag=header)
    given = server.send("/given.png", picture(1), X_Robots_Tag="nofollow, otherbot: noindex, max-image-preview: large")
    report = server.fetch([kept, given], tmp_path)
    assert report.fetched == 1
    (failure,) = report.failures
    assert (failure.url, failure.reason, failure.tries) == (kept, "not for collections", 1)
    assert "X-Robots-Tag" in failure.detail


def test_what_is_not_an_image(server: Server, tmp_path: Path) -> None:
    html = server.send("/a.jpg", b"<html>no such file</html>", Content_Type="image/jpeg")
    svg = server.send("/b.svg", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>')
    empty = server.send("/c.jpg", b"")
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    huge = server.send("/e.png", bomb.getvalue())
    report = server.fetch([html, svg, empty, huge], tmp_path)
    assert report.fetched == 0
    assert {
        failure.url: (failure.reason, failure.detail[:25]) for failure in report.failures if failure.url != huge
    } == {
        html: ("not an image", "sent as image/jpeg, begin"),
        svg: ("not an image", "sent as SVG, begins with "),
        empty: ("not an image", "sent as no type, begins w"),
    }
    assert "broken image" in {failure.reason for failure in report.failures}
    assert set(server.asked.values()) == {1}  # it would be the same next time
    check_folder(tmp_path)


def test_redirects(server: Server, tmp_path: Path) -> None:
    end = server.send("/end.png", picture())
    near = server.redirect("/near", "end.png", 301)
    far = server.redirect("/far", server.url("/near", "localhost"), 307)
    endless = server.flood("/endless", "", status=302, Location=end)
    for index in range(9):
        server.redirect(f"/long{index}", f"/long{index + 1}")
    long = server.url("/long0")
    file = server.redirect("/file", "file:///etc/hostname")
    nowhere = server.redirect("/nowhere", "")
    report = server.fetch([end, near, far, endless, long, file, nowhere], tmp_path)
    images = read_index(tmp_path)
    assert set(images) == {end, near, far, endless}
    assert images[far] == images[end]
    assert {failure.url: failure.reason for failure in report.failures} == {
        long: "too many redirects",
        file: "redirect not followed",
        nowhere: "HTTP 302",
    }
    assert (server.asked["/long5"], server.asked["/long6"]) == (1, 0)


def test_an_unexpected_error_costs_one_url(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: Any) -> str:
        raise KeyError("what is that")

    monkeypatch.setattr("spacy_gemel.data.fetch.download.urljoin", wrong)
    good = [server.send(f"/{n}", picture(n)) for n in range(3)]
    report = server.fetch([server.redirect("/odd", "/0"), *good], tmp_path)
    assert set(read_index(tmp_path)) == set(good)
    assert [(failure.reason, failure.detail) for failure in report.failures] == [
        ("unexpected error", "KeyError: 'what is that'")
    ]


PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "no_proxy", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost:8080", "LocalHost.", "10.1.2.3", "169.254.169.254", "100.64.0.1", "224.0.0.1",
        "0.0.0.0", "127.1", "0x7f.0.0.1", "2130706433", "[::1]", "[fd00::1]", "[::ffff:127.0.0.1]", "[2002:7f00:1::]",
        "[64:ff9b::7f00:1]", "[64:ff9b::10.1.2.3]", "[64:ff9b:1::5db8:d822]", "[fec0::1]", "[::93.184.216.34]",
        "[3fff:123::1]", "[5f00:0:1::]", "192.88.99.1", "[2002:c058:6301::]",
    ],
)  # fmt: skip
def test_private_addresses(host: str) -> None:
    with pytest.raises(FetchError, match="private address"):
        check_public(host_of(f"http://{host}/x"))


@pytest.mark.parametrize("host", ["93.184.216.34", "[2606:2800:220:1::1]", "[64:ff9b::93.184.216.34]"])
def test_public_addresses(host: str) -> None:
    check_public(host_of(f"http://{host}/x"))


class Names:
    """The system's look-up and its connections, none of which leads outside."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: list[str]) -> None:
        self.answers = answers
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
        answers = self.answers.get(host.partition(".")[0])
        if answers is None:
            raise socket.gaierror(-2, "Name or service not known")
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
    assert failure.reason == "private address"
    assert not names.connected


@pytest.mark.parametrize("location", ["http://10.0.0.1/x", "http://inside.example.org/x"])
def test_a_redirect_into_the_private_network(
    location: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, inside=["192.168.1.1"])
    check = download.check_address
    monkeypatch.setattr(download, "check_address", lambda address: None if address == "127.0.0.1" else check(address))
    failure = only_failure(server.fetch([server.redirect("/x", location)], tmp_path, allow_private=False))
    assert failure.reason == "private address"
    assert set(names.connected) == {"127.0.0.1"}


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
    assert set(names.connected) == {"127.0.0.1"}


@pytest.mark.parametrize(
    "beginning",
    [
        b"HTTP/1.0 2",
        b"HTTP/1.0 200 OK\r\n\r\n" + picture()[:100],
        b"HTTP/1.0 302 OK\r\nLocation: /y\r\nX: ",
    ],
    ids=["status", "body", "redirect"],
)
def test_a_server_that_does_not_go_on_is_cut(beginning: bytes, server: Server, tmp_path: Path) -> None:
    url = server.stop("/x", beginning)
    good = server.send("/good", picture())
    report = server.fetch([good, url], tmp_path, workers=1, retries=1)
    assert [(failure.url, failure.reason, failure.tries) for failure in report.failures] == [(url, "too slow", 2)]
    assert report.failures[0].detail == "not done after 300 s"
    assert set(read_index(tmp_path)) == {good}


@pytest.mark.parametrize(
    "beginning",
    [b"HTTP/1.0 200 OK\r\nContent-Length: 999999\r\n\r\n", b"HTTP/1.0 200 OK\r\nX: "],
    ids=["body", "header"],
)
def test_a_server_that_drips_is_cut(
    beginning: bytes, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte resets the timeout, so the socket is shut; the next request waits until this one has ended."""
    counts: list[int] = []
    running: set[int] = set()

    def counted(*arguments: Any) -> tuple[str, int] | str:
        running.add(threading.get_ident())
        counts.append(len(running))
        try:
            return download.download(*arguments)
        finally:
            running.remove(threading.get_ident())

    monkeypatch.setattr("spacy_gemel.data.fetch.run.download", counted)
    failure = only_failure(server.fetch([server.drip("/x", beginning)], tmp_path, per_host=1, retries=2))
    assert (failure.reason, failure.tries) == ("too slow", 3)
    assert (counts, running) == ([1, 1, 1], set())
    server.wait_for(lambda: server.active["all"] == 0)  # no connection is open


def test_a_silent_server_times_out(server: Server, tmp_path: Path) -> None:
    failure = only_failure(server.fetch([server.stop("/x", seconds=0)], tmp_path, timeout=0.1, retries=1))
    assert (failure.reason, failure.tries) == ("timed out", 2)


def test_a_certificate_is_required(server: Server, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("aNULL:@SECLEVEL=0")  # no certificate at all
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    url = server.send("/x", picture()).replace("http:", "https:")
    assert only_failure(server.fetch([url], tmp_path)).reason == "connection failed"


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
