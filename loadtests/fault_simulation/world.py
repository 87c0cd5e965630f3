"""The world that the handlers see: a clock, a store that fails, lags and takes its time, and processes that die."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
import numpy as np
from candlemill.backtests.tiers import TierTable
from candlemill.errors import CandlemillError, SinkDown, StoreDown
from candlemill.pipeline.context import Waves
from candlemill.pipeline.rows import (
    GUESS,
    MERGED_BATCH,
    BatchState,
    JobRow,
    KnownSlice,
    OutcomeRow,
    ResultRow,
    Scores,
    TaskRecord,
    scores_of,
)
from candlemill.stored_days import NO_FUNDING, Day, Funding
from candlemill.units import SCALE
from greenlet import GreenletExit

from loadtests.fault_simulation.cases import SYMBOLS, TIERS, Columns, market, read
from loadtests.fault_simulation.faults import Dice
from loadtests.fault_simulation.judge import Judge
from loadtests.fault_simulation.loop import Loop, this_task
from loadtests.fault_simulation.tables import Tables

START_MS = 1_700_000_000_000
CALL_MS = (1, 15)
SLOW_MS = (20_000, 100_000)
LAG_MS = (5, 20_000)
SLICE_SECONDS = 3.5e-6  # of one set on a day or two, by the functions' own estimate
MACHINES = 3
CALL, LAG, TORN, LOST, WAVES = range(1_000, 1_005)  # tell the dice's questions at one place apart

T = TypeVar("T")


class Activator(msgspec.Struct, frozen=True):
    """Limits of the queue in front of the executors: how many requests wait in it, and for how long each."""

    requests: int
    ms: int

    @staticmethod
    def drawn(dice: Dice) -> "Activator":
        return Activator(dice.between(0, 6, WAVES, 2), dice.between(20, 2_000, WAVES, 3))


class World:
    """Everything that a run has; made anew for each."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.loop = Loop(START_MS)
        self.tables = Tables()
        self.trace: list[tuple[object, ...]] = []
        self.judge = Judge(self)
        self.outage = (0, 0)
        self.set_ms = [0] * MACHINES  # how far clocks have been set: the store's first
        self.poisoned = False
        self.waves = Waves(dice.between(1, 5, WAVES), SLICE_SECONDS * dice.between(0, 3, WAVES, 1))
        self.activator = Activator.drawn(dice) if dice.hits("activator") else None

    def say(self, *what: object) -> None:
        """A line of the trace."""
        self.trace.append((self.loop.now - START_MS, *what))

    def clock_ms(self) -> int:
        """What the clock of the task's machine shows."""
        process = this_task().process
        return self.loop.now + process.skew_ms + self.set_ms[1 + len(process.name) % 2]

    def stamp_ms(self) -> int:
        """What the clock of the store's machine shows."""
        return self.loop.now + self.set_ms[0]

    def set_clock(self, machine: int, ms: int) -> None:
        self.say("FAULT", "step", machine, ms)
        self.set_ms[machine] += ms

    def hits(self, fault: str, *place: int) -> bool:
        if fault in self.dice.limits and self.dice.hits(fault, *place):
            self.say("FAULT", fault)
            return True
        return False

    def ask(self, what: Callable[[int], T]) -> T:
        """The store's answer as of now."""
        self._called(StoreDown)
        return what(self.loop.now)

    def read(self, what: Callable[[int], T]) -> T:
        """The answer of a replica that may lag: `what` is reported as of when."""
        place = self._called(StoreDown)
        lag = self.dice.between(*LAG_MS, LAG, *place) if self.hits("stale", *place) else 0
        return what(self.loop.now - lag)

    def write(self, put: Callable[[Sequence[T], int], None], rows: Sequence[T]) -> None:
        """What a handler writes, unless something happens."""
        place = self._called(StoreDown)
        self._may_die("crash_before", place)
        torn = len(rows) > 1 and self.hits("torn", *place)
        put(rows[: self.dice.between(0, len(rows) - 1, TORN, *place)] if torn else rows, self.loop.now)
        self._may_die("crash_after", place)
        if torn or self.hits("down_after", *place):
            raise StoreDown("the store broke off")

    def publish(self, take: Callable[[], None]) -> None:
        """What a handler says, unless something happens."""
        place = self._called(SinkDown)
        self._may_die("crash_before", place)
        take()
        self._may_die("crash_after", place)

    def _called(self, down: type[CandlemillError]) -> tuple[int, ...]:
        """Take the time of a call; returns its place. Raises where nobody answers it."""
        task = this_task()
        task.calls += 1
        place = (*task.place, task.calls)
        span = SLOW_MS if self.hits("slow", *place) else CALL_MS
        self.loop.pause(self.dice.between(*span, CALL, *place))
        if down is StoreDown and (self.outage[0] <= self.loop.now < self.outage[1] or self.hits("down", *place)):
            raise StoreDown("the store does not answer")
        if down is SinkDown and self.hits("sink_down", *place):
            raise SinkDown("the sink does not answer")
        return place

    def _may_die(self, fault: str, place: tuple[int, ...]) -> None:
        if self.hits(fault, *place):
            this_task().process.dead = True
            raise GreenletExit


class Store:
    """The part of `store.base.Store` that functions use. Candles and their index do not lag: see docs/simulation.md."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tables = world.tables

    # -- candles and their index -----------------------------------------------------------------------------------

    def read_columns(self, symbol: str, start: int, end: int, names: Sequence[str]) -> Columns:
        found = self._world.ask(lambda at: read(self._tables.candles(symbol, at), start, end, names))
        task = this_task()
        place = (*task.place, task.calls)
        if len(found["t"]) and self._world.hits("lost_rows", *place):
            first = self._world.dice.between(0, len(found["t"]) - 1, LOST, *place)
            last = self._world.dice.between(first, len(found["t"]) - 1, LOST, *place, 1)
            found = {name: np.delete(column, slice(first, last + 1)) for name, column in found.items()}
        return found

    def symbols(self) -> list[str]:
        return list(SYMBOLS)

    def days(self, symbol: str, start: int = 0, end: int = 1 << 62) -> list[Day]:
        return self._world.ask(lambda at: self._tables.candles(symbol, at).days if symbol in SYMBOLS else [])

    def volume_scale(self, symbol: str) -> int | None:
        return SCALE

    def funding(self, symbol: str) -> Funding:
        return market(symbol).funding if symbol in SYMBOLS else NO_FUNDING

    def margin_tiers(self, symbol: str) -> list[TierTable]:
        return TIERS

    # -- the store ------------------------------------------------------------------------------------------------

    def job(self, job_id: str) -> JobRow | None:
        return self._world.read(lambda at: self._tables.job(job_id, at))

    def job_rows(self, job_ids: Sequence[str]) -> dict[str, JobRow]:
        found = self._world.read(lambda at: [self._tables.job(job_id, at) for job_id in job_ids])
        return {row.job_id: row for row in found if row is not None}

    def waiting_for(self, job_id: str) -> list[JobRow]:
        return self._world.read(lambda at: self._tables.waiting_for(job_id, at))

    def put_job(self, job: JobRow, at_ms: int | None = None) -> None:
        self._world.write(lambda rows, at: self._put_jobs(rows, at, at_ms), [job])

    def put_jobs(self, jobs: Sequence[JobRow], at_ms: Sequence[int] = ()) -> None:
        (job,), (stamp,) = jobs, at_ms  # as `control` calls it
        self.put_job(job, stamp)

    def _put_jobs(self, rows: Sequence[JobRow], at: int, stamp: int | None = None) -> None:
        for row in rows:
            self._world.judge.saw_job(row)
            self._tables.put_job(row, at, self._world.stamp_ms() if stamp is None else stamp)

    def job_history(self, job_id: str) -> list[tuple[int, JobRow]]:
        return self._world.read(lambda at: self._tables.history(job_id, at))

    def unfinished_jobs(self) -> list[JobRow]:
        return self._world.read(self._tables.unfinished)

    def last_activity_ms(self, job_id: str) -> int:
        return self._world.read(lambda at: self._tables.last_activity(job_id, at))

    def partials(self, job_id: str, batch: int | None = None) -> list[TaskRecord]:
        return self._world.read(lambda at: self._tables.partials(job_id, batch, at))

    def put_task_records(self, partials: Sequence[TaskRecord]) -> None:
        self._world.write(self._put_partials, partials)

    def _put_partials(self, rows: Sequence[TaskRecord], at: int) -> None:
        self._world.judge.saw_partials(rows)
        self._tables.put_task_records(rows, at, self._world.stamp_ms())

    def tasks_done(self, job_id: str) -> int:
        return len(self.partials(job_id))

    def batch_state(self, job_id: str, batch: int, tasks: str, merged: str, enough: int) -> BatchState:
        rows = self.partials(job_id)
        done = {row.slice for row in rows if row.batch == MERGED_BATCH and row.task == merged}
        found = [row for row in rows if row.batch == batch and row.kind == GUESS and row.task.endswith(tasks)]
        names = frozenset(row.task for row in found) if len(found) >= enough else frozenset[str]()
        return BatchState(len(found), batch in done, len(done), names)

    def sweep_parts(self, job_id: str, merged: str) -> dict[int, str]:
        rows = self.partials(job_id, MERGED_BATCH)
        return {row.slice: row.part for row in rows if row.task == merged}

    def known_slices(self, set_keys: Sequence[str], code: str) -> list[KnownSlice]:
        rows = self._outcomes(set_keys, code)
        return [KnownSlice(r.slice_key, r.first_ms, r.start_ms, r.end_ms, {r.set_key}) for r in rows]

    def outcomes(self, set_keys: Sequence[str], code: str, slice_keys: Sequence[str]) -> list[OutcomeRow]:
        return [row for row in self._outcomes(set_keys, code) if row.slice_key in slice_keys]

    def _outcomes(self, set_keys: Sequence[str], code: str) -> list[OutcomeRow]:
        rows = self._world.read(lambda at: list(self._tables.outcomes_at(at)))
        return [row for row in rows if row.set_key in set_keys and row.code == code]

    def put_outcomes(self, rows: Sequence[OutcomeRow]) -> None:
        self._world.write(self._put_outcomes, rows)

    def _put_outcomes(self, rows: Sequence[OutcomeRow], at: int) -> None:
        self._world.judge.saw_outcomes(rows)
        self._tables.put_outcomes(rows, at)

    def release(self, set_keys: Sequence[str]) -> None:
        """Nothing of them is kept in memory."""

    def put_results(self, results: Sequence[ResultRow]) -> None:
        self._world.write(self._put_results, results)

    def _put_results(self, rows: Sequence[ResultRow], at: int) -> None:
        self._world.judge.saw_results(rows)
        self._tables.put_results(rows, at)

    def has_result(self, job_id: str) -> bool:
        return self._world.read(lambda at: any(row.job_id == job_id for row in self._tables.results_at(at)))

    def results(self, job_ids: Sequence[str]) -> list[ResultRow]:
        rows = self._world.read(lambda at: {row.job_id: row for row in self._tables.results_at(at)})
        return [rows[job_id] for job_id in job_ids if job_id in rows]

    def count_sweep(self, sweep_id: str) -> int:
        return len({row.job_id for row in self._sweep(sweep_id)})

    def sweep_scores(self, sweep_id: str) -> Scores:
        return scores_of(self._sweep(sweep_id))

    def sweep_daily(self, sweep_id: str, job_ids: Sequence[str]) -> dict[str, str]:
        return {row.job_id: row.daily for row in self._sweep(sweep_id) if row.job_id in job_ids}

    def _sweep(self, sweep_id: str) -> list[ResultRow]:
        return self._world.read(lambda at: [r for r in self._tables.results_at(at) if r.sweep_id == sweep_id])
