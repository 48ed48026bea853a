"""Who prices: this process, processes of this machine, any executor, or a cluster. None loses a batch with a worker."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from fxmeter.models.errors import FxmeterError, ScenarioError

Item = TypeVar("Item")
Done = TypeVar("Done")

AHEAD = 256
"""Batches that an executor of unknown width is given ahead: two for each core of a hundred workers and more."""


class Workers(Protocol):
    """Where batches go. ``ahead`` is how many are handed over at a time."""

    ahead: int

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Begin a call."""

    def outlives(self, error: BaseException) -> bool:
        """Whether ``error`` says that a worker has died, and another takes its place: where all died, made anew."""


@dataclass
class Processes:
    """Processes of this machine, started afresh: each imports the package, and nothing of the caller's."""

    jobs: int
    _pool: ProcessPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self.ahead = 2 * self.jobs
        self._pool = self._started()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Begin a call; of a pool that is broken already, one that failed."""
        try:
            return self._pool.submit(function, *arguments)
        except BrokenProcessPool as error:
            failed: Future[Any] = Future()
            failed.set_exception(error)
            return failed

    def outlives(self, error: BaseException) -> bool:
        """One that dies takes all that is in flight along; all are started again."""
        if not isinstance(error, BrokenProcessPool):
            return False
        self._pool.shutdown(wait=True)
        self._pool = self._started()
        return True

    def close(self) -> None:
        """End them, each after the batch that it has in hand."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _started(self) -> ProcessPoolExecutor:
        pool = ProcessPoolExecutor(self.jobs, mp_context=multiprocessing.get_context("spawn"))
        with _without_interrupts():  # which processes inherit: Ctrl-C is for the one that writes
            pool.submit(os.getpid)
        return pool


@contextmanager
def _without_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass
class Given:
    """An executor that the caller made, and ends."""

    executor: Executor
    ahead: int = AHEAD
    deaths: tuple[type[BaseException], ...] = ()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Begin a call."""
        return self.executor.submit(function, *arguments)

    def outlives(self, error: BaseException) -> bool:
        """Where another worker takes the place of one that dies, its batch alone is lost."""
        return isinstance(error, self.deaths)


@contextmanager
def local(jobs: int) -> Iterator[Processes]:
    """Processes of this machine."""
    processes = Processes(jobs)
    try:
        yield processes
    finally:
        processes.close()


@contextmanager
def cluster(scheduler: str, *, seconds: float = 30.0) -> Iterator[Given]:
    """The workers of a Dask scheduler, ``tcp://host:port``. Raises FxmeterError where there is none, or no worker."""
    try:
        from distributed import Client
        from distributed.scheduler import KilledWorker
    except ImportError:
        raise FxmeterError("--scheduler needs Dask: pip install 'fxmeter[cluster]', here and on the workers") from None
    try:
        client = Client(scheduler, timeout=seconds, set_as_default=False)
    except (OSError, ValueError) as error:
        raise FxmeterError(f"--scheduler {scheduler}: no scheduler answers there ({error})") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=seconds)
        except OSError:
            raise FxmeterError(f"--scheduler {scheduler}: it has no workers; start `dask worker {scheduler}`") from None
        width = sum(client.nthreads().values())
        executor = client.get_executor(pure=False)
        try:
            yield Given(executor, max(AHEAD, 3 * width), (KilledWorker,))
        finally:
            executor.shutdown(wait=False)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Items that are handed over together; ``again`` where a worker died with them once."""

    items: list[Any]
    again: bool = False


def done_by(
    workers: Workers,
    work: Callable[..., list[Done]],
    shared: Sequence[Any],
    batches: Iterable[list[Item]],
    given_up: Callable[[Item], Done],
) -> Iterator[list[Done]]:
    """``work(first, batch, *rest)`` of every batch, as they are done, where ``shared`` is (first, *rest).

    A batch whose worker died is done once more, its items one by one and alone, so that the one that kills is known: of
    that ``given_up`` makes the result. Where nobody asks for more, what is not yet begun is called off.
    """
    first, *rest = shared
    waiting, suspects = map(_Batch, batches), deque[_Batch]()
    running: dict[Future[list[Done]], _Batch] = {}
    try:
        while True:
            for batch in _next(waiting, suspects, running, workers.ahead):
                running[workers.submit(work, first, batch.items, *rest)] = batch
            if not running:
                return
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                if future not in running:  # it ended with another one
                    continue
                batch = running.pop(future)
                error = _failure(future)
                if error is None:
                    yield future.result()
                    continue
                ended = [batch, *_ended_with(running, error)]
                if not workers.outlives(error):
                    raise _explained(error) from error
                if batch.again:
                    yield [given_up(item) for item in batch.items]
                else:
                    suspects.extend(_Batch([item], again=True) for lost in ended for item in lost.items)
    finally:
        for future in running:
            future.cancel()


def _next(
    waiting: Iterator[_Batch], suspects: deque[_Batch], running: Mapping[Future[Any], _Batch], ahead: int
) -> Iterator[_Batch]:
    """What to begin now: the next batches, or one suspect with nothing beside it."""
    if suspects:
        if not running:
            yield suspects.popleft()
        return
    for _ in range(ahead - len(running)):
        batch = next(waiting, None)
        if batch is None:
            return
        yield batch


def _ended_with(running: dict[Future[Any], _Batch], error: BaseException) -> list[_Batch]:
    """The batches that ended with the same death, no longer running; what was done before it stays."""
    if not isinstance(error, BrokenExecutor):
        return []
    wait(running)
    return [running.pop(future) for future in list(running) if isinstance(_failure(future), BrokenExecutor)]


def _failure(future: Future[Any]) -> BaseException | None:
    return CancelledError() if future.cancelled() else future.exception()


def _explained(error: BaseException) -> BaseException:
    if isinstance(error, FxmeterError) or not isinstance(error, Exception):
        return error
    text = " ".join(str(error).split())[:200] or "it ended"
    return FxmeterError(f"the workers do no more: {type(error).__name__}: {text}; what was done before is kept")


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_jobs(jobs: int) -> None:
    """Raises ScenarioError for what is no number of processes."""
    if type(jobs) is not int or jobs < 1:
        raise ScenarioError(f"jobs is a whole number of processes, at least 1, not {jobs!r}")
