"""The world that the handlers see: a clock, a store that fails, lags and takes its time, and processes that die."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from candlemill.errors import CandlemillError, SinkDown, StoreDown
from candlemill.ledger import NO_FUNDING, Funding, JobRow, KnownSlice, OutcomeRow, Partial, ResultRow
from candlemill.model import SCALE
from candlemill.plan import Day
from greenlet import GreenletExit

from loadtests.simulation.cases import SYMBOLS, Columns, market, read
from loadtests.simulation.faults import Dice
from loadtests.simulation.judge import Judge
from loadtests.simulation.loop import Loop, this_task
from loadtests.simulation.tables import Tables

START_MS = 1_700_000_000_000
CALL_MS = (1, 15)
SLOW_MS = (20_000, 100_000)
LAG_MS = (5, 20_000)
CALL, LAG, TORN = 1_000, 1_001, 1_002  # tell the dice's questions at one place apart

T = TypeVar("T")


class World:
    """Everything that a run has; made anew for each."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.loop = Loop(START_MS)
        self.tables = Tables()
        self.trace: list[tuple[object, ...]] = []
        self.judge = Judge(self)
        self.outage = (0, 0)
        self.poisoned = False

    def say(self, *what: object) -> None:
        """A line of the trace."""
        self.trace.append((self.loop.now - START_MS, *what))

    def clock_ms(self) -> int:
        """What the clock of the task's machine shows."""
        return self.loop.now + this_task().process.skew_ms

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
        """The answer of a replica that may lag: `what` is told as of when."""
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
    """The part of `io.store.Store` that functions use. Candles and their index do not lag: see docs/simulation.md."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tables = world.tables

    # -- candles and their index -----------------------------------------------------------------------------------

    def read_columns(self, symbol: str, start: int, end: int, names: Sequence[str]) -> Columns:
        return self._world.ask(lambda at: read(self._tables.candles(symbol, at), start, end, names))

    def symbols(self) -> list[str]:
        return list(SYMBOLS)

    def days(self, symbol: str, start: int = 0, end: int = 1 << 62) -> list[Day]:
        return self._world.ask(lambda at: self._tables.candles(symbol, at).days if symbol in SYMBOLS else [])

    def volume_scale(self, symbol: str) -> int | None:
        return SCALE

    def funding(self, symbol: str) -> Funding:
        return market(symbol).funding if symbol in SYMBOLS else NO_FUNDING

    # -- the ledger ------------------------------------------------------------------------------------------------

    def job(self, job_id: str) -> JobRow | None:
        return self._world.read(lambda at: self._tables.job(job_id, at))

    def job_rows(self, job_ids: Sequence[str]) -> dict[str, JobRow]:
        found = self._world.read(lambda at: [self._tables.job(job_id, at) for job_id in job_ids])
        return {row.job_id: row for row in found if row is not None}

    def waiting_for(self, job_id: str) -> list[JobRow]:
        return self._world.read(lambda at: self._tables.waiting_for(job_id, at))

    def put_job(self, job: JobRow) -> None:
        self._world.write(self._put_jobs, [job])

    def _put_jobs(self, rows: Sequence[JobRow], at: int) -> None:
        for row in rows:
            self._world.judge.saw_job(row)
            self._tables.put_job(row, at)

    def job_history(self, job_id: str) -> list[tuple[int, JobRow]]:
        return self._world.read(lambda at: self._tables.history(job_id, at))

    def unfinished_jobs(self) -> list[JobRow]:
        return self._world.read(self._tables.unfinished)

    def last_activity_ms(self, job_id: str) -> int:
        return self._world.read(lambda at: self._tables.last_activity(job_id, at))

    def partials(self, job_id: str, batch: int | None = None) -> list[Partial]:
        return self._world.read(lambda at: self._tables.partials(job_id, batch, at))

    def put_partials(self, partials: Sequence[Partial]) -> None:
        self._world.write(self._put_partials, partials)

    def _put_partials(self, rows: Sequence[Partial], at: int) -> None:
        self._world.judge.saw_partials(rows)
        self._tables.put_partials(rows, at)

    def count_partials(self, job_id: str, kind: str, ending: str, batch: int | None = None) -> int:
        rows = self.partials(job_id, batch)
        return sum(row.kind == kind and row.task.endswith(ending) for row in rows)

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

    def sweep_scores(self, sweep_id: str) -> dict[str, int]:
        return {row.job_id: row.sharpe_ratio for row in self._sweep(sweep_id)}

    def sweep_daily(self, sweep_id: str, job_ids: Sequence[str]) -> dict[str, str]:
        return {row.job_id: row.daily for row in self._sweep(sweep_id) if row.job_id in job_ids}

    def _sweep(self, sweep_id: str) -> list[ResultRow]:
        return self._world.read(lambda at: [r for r in self._tables.results_at(at) if r.sweep_id == sweep_id])
