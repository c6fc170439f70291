"""The bookkeeping of politeness, on a clock of the test's own."""

from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.data.fetch.hosts import HostQueues


@settings(deadline=None)
@given(
    jobs=st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 5)), max_size=30),
    at_once=st.integers(1, 3),
    delay=st.floats(0, 2),
    lasts=st.floats(0.01, 3),
    pauses=st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 10)), max_size=3),
)
def test_every_job_runs_and_no_limit_is_broken(
    jobs: list[tuple[str, float]], at_once: int, delay: float, lasts: float, pauses: list[tuple[str, float]]
) -> None:
    queues: HostQueues[int] = HostQueues(at_once, delay)
    for number, (host, ready) in enumerate(jobs):
        queues.add(host, number, ready)
    paused = {}
    for host, until in pauses:
        if host in {name for name, _ in jobs}:
            queues.pause(host, until)
            paused[host] = max(until, paused.get(host, 0.0))
    now, running, ran, last = 0.0, [], [], {}
    while queues.waiting or running:
        while (found := queues.take(now)) is not None:
            host, number = found
            assert now >= jobs[number][1]
            assert now >= paused.get(host, 0.0)
            assert now >= last.get(host, -delay) + delay - 1e-9
            last[host] = now
            running.append((now + lasts, host))
            ran.append(number)
            assert sum(name == host for _, name in running) <= at_once
        # on to whatever comes first: a job's end, or the time that the queues name
        start = queues.next_start()
        ends = min((end for end, _ in running), default=None)
        assert start is not None or ends is not None or not queues.waiting
        moments = [moment for moment in (start, ends) if moment is not None]
        if not moments:
            break
        now = max(now, min(moments))
        for end, host in [item for item in running if item[0] <= now]:
            running.remove((end, host))
            queues.done(host)
    assert sorted(ran) == list(range(len(jobs)))


def test_a_closed_host_gives_its_jobs_back() -> None:
    queues: HostQueues[str] = HostQueues(1, 0.0)
    for job in "xyz":
        queues.add("a", job)
    queues.add("b", "other")
    assert queues.take(0.0) == ("a", "x")
    assert queues.close("a", "enough") == ["y", "z"]
    assert queues.add("a", "again") == "enough"
    queues.done("a")
    assert queues.add("a", "again", ready=1.0) == "enough"
    assert queues.close("a", "really") == []
    assert queues.add("a", "again") == "enough"
    assert queues.take(0.0) == ("b", "other")
    assert (queues.take(9.0), queues.waiting) == (None, 0)


def test_slowing_down_once_for_jobs_that_ran_side_by_side() -> None:
    queues: HostQueues[int] = HostQueues(3, 1.0)
    for number in range(4):
        queues.add("a", number)
    assert queues.take(0.0) == ("a", 0)
    assert queues.take(1.0) == ("a", 1)
    queues.slow_down("a", started=0.0, now=1.5)
    queues.slow_down("a", started=1.0, now=1.6)  # it started before the host was slowed
    queues.done("a")
    queues.done("a")
    assert queues.take(2.0) == ("a", 2)
    assert queues.take(3.9) is None
    assert queues.take(4.0) == ("a", 3)
