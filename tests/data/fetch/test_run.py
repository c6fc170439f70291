"""Many URLs: which one is requested when, what is tried again, and what the folder has in the end."""

import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_gemel.data.fetch.run import HOST_CLOSED, HostQueue, Job
from spacy_gemel.data.fetch.urls import read_index
from spacy_gemel.utils.files import lock_file
from tests.data.fetch.server import Server, only_failure, picture


@given(
    jobs=st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 5)), max_size=30),
    per_host=st.integers(1, 3),
    delay=st.floats(0, 2),
    lasts=st.floats(0.01, 3),
    pauses=st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 10)), max_size=3),
)
def test_every_job_runs_within_the_limits_of_its_host(
    jobs: list[tuple[str, float]], per_host: int, delay: float, lasts: float, pauses: list[tuple[str, float]]
) -> None:
    queue = HostQueue(per_host, delay)
    for number, (host, ready) in enumerate(jobs):
        queue.add(Job(str(number), f"http://{host}/"), ready)
    paused: dict[str, float] = {}
    for host, until in pauses:
        if host in {name for name, _ in jobs}:
            queue.pause(host, until)
            paused[host] = max(until, paused.get(host, 0.0))
    now, ran = 0.0, []
    running: list[tuple[float, str]] = []
    last: dict[str, float] = {}
    while running or queue.next_start() < math.inf:
        while (job := queue.take(now)) is not None:
            host, ready = jobs[int(job.url)]
            assert now >= max(ready, paused.get(host, 0.0), last.get(host, -delay) + delay - 1e-9)
            last[host] = now
            running.append((now + lasts, host))
            ran.append(int(job.url))
            assert sum(name == host for _, name in running) <= per_host
        now = max(now, min([queue.next_start(), *(end for end, _ in running)]))
        for end, host in [item for item in running if item[0] <= now]:
            running.remove((end, host))
            queue.done(host)
    assert sorted(ran) == list(range(len(jobs)))
    assert not queue.waiting()


def test_nothing_is_fetched_twice(server: Server, tmp_path: Path) -> None:
    urls = [server.send(f"/{n}", picture(n)) for n in range(5)]
    gone = server.url("/gone")
    assert server.fetch([*urls[:3], gone, urls[0]], tmp_path).fetched == 3
    report = server.fetch([*urls, gone], tmp_path)
    assert (report.cached, report.fetched, len(report.failures)) == (3, 2, 1)
    assert [server.asked[f"/{n}"] for n in range(5)] == [1] * 5
    assert server.asked["/gone"] == 2
    read_index(tmp_path)[urls[0]].unlink()  # a file that was removed is fetched again, alone
    assert server.fetch(urls, tmp_path).fetched == 1


def test_an_invalid_url_affects_no_other(server: Server, tmp_path: Path) -> None:
    """Callers from Python may give anything; read_urls has refused these before."""
    good = server.send("/a", picture())
    report = server.fetch(
        ["http://[::1", "file:///etc/hostname", good, good, "http://a..b/", "http://a/\ud800"], tmp_path
    )
    assert (report.urls, report.fetched, server.asked["/a"]) == (5, 1, 1)
    assert [(failure.url, failure.reason) for failure in report.failures] == [
        ("http://[::1", "malformed URL"),
        ("file:///etc/hostname", "not an http or https URL"),
        ("http://a/\ud800", "malformed URL"),
        ("http://a..b/", "connection failed"),
    ]


def test_the_queue_compares_few_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each job of each host costs a few comparisons, however many hosts there are."""
    looks = 0
    start = HostQueue._start

    def counted(queue: HostQueue, host: str) -> float:
        nonlocal looks
        looks += 1
        return start(queue, host)

    monkeypatch.setattr(HostQueue, "_start", counted)
    queue = HostQueue(1, 0.5)
    for index in range(2000):
        queue.add(Job(str(index), f"http://host{index % 1000}/"))
    now = 0.0
    while queue.next_start() < math.inf:
        now = max(now, queue.next_start())
        while (job := queue.take(now)) is not None:
            queue.done(f"{job.target[7:-1]}")
    assert not queue.waiting()
    assert looks < 20 * 2000


def test_an_unreachable_host_affects_no_other(server: Server, tmp_path: Path) -> None:
    good = server.send("/x", picture())
    report = server.fetch(["http://nosuch.invalid/a.png", "http://127.0.0.1:1/b.png", good], tmp_path, retries=0)
    assert report.fetched == 1
    assert [failure.reason for failure in report.failures] == ["connection failed"] * 2


def test_each_host_has_its_own_limit(server: Server, tmp_path: Path) -> None:
    """The first answers wait until four requests are running, two of each host."""
    urls = [server.send(f"/{n}", picture(n), until=lambda: server.most_active["all"] == 4) for n in range(6)]
    both = [*urls, *(url.replace("127.0.0.1", "localhost") for url in urls)]
    assert server.fetch(both, tmp_path, per_host=2, workers=8).fetched == 12
    assert server.most_active == {"all": 4, "127.0.0.1": 2, "localhost": 2}


def test_workers_limit_all_requests(server: Server, tmp_path: Path) -> None:
    urls = [server.send(f"/{n}", picture(n), until=lambda: server.most_active["all"] == 3) for n in range(6)]
    assert server.fetch(urls, tmp_path, per_host=8, workers=3).fetched == 6
    assert server.most_active["all"] == 3


def test_requests_to_a_host_start_a_delay_apart(server: Server, tmp_path: Path) -> None:
    urls = [server.send(f"/{n}", picture(n)) for n in range(5)]
    server.fetch(urls, tmp_path, per_host=5, delay=0.5)
    assert min(later - earlier for earlier, later in pairwise(sorted(server.starts))) >= 0.5


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_holds_the_whole_host(status: int, server: Server, tmp_path: Path) -> None:
    busy = server.first("/busy", 1, lambda path: server.send(path, b"", status, Retry_After="90"), picture(0))
    more = [server.send(f"/{n}", picture(n + 1)) for n in range(4)]
    elsewhere = server.send("/else", picture(9)).replace("127.0.0.1", "localhost")
    report = server.fetch([busy, *more, elsewhere], tmp_path, per_host=1)
    assert (report.fetched, server.asked["/busy"]) == (6, 2)
    assert sorted(server.starts) == [0, 0, 90, 90, 90, 90, 90]


@pytest.mark.parametrize("value", ["Mon, 01 Jan 2024 00:00:00 GMT", ""])
def test_a_retry_after_without_seconds(value: str, server: Server, tmp_path: Path) -> None:
    odd = server.first("/x", 1, lambda path: server.send(path, b"", 429, Retry_After=value), picture(1))
    assert server.fetch([odd], tmp_path).fetched == 1
    assert 1.0 <= server.starts[1] <= 1.5


def test_a_retry_after_with_a_date(server: Server, tmp_path: Path) -> None:
    """A date in an hour is too far off, for the URL and for its host."""
    value = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    busy = server.first("/x", 1, lambda path: server.send(path, b"", 503, Retry_After=value), picture(1))
    assert only_failure(server.fetch([busy], tmp_path)).reason == HOST_CLOSED
    assert server.asked["/x"] == 1


def test_a_host_that_asks_for_hours_is_left_alone(server: Server, tmp_path: Path) -> None:
    """A request that ran meanwhile is not tried again, and redirects of other hosts do not lead there."""
    busy = server.send("/busy", b"", 429, until=lambda: len(server.asked) == 3, Retry_After="7200")
    # answered when the host is closed: the URL of another host comes after it
    after = {"until": lambda: server.asked["/after"] == 1}
    failing = server.send("/failing", b"", 500, **after)  # type: ignore[arg-type]
    redirect = server.send("/sent", b"", 302, Location=server.url("/end"), **after)  # type: ignore[arg-type]
    redirect = redirect.replace("127.0.0.1", "localhost")
    server.send("/end", picture())
    more = [server.send(f"/{n}", picture(n)) for n in range(4)]
    last = server.send("/after", picture(9)).replace("127.0.0.1", "localhost")
    report = server.fetch([busy, failing, redirect, *more, last], tmp_path, per_host=2, workers=3)
    assert list(read_index(tmp_path)) == [last]
    assert {failure.url: failure.reason for failure in report.failures} == dict.fromkeys(
        (busy, failing, redirect, *more), HOST_CLOSED
    )
    assert server.asked == Counter(["/busy", "/failing", "/sent", "/after"])


def test_wikimedia_needs_a_contact(server: Server, tmp_path: Path) -> None:
    url = "https://upload.wikimedia.org/wikipedia/commons/a/a0/X.jpg"
    for agent in (None, "study/1.0"):
        with pytest.raises(ValueError, match=r"upload.wikimedia.org belongs to Wikimedia.*--user-agent"):
            server.fetch([url], tmp_path, user_agent=agent)


@pytest.mark.parametrize("agent", ["", "  ", "a\nX: b", "a\r", "me\u2014here", " a"])
def test_a_user_agent_that_cannot_be_a_header(agent: str, server: Server, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--user-agent .*: use one line of Latin-1"):
        server.fetch([server.send("/x", picture())], tmp_path, user_agent=agent)
    assert not server.asked


def test_one_fetch_at_a_time(server: Server, tmp_path: Path) -> None:
    with lock_file(tmp_path / ".lock", "mine"), pytest.raises(ValueError, match="another fetch-images writes to"):
        server.fetch([], tmp_path)


def test_a_folder_that_cannot_be_written_stops_it_all(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = [server.send(f"/{n}", picture(n)) for n in range(30)]

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spacy_gemel.data.fetch.download.write_whole", full)
    with pytest.raises(OSError, match="No space left"):
        server.fetch(urls, tmp_path, per_host=1)
    assert sum(server.asked.values()) == 1
