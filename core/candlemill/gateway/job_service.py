"""Dependencies of a handler: the store, the metadata index, the event publisher. Blocking calls run in threads."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from candlemill.backtests.spec import Spec
from candlemill.backtests.tiers import TierTable
from candlemill.errors import CandlesMissing, UnknownName
from candlemill.gateway.batch_loader import BatchLoader
from candlemill.gateway.recent import RecentCache
from candlemill.gateway.replays import ReplayCache
from candlemill.gateway.schemas.jobs import JobLine
from candlemill.local.runner import JobRunner
from candlemill.pipeline import events, job_state
from candlemill.pipeline.cache_keys import CacheKeys, ParamSetKey, job_data
from candlemill.pipeline.events import Event
from candlemill.pipeline.prepared import Prepared
from candlemill.pipeline.request import Kind, Request, ResolvedRequest, resolve_request
from candlemill.pipeline.reuse import KnownOutcomes, Reuse, look_up, reuse_of
from candlemill.pipeline.rows import JobRow, Progress, ResultRow
from candlemill.pipeline.workflows import prepare_workflow
from candlemill.store.base import Store
from candlemill.store.candle_writer import current_days
from candlemill.store.integrity import result_problem
from candlemill.stored_days import Day, Funding
from candlemill.strategies import loader
from candlemill.telemetry import instrument, tracing
from candlemill.units import SCALE, clock_ms

INDEX_SECONDS = 1.0  # maximum age of the index when a job is submitted; tasks read it again
PREPARED_LIMIT = 1_024
FINISHED_LIMIT, FINISHED_SECONDS = 4_096, 30.0
RESULTS_LIMIT = 256
KEPT_LIMIT, KEPT_BYTES = 256, 100_000  # number of cached responses, maximum bytes of each

EXPORTS_AT_ONCE = 2  # tables that are written to files
JOBS_LOOKED_UP = 20  # of a workflow

Publish = Callable[[Sequence[Event]], None]


class RunningJobs(Protocol):
    """The jobs that run in this process."""

    def live(self, job_id: str) -> Progress | None:
        """Return the progress of a job that runs or waits."""

    def at_rest(self, job_id: str, seconds: float) -> bool:
        """Wait until no request of a job waits or is worked on, and return whether that is so. Blocking."""


class CachedIndex:
    """Cache of the store's metadata index, at most a second old. A symbol's days stay the same object while
    unchanged."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._symbols: tuple[float, list[str]] = (0.0, [])
        self._days: dict[str, tuple[float, Sequence[Day]]] = {}
        self._funding: dict[str, tuple[float, Funding]] = {}
        self._scales: dict[str, int] = {}

    def symbols(self) -> list[str]:
        with self._lock:
            if time.monotonic() > self._symbols[0]:
                self._symbols = (time.monotonic() + INDEX_SECONDS, self._store.symbols())
            return self._symbols[1]

    def days(self, symbol: str) -> Sequence[Day]:
        with self._lock:
            until, days = self._days.get(symbol, (0.0, []))
            if time.monotonic() > until:
                now = current_days(self._store, symbol)
                days = days if days == now else now
                if days:  # unknown names are not cached: a client can invent any number
                    self._days[symbol] = (time.monotonic() + INDEX_SECONDS, days)
            return days

    def is_fresh(self, symbol: str) -> bool:
        """Return whether the cached days of the symbol are recent enough."""
        return time.monotonic() <= self._days.get(symbol, (0.0, ()))[0]

    def volume_scale(self, symbol: str) -> int:
        if symbol not in self._scales:
            self._scales[symbol] = self._store.volume_scale(symbol) or SCALE
        return self._scales[symbol]

    def funding(self, symbol: str) -> Funding:
        with self._lock:
            until, funding = self._funding.get(symbol, (0.0, None))
            if funding is None or time.monotonic() > until:
                funding = self._store.funding(symbol)
                self._funding[symbol] = (time.monotonic() + INDEX_SECONDS, funding)
            return funding

    def margin_tiers(self, symbol: str) -> Sequence[TierTable]:
        return self._store.margin_tiers(symbol)


class CheckedRequest(msgspec.Struct, frozen=True):
    """Valid request: the event to publish, the job, and the known jobs that are part of it (the job itself, unless it
    is a workflow)."""

    kind: Kind
    request: events.Requested
    job_id: str
    spec: Spec
    data_digest: str
    jobs: list[Prepared]


class Submission(msgspec.Struct, frozen=True):
    """State of a submitted job; for a job that is about to run, also what is reused of stored results."""

    state: str
    reuse: Reuse | None = None


class JobService:
    """Connections and caches of one gateway. `publish` sends events and blocks; it raises a retryable error if the sink
    does not accept them."""

    def __init__(
        self,
        store: Store,
        publish: Publish,
        running: RunningJobs | None = None,
        index: CachedIndex | None = None,
        strategy_seconds: float | None = None,
    ) -> None:
        """`running` are the jobs of this process, if it runs any; `strategy_seconds`: see `JobRunner`."""
        self.store = store
        self.index = index or CachedIndex(store)
        self.job = BatchLoader(self._jobs)
        self._asking = BatchLoader(self._ask)
        self.ready = BatchLoader(self._ready)  # concurrent readiness probes share one database call
        self.traces = ReplayCache(store, self.index, strategy_seconds)
        self.exports = asyncio.Semaphore(EXPORTS_AT_ONCE)
        self.stopping = asyncio.Event()
        self._publish = publish
        self._running = running
        self.live_study: Callable[[str], Progress | None] = lambda job_id: None  # replaced by the process's own studies
        self.lines: RecentCache[tuple[str, int, int], JobLine] = RecentCache(
            FINISHED_LIMIT
        )  # by job, attempt and last change
        self._prepared: RecentCache[bytes, tuple[object, CheckedRequest]] = RecentCache(PREPARED_LIMIT)
        self._finished: RecentCache[str, tuple[float, JobRow]] = RecentCache(FINISHED_LIMIT)
        self._results: RecentCache[str, tuple[float, ResultRow]] = RecentCache(RESULTS_LIMIT)
        self._kept: RecentCache[str, bytes] = RecentCache(KEPT_LIMIT)
        self._unsent: RecentCache[str, Event] = RecentCache(PREPARED_LIMIT)

    async def prepare(self, request: Request) -> CheckedRequest:
        """Check a request against the index before anything is started."""
        if self.index.is_fresh(request.symbols) and not loader.is_plugin(
            request.strategy
        ):  # needs no database: faster here than in a thread
            return self._prepare(request)
        return await asyncio.to_thread(self._prepare, request)

    def _prepare(self, request: Request) -> CheckedRequest:
        body = msgspec.json.encode(request)
        days = self.index.days(request.symbols)
        known = self._prepared.get(body)
        if known is not None and known[0] is days and days:
            return known[1]
        ready = self._checked(resolve_request(request, self.index))
        if ready.spec.funding or ready.spec.margin != "none":  # rates and tiers change while the candles do not
            return ready
        self._prepared.put(body, (days, ready))
        return ready

    def _checked(self, resolved: ResolvedRequest) -> CheckedRequest:
        request = events.Requested(
            resolved.spec, resolved.slices, resolved.fresh, weights=resolved.weights, walk_forward=resolved.walk_forward
        )
        runner = JobRunner(self.store, self.index)
        if not request.is_workflow:
            job = runner.prepare(resolved.spec, resolved.slices, resolved.limit)
            request = msgspec.structs.replace(request, spec=job.spec)
            return CheckedRequest(resolved.kind, request, job.job_id, job.spec, job.data_digest, [job])
        workflow = prepare_workflow(self.index, request)
        for job in workflow.jobs:
            runner.check_gaps(job.spec, resolved.limit)
        return CheckedRequest(
            resolved.kind, request, workflow.job_id, workflow.spec, workflow.data_digest, workflow.jobs
        )

    # -- jobs ------------------------------------------------------------------------------------------------------

    async def known_job(self, job_id: str) -> JobRow:
        """Return a job by its id. Raises UnknownName."""
        row = await self.job(job_id)
        if row is None:
            raise UnknownName("job", job_id, [], "GET /api/v1/backtests lists them")
        return row

    def progress(self, row: JobRow) -> Progress:
        """Return a job's progress. Blocking.

        If the job ran here and no longer does, it has ended since `row` was read; the final state is returned, not the
        older progress of its tasks.
        """
        if row.kind == "study" and not row.finished:
            return self.live_study(row.job_id) or Progress(0, 1, 0)
        if not row.finished and self._running is not None:
            found = self._running.live(row.job_id)
            if found is not None:
                return found
            row = self.store.job(row.job_id) or row
        return self.store.progress(row)

    def result(self, job_id: str) -> ResultRow | None:
        """Return the newest result of a job id. Blocking.

        A result does not change, but another process may have removed it. Raises CandlesMissing for a result that
        cannot be right.
        """
        until, row = self._results.get(job_id) or (0.0, None)
        if row is None or time.monotonic() > until:
            row = next(iter(self.store.results([job_id])), None)
            if row is not None and (why := result_problem(self.index, msgspec.json.decode(row.result))):
                raise CandlesMissing(why)
            if row is not None:
                self._results.put(job_id, (time.monotonic() + FINISHED_SECONDS, row))
        return row

    def at_rest(self, job_id: str, seconds: float) -> bool:
        """Wait until a job has stopped in this process, and return whether it has. Blocking."""
        return self._running is None or self._running.at_rest(job_id, seconds)

    def forget(self, job_id: str) -> None:
        self._finished.drop(job_id)
        self._results.drop(job_id)

    def kept(self, tag: str) -> bytes | None:
        """Return a cached response that cannot have changed, or None."""
        return self._kept.get(tag)

    def keep(self, tag: str, answer: bytes) -> None:
        if len(answer) <= KEPT_BYTES:
            self._kept.put(tag, answer)

    def _done(self, job_id: str) -> JobRow | None:
        """Return a recently read finished job, or None. A finished job does not change, but it may have been
        removed."""
        until, row = self._finished.get(job_id) or (0.0, None)
        return row if time.monotonic() < until else None

    def _jobs(self, ids: list[str]) -> list[JobRow | None]:
        known = {one: row for one in ids if (row := self._done(one)) is not None}
        missing = [one for one in dict.fromkeys(ids) if one not in known]
        found = self.store.job_rows(missing) if missing else {}
        for row in found.values():
            if row.state == "done":
                self._finished.put(row.job_id, (time.monotonic() + FINISHED_SECONDS, row))
        return [known.get(one) or found.get(one) for one in ids]

    def _ready(self, calls: list[None]) -> list[None]:
        """Check that the database answers. Raises StoreDown."""
        self.store.now_ns()
        return calls

    def trial(self, spec: Spec, study_id: str) -> CheckedRequest:
        """Check a trial of a study. Raises BadInput and NoData."""
        job = JobRunner(self.store, self.index).prepare(spec, None)
        request = events.Requested(job.spec, None, False, parent=study_id)
        return CheckedRequest("backtest", request, job.job_id, job.spec, job.data_digest, [job])

    def ask_now(self, ready: CheckedRequest) -> Submission:
        """Submit a job as `ask` does, from a thread. Blocking."""
        return self._ask([(ready, "")])[0]

    async def ask(self, ready: CheckedRequest) -> Submission:
        """Submit a job, unless it is finished or running."""
        done = None if ready.request.fresh else self._done(ready.job_id)
        answer = await self._asking((ready, tracing.current())) if done is None else Submission(done.state)
        if answer.state == "done":
            instrument.CACHE.add("job", "hit")
        return answer

    def _ask(self, requests: list[tuple[CheckedRequest, str]]) -> list[Submission]:
        """Submit the jobs that are neither finished nor running; return the state of each. Blocking.

        One lookup and one write serve all jobs, then their events are published. If a job makes no progress after that,
        the watch finds it and publishes it again.
        """
        rows = self._jobs([ready.job_id for ready, _ in requests])
        known = {row.job_id: row for row in rows if row is not None}
        new: dict[str, JobRow] = {}
        published: list[Event] = []
        for ready, traceparent in requests:
            name, request = ready.job_id, ready.request
            row = new.get(name) or known.get(name)
            if row is not None and (not row.finished or (row.state == "done" and not request.fresh)):
                unsent = None if row.finished else self._unsent.get(name)
                published += [] if unsent is None else [unsent]
                continue
            row = job_state.accepted(name, ready.spec, ready.data_digest, request, row, clock_ms())
            new[name] = row
            request = msgspec.structs.replace(request, attempt=row.attempt)
            event = events.make("gateway", events.REQUESTED, name, request)
            published.append(msgspec.structs.replace(event, traceparent=traceparent))
            self.forget(name)
        reused = self._reused([ready for ready, _ in requests if ready.job_id in new])
        if new:
            self.store.put_jobs(list(new.values()))
        self._send(published)
        return [
            Submission((new.get(ready.job_id) or known[ready.job_id]).state, reused.get(ready.job_id))
            for ready, _ in requests
        ]

    def _send(self, published: Sequence[Event]) -> None:
        """Publish events. Events that the sink does not accept are sent again at the next submission of the job, or by
        the watch."""
        for event in published:
            self._unsent.put(event.partitionkey, event)
        self._publish(published)
        for event in published:
            self._unsent.drop(event.partitionkey)

    def _reused(self, requests: list[CheckedRequest]) -> dict[str, Reuse]:
        """Return what is reused of jobs that are about to run, by job id. One lookup serves all runs of a single
        set."""
        found: dict[str, Reuse] = {}
        alone: dict[str, dict[str, tuple[CheckedRequest, CacheKeys, dict[int, ParamSetKey]]]] = {}
        for ready in requests:
            (job, *more) = ready.jobs
            if job.spec.grid or more:
                if (of_many := self.reuse(ready)) is not None:
                    found[ready.job_id] = of_many
                continue
            cache_keys = CacheKeys(job.spec, job_data(self.index, job.spec))
            alone.setdefault(cache_keys.code, {})[ready.job_id] = (ready, cache_keys, cache_keys.sets(0, 1))
        for code, group in alone.items():
            keys = [set_key.key for _, _, sets in group.values() for set_key in sets.values()]
            slices = self.store.known_slices(keys, code)
            for name, (ready, cache_keys, sets) in group.items():
                found[name] = reuse_of(ready.jobs[0].plan, KnownOutcomes(cache_keys, sets, slices), None)
        return found

    def reuse(self, ready: CheckedRequest) -> Reuse | None:
        """Return which part of a job is stored, and why the rest is not; None for a job too large to look up.
        Blocking."""
        if len(ready.jobs) > JOBS_LOOKED_UP:
            return None
        found = []
        for job in ready.jobs:
            plan, known = look_up(job_data(self.index, job.spec), self.store, job.spec, job.plan, cutting=True)
            if known is None:
                return None
            found.append(reuse_of(plan, known, self.store))
        return Reuse(
            sum(one.slices for one in found),
            sum(one.reused_slices for one in found),
            sum(one.outcomes for one in found),
            sum(one.reused_outcomes for one in found),
            [missing for one in found for missing in one.missing],
        )
