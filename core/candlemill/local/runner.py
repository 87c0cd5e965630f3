"""Local run of a job: prepare, deliver events until it has ended, read the results."""

import json
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import ProcessPoolExecutor as Processes
from contextlib import closing, contextmanager, nullcontext
from typing import Any

import msgspec

from candlemill.backtests.grid import grid_points
from candlemill.backtests.order_chart import OrderChart, check_shown, has_chart
from candlemill.backtests.plan import Plan, estimate_seconds
from candlemill.backtests.replay import Replay
from candlemill.backtests.spec import Spec, spec_from_json
from candlemill.backtests.spec_rules import COLUMNS, columns_read, context_bars, sees_panel
from candlemill.engine.candles import DAY_MS, MINUTE_MS
from candlemill.errors import CandlemillError, CandlesMissing, NoData, UnknownName
from candlemill.exchanges.binance.outages import known_outages
from candlemill.local.broker import Broker, Progress, cores
from candlemill.local.job_stores import BufferedJobStore, DryRunJobStore
from candlemill.local.limited_pool import LimitedPool
from candlemill.local.worker_pool import Pool, SymbolIndex, orders_between, replayed, start_processes
from candlemill.pipeline import events
from candlemill.pipeline.cache_keys import job_data, symbol_data
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Event
from candlemill.pipeline.gap_limit import GapLimit
from candlemill.pipeline.interfaces import DayIndex
from candlemill.pipeline.lifecycle import cancel
from candlemill.pipeline.marks import symbols_read
from candlemill.pipeline.prepare import prepare
from candlemill.pipeline.prepared import Prepared, PreparedJob
from candlemill.pipeline.request import full_span
from candlemill.pipeline.reuse import reusable
from candlemill.pipeline.rows import JobRow, ResultRow
from candlemill.store.base import Store
from candlemill.store.candle_reader import CandleReader
from candlemill.store.day_index import FrozenIndex
from candlemill.store.integrity import result_problem
from candlemill.stored_days import NO_FUNDING
from candlemill.strategies import loader
from candlemill.telemetry import instrument
from candlemill.units import clock_ms

TIMES = frozenset({"execution_time_ms", "slices", "repaired_slices"})  # what may differ between equal results
IDENTITY = frozenset({"job_id", "result_digest"})
RESULT_COLUMNS = ("strategy_id", "total_pnl", "sharpe_ratio", "max_drawdown")
PANEL_CACHE_BYTES = 256 << 20
PAUSED_SETS = 2_000  # sets from which on the store merges its parts when the job has ended
POOL_SECONDS = 2.0  # workers take half a second to start: a shorter job runs without them


class JobRunner:
    """Run jobs with one store and the index as it is now. `started` are processes that the first long job uses.

    The code of strategies from files runs in worker processes only, with at most `strategy_seconds` for a task (None:
    depends on its number of bars).
    """

    def __init__(
        self,
        store: Store,
        index: DayIndex | None = None,
        started: Processes | None = None,
        strategy_seconds: float | None = None,
    ) -> None:
        self.store = store
        self.strategy_seconds = strategy_seconds
        self.index = index or FrozenIndex(store)
        self._started = started

    def full_span(self, *symbols: str) -> tuple[int, int]:
        """Return the time span in ms from the first candle of all symbols to the end of the last. Raises
        UnknownName."""
        return full_span(self.index, symbols)

    def prepare(self, spec: Spec, slices: int | None, limit: GapLimit | None = None) -> Prepared:
        """Return the job with its plan. Raises NoData if there is no candle, or if `limit` is exceeded."""
        job = prepare(self.index, spec, slices)
        self.check_gaps(spec, limit)
        return job

    def check_gaps(self, spec: Spec, limit: GapLimit | None) -> None:
        """Raise NoData if more minutes of a symbol are missing than `limit` allows."""
        if limit is None:
            return
        for symbol in spec.symbols:
            self._check_gaps(msgspec.structs.replace(spec, symbol=symbol), limit)

    def _check_gaps(self, spec: Spec, limit: GapLimit) -> None:
        days = symbol_data(self.index, spec).days
        if not days:
            return
        if limit.between:
            minutes = (days[-1].last - days[0].first) // MINUTE_MS + 1
            missing = minutes - sum(day.rows for day in days)
        else:
            minutes = spec.minutes
            missing = minutes - self.count_bars(spec)
        if missing <= limit.minutes:
            return
        outages = self._outage_minutes(spec, max(spec.start, days[0].first), min(spec.end, days[-1].last))
        if missing - outages > limit.minutes:
            apart = f", {outages:,} of them in known outages of the exchange" if outages else ""
            raise NoData(
                f"{spec.symbol} misses {missing:,} of {minutes:,} minutes ({len(days):,} days have candles){apart}; "
                f"max_gap allows {limit.minutes:,}: allow more, choose another range, or ingest the rest"
            )

    def _outage_minutes(self, spec: Spec, start: int, end: int) -> int:
        """Count the minutes of `start <= t < end` (ms) without a candle in the exchange's known outages."""
        spans = [(max(a, start), min(b, end)) for a, b in known_outages(spec.symbol) if a < end and b > start]
        stored = sum(len(self.store.read_columns(spec.symbol, a, b, ())["t"]) for a, b in spans)
        return sum((b - a) // MINUTE_MS for a, b in spans) - stored

    def count_bars(self, spec: Spec) -> int:
        """Count the candles of the range. The index has whole days only; candles of days that the range cuts are
        read."""
        count = 0
        for symbol in spec.symbols:
            for day in symbol_data(self.index, msgspec.structs.replace(spec, symbol=symbol)).days:
                inside = spec.start <= day.first and day.last < spec.end
                cut = (max(day.start, spec.start), min(day.start + DAY_MS, spec.end))
                count += day.rows if inside else len(self.store.read_columns(symbol, *cut, ())["t"])
        return count

    def run(
        self, job: Prepared, request: events.Requested, workers: int | None, progress: Progress
    ) -> BufferedJobStore:
        """Run the job to its end and write its results to the store. Raises the error that made it fail.

        After an interruption, finished work is in the store: the same call continues from there.
        """
        buffered = BufferedJobStore(self.store, request.fresh, reusable(job.plan))
        self._deliver(job, request, workers, buffered, progress)
        return buffered

    def compute(self, job: Prepared, progress: Progress) -> dict[str, Any]:
        """Compute the result of a job of one parameter set again; nothing is written."""
        rows: list[ResultRow] = []
        request = events.Requested(job.spec, job.plan.slices, True)
        self._deliver(job, request, None, DryRunJobStore(self.store, rows.extend), progress)
        found: dict[str, Any] = json.loads(rows[0].result)
        return found

    def trace(self, result: dict[str, Any]) -> Replay:
        """Compute the full run behind a stored result of one parameter set, without slices."""
        spec = spec_from_json(json.dumps(result["spec"]))
        job = self.prepare(spec, None)
        if job.data_digest != result["data_digest"]:
            raise NoData(f"the candles of {spec.shown_symbols} have changed since job {result['job_id']}: run it again")
        candles = self.candles(PANEL_CACHE_BYTES if _reads_slices_alone(spec) else None)
        if not loader.is_plugin(spec.strategy):
            return replayed(spec, result, candles, self.index)
        warms = [strategy for _, _, strategy in grid_points(spec, 0, 1)] if spec.warm_up == "stored" else []
        context = context_bars(spec, warms, exact=True) if warms else 0
        for symbol in symbols_read(spec):
            candles.prefetch(msgspec.structs.replace(spec, symbol=symbol), [(spec.start, spec.end)], context, COLUMNS)
        with closing(self._limited_pool(spec, 1, candles)) as pool:
            return pool.replay(spec, result)

    def order_chart(self, result: dict[str, Any], start: int, end: int) -> OrderChart:
        """Compute where the orders of a stored result stood in `start <= t < end` (ms), and how they ended.

        It is empty for a job without orders and margin. Raises BadInput for jobs that no chart shows, TooLarge for too
        long a span, NoData for changed candles.
        """
        spec = spec_from_json(json.dumps(result["spec"]))
        if not has_chart(spec):
            return OrderChart([], [], [])
        check_shown(spec)
        if self.prepare(spec, None).data_digest != result["data_digest"]:
            raise NoData(f"the candles of {spec.symbol} have changed since job {result['job_id']}: run it again")
        candles = self.candles()
        if not loader.is_plugin(spec.strategy):
            return orders_between(spec, candles, self.index, start, end)
        candles.prefetch(spec, [(spec.start, spec.end)], 0, COLUMNS)
        with closing(self._limited_pool(spec, 1, candles)) as pool:
            return pool.orders(spec, start, end)

    def candles(self, limit: int | None = None) -> CandleReader:
        """Return the store's candles in the form that the engine takes; `limit` is that of the cache in bytes."""
        return CandleReader(self.index.days, self.store, limit, shared=self.store.columns)

    def verify(self, job: Prepared, stored_id: str, progress: Progress) -> "Verified":
        """Compute a job again, with the slices of its plan, and compare every figure of its stored rows.

        Nothing is written. `stored_id` is the id of the stored job: it differs from the job's own if other code
        computed it; then ids may differ, figures may not.
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
        self._deliver(job, request, None, DryRunJobStore(self.store, compare), progress)
        return found

    def _deliver(
        self,
        job: Prepared,
        request: events.Requested,
        workers: int | None,
        buffered: BufferedJobStore,
        progress: Progress,
    ) -> None:
        """Run the job's events; on an interruption, write finished work."""
        candles = self.candles(PANEL_CACHE_BYTES if _reads_slices_alone(job.spec) else None)
        prepared = PreparedJob(job, request.slices, job_data(self.index, job.spec))
        runtime = HandlerContext(buffered, self.index, candles, clock_ms, instrument.on_cache_lookup, prepared=prepared)

        def start_workers(tasks: Sequence[Event]) -> Pool | None:
            return self._start_workers(job, tasks, workers, candles, buffered)

        try:
            requested = events.make("cli", events.REQUESTED, job.job_id, request)
            with self.store.merges_paused() if job.plan.points > PAUSED_SETS else nullcontext():
                Broker(runtime, start_workers, progress).run(requested)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and buffered.job(job.job_id):
                cancel(job.job_id, buffered)  # so that no other process resumes it
            buffered.flush()  # finished work need not be done again
            raise

    def _start_workers(
        self,
        job: Prepared,
        tasks: Sequence[Event],
        workers: int | None,
        candles: CandleReader,
        buffered: BufferedJobStore,
    ) -> Pool | None:
        """Read the tasks' candles in few queries, and start worker processes if they save time."""
        spec, plan = job.spec, job.plan
        strategies = [strategy for _, _, strategy in grid_points(spec, 0, 1 if not spec.grid else 64)]
        spans, panel = [(spec.start, spec.end)], sees_panel(spec.strategy)
        if len(tasks) < plan.tasks and not panel:  # more tasks follow those of a panel
            cuts = [events.read(task, events.SliceRequested).cuts for task in tasks]
            spans = sorted({(one[0], one[-1]) for one in cuts})
        context, columns = context_bars(spec, strategies, exact=panel), columns_read(spec, strategies)
        useful = worthwhile(workers, estimate_seconds(plan) * (1.0 if panel else min(1.0, len(tasks) / plan.tasks)))
        useful = min(useful, len(tasks))
        if spec.universe and "volume" not in columns:
            columns = (*columns, "volume")
        if not panel or useful > 1 or loader.is_plugin(spec.strategy):  # else a panel's candles are read slice by slice
            for symbol in spec.symbols:
                candles.prefetch(msgspec.structs.replace(spec, symbol=symbol), spans, context, columns)
            for symbol in symbols_read(spec)[len(spec.symbols) :]:  # mark prices, also of the context
                whole = [(spec.start, spans[-1][1])]
                candles.prefetch(msgspec.structs.replace(spec, symbol=symbol), whole, 0, columns)
        count = useful if candles.shareable() else 1
        if loader.is_plugin(spec.strategy):
            return self._limited_pool(spec, max(1, count), candles)
        if count < 2:
            return None
        started, self._started = self._started, None
        index, code = self._symbol_index(spec), loader.reference(spec.strategy)
        return Pool(count, candles, index, code, started, whole=buffered.whole_batches)

    def _limited_pool(self, spec: Spec, count: int, candles: CandleReader) -> LimitedPool:
        """Start workers for a strategy from a file, even for a short job: its code must not run in this process."""
        if not candles.shareable():
            raise CandlemillError("/dev/shm has no room for the job's candles: give the container more (--shm-size)")
        started, self._started = self._started, None
        return LimitedPool(count, candles, self._symbol_index(spec), spec, self.strategy_seconds, started)

    def _symbol_index(self, spec: Spec) -> SymbolIndex:
        days = {symbol: list(self.index.days(symbol)) for symbol in symbols_read(spec)}
        funding = {symbol: self.index.funding(symbol) if spec.funding else NO_FUNDING for symbol in spec.symbols}
        scales = {symbol: self.index.volume_scale(symbol) if spec.universe else 0 for symbol in spec.symbols}
        return SymbolIndex(days, funding, scales)


def _reads_slices_alone(spec: Spec) -> bool:
    """Return whether this process reads a panel slice by slice: candles of hundreds of symbols are read once each."""
    return sees_panel(spec.strategy) and not spec.grid and not loader.is_plugin(spec.strategy)


def worthwhile(workers: int | None, seconds: float) -> int:
    """Return the number of worker processes for a job of `seconds`; `workers`, if given, decides."""
    return workers or (cores() if seconds > POOL_SECONDS else 1)


@contextmanager
def started_early(spec: Spec, workers: int | None) -> Iterator[Processes | None]:
    """Start processes before the database is opened, for a job that has candles in all of its range."""
    count = worthwhile(workers, estimate_seconds(Plan([spec.start, spec.end], 1, spec.combinations, spec.minutes)))
    if count < 2:
        yield None
        return
    import candlemill.guards  # noqa: F401 once, not in each of them

    with start_processes(count) as started:
        yield started


class Options(msgspec.Struct, frozen=True):
    """Options of a run: see `JobRunner.run`."""

    slices: int | None = None
    workers: int | None = None
    fresh: bool = False
    limit: GapLimit | None = None
    parent: str = ""  # the study that the job is a trial of: lists leave it out


def run_job(runner: JobRunner, spec: Spec, options: Options, progress: Progress) -> tuple[Prepared, BufferedJobStore]:
    """Prepare a job and run it to its end. Raises the errors of `JobRunner.prepare` and `JobRunner.run`."""
    job = runner.prepare(spec, options.slices, options.limit)
    request = events.Requested(job.spec, options.slices, options.fresh, parent=options.parent)
    return job, runner.run(job, request, options.workers, progress)


def run_one(runner: JobRunner, spec: Spec, options: Options, progress: Progress) -> ResultRow:
    """Return the row of a job of one parameter set, from the store or computed.
    Raises as `run_job`, and CandlesMissing if the stored row cannot be right."""
    job, buffered = run_job(runner, spec, options, progress)
    if buffered.last_result is not None:
        return buffered.last_result
    row = fetch(runner.store, job.job_id)
    if why := result_problem(runner.index, json.loads(row.result)):
        raise CandlesMissing(why)
    return row


class Verified(msgspec.Struct):
    """Result of a verification: the number of recomputed parameter sets, the last digest, and differences by job id."""

    sets: int = 0
    computed: str = ""
    different: dict[str, list[str]] = {}


def different(old: ResultRow, new: ResultRow, passing: Set[str]) -> list[str]:
    """Return the names of columns and figures, without `passing`, that differ between two rows of one job."""
    columns = [name for name in RESULT_COLUMNS if getattr(old, name) != getattr(new, name)]
    before, after = json.loads(old.result), json.loads(new.result)
    names = sorted(before.keys() | after.keys())
    return columns + [name for name in names if name not in passing and before.get(name) != after.get(name)]


def sweep_row(store: Store, sweep_id: str) -> JobRow:
    """Return a finished sweep's job."""
    row = store.job(sweep_id)
    if row is None:
        raise CandlemillError(f"sweep {sweep_id} has results, but its job is not stored: run it again")
    return row


def fetch(store: Store, job_id: str) -> ResultRow:
    """Return a finished job's row. Raises UnknownName with the nearest ids."""
    rows = store.results([job_id])
    if not rows:
        known = [row.job_id for _, row in store.recent_results(1000)]
        raise UnknownName("job", job_id, known, "`candlemill results` lists the newest")
    return rows[0]
