"""What links the blocks of a file: this process, other processes, or the machines of a Ray cluster.

A process that dies, killed or out of memory, costs its block: it is linked again, alone, and then in halves, until the
row is found that it dies of. Results come in the order of the blocks.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Protocol

from spacy.language import Language

from spacy_gemel.bulk.link_block import LinkedBlock, link_block
from spacy_gemel.bulk.sources import SourceRow
from spacy_gemel.pipeline.loaded_pipeline import linker_of
from spacy_gemel.utils.messages import one_line

Block = Sequence[SourceRow]
Linked = Generator[tuple[Block, LinkedBlock], None, None]
_DIED = "the process that linked it has died, as it does when memory runs out"
_QUEUED = 2  # blocks for each process, so that none waits for the next


class Engine(Protocol):
    """Links blocks, and gives each with its result, in their order."""

    def link(self, blocks: Iterator[Block], folder: Path, **options: Any) -> Linked:
        """See `link_block` for `folder` and `options`."""
        ...


class ThisProcess:
    """A pipeline that is loaded. Raises ValueError if it has no linker."""

    def __init__(self, nlp: Language) -> None:
        linker_of(nlp)
        self.nlp = nlp

    def link(self, blocks: Iterator[Block], folder: Path, **options: Any) -> Linked:
        """One block after the other."""
        for block in blocks:
            yield block, link_block(self.nlp, block, folder, **options)


class Processes:
    """Processes of this machine, each of which loads the pipeline once.

    Args:
        load: Gives the pipeline; a function that can be pickled.
        n: Processes.
    """

    died: type[Exception] | tuple[type[Exception], ...] = BrokenProcessPool

    def __init__(self, load: Callable[[], Language], n: int) -> None:
        self.load, self.n = load, n
        self._pool: ProcessPoolExecutor | None = None

    def start(self) -> None:
        """Start the processes; those that are left of earlier ones end. Raises what loading the pipeline raises."""
        self.stop()
        threads = max(1, (os.cpu_count() or 1) // self.n)
        self._pool = ProcessPoolExecutor(
            self.n, mp_context=get_context("spawn"), initializer=_start, initargs=(self.load, threads)
        )
        try:
            error = self._pool.submit(_error_of_start).result()
        except self.died as died:
            error = (
                "a process has died while it loaded the pipeline, as it does when memory runs out: use fewer workers"
            )
            raise ValueError(error) from died
        if error is not None:
            raise ValueError(error)

    def stop(self) -> None:
        """End them, and what they have not done."""
        if self._pool is not None:
            for process in [*(self._pool._processes or {}).values()]:  # no other way to end a block under way
                process.terminate()
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def submit(self, block: Block, folder: Path, options: dict[str, Any]) -> "Future[LinkedBlock]":
        """Let a process link a block."""
        assert self._pool is not None
        try:
            return self._pool.submit(_link, block, folder, options)
        except BrokenProcessPool as error:  # before it was submitted
            failed: Future[LinkedBlock] = Future()
            failed.set_exception(error)
            return failed

    def link(self, blocks: Iterator[Block], folder: Path, **options: Any) -> Linked:
        """Link some blocks at once. Raises what loading the pipeline raises."""
        self.start()
        queue: deque[tuple[Block, Future[LinkedBlock]]] = deque()
        try:
            while True:
                while len(queue) < _QUEUED * self.n and (block := next(blocks, None)) is not None:
                    queue.append((block, self.submit(block, folder, options)))
                if not queue:
                    return
                block, future = queue.popleft()
                try:
                    result = future.result()
                except self.died:  # of this block or another: those that are not done are linked one by one
                    self.start()
                    waiting, queue = [(block, future), *queue], deque()
                    for block, future in waiting:
                        is_done = future.done() and not future.cancelled() and future.exception() is None
                        yield block, future.result() if is_done else self._alone(block, folder, options)
                else:
                    yield block, result
        finally:
            self.stop()

    def _alone(self, block: Block, folder: Path, options: dict[str, Any]) -> LinkedBlock:
        """Link a block while no other is: if the process dies, it is of this one."""
        try:
            return self.submit(block, folder, options).result()
        except self.died:
            self.start()
        if len(block) == 1:
            result = LinkedBlock()
            result.fail(block[0], _DIED)
            return result
        middle = len(block) // 2
        first, second = (self._alone(half, folder, options) for half in (block[:middle], block[middle:]))
        return LinkedBlock(first.lines + second.lines, first.failed + second.failed, first.problems + second.problems)


class _Linker:
    """A process that links. An error of loading is told when it is asked for, since an initializer cannot raise it."""

    def __init__(self, load: Callable[[], Language], threads: int | None = None) -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        self.error: str | None = None  # no exception: some cannot be sent to another process
        try:
            self.nlp = load()
        except Exception as error:
            self.error = one_line(error)

    def error_of_start(self) -> str | None:
        """Why the pipeline could not be loaded; None if it was."""
        return self.error

    def link(self, block: Block, folder: Path, options: dict[str, Any]) -> LinkedBlock:
        """See `link_block`."""
        return link_block(self.nlp, block, folder, **options)


_linker: _Linker
"""Of a process of `Processes`, which has no other place for it."""


def _start(load: Callable[[], Language], threads: int) -> None:
    global _linker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _linker = _Linker(load, threads)


def _end_with_parent() -> None:
    """A parent that is killed cannot end its processes."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def _error_of_start() -> str | None:
    return _linker.error_of_start()


def _link(block: Block, folder: Path, options: dict[str, Any]) -> LinkedBlock:
    return _linker.link(block, folder, options)


class RayActors(Processes):
    """Actors of a Ray cluster, which see the pipeline and the pictures under the same paths.

    Args:
        load: Gives the pipeline; a function that can be pickled.
        n: Actors.
        gpus: Of each; 0.5 lets two share one.

    Raises:
        ImportError: without the extra [ray].
    """

    def __init__(self, load: Callable[[], Language], n: int, *, gpus: float = 0.0) -> None:
        try:
            import ray
            from ray.exceptions import ObjectLostError, RayActorError
        except ImportError as error:
            raise ImportError("--engine ray needs Ray: pip install spacy-gemel[ray]") from error
        super().__init__(load, n)
        self._ray, self._gpus, self._next = ray, gpus, 0
        self.died = (RayActorError, ObjectLostError)  # the second, of a result that was left on a lost machine
        self._actors: list[Any] = []

    def start(self) -> None:
        """Start the actors, on the cluster that RAY_ADDRESS names, else on one of this machine."""
        if not self._ray.is_initialized():
            self._ray.init(log_to_driver=False)
        self.stop()
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= self._gpus for node in nodes):
            raise ValueError(
                f"no machine of the Ray cluster has a CPU and {self._gpus:g} GPUs for a worker: give other "
                "--worker-gpus, or add a machine"
            )
        actor = self._ray.remote(num_gpus=self._gpus)(_Linker)
        begin, actors = time.monotonic(), [actor.remote(self.load) for _ in range(self.n)]
        started = {each.error_of_start.remote(): each for each in actors}
        first, _ = self._ray.wait([*started])
        # a cluster that has lost a machine may have no place for all: the rest gets as long again
        patience = 1 + time.monotonic() - begin
        ready, late = self._ray.wait([*started], num_returns=self.n, timeout=patience)
        for each in late:
            self._ray.kill(started[each])
        self._actors = [started[each] for each in ready]
        if (error := self._ray.get(first[0])) is not None:
            raise ValueError(error)

    def stop(self) -> None:
        """End them."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []

    def submit(self, block: Block, folder: Path, options: dict[str, Any]) -> "Future[LinkedBlock]":
        """Let an actor link a block."""
        self._next = (self._next + 1) % len(self._actors)
        future: Future[LinkedBlock] = self._actors[self._next].link.remote(block, folder, options).future()
        return future
