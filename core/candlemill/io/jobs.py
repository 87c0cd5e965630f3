"""Running a job at home: prepare, deliver events until it has ended, read the results."""

import json
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import ProcessPoolExecutor as Processes
from contextlib import contextmanager
from typing import Any

import msgspec

from candlemill import events
from candlemill.addresses import ground_of
from candlemill.control import cancel
from candlemill.engine.tape import DAY_MS
from candlemill.errors import CandlemillError, NoData, UnknownName
from candlemill.events import Event
from candlemill.io import plugins, telemetry
from candlemill.io.clock import clock_ms
from candlemill.io.local import Broker, FrozenIndex, LocalLedger, Progress, ScratchLedger, cores
from candlemill.io.store import Store
from candlemill.io.tapes import Tapes
from candlemill.io.workers import Pool, SymbolIndex, start_processes
from candlemill.ledger import NO_FUNDING, Index, JobRow, ResultRow, Runtime
from candlemill.model import Spec, grid_points, spec_from_json
from candlemill.plan import Plan, estimate_seconds
from candlemill.request import full_span
from candlemill.reuse import reusable
from candlemill.service import Prepared, prepare
from candlemill.trace import Trace, trace_of
from candlemill.work import COLUMNS, columns_read, context_bars

TIMES = frozenset({"execution_time_ms", "slices", "repaired_slices"})  # what may differ between equal results
IDENTITY = frozenset({"job_id", "result_digest"})
RESULT_COLUMNS = ("strategy_id", "total_pnl", "sharpe_ratio", "max_drawdown")
POOL_SECONDS = 2.0  # workers take half a second to start: a job shorter than this runs without


class Home:
    """One store and the index as it is now. `started` are processes for the first job that they are worth it for."""

    def __init__(self, store: Store, index: Index | None = None, started: Processes | None = None) -> None:
        self.store = store
        self.index = index or FrozenIndex(store)
        self._started = started

    def full_span(self, *symbols: str) -> tuple[int, int]:
        """From the first candle of all symbols to the end of the last one. Raises UnknownName."""
        return full_span(self.index, symbols)

    def prepare(self, spec: Spec, slices: int | None, max_gap: int | None = None) -> Prepared:
        """The job with its plan. Raises where there is no candle, or more minutes miss than `max_gap` allows."""
        job = prepare(self.index, spec, slices)
        self.check_gaps(spec, max_gap)
        return job

    def check_gaps(self, spec: Spec, max_gap: int | None) -> None:
        """Raises NoData where more minutes miss than `max_gap` allows."""
        missing = 0 if max_gap is None else spec.minutes - self.count_bars(spec)
        if max_gap is not None and missing > max_gap:
            days = len(ground_of(self.index, spec).days)
            raise NoData(
                f"{spec.symbol} misses {missing:,} of {spec.minutes:,} minutes ({days:,} days have candles), "
                f"max_gap allows {max_gap:,}: allow more, choose another range, or ingest the rest"
            )

    def count_bars(self, spec: Spec) -> int:
        """How many candles the range has. The index knows whole days; those that the range cuts are looked at."""
        count = 0
        for day in ground_of(self.index, spec).days:
            inside = spec.start <= day.first and day.last < spec.end
            cut = (max(day.start, spec.start), min(day.start + DAY_MS, spec.end))
            count += day.rows if inside else len(self.store.read_columns(spec.symbol, *cut, ())["t"])
        return count

    def run(self, job: Prepared, request: events.Requested, workers: int | None, progress: Progress) -> LocalLedger:
        """Run the job to its end; results are in the store then. Raises what made it fail.

        Interrupted, it leaves what is done in the store: the same call goes on from there.
        """
        ledger = LocalLedger(self.store, request.fresh, reusable(job.plan))
        self._deliver(job, request, workers, ledger, progress)
        return ledger

    def compute(self, job: Prepared, progress: Progress) -> dict[str, Any]:
        """The result of a job of one parameter set, computed anew; nothing is written."""
        rows: list[ResultRow] = []
        request = events.Requested(job.spec, job.plan.slices, True)
        self._deliver(job, request, None, ScratchLedger(self.store, rows.extend), progress)
        found: dict[str, Any] = json.loads(rows[0].result)
        return found

    def trace(self, result: dict[str, Any]) -> Trace:
        """The run behind a stored result of one parameter set, in full; computed again, in one go."""
        spec = spec_from_json(json.dumps(result["spec"]))
        job = self.prepare(spec, None)
        if job.data_digest != result["data_digest"]:
            raise NoData(f"the candles of {spec.symbol} have changed since job {result['job_id']}: run it again")
        window = self._tapes().window(spec, spec.start, spec.end, 0, COLUMNS)
        if spec.funding:
            funding = self.index.funding(spec.symbol)
            window.tape.add_funding(funding.t, funding.rate)
        ((_, _, strategy),) = grid_points(spec, 0, 1)
        return trace_of(spec, window.tape, strategy, result)

    def _tapes(self) -> Tapes:
        return Tapes(self.index.days, self.store, shared=self.store.columns)

    def verify(self, job: Prepared, stored_id: str, progress: Progress) -> "Verified":
        """Compute a job anew, cut as it is planned, and compare every figure of every row that is stored of it.

        Nothing is written. `stored_id` is the id that the job is stored under: another one than its own if other
        code computed it, and then ids may differ, figures may not.
        """
        found = Verified()
        passing = TIMES if job.job_id == stored_id else TIMES | IDENTITY

        def compare(rows: Sequence[ResultRow]) -> None:
            for row in rows:
                found.sets += 1
                found.computed = str(json.loads(row.result)["result_digest"])
                own_id = row.job_id if job.job_id == stored_id else stored_id
                for old in self.store.result_rows(own_id):
                    if names := different(old, row, passing):
                        found.different[own_id] = names

        request = events.Requested(job.spec, job.plan.slices, True)
        self._deliver(job, request, None, ScratchLedger(self.store, compare), progress)
        return found

    def _deliver(
        self, job: Prepared, request: events.Requested, workers: int | None, ledger: LocalLedger, progress: Progress
    ) -> None:
        """Run the job's events; interrupted, write what is done."""
        tapes = self._tapes()
        runtime = Runtime(ledger, self.index, tapes, clock_ms, telemetry.looked)

        def hire(tasks: Sequence[Event]) -> Pool | None:
            return self._hire(job, tasks, workers, tapes)

        try:
            Broker(runtime, hire, progress).run(events.make("cli", events.REQUESTED, job.job_id, request))
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and ledger.job(job.job_id):
                cancel(job.job_id, ledger)  # nobody is to go on with it unasked
            ledger.flush()  # what is done need not be done again
            raise

    def _hire(self, job: Prepared, tasks: Sequence[Event], workers: int | None, tapes: Tapes) -> Pool | None:
        """Read what the tasks need, in few queries, and start worker processes where they are worth it."""
        spec, plan = job.spec, job.plan
        strategies = [strategy for _, _, strategy in grid_points(spec, 0, 1 if not spec.grid else 64)]
        spans = [(spec.start, spec.end)]
        if len(tasks) < plan.tasks:
            cuts = [events.read(task, events.SliceRequested).cuts for task in tasks]
            spans = sorted({(one[0], one[-1]) for one in cuts})
        tapes.prefetch(spec, spans, context_bars(spec, strategies, exact=False), columns_read(spec, strategies))
        wanted = worthwhile(workers, estimate_seconds(plan) * min(1.0, len(tasks) / plan.tasks))
        count = min(wanted, len(tasks)) if tapes.shareable() else 1
        if count < 2:
            return None
        started, self._started = self._started, None
        return Pool(count, tapes, self._symbol_index(spec), plugins.reference(spec.strategy), started)

    def _symbol_index(self, spec: Spec) -> SymbolIndex:
        funding = self.index.funding(spec.symbol) if spec.funding else NO_FUNDING
        return SymbolIndex(spec.symbol, list(self.index.days(spec.symbol)), funding)


def worthwhile(workers: int | None, seconds: float) -> int:
    """How many processes a job of so many seconds is worth, where nobody has said."""
    return workers or (cores() if seconds > POOL_SECONDS else 1)


@contextmanager
def started_early(spec: Spec, workers: int | None) -> Iterator[Processes | None]:
    """Processes for a job that has candles in all of its range, to be started before the database is opened."""
    count = worthwhile(workers, estimate_seconds(Plan([spec.start, spec.end], 1, spec.combinations, spec.minutes)))
    if count < 2:
        yield None
        return
    import candlemill.guards  # noqa: F401 once, not in each of them

    with start_processes(count) as started:
        yield started


class Options(msgspec.Struct, frozen=True):
    """How jobs are run: see `Home.run`."""

    slices: int | None = None
    workers: int | None = None
    fresh: bool = False
    max_gap: int | None = None


def run_job(home: Home, spec: Spec, options: Options, progress: Progress) -> tuple[Prepared, LocalLedger]:
    """Prepare a job and run it to its end. Raises what `Home.prepare` and `Home.run` do."""
    job = home.prepare(spec, options.slices, options.max_gap)
    request = events.Requested(job.spec, options.slices, options.fresh)
    return job, home.run(job, request, options.workers, progress)


def run_one(home: Home, spec: Spec, options: Options, progress: Progress) -> ResultRow:
    """The row of a job of one parameter set, computed or found. Raises as `run_job`."""
    job, ledger = run_job(home, spec, options, progress)
    return ledger.last_results[0] if ledger.last_results else fetch(home.store, job.job_id)


class Verified(msgspec.Struct):
    """How many parameter sets were computed again, the last one's digest, and figures that differ by job id."""

    sets: int = 0
    computed: str = ""
    different: dict[str, list[str]] = {}


def different(old: ResultRow, new: ResultRow, passing: Set[str]) -> list[str]:
    """The names of columns and figures, `passing` apart, that are not the same in two rows of one job."""
    columns = [name for name in RESULT_COLUMNS if getattr(old, name) != getattr(new, name)]
    before, after = json.loads(old.result), json.loads(new.result)
    names = sorted(before.keys() | after.keys())
    return columns + [name for name in names if name not in passing and before.get(name) != after.get(name)]


def sweep_row(store: Store, sweep_id: str) -> JobRow:
    """A finished sweep's job."""
    row = store.job(sweep_id)
    if row is None:
        raise CandlemillError(f"sweep {sweep_id} has results, but its job is not stored: run it again")
    return row


def fetch(store: Store, job_id: str) -> ResultRow:
    """A finished job's row. Raises UnknownName with the nearest ids."""
    rows = store.results([job_id])
    if not rows:
        known = [row.job_id for _, row in store.recent_results(1000)]
        raise UnknownName("job", job_id, known, "`candlemill results` lists the newest")
    return rows[0]
