"""What the parts of a sweep cost, in CPU seconds, which other people's work on the machine hardly changes.

The real handlers run in this process, one event after the other, on a `candlemill db`: what a part costs the function
is this process's CPU time, what it costs the store is the database's. A hop is measured through the real functions and
the broker of `loadtests.load.functions`.
"""

import itertools
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import Spec
from candlemill.pipeline import aggregate, events
from candlemill.pipeline.events import Event, Requested
from candlemill.pipeline.interfaces import HandlerContext
from candlemill.store.candle_reader import CandleReader
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.store.day_index import RequestIndex
from candlemill.transport.functions import ROUTES, handler
from candlemill.units import clock_ms

from loadtests.common.lab import SYMBOLS, cpu_seconds, database
from loadtests.scaling.model import Part

START_MS, DAY_MS = 1_672_531_200_000, 86_400_000  # of the year that lab stores
FEES = itertools.count(1 + int(10 * time.time()) % 900_000)  # each job is one that nobody has requested


class Sample(msgspec.Struct, frozen=True):
    """What a job of `sets` parameter sets over `days` in `slices` slices cost: each part's mean, how often it was."""

    sets: int
    slices: int
    days: int
    cost: dict[str, Part]
    count: dict[str, int]

    @property
    def bars(self) -> float:
        """Of one slice."""
        return 1440 * self.days / self.slices


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
        own, store = time.process_time(), cpu_seconds(self._pid)
        try:
            yield
        finally:
            spent = [time.process_time() - own, cpu_seconds(self._pid) - store]
            inner = self._open.pop()
            self.own[name] += spent[0] - inner[0]
            self.store[name] += spent[1] - inner[1]
            self.count[name] += 1
            if self._open:
                self._open[-1] = [a + b for a, b in zip(self._open[-1], spent, strict=True)]


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


def sweep_spec(sets: int, days: int = 365) -> Spec:
    """SMA crossings with `sets` pairs, and a fee that no other job has."""
    fast = min(64, sets)
    slow = max(1, sets // fast)
    grid = {"fast": list(range(2, 2 + fast)), "slow": list(range(110, 110 + 5 * slow, 5))}
    span = (START_MS, START_MS + days * DAY_MS)
    return resolve(
        symbol=SYMBOLS[0],
        strategy="sma_cross",
        span=span,
        params={},
        grid=grid,
        fee=1_000 + next(FEES),
        account="units",
    )


def measured(folder: Path, sizes: Sequence[tuple[int, int, int]], rounds: int) -> list[Sample]:
    """Jobs of so many sets and slices over so many days; of some rounds each part's cheapest counts: what makes it
    dearer are others, who leave less of the caches."""
    with database(folder) as (db, dsn), ClickHouseStore(dsn) as store:
        _run(store, db.pid, 8, 2, 30)  # connections, imports, tables
        return [
            cheapest([_run(store, db.pid, sets, slices, days) for _ in range(rounds)]) for sets, slices, days in sizes
        ]


def cheapest(samples: Sequence[Sample]) -> Sample:
    first = samples[0]
    parts = {
        name: min((one.cost[name] for one in samples), key=lambda part: part.own + part.store) for name in first.cost
    }
    return msgspec.structs.replace(first, cost=parts)


def _run(store: ClickHouseStore, pid: int, sets: int, slices: int, days: int) -> Sample:
    clock = Clock(pid)
    index = RequestIndex(store)
    index.renew()
    buffered = Clocked(store, clock, {"put_outcomes": "write"})
    with _split_up(clock):
        _work_through(store, clock, index, buffered, Requested(sweep_spec(sets, days), slices, attempt=clock_ms()))
    cost = {name: Part(clock.own[name] / n, clock.store[name] / n) for name, n in clock.count.items()}
    return Sample(sets, slices, days, cost, dict(clock.count))


@contextmanager
def _split_up(clock: Clock) -> Iterator[None]:
    """What aggregate does besides looking: merging a batch, and a sweep's figures."""
    before = {name: getattr(aggregate, name) for name in ("_merge_batch", "_sweep_figures")}
    for name, part in (("_merge_batch", "merge"), ("_sweep_figures", "figures")):
        setattr(aggregate, name, Clocked(aggregate, clock, {name: part}).__getattr__(name))
    try:
        yield
    finally:
        for name, found in before.items():
            setattr(aggregate, name, found)


def _work_through(
    store: ClickHouseStore, clock: Clock, index: RequestIndex, buffered: Clocked, requested: Requested
) -> None:
    queue = deque([events.make("load", events.REQUESTED, "", requested)])
    while queue:
        event = queue.popleft()
        index.renew()
        candles = Clocked(
            CandleReader(index.days, store), clock, {"window": "read"}
        )  # a new executor's: it has read nothing
        runtime = HandlerContext(buffered, index, candles, clock_ms)
        name = ROUTES[event.type]
        part = _part(name, event, clock)
        with clock.part(part):
            answer = handler(name)(event, runtime)
        if any(one.type == events.COMPLETED for one in answer):
            return
        queue.extend(one for one in answer if one.type in (events.SLICE_REQUESTED, events.SLICE_COMPLETED))


def _part(name: str, event: Event, clock: Clock) -> str:
    if name != "execute":
        return {"split": "split", "aggregate": "reported"}[name]
    return "repair" if events.read(event, events.SliceRequested).repairs else "compute"
