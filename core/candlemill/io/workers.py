"""Worker processes of the local home: they run tasks on columns that this process shares, and merge batches."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from candlemill.errors import CandlemillError
from candlemill.events import Event
from candlemill.io import plugins, telemetry, tracing
from candlemill.io.clock import clock_ms
from candlemill.io.functions import handler
from candlemill.io.tapes import Shared, Tapes
from candlemill.ledger import Funding, JobRow, MergedSets, OutcomeRow, Partial, Runtime
from candlemill.plan import Day, Plan
from candlemill.service import merge_here

WORKER_DIED = "a worker process died, perhaps for want of memory: use fewer --workers; what is done is stored"
THREADS = Path("/proc/self/task")

Work = tuple[list[OutcomeRow], list[Partial], list[Event]]  # what comes of a task


class SymbolIndex(msgspec.Struct, frozen=True):
    """What a worker process is told of the index: all that a task of one symbol asks."""

    symbol: str
    known_days: list[Day]
    known_funding: Funding

    def symbols(self) -> list[str]:
        return [self.symbol]

    def days(self, symbol: str) -> Sequence[Day]:
        return self.known_days

    def volume_scale(self, symbol: str) -> int:
        raise LookupError(f"{symbol}: a task's spec has its volume scale already")

    def funding(self, symbol: str) -> Funding:
        return self.known_funding


def start_processes(count: int) -> ProcessPoolExecutor:
    """Processes for one `Pool`. The sooner the better: before the database is opened they can be forked, which takes
    milliseconds. Its threads would not survive that, so where there are any the processes are spawned."""
    forked = THREADS.is_dir() and len(list(THREADS.iterdir())) == 1
    resource_tracker.ensure_running()  # one for all: a forked process's own would unlink memory that others use
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("fork" if forked else "spawn"), _begin)
    for _ in range(count):
        _submit(pool, os.getpid)
    return pool


class Pool:
    """Worker processes that run the functions execute and aggregate on columns shared by this one."""

    def __init__(
        self, workers: int, tapes: Tapes, index: SymbolIndex, strategy: str, started: ProcessPoolExecutor | None = None
    ) -> None:
        """`strategy` is what `plugins.load` takes, for the workers to load it too."""
        self.workers = workers
        self._memory: SharedMemory
        self._memory, shared = tapes.share()
        self._desk = pickle.dumps((shared, index, strategy))
        self._pool = started or start_processes(workers)

    def submit(self, event: Event) -> Future[telemetry.Timed[Work]]:
        """Have a worker run a task."""
        return _submit(self._pool, _work, self._desk, event)

    def merge(self, job: JobRow, plan: Plan, first: int, count: int, rows: list[OutcomeRow]) -> Future[MergedSets]:
        """Have a worker merge these grid points of a plan, whose outcomes `rows` are."""
        return _submit(self._pool, _merge, self._desk, job, plan, first, count, rows)

    def spread(self, work: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
        """Have workers do the parts of something; when all are done."""
        futures = [_submit(self._pool, work, part) for part in parts]
        try:
            return [future.result() for future in futures]
        except BrokenProcessPool:
            raise CandlemillError(WORKER_DIED) from None

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._memory.close()
        self._memory.unlink()


def _submit(pool: ProcessPoolExecutor, work: Callable[..., Any], *arguments: object) -> Future[Any]:
    """Ctrl-C reaches the whole process group: it is this process's to act on, so a worker is started with the signal
    blocked."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _main_hidden():
            return pool.submit(work, *arguments)
    except BrokenProcessPool:
        raise CandlemillError(WORKER_DIED) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@contextmanager
def _main_hidden() -> Iterator[None]:
    """A spawned process begins by running the main module anew, and a user's script would start its jobs again: here
    it finds none. Workers need nothing of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


# -- in a worker ---------------------------------------------------------------------------------------------------


class _Collected:
    """A worker's ledger: what it is given to write goes back to the parent, which alone has the database open."""

    def __init__(self, known: list[OutcomeRow]) -> None:
        self._known = known
        self.partials: list[Partial] = []
        self.rows: list[OutcomeRow] = []

    def job(self, job_id: str) -> JobRow | None:
        return None  # the parent has looked

    def put_partials(self, partials: Sequence[Partial]) -> None:
        self.partials += partials

    def put_outcomes(self, rows: Sequence[OutcomeRow]) -> None:
        self.rows += rows

    def outcomes(self, set_keys: Sequence[str], code: str, slice_keys: Sequence[str]) -> list[OutcomeRow]:
        return self._known


def _begin() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tracing.switch_off()


def _end_with_parent() -> None:
    """A killed parent closes nothing: without this its workers would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@lru_cache(1)
def _at_desk(desk: bytes) -> tuple[Tapes, SymbolIndex]:
    shared: Shared
    index: SymbolIndex
    shared, index, strategy = pickle.loads(desk)
    plugins.load(strategy)
    tapes = Tapes(index.days, None)
    tapes.adopt(shared)
    return tapes, index


def _runtime(desk: bytes, ledger: _Collected) -> Runtime:
    tapes, index = _at_desk(desk)
    return Runtime(ledger, index, tapes, clock_ms)  # type: ignore[arg-type]


def _work(desk: bytes, event: Event) -> telemetry.Timed[Work]:
    def work(event: Event) -> Work:
        collected = _Collected([])
        answer = handler("execute")(event, _runtime(desk, collected))
        return collected.rows, collected.partials, answer

    return telemetry.timed(work, event)


def _merge(desk: bytes, job: JobRow, plan: Plan, first: int, count: int, rows: list[OutcomeRow]) -> MergedSets:
    return merge_here(_runtime(desk, _Collected(rows)), job, plan, first, count)
