"""fetch_images against a server that misbehaves: what is stored, what is told, and what is asked."""

import gzip
import importlib
import io
import json
import time
import tracemalloc
import zlib
from collections.abc import Sequence
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spacy_gemel import __version__
from spacy_gemel.data.fetch.index import fetched
from spacy_gemel.data.fetch.outcomes import Limits
from spacy_gemel.data.fetch.report import Failure, FetchReport
from spacy_gemel.data.fetch.run import FetchOptions, fetch_images
from spacy_gemel.utils.files import lock_file
from tests.data.fetch.server import Server, picture

FAST: dict[str, Any] = {"delay": 0.0, "backoff": 0.01, "timeout": 2.0, "max_wait": 5.0, "allow_private": True}


def fetch(urls: Sequence[str], folder: Path, **changes: Any) -> FetchReport:
    return fetch_images(urls, folder, FetchOptions(**{**FAST, **changes}), progress=False)


def only_failure(report: FetchReport) -> Failure:
    assert report.fetched == 0
    [failure] = report.failures
    return failure


def listed(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "failed.jsonl").read_text().splitlines()]


def no_leftovers(folder: Path) -> None:
    """Nothing lies in the folder but whole images and what is told about them."""
    for path in folder.iterdir():
        if path.name not in ("index.jsonl", "failed.jsonl", ".lock"):
            with Image.open(path) as image:
                image.load()


def test_images_are_named_by_content_and_sniffed_type(server: Server, tmp_path: Path) -> None:
    one = server.send("/a.jpg", picture(1, "PNG"), Content_Type="text/plain")  # neither name nor type is right
    same = server.send("/b?x=1", picture(1, "PNG"))
    other = server.send("/ü.gif", picture(2, "JPEG"))
    server.answers["/%C3%BC.gif"] = server.answers["/ü.gif"]
    webp = server.send("/c", picture(3, "WEBP"), Content_Length="")  # its end is where the connection ends
    report = fetch([one, same, other, webp], tmp_path)
    assert (report.fetched, report.failures) == (4, [])
    there = fetched(tmp_path)
    assert [there[url].suffix for url in (one, same, other, webp)] == [".png", ".png", ".jpg", ".webp"]
    assert there[one] == there[same]
    assert there[one].read_bytes() == picture(1, "PNG")
    assert there[one].stat().st_mode & 0o777 == 0o644
    assert len(report.files) == 3
    no_leftovers(tmp_path)
    assert server.headers[0]["User-Agent"] == f"spacy-gemel/{__version__}"


def test_nothing_is_asked_for_twice(server: Server, tmp_path: Path) -> None:
    urls = [server.send(f"/{n}", picture(n)) for n in range(5)]
    gone = server.url("/gone")
    assert fetch([*urls[:3], gone], tmp_path).fetched == 3
    asked = server.asked.copy()
    report = fetch([*urls, gone], tmp_path)
    assert (report.before, report.fetched, len(report.failures)) == (3, 2, 1)
    assert [server.asked[f"/{n}"] for n in range(5)] == [1] * 5
    assert server.asked["/gone"] == asked["/gone"] + 1
    fetched(tmp_path)[urls[0]].unlink()  # a file that was taken away is fetched again, alone
    assert fetch(urls, tmp_path).fetched == 1


def test_a_torn_index_line_costs_one_url_and_no_more(server: Server, tmp_path: Path) -> None:
    urls = [server.send(f"/{n}", picture(n)) for n in range(3)]
    fetch(urls, tmp_path)
    index = tmp_path / "index.jsonl"
    content = index.read_bytes()
    index.write_bytes(content[:-20])
    assert len(fetched(tmp_path)) == 2
    report = fetch(urls, tmp_path)
    assert (report.before, report.fetched) == (2, 1)
    assert index.read_bytes() == content


@pytest.mark.parametrize(
    ("status", "tries"), [(404, 1), (403, 1), (410, 1), (400, 1), (204, 1), (500, 3), (502, 3), (429, 3)]
)
def test_a_status_is_tried_again_only_where_it_may_pass(
    status: int, tries: int, server: Server, tmp_path: Path
) -> None:
    url = server.send("/x", b"", status)
    failure = only_failure(fetch([url], tmp_path, retries=2))
    assert (failure.reason, failure.tries, server.asked["/x"]) == (f"HTTP {status}", tries, tries)
    assert listed(tmp_path)[0]["url"] == url


def test_a_hiccup_is_overcome(server: Server, tmp_path: Path) -> None:
    urls = [
        server.first("/500", 2, lambda path: server.send(path, b"", 500), picture(1)),
        server.first("/reset", 2, server.reset, picture(2)),
        server.first("/cut", 1, lambda path: server.send(path, b"x", Content_Length="99"), picture(3)),
    ]
    report = fetch(urls, tmp_path)
    assert (report.fetched, report.failures) == (3, [])
    assert server.asked == {"/500": 3, "/reset": 3, "/cut": 2}


def test_truncated_bodies_are_failures(server: Server, tmp_path: Path) -> None:
    body = picture()
    cut = server.send("/cut", body[:200], Content_Length=str(len(body)))
    chunked = server.send("/chunked", b"64\r\n" + body[:100], Content_Length="", Transfer_Encoding="chunked")
    silent = server.send("/silent", body[:200], Content_Length="")  # no length: only decoding shows it
    report = fetch([cut, chunked, silent], tmp_path, retries=1)
    reasons = {failure.url: failure.reason for failure in report.failures}
    assert reasons == {cut: "the connection broke", chunked: "the connection broke", silent: "a broken image"}
    assert set(server.asked.values()) == {2}
    assert fetched(tmp_path) == {}
    no_leftovers(tmp_path)


def test_a_reset_connection(server: Server, tmp_path: Path) -> None:
    failure = only_failure(fetch([server.reset("/x")], tmp_path, retries=1))
    assert (failure.reason, failure.tries) == ("the connection broke", 2)


@pytest.mark.parametrize("length", ["", "100", "99999999999"])
def test_a_huge_body_is_left_at_the_limit(length: str, server: Server, tmp_path: Path) -> None:
    url = server.flood("/x", length)
    failure = only_failure(fetch([url], tmp_path, max_bytes=300_000))
    # a length that is too small ends the body there, and what is left is no whole image
    assert failure.reason == ("too large" if length != "100" else "a broken image")
    no_leftovers(tmp_path)


def test_a_compressed_body_counts_as_it_unfolds(server: Server, tmp_path: Path) -> None:
    bomb = server.send("/bomb", gzip.compress(b"\0" * 300_000_000), Content_Encoding="gzip")
    fine = server.send("/fine", gzip.compress(picture(4)), Content_Encoding="gzip")
    other = server.send("/other", zlib.compress(picture(5)), Content_Encoding="Deflate")
    odd = server.send("/odd", picture(6), Content_Encoding="aws-chunked")  # not folded at all, as happens
    tracemalloc.start()
    report = fetch([bomb, fine, other, odd], tmp_path, max_bytes=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(failure.url, failure.reason) for failure in report.failures] == [(bomb, "too large")]
    assert {fetched(tmp_path)[url].read_bytes() for url in (fine, other, odd)} == {picture(n) for n in (4, 5, 6)}
    assert peak < 20_000_000
    assert {headers["Accept-Encoding"] for headers in server.headers} == {"identity"}


def test_a_compressed_body_that_cannot_be_unfolded(server: Server, tmp_path: Path) -> None:
    whole = gzip.compress(picture(4))
    cut = server.send("/cut", whole[:300], Content_Encoding="gzip")
    wrong = server.send("/wrong", b"x" * 500, Content_Encoding="gzip")
    strange = server.send("/strange", b"x" * 500, Content_Encoding="br")
    without_output = server.send(
        "/empty", gzip.compress(b"")[:10] + b"\0\0\0\xff\xff" * 60_000, Content_Encoding="gzip"
    )
    tail = server.send("/tail", whole + b"x" * 90_000, Content_Encoding="gzip")
    report = fetch([cut, wrong, strange, without_output, tail], tmp_path, max_bytes=100_000, retries=1)
    assert {failure.url: (failure.reason, failure.tries) for failure in report.failures} == {
        cut: ("the connection broke", 2),
        wrong: ("a compressed body", 1),
        strange: ("a compressed body", 1),
        without_output: ("too large", 1),
    }
    assert "Content-Encoding: br" in next(failure.detail for failure in report.failures if failure.url == strange)
    assert fetched(tmp_path)[tail].read_bytes() == picture(4)
    no_leftovers(tmp_path)


def test_what_is_no_image(server: Server, tmp_path: Path) -> None:
    html = server.send("/a.jpg", b"<html>no such file</html>", Content_Type="image/jpeg")
    svg = server.send("/b.svg", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>')
    empty = server.send("/c.jpg", b"")
    pdf = server.send("/d", b"%PDF-1.4 ...")
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    huge = server.send("/e.png", bomb.getvalue())
    report = fetch([html, svg, empty, pdf, huge], tmp_path)
    assert report.fetched == 0
    assert {failure.url: failure.reason for failure in report.failures} == {
        html: "not an image",
        svg: "an SVG, which is no raster image",
        empty: "not an image",
        pdf: "not an image",
        huge: "an image of too many pixels",
    }
    assert set(server.asked.values()) == {1}  # it would be the same next time
    no_leftovers(tmp_path)


def test_slow_servers(server: Server, tmp_path: Path) -> None:
    silent = server.send("/silent", picture(), seconds=1.5)
    dripping = server.drip("/dripping", 0.02)
    start = time.monotonic()
    report = fetch([silent, dripping], tmp_path, timeout=0.3, max_seconds=0.6, retries=1)
    assert time.monotonic() - start < 5
    assert {failure.url: failure.reason for failure in report.failures} == {silent: "timed out", dripping: "too slow"}
    assert {failure.tries for failure in report.failures} == {2}


def test_redirects(server: Server, tmp_path: Path) -> None:
    end = server.send("/end.png", picture())
    near = server.redirect("/near", "end.png", 301)
    far = server.redirect("/far", server.url("/near", "localhost"), 307)
    circle = server.redirect("/circle", "/circle2")
    server.redirect("/circle2", "/circle")
    for index in range(9):
        server.redirect(f"/long{index}", f"/long{index + 1}")
    long = server.url("/long0")
    file = server.redirect("/file", "file:///etc/hostname")
    nowhere = server.redirect("/nowhere", "")
    report = fetch([end, near, far, circle, long, file, nowhere], tmp_path)
    there = fetched(tmp_path)
    assert set(there) == {end, near, far}
    assert there[far] == there[end]
    assert {failure.url: failure.reason for failure in report.failures} == {
        circle: "redirects in a circle",
        long: "too many redirects",
        file: "a redirect that is not followed",
        nowhere: "a redirect to nowhere",
    }
    assert server.asked["/circle"] == 1
    assert server.asked["/long5"] == 1
    assert server.asked["/long6"] == 0


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_holds_the_whole_host(status: int, server: Server, tmp_path: Path) -> None:
    busy = server.first("/busy", 1, lambda path: server.send(path, b"", status, Retry_After="1"), picture(0))
    others = [server.send(f"/{n}", picture(n + 1), seconds=0.01) for n in range(4)]
    start = time.monotonic()
    report = fetch([busy, *others], tmp_path, per_host=1)
    assert (report.fetched, server.asked["/busy"]) == (5, 2)
    later = sorted(server.starts)[1:]
    assert min(later) - start >= 0.95
    assert max(later) - start < 5


def test_retry_after_may_be_a_date_or_nonsense(server: Server, tmp_path: Path) -> None:
    date = formatdate(time.time() + 2, usegmt=True)
    dated = server.first("/d", 1, lambda path: server.send(path, b"", 503, Retry_After=date), picture(0))
    odd = server.first("/o", 1, lambda path: server.send(path, b"", 429, Retry_After="soon"), picture(1))
    start = time.monotonic()
    assert fetch([dated, odd], tmp_path).fetched == 2
    assert 0.9 <= time.monotonic() - start < 6


def test_a_host_that_asks_for_hours_is_left_alone(server: Server, tmp_path: Path) -> None:
    busy = server.send("/busy", b"", 429, Retry_After="7200")
    others = [server.send(f"/{n}", picture(n)) for n in range(6)]
    elsewhere = server.send("/else", picture(9)).replace("127.0.0.1", "localhost")
    report = fetch([busy, *others, elsewhere], tmp_path, per_host=1)
    assert list(fetched(tmp_path)) == [elsewhere]
    assert len(report.failures) == 7
    assert {failure.reason for failure in report.failures} == {
        "the host asks to be left alone for longer than --max-wait"
    }
    assert sum(server.asked[f"/{n}"] for n in range(6)) == 0


def test_a_host_that_is_left_alone_gets_no_second_tries_and_no_redirects(server: Server, tmp_path: Path) -> None:
    """Neither a job that ran when the host closed, nor one that another host sends on to it."""
    busy = server.send("/busy", b"", 429, seconds=0.2, Retry_After="7200")
    failing = server.send("/failing", b"", 500, seconds=0.6)
    sent = server.send("/sent", b"", 302, seconds=0.6, Location=server.url("/end")).replace("127.0.0.1", "localhost")
    server.send("/end", picture())
    report = fetch([busy, failing, sent], tmp_path, per_host=2, retries=3)
    why = ("the host asks to be left alone for longer than --max-wait", "127.0.0.1 said 7200 s")
    message = {failure.url: (failure.reason, failure.detail) for failure in report.failures}
    assert message == dict.fromkeys((busy, failing, sent), why)
    assert server.asked == {"/busy": 1, "/failing": 1, "/sent": 1}


@pytest.mark.parametrize("index", ["download.extension_of", "run.problem_of", "download._answer_to_status"])
def test_what_nobody_thought_of_costs_one_url(
    index: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [server.send(f"/{n}", picture(n)) for n in range(3)]
    odd = server.redirect("/odd", "/bad") if "problem" in index else server.send("/odd", picture(9), Content_Type="odd")
    module = importlib.import_module(f"spacy_gemel.data.fetch.{index.partition('.')[0]}")
    name = index.partition(".")[2]
    right = getattr(module, name)

    def wrong(*arguments: Any) -> Any:
        if any(str(argument).endswith("/bad" if "problem" in index else "odd") for argument in arguments):
            raise KeyError("what is that")
        return right(*arguments)

    monkeypatch.setattr(module, name, wrong)
    report = fetch([odd, *good], tmp_path)
    assert set(fetched(tmp_path)) == set(good)
    assert [(failure.url, failure.reason, failure.detail) for failure in report.failures] == [
        (odd, "an unexpected error", "KeyError: 'what is that'")
    ]


def test_what_is_no_url_costs_one_url(server: Server, tmp_path: Path) -> None:
    """Callers from Python may give anything; read_urls has sorted these out before."""
    good = server.send("/a", picture())
    report = fetch(["http://[::1", "file:///etc/hostname", good, good, "http://a..b/\ud800"], tmp_path)
    assert (report.urls, report.fetched, server.asked["/a"]) == (4, 1, 1)
    assert [(failure.url, failure.reason) for failure in report.failures] == [
        ("http://[::1", "the URL is malformed"),
        ("file:///etc/hostname", "not an http or https URL"),
        ("http://a..b/\ud800", "the URL is malformed"),
    ]


def test_limits_of_a_host_hold_and_other_hosts_go_on(server: Server, tmp_path: Path) -> None:
    urls = [server.send(f"/{n}", picture(n), seconds=0.05) for n in range(10)]
    assert fetch(urls, tmp_path / "a", per_host=2, workers=8).fetched == 10
    assert server.most_active == 2
    server.starts.clear()
    fetch(urls[:5], tmp_path / "b", per_host=5, delay=0.1)
    starts = sorted(server.starts)
    assert min(after - before for before, after in pairwise(starts)) >= 0.07
    server.most_active = 0
    both = [*urls[:6], *(url.replace("127.0.0.1", "localhost") for url in urls[:6])]
    assert fetch(both, tmp_path / "c", per_host=2, workers=8).fetched == 12
    assert 2 < server.most_active <= 4


def test_busy_answers_slow_the_host_down(server: Server, tmp_path: Path) -> None:
    busy = server.first("/busy", 1, lambda path: server.send(path, b"", 429, Retry_After="0"), picture(0))
    others = [server.send(f"/{n}", picture(n + 1)) for n in range(4)]
    fetch([busy, *others], tmp_path, per_host=1, delay=0.1)
    gaps = [after - before for before, after in pairwise(server.starts)]
    assert all(gap >= 0.17 for gap in gaps[1:]), gaps


def test_an_unreachable_host_hurts_no_other(server: Server, tmp_path: Path) -> None:
    good = server.send("/x", picture())
    report = fetch(["http://nosuch.invalid/a.png", "http://127.0.0.1:1/b.png", good], tmp_path, retries=0)
    assert report.fetched == 1
    assert {failure.reason for failure in report.failures} <= {"the connection broke", "the host is not found"}
    assert len(report.failures) == 2


def test_no_passwords_and_no_cookies(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    one = server.send("/1", picture(1), Set_Cookie="id=7")
    two = server.send("/2", picture(2))
    fetch([one, two], tmp_path / "out", workers=1, user_agent="study/1 (me@example.org)")
    assert len(server.headers) == 2
    for headers in server.headers:
        assert not {"Authorization", "Cookie"} & set(headers)
        assert headers["User-Agent"] == "study/1 (me@example.org)"


def test_wikimedia_is_not_asked_anonymously(tmp_path: Path) -> None:
    url = "https://upload.wikimedia.org/wikipedia/commons/a/a0/X.jpg"
    for agent in (None, "study/1.0"):
        with pytest.raises(ValueError, match=r"upload.wikimedia.org is Wikimedia's.*--user-agent"):
            fetch([url], tmp_path, user_agent=agent)
    with pytest.raises(ValueError, match="printable ASCII"):
        fetch([], tmp_path, user_agent="bad\nagent")


def test_one_fetch_at_a_time(tmp_path: Path) -> None:
    with lock_file(tmp_path / ".lock", "mine"), pytest.raises(ValueError, match="another fetch-images is writing"):
        fetch([], tmp_path)


def test_a_folder_that_cannot_be_written_stops_it_all(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = [server.send(f"/{n}", picture(n)) for n in range(30)]

    def full(**options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spacy_gemel.data.fetch.download.tempfile.mkstemp", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(urls, tmp_path, per_host=1)
    assert sum(server.asked.values()) < 5


def test_limits_are_what_a_request_gets() -> None:
    assert Limits("a", 1, 1.0, 1.0).allow_private is False


def test_a_date_that_no_clock_has_is_no_retry_after() -> None:
    from spacy_gemel.data.fetch.download import _retry_after

    assert _retry_after("Mon, 01 Jan 2024 00:00:00 +99999999999999999") is None
    assert _retry_after("7") == 7
