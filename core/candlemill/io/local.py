"""The local home: the functions' own handlers behind a small in-process broker.

The routing, retries and dead letters are those of the Broker and Triggers in `knative/`. It is made for one machine:
past that the answer is Knative and a ClickHouse server, not a bigger version of this.
"""

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import pairwise
from typing import Any

import msgspec

from candlemill import events
from candlemill.addresses import Addresses, ground_of
from candlemill.errors import Cancelled, CandlemillError
from candlemill.events import Event
from candlemill.io import telemetry
from candlemill.io.clock import clock_ms
from candlemill.io.coverage import current_days
from candlemill.io.functions import DEAD_LETTERS, ROUTES, handler
from candlemill.io.localoutcomes import LocalOutcomes
from candlemill.io.store import Store
from candlemill.io.workers import WORKER_DIED, Pool, Work
from candlemill.ledger import DONE, Funding, JobRow, MergedSets, Partial, ResultRow, Runtime
from candlemill.model import SCALE, spec_from_json
from candlemill.outcomes import slices_of
from candlemill.plan import Day, Plan
from candlemill.service import merge_here
from candlemill.states import CAMPAIGNS, later

ATTEMPTS = 5
FLUSH_SECONDS = 5.0
LOOK_SECONDS = 1.0  # after which the store is asked whether somebody has ended a job
AHEAD = 2  # tasks per worker that wait in its queue
DAILY_KEPT = 10_000  # sets: as many as a sweep's figures look at
MERGED_APART = 32  # sets at least that a worker merges: of fewer it is soon done here


class LocalLedger(LocalOutcomes):
    """The log of tasks in memory, written to the store every few seconds, so that a crash loses seconds and a
    MergeTree does not get a part per task; so are outcomes, if they are `kept`. A `fresh` one does not look at what an
    earlier process left: everything is computed again."""

    def __init__(self, store: Store, fresh: bool = False, kept: bool = True) -> None:
        super().__init__(store, kept and not fresh)
        self._fresh = fresh
        self._jobs: dict[str, JobRow] = {}
        self._rows: dict[str, dict[int, _Batch]] = {}
        self._states: list[tuple[int, JobRow]] = []  # not written yet, with their times in ms
        self._unwritten: list[Partial] = []
        self._looked: dict[str, float] = {}
        self.last_results: Sequence[ResultRow] = ()
        self._daily: dict[str, str] = {}  # of the last results
        self._written_at = time.monotonic()

    def job(self, job_id: str) -> JobRow | None:
        """The job as it is known here; where somebody has cancelled it, that shows after a moment."""
        known = self._jobs.get(job_id)
        if known is None:
            stored = self._store.job(job_id)
            if stored is None:
                self._rows.setdefault(job_id, {})  # there are no tasks of a job that there is not
            return stored
        now = time.monotonic()
        if not known.finished and now - self._looked.setdefault(job_id, now) > LOOK_SECONDS:
            self._looked[job_id] = now
            stored = self._store.job(job_id)
            if stored is not None and stored.attempt == known.attempt:
                known = self._jobs[job_id] = later(stored, known)
        return known

    def job_rows(self, job_ids: Sequence[str]) -> dict[str, JobRow]:
        return self._store.job_rows(job_ids)

    def waiting_for(self, job_id: str) -> list[JobRow]:
        return self._store.waiting_for(job_id)

    def job_history(self, job_id: str) -> list[tuple[int, JobRow]]:
        return self._store.job_history(job_id)

    def unfinished_jobs(self) -> list[JobRow]:
        return self._store.unfinished_jobs()

    def last_activity_ms(self, job_id: str) -> int:
        return self._store.last_activity_ms(job_id)

    def put_job(self, job: JobRow) -> None:
        self._jobs[job.job_id] = later(self._jobs.get(job.job_id), job)
        self._states.append((clock_ms(), job))
        if job.finished or job.kind in CAMPAIGNS:  # whoever else looks for a campaign's next step finds it
            self._write_states()

    def _write_states(self) -> None:
        if self._states:
            self._store.put_jobs([job for _, job in self._states], [ms for ms, _ in self._states])
        self._states = []

    def partials(self, job_id: str, batch: int | None = None) -> list[Partial]:
        batches = self._batches(job_id)
        chosen = batches.values() if batch is None else [batches.get(batch, _Batch())]
        return [row for found in chosen for row in found.rows.values()]

    def _batches(self, job_id: str) -> "dict[int, _Batch]":
        """The job's rows by batch; what an earlier process left in the store is read once."""
        if job_id not in self._rows:
            self._rows[job_id] = {}
            for row in [] if self._fresh else self._store.partials(job_id):
                self._add(row)
        return self._rows[job_id]

    def _add(self, row: Partial) -> None:
        self._rows[row.job_id].setdefault(row.batch, _Batch()).add(row)

    def put_partials(self, partials: Sequence[Partial]) -> None:
        for row in partials:
            batches = self._batches(row.job_id)
            if row.kind == DONE:
                batches[row.batch] = _Batch()
                merged = (row.job_id, row.batch)
                self._unwritten = [other for other in self._unwritten if (other.job_id, other.batch) != merged]
            self._add(row)
            self._unwritten.append(row)
        if time.monotonic() - self._written_at > FLUSH_SECONDS:
            self.flush()

    def count_partials(self, job_id: str, kind: str, ending: str, batch: int | None = None) -> int:
        batches = self._batches(job_id)
        chosen = batches.values() if batch is None else [batches.get(batch, _Batch())]
        return sum(found.counts[kind, ending] for found in chosen)

    def has_result(self, job_id: str) -> bool:
        return self._store.has_result(job_id)

    def results(self, job_ids: Sequence[str]) -> list[ResultRow]:
        return self._store.results(job_ids)

    def put_results(self, results: Sequence[ResultRow]) -> None:
        self._store.put_results(results)
        self.last_results = results
        if len(self._daily) + len(results) > DAILY_KEPT:
            self._daily = {}
        self._daily |= {row.job_id: row.daily for row in results}

    def sweep_scores(self, sweep_id: str) -> dict[str, int] | None:
        return self._store.sweep_scores(sweep_id)

    def sweep_daily(self, sweep_id: str, job_ids: Sequence[str]) -> dict[str, str]:
        if not self._daily.keys() >= set(job_ids):
            return self._store.sweep_daily(sweep_id, job_ids)
        return {job_id: self._daily[job_id] for job_id in job_ids}

    def flush(self) -> None:
        """Write what is not in the store yet."""
        self._write_states()
        self.write_outcomes()
        # Tasks whose outcomes are not kept are not done for whoever goes on from here.
        self._store.put_partials([row for row in self._unwritten if self._kept or row.kind == DONE])
        self._unwritten = []
        self._written_at = time.monotonic()


class ScratchLedger(LocalLedger):
    """For computing again what is stored: nothing is read or written, each batch's results go to `take`."""

    def __init__(self, store: Store, take: Callable[[Sequence[ResultRow]], None]) -> None:
        super().__init__(store, fresh=True)
        self._take = take

    def job(self, job_id: str) -> JobRow | None:
        return self._jobs.get(job_id)

    def put_job(self, job: JobRow) -> None:
        self._jobs[job.job_id] = job

    def has_result(self, job_id: str) -> bool:
        return False

    def put_results(self, results: Sequence[ResultRow]) -> None:
        self._take(results)

    def sweep_scores(self, sweep_id: str) -> None:
        return None

    def flush(self) -> None:
        """Nothing of it goes anywhere."""
        self._states, self._unwritten = [], []


class _Batch:
    """One batch's rows, and how many there are of each kind and ending: asked after every single task."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int, str], Partial] = {}
        self.counts: Counter[tuple[str, str]] = Counter()

    def add(self, row: Partial) -> None:
        key = (row.kind, row.slice, row.task)
        self.counts[row.kind, row.task[row.task.index("/") :]] += key not in self.rows
        self.rows[key] = row


class FrozenIndex:
    """The metadata index as it was when the job began: one symbol's days, the same object throughout."""

    def __init__(self, store: Store, days: Callable[[str], Sequence[Day]] | None = None) -> None:
        """`days` tells a symbol's days as they are now, where somebody knows them already."""
        self._store = store
        self._current = days or partial(current_days, store)
        self._days: dict[str, Sequence[Day]] = {}
        self._funding: dict[str, Funding] = {}

    def symbols(self) -> list[str]:
        return self._store.symbols()

    def days(self, symbol: str) -> Sequence[Day]:
        if symbol not in self._days:
            self._days[symbol] = self._current(symbol)
        return self._days[symbol]

    def volume_scale(self, symbol: str) -> int:
        return self._store.volume_scale(symbol) or SCALE

    def funding(self, symbol: str) -> Funding:
        if symbol not in self._funding:
            self._funding[symbol] = self._store.funding(symbol)
        return self._funding[symbol]


Progress = Callable[[int, int], None]  # tasks done, tasks known
Hire = Callable[[Sequence[Event]], "Pool | None"]  # who shall do these tasks, and others later; None: this process


class Broker:
    """Delivers events to handlers until none is left. `hire` is asked once, with the first tasks."""

    def __init__(
        self, runtime: Runtime, hire: Hire = lambda tasks: None, progress: Progress = lambda done, known: None
    ) -> None:
        self._runtime = msgspec.structs.replace(runtime, merge=self._merge, spread=self._spread)
        self._hire: Hire | None = hire
        self._pool: Pool | None = None
        self._progress = progress
        self._queue: deque[tuple[Event, int]] = deque()
        self._delivered: tuple[Event, int]
        self._seen: set[tuple[str, str]] = set()
        self._running: dict[Future[telemetry.Timed[Work]], tuple[Event, int]] = {}
        self._merging: dict[tuple[str, int], _Merging] = {}  # by job and first grid point
        self._merged: dict[tuple[str, int], list[MergedSets]] = {}
        self._done = self._known = 0
        self._last: Event | None = None
        self._cause: CandlemillError | None = None

    def run(self, first: Event) -> Event:
        """Publish `first` and deliver until all is quiet. Returns the completed event of its job; a job that ended
        as failed raises the error that it failed of."""
        self._publish([first])
        try:
            self._run()
        finally:
            if self._pool is not None:
                self._pool.close()
        if self._cause is not None:
            raise self._cause
        if self._last is None:
            raise _why(self._runtime.ledger.job(first.partitionkey))
        return self._last

    def _run(self) -> None:
        while self._queue or self._running or self._merging:
            while self._queue:
                event, attempt = self._queue.popleft()
                if event.type == events.SLICE_REQUESTED and self._ended(event.partitionkey):
                    continue
                pool = self._pool_for(event)
                if pool is None:
                    self._deliver(event, attempt)
                elif len(self._running) < AHEAD * pool.workers:
                    self._running[pool.submit(event)] = (event, attempt)
                else:
                    self._queue.appendleft((event, attempt))
                    break
            self._collect()

    def _ended(self, job_id: str) -> bool:
        job = self._runtime.ledger.job(job_id)
        return job is not None and job.finished

    def _pool_for(self, event: Event) -> "Pool | None":
        if event.type != events.SLICE_REQUESTED or event.error:
            return None
        if self._hire is not None:
            waiting = [other for other, _ in self._queue if other.type == events.SLICE_REQUESTED]
            self._pool, self._hire = self._hire([event, *waiting]), None
        return self._pool

    def _publish(self, published: Sequence[Event]) -> None:
        """Queue events; those with an id that was seen are duplicates. Word of finished tasks goes first, so that a
        batch is merged and dropped before the next one is computed."""
        for event in published:
            if (event.source, event.id) in self._seen:
                continue
            self._seen.add((event.source, event.id))
            if event.type in (events.COMPLETED, events.FAILED):
                self._last = event
            elif event.type == events.SLICE_COMPLETED:
                self._queue.appendleft((event, 1))
            else:
                self._known += event.type == events.SLICE_REQUESTED
                self._queue.append((event, 1))

    def _deliver(self, event: Event, attempt: int) -> None:
        name = DEAD_LETTERS if event.error else ROUTES[event.type]
        self._delivered = event, attempt
        try:
            answer = handler(name)(event, self._runtime)
        except CandlemillError as error:
            self._failed(event, attempt, error)
            return
        self._succeeded(event, answer)

    def _succeeded(self, event: Event, answer: Sequence[Event]) -> None:
        if event.type == events.SLICE_REQUESTED:
            self._done += 1
            self._progress(self._done, self._known)
        self._publish(answer)

    def _failed(self, event: Event, attempt: int, error: CandlemillError) -> None:
        """Try again what may succeed later; the rest is a dead letter."""
        if event.error:
            raise error
        if error.retryable and attempt < ATTEMPTS:
            time.sleep(0.1 * 2**attempt)
            self._queue.append((event, attempt + 1))
            return
        self._cause = error
        self._queue.clear()
        self._queue.append((msgspec.structs.replace(event, error=str(error)), 1))

    def _merge(self, job: JobRow, plan: Plan, first: int, count: int) -> MergedSets | None:
        """What `Runtime.merge` is: workers merge a batch in parts, and then the event that led here comes again."""
        key = job.job_id, first
        if key in self._merged:
            parts = self._merged.pop(key)
            return MergedSets(
                [row for part in parts for row in part.results],
                [repair for part in parts for repair in part.repairs],
                [key for part in parts for key in part.set_keys],
            )
        if self._pool is None or count < MERGED_APART:
            return merge_here(self._runtime, job, plan, first, count)
        if key not in self._merging:
            self._merging[key] = _Merging(*self._delivered, self._merge_apart(self._pool, job, plan, first, count))
        return None

    def _merge_apart(self, pool: Pool, job: JobRow, plan: Plan, first: int, count: int) -> list[Future[MergedSets]]:
        """A part for each worker."""
        spec = spec_from_json(job.spec)
        addresses = Addresses(spec, ground_of(self._runtime.index, spec), plan.run)
        cut = [first + count * k // pool.workers for k in range(pool.workers + 1)]
        futures = []
        for lo, hi in pairwise(cut):
            sets = addresses.sets(lo, hi - lo)
            slices = slices_of(addresses, sets, plan.cuts)
            rows = self._runtime.ledger.outcomes([one.key for one in sets.values()], addresses.code, list(slices))
            futures.append(pool.merge(job, plan, lo, hi - lo, rows))
        return futures

    def _spread(self, work: Callable[[Any], Any], parts: Sequence[Any]) -> Iterable[Any]:
        """What `Runtime.spread` is."""
        return map(work, parts) if self._pool is None else self._pool.spread(work, parts)

    def _collect(self) -> None:
        """Wait for a worker and take its answer."""
        awaited: list[Future[Any]] = list(self._running)
        for one in self._merging.values():
            awaited.append(next((future for future in one.futures if not future.done()), one.futures[-1]))
        if not awaited:
            return
        wait(awaited, return_when=FIRST_COMPLETED)
        self._collect_merged()
        for future in [future for future in self._running if future.done()]:
            event, attempt = self._running.pop(future)
            try:
                rows, partials, answer = telemetry.taken("execute", event, future.result())
                self._runtime.ledger.put_outcomes(rows)
                self._runtime.ledger.put_partials(partials)
            except CandlemillError as error:
                self._failed(event, attempt, error)
                continue
            except LookupError:  # of a slice that nobody has prepared for: its outcome was known, but not from there
                self._deliver(event, attempt)
                continue
            except BrokenProcessPool:
                raise CandlemillError(WORKER_DIED) from None
            self._succeeded(event, answer)

    def _collect_merged(self) -> None:
        """Deliver once more what led to the merging of batches that are merged now."""
        for key in [key for key, one in self._merging.items() if all(future.done() for future in one.futures)]:
            one = self._merging.pop(key)
            try:
                self._merged[key] = [future.result() for future in one.futures]
            except CandlemillError as error:
                self._failed(one.event, one.attempt, error)
                continue
            except BrokenProcessPool:
                raise CandlemillError(WORKER_DIED) from None
            self._queue.appendleft((one.event, one.attempt))


class _Merging(msgspec.Struct, frozen=True):
    """A batch whose parts workers merge, and the event that waits for it."""

    event: Event
    attempt: int
    futures: list[Future[MergedSets]]


def _why(job: JobRow | None) -> CandlemillError:
    """Why a job came to rest without a result."""
    if job is not None and job.state == "cancelled":
        return Cancelled(f"job {job.job_id} was cancelled; asked for again, it goes on from what is done")
    return CandlemillError("the job came to rest without a result")


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
