"""What the parts of a sweep cost, in CPU seconds, which other people's work on the machine hardly changes.

The real handlers run in this process, one event after the other, on a `candlemill db`: what a part costs the function
is this process's CPU time, what it costs the store is the database's. A hop is measured through the real functions and
the broker of `loadtests.load.functions`.
"""

import itertools
import time
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from candlemill.backtests.plan import Plan
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import Spec
from candlemill.config import TASK_SECONDS
from candlemill.pipeline import aggregate, events
from candlemill.pipeline.context import HandlerContext, Waves
from candlemill.pipeline.events import Event, Requested, SliceCompleted
from candlemill.pipeline.job_state import plan_of
from candlemill.pipeline.prepare import prepare
from candlemill.pipeline.rows import DONE, MERGED_BATCH, JobRow, TaskRecord
from candlemill.pipeline.sweep_figures import _decoder
from candlemill.pipeline.tasks import done_ending
from candlemill.pipeline.waves import handed_out, in_turns
from candlemill.store.candle_reader import CandleReader
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.store.day_index import RequestIndex
from candlemill.transport.functions import handler
from candlemill.units import clock_ms

from loadtests.common.lab import SYMBOLS, YEAR, cpu_seconds, database
from loadtests.scaling.model import Part

DAY_MS = 86_400_000
WAVE_TASKS = 2_000  # more than one event may request: shares are handed out
PARTS_OF_TASKS = ("ask", "read", "write", "compute", "index", "later")  # means of tasks, however many slices these have
SETTLED_SECONDS, SETTLED_CORES = 30.0, 0.05
FEES = itertools.count(1 + int(10 * time.time()) % 900_000)  # each job is one that nobody has requested


class Sample(msgspec.Struct, frozen=True):
    """What a job of `sets` parameter sets over `days` in `slices` slices cost, of which `batches` were run, each in
    `tasks` tasks: each part's mean, how often it was. `event_bytes` is the size of a task's event."""

    sets: int
    slices: int
    days: int
    batches: int
    tasks: int
    event_bytes: int
    cost: dict[str, Part]
    count: dict[str, int]


class Clock:
    """Adds up CPU time by part. What is measured within another part is not that part's."""

    def __init__(self, database_pid: int) -> None:
        self._pid = database_pid
        self._open: list[list[float]] = []
        self.own: dict[str, float] = defaultdict(float)
        self.store: dict[str, float] = defaultdict(float)
        self.count: dict[str, int] = defaultdict(int)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._open.append([0.0, 0.0])
        began, store, own = time.process_time(), cpu_seconds(self._pid), time.process_time()
        try:
            yield
        finally:
            own, store = time.process_time() - own, cpu_seconds(self._pid) - store
            inner = self._open.pop()
            self.own[name] += own - inner[0]
            self.store[name] += store - inner[1]
            self.count[name] += 1
            if self._open:  # what reading the clocks takes is nobody's part
                self._open[-1][0] += time.process_time() - began
                self._open[-1][1] += store

    def later(self, store: float) -> None:
        """Of the store's time, what no part was waiting for is a part of its own."""
        self.store["later"] = max(0.0, store - sum(self.store.values()))
        self.count["later"] = 1


def settle(*pids: int) -> float:
    """Wait until processes do hardly anything any more: a database merges what was written after it has answered.
    Return how many cores they use then."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while True:
        before, began = cpu_seconds(*pids), time.monotonic()
        time.sleep(2.0)
        used = (cpu_seconds(*pids) - before) / (time.monotonic() - began)
        if used <= SETTLED_CORES or time.monotonic() > deadline:
            return used


class Clocked:
    """An object whose methods' time is that of parts; those that are not named are the caller's."""

    def __init__(self, of: Any, clock: Clock, parts: Mapping[str, str]) -> None:
        self._of, self._clock, self._parts = of, clock, parts

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._of, name)
        part = self._parts.get(name)
        if part is None:
            return found

        def clocked(*arguments: Any, **more: Any) -> Any:
            with self._clock.part(part):
                return found(*arguments, **more)

        return clocked


def sweep_spec(sets: int, years: int) -> Spec:
    """SMA crossings with `sets` pairs over the last so many years, and a fee that no other job has."""
    fast = min(1_000, 1 << (sets.bit_length() // 2))
    grid = {"fast": list(range(2, 2 + fast)), "slow": list(range(1_100, 1_100 + 5 * (sets // fast), 5))}
    span = (_year_ms(YEAR - years + 1), _year_ms(YEAR + 1))
    fee = 1_000 + next(FEES)
    return resolve(symbol=SYMBOLS[0], strategy="sma_cross", span=span, params={}, grid=grid, fee=fee, account="units")


def _year_ms(year: int) -> int:
    return 1_000 * int(datetime(year, 1, 1, tzinfo=UTC).timestamp())


def measured(folder: Path, sizes: Sequence[tuple[int, int, int]], rounds: int) -> list[Sample]:
    """Jobs of so many sets over so many years, of which so many batches run. Each part's cheapest round counts: what
    makes it dearer is work of others, which leaves less of the caches."""
    with database(folder) as (db, dsn), ClickHouseStore(dsn) as store:
        _run(store, db.pid, 8, 1, 1)  # connections, imports, tables
        return [cheapest([_run(store, db.pid, *size) for _ in range(rounds)]) for size in sizes]


def cheapest(samples: Sequence[Sample]) -> Sample:
    first = samples[0]
    parts = {
        name: min((one.cost[name] for one in samples if name in one.cost), key=lambda part: part.own + part.store)
        for name in first.cost
    }
    return msgspec.structs.replace(first, cost=parts)


def _run(store: ClickHouseStore, pid: int, sets: int, years: int, batches: int) -> Sample:
    """Plan a job, run some of its batches as far apart as can be, and end it as if all others had been run too."""
    clock, index = Clock(pid), RequestIndex(store)
    idle = settle(pid)
    before, began = cpu_seconds(pid), time.monotonic()
    runtime = HandlerContext(
        store, index, CandleReader(index.days, store), clock_ms,
        recall=index.recall, renew=index.renew, waves=Waves(WAVE_TASKS, TASK_SECONDS),
    )  # fmt: skip
    index.renew()
    request = Requested(sweep_spec(sets, years), attempt=clock_ms())
    with _split_up(clock), clock.part("plan"):
        handler("split")(events.make("load", events.REQUESTED, "", request), runtime)
    job_id = prepare(index, request.spec, None).job_id
    row = store.job(job_id)
    plan = None if row is None else plan_of(row)
    assert row is not None and plan is not None
    with clock.part("share"):
        share = events.TasksRequested(job_id, 0, 1)
        handler("split")(events.make("split", events.TASKS_REQUESTED, job_id, share), runtime)
    count = plan.batches * plan.batch_tasks
    places = {in_turns(place, count, plan.batch_tasks, plan.lanes): place for place in range(count)}
    chosen = [k * plan.batches // batches + plan.batches // batches // 2 for k in range(batches)]
    with _split_up(clock):
        for batch in chosen:
            numbers = range(batch * plan.batch_tasks, (batch + 1) * plan.batch_tasks)
            with clock.part("hand"):
                tasks = [one for n in numbers for one in handed_out(row, request.spec, plan, places[n], places[n] + 1)]
            for task in tasks:
                _execute_and_report(task, runtime, index, store, clock)
        settle(pid)
        clock.later(cpu_seconds(pid) - before - idle * (time.monotonic() - began))
        _fill_in(store, row, plan, chosen)
        check = events.make("load", events.SLICE_COMPLETED, job_id, SliceCompleted(job_id, chosen[0], 0, ""))
        with clock.part("end"):
            handler("aggregate")(check, runtime)
    ended = store.job(job_id)
    assert ended is not None and ended.state == "done" and ended.figures
    n = dict(clock.count)
    cost = {name: Part(clock.own[name] / n[name], clock.store[name] / n[name]) for name in n}
    each = len(chosen) * plan.batch_tasks
    for name in PARTS_OF_TASKS:
        cost[name] = Part(clock.own[name] / each, clock.store[name] / each)
    cost["hand"] = cost["hand"].times(1 / plan.batch_tasks)
    days = (request.spec.end - request.spec.start) // DAY_MS
    return Sample(sets, plan.slices, days, plan.batches, plan.batch_tasks, len(tasks[0].data), cost, n)


def _execute_and_report(
    task: Event, runtime: HandlerContext, index: RequestIndex, store: ClickHouseStore, clock: Clock
) -> None:
    days = Clocked(index, clock, {"days": "index"})
    candles = CandleReader(days.days, store)  # a new executor's: it has read nothing
    parts = {"put_outcomes": "write", "put_task_records": "write", "outcomes": "ask"}
    executor = msgspec.structs.replace(
        runtime,
        store=Clocked(store, clock, parts),
        candles=Clocked(candles, clock, {"window": "read"}),
        index=days,
        recall=index.renew,  # a new executor has no index to recall
    )
    with clock.part("compute"):
        done = handler("execute")(task, executor)
    index.renew()
    for one in done:
        with clock.part("reported"):
            handler("aggregate")(one, runtime)


def _fill_in(store: ClickHouseStore, row: JobRow, plan: Plan, ran: Sequence[int]) -> None:
    """Write the records of the batches that were not run: what a batch that was run has left, at other points of the
    grid, and with lower scores, so that the best set is one that was run."""
    left = _decoder.decode(b64decode(store.sweep_parts(row.job_id, done_ending(plan))[ran[0]]))
    points, rows = (np.frombuffer(data, dtype=np.int64) - ran[0] * plan.batch for data in (left.points, left.rows))
    scores = np.full(len(points), -(10**12))
    records = []
    for batch in set(range(plan.batches)) - set(ran):
        at = batch * plan.batch
        part = msgspec.structs.replace(
            left, points=(points + at).tobytes(), rows=(rows + at).tobytes(), scores=scores.tobytes()
        )
        text = b64encode(msgspec.msgpack.encode(part)).decode()
        records.append(TaskRecord(row.job_id, MERGED_BATCH, DONE, batch, done_ending(plan), text))
    for k in range(0, len(records), 100):
        store.put_task_records(records[k : k + 100])


@contextmanager
def _split_up(clock: Clock) -> Iterator[None]:
    """What aggregate does besides looking: merging a batch, and a sweep's figures."""
    before = {name: getattr(aggregate, name) for name in ("_merge_batch", "sweep_figures")}
    for name, part in (("_merge_batch", "merge"), ("sweep_figures", "figures")):
        setattr(aggregate, name, Clocked(aggregate, clock, {name: part}).__getattr__(name))
    try:
        yield
    finally:
        for name, found in before.items():
            setattr(aggregate, name, found)
