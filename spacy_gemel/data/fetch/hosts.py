"""When which host may be asked next: politeness, as plain bookkeeping without threads or a network."""

import heapq
import itertools
from dataclasses import dataclass, field
from typing import Generic, TypeVar

JobT = TypeVar("JobT")

_SLOWEST = 30.0


@dataclass(slots=True)
class _Host(Generic[JobT]):
    delay: float
    active: int = 0
    not_before: float = 0.0
    slowed: float = 0.0
    due: float | None = None  # the time of its one valid entry among those that are due
    closed: str | None = None
    jobs: list[tuple[float, int, JobT]] = field(default_factory=list)


class HostQueues(Generic[JobT]):
    """Jobs by host. At most `at_once` of a host run, and they start at least `delay` seconds apart.

    Times are seconds of one clock, given with each call. One thread calls all of it.
    """

    def __init__(self, at_once: int, delay: float) -> None:
        self._at_once = at_once
        self._delay = delay
        self._hosts: dict[str, _Host[JobT]] = {}
        self._due: list[tuple[float, int, str]] = []
        self._count = itertools.count()
        self.waiting = 0

    def add(self, name: str, job: JobT, ready: float = 0.0) -> str | None:
        """Queue a job of a host, to start at `ready` at the earliest; at a closed host it is not, and this says why."""
        host = self._hosts.setdefault(name, _Host(self._delay))
        if host.closed is not None:
            return host.closed
        heapq.heappush(host.jobs, (ready, next(self._count), job))
        self.waiting += 1
        self._announce(name, host)
        return None

    def take(self, now: float) -> tuple[str, JobT] | None:
        """A host and its job that may start now and counts as running until `done`; None where none may."""
        while self._due and self._due[0][0] <= now:
            due, _, name = heapq.heappop(self._due)
            host = self._hosts[name]
            if host.due != due:
                continue  # another entry has taken its place
            host.due = None
            start = self._start(host)
            if start is None:
                continue
            if start > now:  # the host was paused meanwhile
                self._announce(name, host)
                continue
            _, _, job = heapq.heappop(host.jobs)
            self.waiting -= 1
            host.active += 1
            host.not_before = max(host.not_before, now + host.delay)
            self._announce(name, host)
            return name, job
        return None

    def next_start(self) -> float | None:
        """When `take` should be tried again; None where only a job that ends can make another one start."""
        return self._due[0][0] if self._due else None

    def done(self, name: str) -> None:
        """A job of the host has ended."""
        host = self._hosts[name]
        host.active -= 1
        self._announce(name, host)

    def pause(self, name: str, until: float) -> None:
        """Start nothing more at the host before a time."""
        host = self._hosts[name]
        host.not_before = max(host.not_before, until)

    def slow_down(self, name: str, started: float, now: float) -> None:
        """Twice the delay, as the host said that it is asked too much; once for all jobs that ran side by side."""
        host = self._hosts[name]
        if started >= host.slowed:
            host.delay = min(max(2 * host.delay, 0.1), max(_SLOWEST, host.delay))
            host.slowed = now

    def close(self, name: str, why: str) -> list[JobT]:
        """Start nothing more at the host, ever: takes away all of its jobs that have not started, and takes no others.

        Jobs that run go on. why: what `add` says from now on; the first reason stays.
        """
        host = self._hosts[name]
        host.closed = host.closed or why
        jobs = [job for _, _, job in sorted(host.jobs, key=lambda item: item[1])]
        host.jobs.clear()
        self.waiting -= len(jobs)
        return jobs

    def _start(self, host: _Host[JobT]) -> float | None:
        if not host.jobs or host.active >= self._at_once:
            return None
        return max(host.jobs[0][0], host.not_before)

    def _announce(self, name: str, host: _Host[JobT]) -> None:
        start = self._start(host)
        if start is not None and (host.due is None or start < host.due):
            host.due = start
            heapq.heappush(self._due, (start, next(self._count), name))
