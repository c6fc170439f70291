"""Fetch many URLs politely: which one next, which one again, and the report."""

import heapq
import itertools
import json
import logging
import math
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from tqdm import tqdm

from spacy_gemel.data.fetch.download import PARTIAL, ImageFile, download
from spacy_gemel.data.fetch.index import add_to_index, read_index
from spacy_gemel.data.fetch.request import Adapter, FetchError, FetchOptions, Request
from spacy_gemel.data.fetch.urls import Failure, host_of, problem_of
from spacy_gemel.data.report import ReasonCounter
from spacy_gemel.utils.files import lock_file, write_whole

FAILED = "failed.jsonl"
HOST_CLOSED = "host asks for a longer pause than --max-wait"
_WIKIMEDIA = ("wikimedia.org", "wikipedia.org", "wikinews.org", "wikidata.org", "wiktionary.org", "mediawiki.org")
_MAX_REDIRECTS = 5
_TICK = 1.0  # seconds between two looks at the deadlines of running requests

Clock = Callable[[], float]
JobT = TypeVar("JobT")


@dataclass(slots=True)
class FetchReport:
    """How many URLs there are, how many the folder has, and why the others failed."""

    urls: int
    cached: int = 0
    fetched: int = 0
    files: set[str] = field(default_factory=set)
    failures: list[Failure] = field(default_factory=list)

    def lines(self, folder: Path) -> list[str]:
        """A few lines for a person."""
        reasons = ReasonCounter()
        for failure in self.failures:
            reasons.add(failure.reason)
        lines = [
            f"{folder}: has {self.cached + self.fetched} of {self.urls} URLs in {len(self.files)} files, "
            f"{self.cached} of them from before",
            *reasons.lines(),
        ]
        if reasons:
            lines.append(f"{folder / FAILED} lists what failed and why; the same command tries again")
        return lines


def fetch_images(
    urls: Sequence[str],
    folder: Path,
    options: FetchOptions,
    *,
    failures: Sequence[Failure] = (),
    progress: bool = True,
    clock: Clock = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> FetchReport:
    """Fetch the images that the folder does not have yet.

    A URL that fails is listed in the report and in failed.jsonl, and affects no other. After an interrupt the same
    call continues with the missing images; those that were just being fetched are among them.

    Args:
        urls: what to fetch; repetitions are ignored.
        folder: for the images, index.jsonl and failed.jsonl.
        options: limits and politeness.
        failures: rows of the source that have no URL, for the list of failures.
        progress: whether to show a progress bar.
        clock: the time in seconds, by which requests are spaced and cut.
        sleep: waits for some seconds of that time.

    Raises:
        ValueError: if another process fetches into the folder, or Wikimedia is asked without a contact.
        OSError: if the folder cannot be written.
    """
    _check_user_agent(urls, options.user_agent)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings about odd servers break the progress bar
    busy = f"{folder}: another fetch-images writes to this folder: wait until it has ended, or use another folder"
    urls = list(dict.fromkeys(urls))
    report = FetchReport(len(urls), failures=list(failures))
    with lock_file(folder / ".lock", busy):
        _remove_partial_files(folder)
        cached = read_index(folder)
        report.cached = sum(url in cached for url in urls)
        report.files |= {cached[url].name for url in urls if url in cached}
        with tqdm(total=len(urls) - report.cached, desc="fetch", unit=" URLs", disable=not progress) as bar:
            fetch = _Fetch(folder, options, report, bar, clock)
            try:
                for url in urls:
                    if url not in cached:
                        fetch.add(_Job(url, url))
                fetch.run(sleep)
            finally:
                _remove_partial_files(folder)
                with write_whole(folder / FAILED) as partial:
                    partial.write_text("".join(json.dumps(asdict(failure)) + "\n" for failure in report.failures))
    return report


def _remove_partial_files(folder: Path) -> None:
    for partial in folder.glob(f"{PARTIAL}*"):
        partial.unlink(missing_ok=True)


def _check_user_agent(urls: Sequence[str], user_agent: str | None) -> None:
    """Wikimedia's policy asks for a way to reach the user, and blocks programs that give none."""
    if user_agent is not None and not (user_agent.strip() and user_agent.isascii() and user_agent.isprintable()):
        raise ValueError(f"--user-agent {user_agent!r}: give printable ASCII, such as 'my-study/1.0 (me@example.org)'")
    if user_agent is not None and ("@" in user_agent or "://" in user_agent or "User:" in user_agent):
        return
    for host in {host_of(url) for url in urls if problem_of(url) is None}:
        if host.endswith(tuple("." + name for name in _WIKIMEDIA)) or host in _WIKIMEDIA:
            raise ValueError(
                f"{host} belongs to Wikimedia, whose policy asks for a user agent with your contact: "
                "--user-agent 'my-study/1.0 (https://example.org/me; me@example.org)' "
                "(https://foundation.wikimedia.org/wiki/Policy:Wikimedia_Foundation_User-Agent_Policy)"
            )


@dataclass(slots=True)
class _Host(Generic[JobT]):
    active: int = 0
    not_before: float = 0.0
    jobs: list[tuple[float, int, JobT]] = field(default_factory=list)  # a heap of (earliest start, number, job)


class HostQueue(Generic[JobT]):
    """Jobs by host: at most `per_host` of a host run at once, and they start at least `delay` seconds apart."""

    def __init__(self, per_host: int, delay: float) -> None:
        self._per_host = per_host
        self._delay = delay
        self._hosts: dict[str, _Host[JobT]] = {}  # the one that started a job last is at the end
        self._count = itertools.count()

    def __len__(self) -> int:
        return sum(len(host.jobs) for host in self._hosts.values())

    def add(self, name: str, job: JobT, ready: float = 0.0) -> None:
        """Add a job of a host that starts at the time `ready` or later."""
        heapq.heappush(self._hosts.setdefault(name, _Host()).jobs, (ready, next(self._count), job))

    def take(self, now: float) -> JobT | None:
        """A job that starts now and runs until `done`, or None."""
        name = next((name for name, host in self._hosts.items() if self._start(host) <= now), None)
        if name is None:
            return None
        host = self._hosts[name] = self._hosts.pop(name)
        host.active += 1
        host.not_before = now + self._delay
        return heapq.heappop(host.jobs)[2]

    def next_start(self) -> float:
        """When `take` has a job; infinite if a running job must end first."""
        return min(map(self._start, self._hosts.values()), default=math.inf)

    def done(self, name: str) -> None:
        """End a job of the host."""
        self._hosts[name].active -= 1

    def pause(self, name: str, until: float) -> None:
        """Start no job of the host before a time."""
        self._hosts[name].not_before = max(self._hosts[name].not_before, until)

    def clear(self, name: str) -> list[JobT]:
        """Remove the jobs of a host that have not started, and return them."""
        jobs = [job for _, _, job in sorted(self._hosts[name].jobs, key=lambda item: item[1])]
        self._hosts[name].jobs.clear()
        return jobs

    def _start(self, host: _Host[JobT]) -> float:
        return max(host.jobs[0][0], host.not_before) if host.jobs and host.active < self._per_host else math.inf


@dataclass(slots=True)
class _Job:
    """A URL, and the one that is requested for it after redirects."""

    url: str
    target: str
    tries: int = 0
    redirects: int = 0


class _Fetch:
    """One call of `fetch_images`: the caller's thread does all bookkeeping, one thread per request downloads."""

    def __init__(
        self, folder: Path, options: FetchOptions, report: FetchReport, bar: "tqdm[None]", clock: Clock
    ) -> None:
        self._folder = folder
        self._options = options
        self._report = report
        self._bar = bar
        self._clock = clock
        self._adapter = Adapter(pool_maxsize=options.workers)
        self._queue: HostQueue[_Job] = HostQueue(options.per_host, options.delay)
        self._closed: dict[str, str] = {}  # host -> why no more is requested
        self._running: dict[Request, tuple[_Job, float]] = {}  # with the deadline
        self._results: queue.SimpleQueue[tuple[Request, ImageFile | str | Exception]] = queue.SimpleQueue()

    def add(self, job: _Job, ready: float = 0.0) -> None:
        """Queue a job, unless its URL cannot be requested or its host is closed."""
        if problem := problem_of(job.target):
            self._fail(job, problem if job.target == job.url else "redirect not followed", job.target)
        elif (host := host_of(job.target)) in self._closed:
            self._fail(job, HOST_CLOSED, self._closed[host])
        else:
            self._queue.add(host, job, ready)

    def run(self, sleep: Callable[[float], None]) -> None:
        """Run all jobs."""
        while self._queue or self._running:
            while len(self._running) < self._options.workers and (job := self._queue.take(self._clock())):
                self._start(job)
            start = self._queue.next_start() if len(self._running) < self._options.workers else math.inf
            seconds = max(0.0, start - self._clock())
            if not self._running:
                sleep(seconds)
                continue
            with suppress(queue.Empty):
                self._finish(*self._results.get(timeout=min(seconds, _TICK)))
            for request in [request for request, (_, end) in self._running.items() if self._clock() >= end]:
                request.cut()
                late = FetchError("too slow", f"not done after {self._options.max_seconds:g} s", retry=True)
                self._finish(request, late)

    def _start(self, job: _Job) -> None:
        job.tries += 1
        request = Request(job.target, self._options)
        self._running[request] = job, self._clock() + self._options.max_seconds

        def work() -> None:
            try:
                self._results.put((request, download(request, self._adapter, self._folder)))
            except Exception as error:
                self._results.put((request, error))

        # unlike those of concurrent.futures, daemon threads do not delay the end of the program
        threading.Thread(target=work, name="fetch", daemon=True).start()

    def _finish(self, request: Request, result: ImageFile | str | Exception) -> None:
        if request not in self._running:
            return  # it was cut
        job, _ = self._running.pop(request)
        self._queue.done(host_of(job.target))
        if isinstance(result, ImageFile):
            self._store(job, result)
        elif isinstance(result, str):
            job.target, job.redirects, job.tries = result, job.redirects + 1, job.tries - 1
            if job.redirects > _MAX_REDIRECTS:
                self._fail(job, "too many redirects", result)
            else:
                self.add(job)  # under the limits of its host
        elif isinstance(result, FetchError):
            self._retry(job, result)
        else:
            raise result  # the folder cannot be written

    def _store(self, job: _Job, image: ImageFile) -> None:
        add_to_index(self._folder, job.url, image.file, image.bytes)
        self._report.files.add(image.file)
        self._report.fetched += 1
        self._bar.update()

    def _retry(self, job: _Job, error: FetchError) -> None:
        """Try again after a pause if that can help; a busy host is paused as a whole."""
        host = host_of(job.target)
        backoff = self._options.backoff * 2 ** (job.tries - 1) * random.uniform(1.0, 1.5)
        pause = backoff if error.retry_after is None else error.retry_after
        if error.busy:
            self._queue.pause(host, self._clock() + pause)
            if pause > self._options.max_wait:
                self._closed[host] = f"{host} asks for {pause:.0f} s"
                for waiting in self._queue.clear(host):
                    self._fail(waiting, HOST_CLOSED, self._closed[host])
        if error.retry and (job.tries <= self._options.retries or host in self._closed):
            self.add(job, self._clock() + pause)
        else:
            self._fail(job, error.reason, error.detail)

    def _fail(self, job: _Job, reason: str, detail: str) -> None:
        self._report.failures.append(Failure(job.url, reason, detail[:500], tries=job.tries))
        self._bar.update()
