"""Fetching many URLs: which one next, what to try again, and what is told in the end."""

import logging
import random
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tqdm import tqdm

from spacy_gemel import __version__
from spacy_gemel.data.fetch.attempt import Attempt
from spacy_gemel.data.fetch.download import PARTIAL, download
from spacy_gemel.data.fetch.hosts import HostQueues
from spacy_gemel.data.fetch.index import IndexWriter, fetched
from spacy_gemel.data.fetch.interrupts import Interrupts
from spacy_gemel.data.fetch.outcomes import CannotStore, Failed, Limits, Outcome, Redirected, Stored, unexpected
from spacy_gemel.data.fetch.report import Failure, FetchReport, write_failures
from spacy_gemel.data.fetch.urls import Refused, host_of, problem_of
from spacy_gemel.data.fetch.workers import Workers
from spacy_gemel.utils.files import lock_file

USER_AGENT = f"spacy-gemel/{__version__}"
_WIKIMEDIA = ("wikimedia.org", "wikipedia.org", "wikinews.org", "wikidata.org", "wiktionary.org", "mediawiki.org")
_GRACE = 1.0  # seconds that an interrupt leaves to requests that run
_LAST = 0.5  # and to their threads, once they have been cut
_AWAKE = 1.0  # some systems do not tell a thread that waits for a lock of an interrupt
_ASKED_TO_WAIT = "the host asks to be left alone for longer than --max-wait"


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How to fetch; see `python -m spacy_gemel fetch-images --help`. Times are in seconds, max_seconds of one request.

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
    again within two seconds, the same call goes on with what is not there.

    Raises ValueError where another process fetches into the folder, or where Wikimedia is asked without a user agent
    that says how to reach the user; OSError where the folder cannot be written.
    """
    _check_user_agent(urls, options.user_agent)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings about odd servers break the progress bar
    busy = f"{folder}: another fetch-images is writing there: wait until it has ended, or give another folder"
    with lock_file(folder / ".lock", busy), IndexWriter(folder) as index:
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
        host = host_of(url) if problem_of(url) is None else ""
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
        self.running: dict[Future[Outcome], tuple[str, _Job, Attempt]] = {}
        self.ending = False
        self.interrupts = Interrupts()
        urls = list(dict.fromkeys(urls))
        self.report = FetchReport(urls=len(urls))
        self.report.failures += [Failure(item.url, item.reason, item.detail, item.where) for item in refused]
        have = fetched(folder)
        self.report.files |= {have[url].name for url in urls if url in have}
        todo = [url for url in urls if url not in have]
        self.report.before = len(urls) - len(todo)
        for url in todo:
            problem = problem_of(url)
            if problem is None:
                self.queues.add(host_of(url), _Job(url, url))
            else:
                self.report.failures.append(Failure(url, problem))

    def run(self, progress: bool) -> FetchReport:
        workers: Workers[Outcome] = Workers(self.options.workers)
        try:
            with (
                self.interrupts,
                tqdm(total=self.queues.waiting, desc="fetch", unit=" URLs", disable=not progress) as bar,
            ):
                try:
                    self._loop(workers, bar)
                except BaseException:
                    self._end(bar)
                    raise
        finally:
            workers.close()
            write_failures(self.folder, self.report.failures)
        return self.report

    def _loop(self, workers: Workers[Outcome], bar: "tqdm[None]") -> None:
        while self.queues.waiting or self.running:
            while len(self.running) < self.options.workers and (found := self.queues.take(time.monotonic())):
                name, job = found
                job.tries += 1
                job.started = time.monotonic()
                attempt = Attempt(self.limits.max_seconds, self.limits.allow_private)
                future = workers.submit(partial(download, job.now, self.folder, self.limits, attempt))
                self.running[future] = (name, job, attempt)
            start = self.queues.next_start()
            free = len(self.running) < self.options.workers
            seconds = max(0.0, start - time.monotonic()) if start is not None and free else _AWAKE
            with self.interrupts.heard():
                if self.running:
                    wait(self.running, timeout=min(seconds, _AWAKE), return_when=FIRST_COMPLETED)
                else:
                    time.sleep(seconds)
            self._settle([future for future in self.running if future.done()], bar)

    def _end(self, bar: "tqdm[None]") -> None:
        """End early: who is nearly done may be, the others are cut, and who hangs all the same is left behind."""
        self.ending = True
        try:
            with self.interrupts.heard():
                wait(self.running, timeout=_GRACE)
            for _, _, attempt in self.running.values():
                attempt.cut(Failed("interrupted"))
            with self.interrupts.heard():
                wait(self.running, timeout=_LAST)
        finally:
            # what came in is not to be asked for again
            self._settle([future for future in self.running if future.done()], bar)

    def _settle(self, done: Sequence[Future[Outcome]], bar: "tqdm[None]") -> None:
        for future in done:
            name, job, _ = self.running.pop(future)
            self.queues.done(name)
            try:
                ended = self._end_of(name, job, future.result(), bar)
            except CannotStore:
                if self.ending:
                    continue  # what ended it is raised, and not this
                raise
            except Exception as error:
                ended = unexpected(error)
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
            said = f"{name} said {pause:.0f} s"
            for other in self.queues.close(name, said):
                self._fail(other, _ASKED_TO_WAIT, said)
                bar.update()
            return Failed(_ASKED_TO_WAIT, said)
        self.queues.pause(name, now + pause)
        if not outcome.again or job.tries > self.options.retries:
            return outcome
        return self._queue(job, ready=now + max(pause, 0.0 if outcome.wait is not None else seconds))

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
        return self._queue(job)

    def _queue(self, job: _Job, ready: float = 0.0) -> Failed | None:
        closed = self.queues.add(host_of(job.now), job, ready)
        return None if closed is None else Failed(_ASKED_TO_WAIT, closed)

    def _fail(self, job: _Job, reason: str, detail: str) -> None:
        self.report.failures.append(Failure(job.url, reason, detail, tries=job.tries))
