"""Worker processes of a local run: they run tasks on columns in shared memory, and merge batches."""

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
from itertools import pairwise
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import msgspec

from candlemill.backtests.grid import grid_points
from candlemill.backtests.order_chart import OrderChart, order_chart
from candlemill.backtests.panel_replay import PanelRecorder
from candlemill.backtests.plan import Plan, make_plan
from candlemill.backtests.replay import Replay, replay_of
from candlemill.backtests.slice import decisions_of
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import COLUMNS, columns_read, context_bars, sees_panel
from candlemill.backtests.tiers import TierTable
from candlemill.engine.candles import CandleColumns
from candlemill.errors import CandlemillError
from candlemill.local import strategy_limits
from candlemill.local.batches import BatchDone, run_batch
from candlemill.local.strategy_limits import Limits
from candlemill.pipeline.aggregate import merge_here
from candlemill.pipeline.cache_keys import PanelData, job_data
from candlemill.pipeline.context import HandlerContext, MergedSets
from candlemill.pipeline.events import Event
from candlemill.pipeline.interfaces import DayIndex
from candlemill.pipeline.marks import marks_of
from candlemill.pipeline.panel_window import panel_window
from candlemill.pipeline.rows import JobRow, OutcomeRow, TaskRecord
from candlemill.store.candle_reader import CandleReader, Shared
from candlemill.stored_days import Day, Funding
from candlemill.strategies import Strategy, loader
from candlemill.telemetry import instrument, tracing
from candlemill.transport.functions import handler
from candlemill.units import clock_ms

WORKER_DIED = "a worker process died, perhaps for want of memory: use fewer --workers; what is done is stored"
THREADS = Path("/proc/self/task")

Work = tuple[list[OutcomeRow], list[TaskRecord], list[Event]]  # result of a task


class SymbolIndex(msgspec.Struct, frozen=True):
    """The part of the index that a worker process needs for the tasks of a job."""

    known_days: dict[str, list[Day]]
    known_funding: dict[str, Funding]
    scales: dict[str, int]

    def symbols(self) -> list[str]:
        return list(self.known_days)

    def days(self, symbol: str) -> Sequence[Day]:
        return self.known_days[symbol]

    def volume_scale(self, symbol: str) -> int:
        return self.scales[symbol]

    def funding(self, symbol: str) -> Funding:
        return self.known_funding[symbol]

    def margin_tiers(self, symbol: str) -> Sequence[TierTable]:
        raise LookupError(f"{symbol}: a task's spec has its maintenance tiers already")


def start_processes(count: int) -> ProcessPoolExecutor:
    """Start processes for one `Pool`.
    Before the database is opened they are forked, which takes milliseconds. Its threads would not survive a fork, so
    with an open database the processes are spawned."""
    forked = THREADS.is_dir() and len(list(THREADS.iterdir())) == 1
    resource_tracker.ensure_running()  # one for all: a forked process's own tracker would unlink memory that others use
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("fork" if forked else "spawn"), _begin)
    for _ in range(count):
        submit_to(pool, os.getpid)
    return pool


class Pool:
    """Worker processes that run the functions execute and aggregate on columns shared by this one."""

    def __init__(
        self,
        workers: int,
        candles: CandleReader,
        index: SymbolIndex,
        strategy: str,
        started: ProcessPoolExecutor | None = None,
        limits: Limits | None = None,
        whole: Literal["no", "results", "outcomes"] = "no",
    ) -> None:
        """`strategy` is the argument of `loader.load` in the workers; `limits` are those of its code. `whole`: whether
        workers run whole batches, and return their results alone or with the outcomes."""
        self.workers = workers
        self.whole = whole
        self._memory: SharedMemory
        self._memory, shared = candles.share()
        self._worker_data = pickle.dumps((shared, index, strategy, limits))
        self._pool = started or start_processes(workers)

    def submit(self, event: Event) -> Future[instrument.Timed[Work]]:
        """Submit a task to a worker."""
        return submit_to(self._pool, _work, self._worker_data, event)

    def submit_batch(self, event: Event, job: JobRow, plan: Plan, batch: int) -> Future[instrument.Timed[BatchDone]]:
        """Submit all slices of a batch to a worker; `event` is the task of one of them."""
        return submit_to(self._pool, _batch, self._worker_data, event, job, plan, batch, self.whole == "outcomes")

    def merge(self, job: JobRow, plan: Plan, first: int, count: int, rows: list[OutcomeRow]) -> Future[MergedSets]:
        """Submit the merge of a plan's grid points to a worker; `rows` are their outcomes."""
        return submit_to(self._pool, _merge, self._worker_data, job, plan, first, count, rows)

    def spread(self, work: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
        """Apply a function to parts in the workers and return the results when all are done."""
        futures = [submit_to(self._pool, work, part) for part in parts]
        try:
            return [future.result() for future in futures]
        except BrokenProcessPool:
            raise CandlemillError(WORKER_DIED) from None

    def close(self) -> None:
        try:
            self._pool.shutdown(cancel_futures=True)
        finally:  # also after a second Ctrl-C
            self._memory.close()
            self._memory.unlink()


def submit_to(pool: ProcessPoolExecutor, work: Callable[..., Any], *arguments: object) -> Future[Any]:
    """Submit a call to a worker that starts with SIGINT blocked.
    Ctrl-C reaches the whole process group, but only this process must handle it."""
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
    """Context that hides the main module from spawned processes.
    A spawned process runs the main module again, and a user's script would start its jobs again. Workers do not need
    it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


# -- in a worker ---------------------------------------------------------------------------------------------------


class _Collected:
    """A worker's job store: rows to write are returned to the parent, the only process with the database open."""

    def __init__(self, known: list[OutcomeRow]) -> None:
        self._known = known
        self.partials: list[TaskRecord] = []
        self.rows: list[OutcomeRow] = []

    def job(self, job_id: str) -> JobRow | None:
        return None  # the parent has checked

    def put_task_records(self, partials: Sequence[TaskRecord]) -> None:
        self.partials += partials

    def put_outcomes(self, rows: Sequence[OutcomeRow]) -> None:
        self.rows += rows

    def outcomes(self, set_keys: Sequence[str], code: str, slice_keys: Sequence[str]) -> list[OutcomeRow]:
        return self._known


def _begin() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tracing.switch_off()


def _end_with_parent() -> None:
    """End this process when its parent dies: otherwise workers of a killed parent would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@lru_cache(1)
def _worker_context(worker_data: bytes) -> tuple[CandleReader, SymbolIndex]:
    shared: Shared
    index: SymbolIndex
    limits: Limits | None
    shared, index, strategy, limits = pickle.loads(worker_data)
    if limits is not None:
        strategy_limits.begin(limits)
    with strategy_limits.within(limits.seconds_for(0) if limits else 0.0):
        loader.load(strategy)
    candles = CandleReader(index.days, None)
    candles.adopt(shared)
    return candles, index


def _runtime(worker_data: bytes, store: _Collected) -> HandlerContext:
    candles, index = _worker_context(worker_data)
    return HandlerContext(store, index, candles, clock_ms)  # type: ignore[arg-type]


def _work(worker_data: bytes, event: Event, seconds: float = 0.0) -> instrument.Timed[Work]:
    def work(event: Event) -> Work:
        collected = _Collected([])
        runtime = _runtime(worker_data, collected)
        with strategy_limits.within(seconds):
            answer = handler("execute")(event, runtime)
        return collected.rows, collected.partials, answer

    return instrument.timed(work, event)


def _batch(
    worker_data: bytes, event: Event, job: JobRow, plan: Plan, batch: int, keeps: bool
) -> instrument.Timed[BatchDone]:
    return instrument.timed(lambda _: run_batch(_runtime(worker_data, _Collected([])), job, plan, batch, keeps), event)


def _merge(
    worker_data: bytes, job: JobRow, plan: Plan, first: int, count: int, rows: list[OutcomeRow], seconds: float = 0.0
) -> MergedSets:
    runtime = _runtime(worker_data, _Collected(rows))
    with strategy_limits.within(seconds):
        return merge_here(runtime, job, plan, first, count)


def _replay(worker_data: bytes, spec: Spec, result: dict[str, Any], seconds: float) -> Replay:
    candles, index = _worker_context(worker_data)
    with strategy_limits.within(seconds):
        return replayed(spec, result, candles, index)


def _orders(worker_data: bytes, spec: Spec, start: int, end: int, seconds: float) -> OrderChart:
    candles, index = _worker_context(worker_data)
    with strategy_limits.within(seconds):
        return orders_between(spec, candles, index, start, end)


def orders_between(
    spec: Spec, candles: CandleReader, index: SymbolIndex | DayIndex, start: int, end: int
) -> OrderChart:
    """Compute the chart of a job's orders in `start <= t < end` (ms)."""
    ((_, _, strategy),) = grid_points(spec, 0, 1)
    bars = _all_bars(spec, candles, index)
    return order_chart(spec, bars, strategy, start, end, marks_of(candles, spec, bars))


def _all_bars(spec: Spec, candles: CandleReader, index: SymbolIndex | DayIndex) -> CandleColumns:
    """Return all bars of a job of one symbol, with its funding rates if it has them."""
    bars = candles.window(spec, spec.start, spec.end, 0, COLUMNS).candles
    if spec.funding:
        funding = index.funding(spec.symbol)
        bars.add_funding(funding.t, funding.rate)
    return bars


def replayed(spec: Spec, result: dict[str, Any], candles: CandleReader, index: SymbolIndex | DayIndex) -> Replay:
    """Compute the run behind a stored result of one parameter set."""
    ((_, _, strategy),) = grid_points(spec, 0, 1)
    if sees_panel(spec.strategy):
        return _panel_replayed(spec, strategy, result, candles, index)
    if spec.warm_up == "stored":
        context = context_bars(spec, [strategy], exact=True)
        strategy = decisions_of(spec, candles.window(spec, spec.start, spec.end, context, COLUMNS), strategy)
    bars = _all_bars(spec, candles, index)
    return replay_of(spec, bars, strategy, result, marks_of(candles, spec, bars))


def _panel_replayed(
    spec: Spec, strategy: Strategy, result: dict[str, Any], candles: CandleReader, index: SymbolIndex | DayIndex
) -> Replay:
    """Compute a panel's run in the slices of its plan, then each symbol's trades from its own candles."""
    data = job_data(index, spec)
    assert isinstance(data, PanelData)
    recorder = PanelRecorder(spec, strategy, result)
    context, columns = context_bars(spec, [strategy], exact=True), columns_read(spec, [strategy])
    for cuts in pairwise(make_plan(spec, data.days, None).cuts):
        recorder.add(panel_window(candles, index, spec, data, cuts, context, columns))
    for symbol in spec.symbols:
        single = msgspec.structs.replace(spec, symbol=symbol, warm_up="none")
        recorder.add_symbol(symbol, candles.window(single, spec.start, spec.end, 0, COLUMNS[:5]).candles)
    return recorder.replay()
