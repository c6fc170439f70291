"""Fetch many URLs politely: which one next, which one again, and the report."""

import heapq
import itertools
import json
import logging
import math
import queue
import random
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

from spacy_gemel.data.fetch.download import Adapter, Cut, FetchError, FetchOptions, download
from spacy_gemel.data.fetch.urls import Failure, add_to_index, host_of, problem_of, read_index
from spacy_gemel.utils.files import lock_file, write_whole

FAILED = "failed.jsonl"
HOST_CLOSED = "host asks for a pause of more than 10 minutes"
_LONGEST_PAUSE = 600.0
_BACKOFF = 1.0  # seconds before the second try, doubled with each further one
_WIKIMEDIA = ("wikimedia.org", "wikipedia.org", "wikinews.org", "wikidata.org", "wiktionary.org", "mediawiki.org")
_MAX_REDIRECTS = 5
_TICK = 1.0  # seconds between two looks at the deadlines of running requests


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
        total = f"{folder}: has {self.cached + self.fetched} of {self.urls} URLs in {len(self.files)} files"
        reasons = Counter(failure.reason for failure in self.failures)
        lines = [f"  {number:,} x {reason}" for reason, number in sorted(reasons.items())]
        hint = [f"{folder / FAILED} lists what failed and why; the same command tries again"] if reasons else []
        return [f"{total}, {self.cached} of them from before", *lines, *hint]


def fetch_images(
    urls: Sequence[str], folder: Path, options: FetchOptions, *, failures: Sequence[Failure] = (), progress: bool = True
) -> FetchReport:
    """Fetch the images that the folder does not have yet.

    A URL that fails is listed in the report and in failed.jsonl, after the `failures` of the source, and affects no
    other. After an interrupt the same call continues with the missing images.

    Raises ValueError if another process fetches into the folder, or Wikimedia is asked without a contact, or the user
    agent cannot be a header, and OSError if the folder cannot be written.
    """
    _check_user_agent(urls, options.user_agent)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings about odd servers break the progress bar
    busy = f"{folder}: another fetch-images writes to this folder: wait until it has ended, or use another folder"
    urls = list(dict.fromkeys(urls))
    report = FetchReport(len(urls), failures=list(failures))
    with lock_file(folder / ".lock", busy):
        cached = read_index(folder)
        report.files = {cached[url].name for url in urls if url in cached}
        missing = [url for url in urls if url not in cached]
        report.cached = len(urls) - len(missing)
        try:
            with tqdm(total=len(missing), desc="fetch", unit=" URLs", disable=not progress) as bar:
                _Fetch(folder, options, report, bar).run(missing)
        finally:
            with write_whole(folder / FAILED) as partial:
                partial.write_text("".join(json.dumps(asdict(failure)) + "\n" for failure in report.failures))
    return report


def _check_user_agent(urls: Sequence[str], user_agent: str | None) -> None:
    """Wikimedia's policy asks for a way to reach the user, and blocks programs that give none."""
    if user_agent is not None and not re.fullmatch(r"[!-~\xa1-\xff][ -~\xa1-\xff]*", user_agent):
        raise ValueError(f"--user-agent {user_agent!r}: use one line of Latin-1 characters that begins with no space")
    if any(contact in (user_agent or "") for contact in ("@", "://", "User:")):
        return
    for host in {host_of(url) for url in urls if problem_of(url) is None}:
        if ".".join(host.split(".")[-2:]) in _WIKIMEDIA:
            raise ValueError(
                f"{host} belongs to Wikimedia, whose policy asks for a user agent with your contact: "
                "--user-agent 'my-study/1.0 (https://example.org/me; me@example.org)' "
                "(https://foundation.wikimedia.org/wiki/Policy:Wikimedia_Foundation_User-Agent_Policy)"
            )


@dataclass(slots=True)
class Job:
    """A URL, and the one that is requested for it after redirects."""

    url: str
    target: str
    tries: int = 0
    redirects: int = 0


class HostQueue:
    """Jobs by host: at most `per_host` of a host run at once, and they start at least `delay` seconds apart."""

    def __init__(self, per_host: int, delay: float) -> None:
        self._per_host, self._delay = per_host, delay
        self._jobs: dict[str, list[tuple[float, int, Job]]] = {}  # heaps of (start, number, job), none of them empty
        self._starts: list[tuple[float, str]] = []  # a heap of (start, host): each change adds an entry
        self._active: Counter[str] = Counter()
        self._not_before: defaultdict[str, float] = defaultdict(float)
        self._count = itertools.count()

    def add(self, job: Job, ready: float = 0.0) -> None:
        """Add a job that starts at the time `ready` or later."""
        host = host_of(job.target)
        heapq.heappush(self._jobs.setdefault(host, []), (ready, next(self._count), job))
        self._push(host)

    def take(self, now: float) -> Job | None:
        """A job that starts now and runs until `done`, or None; the host that has waited longest comes first."""
        if self.next_start() > now:
            return None
        _, host = heapq.heappop(self._starts)
        self._active[host] += 1
        self._not_before[host] = now + self._delay
        _, _, job = heapq.heappop(self._jobs[host])
        if not self._jobs[host]:
            del self._jobs[host]
        self._push(host)
        return job

    def next_start(self) -> float:
        """When `take` has a job; infinite if a running job must end first."""
        while self._starts and self._starts[0][0] != self._start(self._starts[0][1]):
            heapq.heappop(self._starts)  # out of date
        return self._starts[0][0] if self._starts else math.inf

    def done(self, host: str) -> None:
        """End a job of the host."""
        self._active[host] -= 1
        self._push(host)

    def pause(self, host: str, until: float) -> None:
        """Start no job of the host before a time."""
        self._not_before[host] = max(self._not_before[host], until)
        self._push(host)

    def waiting(self) -> list[Job]:
        """The jobs that have not started."""
        return [job for jobs in self._jobs.values() for _, _, job in jobs]

    def _start(self, host: str) -> float:
        if host not in self._jobs or self._active[host] >= self._per_host:
            return math.inf
        return max(self._jobs[host][0][0], self._not_before[host])

    def _push(self, host: str) -> None:
        heapq.heappush(self._starts, (self._start(host), host))


_Result = tuple[str, int] | str | Exception  # what `download` returns or raises


class _Fetch:
    """One call of `fetch_images`: the caller's thread does all bookkeeping, one thread per request downloads."""

    def __init__(self, folder: Path, options: FetchOptions, report: FetchReport, bar: "tqdm[None]") -> None:
        self._folder, self._options, self._report, self._bar = folder, options, report, bar
        self._adapter = Adapter(pool_maxsize=options.workers)
        self._queue = HostQueue(options.per_host, options.delay)
        self._running: dict[Cut, tuple[Job, float]] = {}  # by what cuts it; with the deadline
        self._results: queue.SimpleQueue[tuple[Cut, _Result]] = queue.SimpleQueue()

    def run(self, urls: Sequence[str]) -> None:
        """Fetch the URLs."""
        for url in urls:
            self._add(Job(url, url))
        while self._running or self._queue.next_start() < math.inf:
            while len(self._running) < self._options.workers and (job := self._queue.take(time.monotonic())):
                self._start(job)
            start = self._queue.next_start() if len(self._running) < self._options.workers else math.inf
            seconds = max(0.0, start - time.monotonic())
            if not self._running:
                time.sleep(seconds)
                continue
            with suppress(queue.Empty):
                self._finish(*self._results.get(timeout=min(seconds, _TICK)))
            for cut in [cut for cut, (_, deadline) in self._running.items() if time.monotonic() >= deadline]:
                cut.set()
                if cut.connection is None:  # a look-up cannot be ended; all else ends now and frees its host then
                    self._finish(cut, FetchError("too slow"))
        for job in self._queue.waiting():
            self._fail(job, HOST_CLOSED, job.target)

    def _add(self, job: Job, ready: float = 0.0) -> None:
        """Queue a job, unless its URL cannot be requested."""
        if problem := problem_of(job.target):
            self._fail(job, problem if job.target == job.url else "redirect not followed", job.target)
        else:
            self._queue.add(job, ready)

    def _start(self, job: Job) -> None:
        job.tries += 1
        cut = Cut()
        self._running[cut] = job, time.monotonic() + self._options.max_seconds

        def work(url: str) -> None:
            try:
                self._results.put((cut, download(url, self._options, self._adapter, self._folder, cut)))
            except Exception as error:
                self._results.put((cut, error))

        # unlike those of concurrent.futures, daemon threads do not delay the end of the program
        threading.Thread(target=work, args=(job.target,), name="fetch", daemon=True).start()

    def _finish(self, cut: Cut, result: _Result) -> None:
        cut.close()
        if cut not in self._running:
            return  # it was too late
        job, _ = self._running.pop(cut)
        self._queue.done(host := host_of(job.target))
        if cut.is_set() and isinstance(result, (str, FetchError)):  # as a shut socket looks to the reader
            result = FetchError("too slow", f"not done after {self._options.max_seconds:g} s", retry=True)
        if isinstance(result, tuple):
            add_to_index(self._folder, job.url, *result)
            self._report.files.add(result[0])
            self._report.fetched += 1
            self._bar.update()
        elif isinstance(result, str):
            job.target, job.redirects, job.tries = result, job.redirects + 1, job.tries - 1
            if job.redirects > _MAX_REDIRECTS:
                self._fail(job, "too many redirects", result)
            else:
                self._add(job)  # under the limits of its host
        elif isinstance(result, FetchError):
            pause = result.pause or _BACKOFF * 2 ** (job.tries - 1) * random.uniform(1.0, 1.5)
            if result.pause is not None:  # the host as a whole is busy
                self._queue.pause(host, time.monotonic() + pause if pause <= _LONGEST_PAUSE else math.inf)
            if result.retry and job.tries <= self._options.retries:
                self._add(job, time.monotonic() + pause)
            else:
                self._fail(job, result.reason, result.detail)
        else:
            raise result  # the folder cannot be written

    def _fail(self, job: Job, reason: str, detail: str) -> None:
        self._report.failures.append(Failure(job.url, reason, detail[:500], tries=job.tries))
        self._bar.update()
