"""Fetching many URLs: which one next, what to try again, and what is told in the end."""

import logging
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from spacy_gemel import __version__
from spacy_gemel.fetch.download import PARTIAL, Failed, Limits, Outcome, Redirected, Stored, download
from spacy_gemel.fetch.hosts import HostQueues
from spacy_gemel.fetch.index import IndexWriter, fetched
from spacy_gemel.fetch.report import Failure, FetchReport, write_failures
from spacy_gemel.fetch.urls import Refused, host_of, problem_of
from spacy_gemel.locks import held

USER_AGENT = f"spacy-gemel/{__version__}"
_WIKIMEDIA = ("wikimedia.org", "wikipedia.org", "wikinews.org", "wikidata.org", "wiktionary.org", "mediawiki.org")
_GRACE = 3.0  # seconds that an interrupt leaves to requests that run
_ASKED_TO_WAIT = "the host asks to be left alone for longer than --max-wait"


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How to fetch; see `python -m spacy_gemel fetch-images --help`. Times are in seconds.

    backoff: before the second try, doubled for each further one.
    """

    user_agent: str | None = None
    workers: int = 8
    per_host: int = 2
    delay: float = 0.5
    retries: int = 3
    backoff: float = 1.0
    timeout: float = 30.0
    max_seconds: float = 300.0
    max_wait: float = 600.0
    max_bytes: int = 64 * 2**20
    max_redirects: int = 5
    allow_private: bool = False


@dataclass(slots=True)
class _Job:
    """A URL on its way. now: what is asked for it at the moment, after redirects."""

    url: str
    now: str
    tries: int = 0
    hops: list[str] = field(default_factory=list)
    started: float = 0.0


def fetch_images(
    urls: Sequence[str],
    folder: Path,
    options: FetchOptions,
    *,
    refused: Sequence[Refused] = (),
    progress: bool = True,
) -> FetchReport:
    """Fetch the images of some URLs that are not yet in the folder.

    refused: what the source held instead of URLs; it goes into the list of what failed.
    What fails is told in the report and in failed.jsonl, and hurts nothing else. After an interrupt, which is raised
    when the requests that run have ended, the same call goes on with what is not there.

    Raises ValueError where another process fetches into the folder, or where Wikimedia is asked without a user agent
    that says how to reach the user; OSError where the folder cannot be written.
    """
    _check_user_agent(urls, options.user_agent)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings about odd servers break the progress bar
    busy = f"{folder}: another fetch-images is writing there: wait until it has ended, or give another folder"
    with held(folder / ".lock", busy), IndexWriter(folder) as index:
        for left in folder.glob(f"{PARTIAL}*"):
            left.unlink()
        return _Fetch(urls, folder, options, index, refused).run(progress)


def _check_user_agent(urls: Sequence[str], user_agent: str | None) -> None:
    """Wikimedia's policy asks for a way to reach whoever runs the program, and blocks those that give none."""
    if user_agent is not None and not (user_agent.strip() and user_agent.isascii() and user_agent.isprintable()):
        raise ValueError(f"--user-agent {user_agent!r}: give printable ASCII, such as 'my-study/1.0 (me@example.org)'")
    if user_agent is not None and ("@" in user_agent or "://" in user_agent or "User:" in user_agent):
        return
    for url in urls:
        host = host_of(url)
        if any(host == name or host.endswith("." + name) for name in _WIKIMEDIA):
            raise ValueError(
                f"{host} is Wikimedia's, whose policy asks for a user agent that says how to reach you: "
                "--user-agent 'my-study/1.0 (https://example.org/me; me@example.org)' "
                "(https://foundation.wikimedia.org/wiki/Policy:Wikimedia_Foundation_User-Agent_Policy)"
            )


class _Fetch:
    """One call of `fetch_images`. All bookkeeping is this thread's; the others only ask and write bodies."""

    def __init__(
        self, urls: Sequence[str], folder: Path, options: FetchOptions, index: IndexWriter, refused: Sequence[Refused]
    ) -> None:
        self.folder = folder
        self.options = options
        self.index = index
        self.limits = Limits(
            user_agent=options.user_agent or USER_AGENT,
            max_bytes=options.max_bytes,
            timeout=options.timeout,
            max_seconds=options.max_seconds,
            allow_private=options.allow_private,
        )
        self.queues: HostQueues[_Job] = HostQueues(options.per_host, options.delay)
        self.running: dict[Future[Outcome], tuple[str, _Job]] = {}
        self.stop = threading.Event()
        self.ending = False
        self.report = FetchReport(urls=len(urls))
        self.report.failures += [Failure(item.url, item.reason, item.detail, item.where) for item in refused]
        have = fetched(folder)
        self.report.files |= {have[url].name for url in urls if url in have}
        todo = [url for url in urls if url not in have]
        self.report.before = len(urls) - len(todo)
        for url in todo:
            self.queues.add(host_of(url), _Job(url, url))

    def run(self, progress: bool) -> FetchReport:
        try:
            with (
                ThreadPoolExecutor(self.options.workers, thread_name_prefix="fetch") as pool,
                tqdm(total=self.queues.waiting, desc="fetch", unit=" URLs", disable=not progress) as bar,
            ):
                try:
                    self._loop(pool, bar)
                except BaseException:
                    self.ending = True
                    wait(self.running, timeout=_GRACE)
                    self.stop.set()
                    wait(self.running)
                    self._settle(list(self.running), bar)  # what came in is not to be asked for again
                    raise
        finally:
            write_failures(self.folder, self.report.failures)
        return self.report

    def _loop(self, pool: ThreadPoolExecutor, bar: "tqdm[None]") -> None:
        while self.queues.waiting or self.running:
            while len(self.running) < self.options.workers and (found := self.queues.take(time.monotonic())):
                _, job = found
                job.tries += 1
                job.started = time.monotonic()
                self.running[pool.submit(download, job.now, self.folder, self.limits, self.stop)] = found
            start = self.queues.next_start()
            free = len(self.running) < self.options.workers
            seconds = max(0.0, start - time.monotonic()) if start is not None and free else None
            if self.running:
                self._settle(wait(self.running, timeout=seconds, return_when=FIRST_COMPLETED).done, bar)
            elif seconds:
                time.sleep(seconds)

    def _settle(self, done: "set[Future[Outcome]] | list[Future[Outcome]]", bar: "tqdm[None]") -> None:
        for future in done:
            name, job = self.running.pop(future)
            self.queues.done(name)
            outcome = future.result()  # raises where the folder cannot be written
            ended = self._end_of(name, job, outcome, bar)
            if isinstance(ended, Stored):
                self.index.add(job.url, ended.file, ended.bytes)
                self.report.files.add(ended.file)
                self.report.fetched += 1
                self.report.bytes += ended.bytes
            elif ended is not None:
                self._fail(job, ended.reason, ended.detail)
            bar.update(ended is not None)

    def _end_of(self, name: str, job: _Job, outcome: Outcome, bar: "tqdm[None]") -> Stored | Failed | None:
        """What became of the URL; None where it has been queued again."""
        if isinstance(outcome, Stored) or self.ending:
            return outcome if isinstance(outcome, Stored) else None
        if isinstance(outcome, Redirected):
            return self._follow(job, outcome.url)
        now = time.monotonic()
        if outcome.busy:
            self.queues.slow_down(name, job.started, now)
        # full jitter would come back too early for a host that asks for less
        seconds = self.options.backoff * 2 ** (job.tries - 1) * random.uniform(1.0, 1.5)
        pause = outcome.wait if outcome.wait is not None else (seconds if outcome.busy else 0.0)
        if pause > self.options.max_wait:
            for other in self.queues.close(name):
                self._fail(other, _ASKED_TO_WAIT, f"it said {pause:.0f} s")
                bar.update()
            return Failed(_ASKED_TO_WAIT, f"it said {pause:.0f} s")
        self.queues.pause(name, now + pause)
        if not outcome.again or job.tries > self.options.retries:
            return outcome
        self.queues.add(name, job, ready=now + max(pause, 0.0 if outcome.wait is not None else seconds))
        return None

    def _follow(self, job: _Job, url: str) -> Failed | None:
        """Queue the next hop of a redirect at its host, under that host's limits."""
        job.hops.append(job.now)
        problem = problem_of(url)
        if problem is not None:
            return Failed("a redirect that is not followed", f"{problem}: {url[:200]}")
        if url in job.hops:
            return Failed("redirects in a circle", " -> ".join([*job.hops, url])[:500])
        if len(job.hops) > self.options.max_redirects:
            return Failed("too many redirects", " -> ".join(job.hops)[:500])
        job.now = url
        job.tries -= 1  # a hop is no failure
        self.queues.add(host_of(url), job)
        return None

    def _fail(self, job: _Job, reason: str, detail: str) -> None:
        self.report.failures.append(Failure(job.url, reason, detail, tries=job.tries))
