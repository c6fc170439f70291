"""What becomes of an answer: an image by its content, or a reason."""

import gzip
import io
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spacy_gemel import __version__
from spacy_gemel.data.fetch.index import read_index
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
        wrong: "damaged compression",
    }
    check_folder(tmp_path)


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
        svg: ("SVG, not a raster image", ""),
        empty: ("not an image", "empty"),
    }
    assert "too many pixels" in {failure.reason for failure in report.failures}
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
