"""In-process broker that runs the functions' own handlers on one machine.

Routing, retries and dead letters are those of the Broker and Triggers in `knative/`. For more than one machine use
Knative and a ClickHouse server, not a larger version of this.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice, pairwise
from typing import Any

import msgspec

from candlemill.backtests.plan import Plan
from candlemill.backtests.spec import spec_from_json
from candlemill.errors import BadStrategy, Cancelled, CandlemillError
from candlemill.local.batches import BatchDone, gathered, is_whole, records_of
from candlemill.local.limited_pool import LimitedPool
from candlemill.local.worker_pool import WORKER_DIED, Pool, Work
from candlemill.pipeline import events
from candlemill.pipeline.aggregate import merge_here
from candlemill.pipeline.cache_keys import CacheKeys
from candlemill.pipeline.context import HandlerContext, MergedSets
from candlemill.pipeline.events import Event
from candlemill.pipeline.job_state import plan_of
from candlemill.pipeline.outcomes import slices_of
from candlemill.pipeline.prepare import data_of
from candlemill.pipeline.rows import JobRow
from candlemill.telemetry import instrument
from candlemill.transport.functions import deliver

ATTEMPTS = 5
AHEAD = 2  # tasks per worker that wait in its queue
TICK_SECONDS = 0.5  # how often a job that waits for workers checks whether it must stop
MERGED_APART = 32  # minimum number of sets to merge in a worker: fewer are merged here quickly
Progress = Callable[[int, int], None]  # tasks done, tasks known
StartWorkers = Callable[
    [Sequence[Event]], "Pool | None"
]  # worker processes for these tasks and later ones; None: run in this process


class Broker:
    """Deliver events to handlers until none is left. `start_workers` is called once, with the first tasks."""

    def __init__(
        self,
        runtime: HandlerContext,
        start_workers: StartWorkers = lambda tasks: None,
        progress: Progress = lambda done, known: None,
    ) -> None:
        self._runtime = msgspec.structs.replace(runtime, merge=self._merge, spread=self._spread)
        self._start_workers = start_workers
        self._pool: Pool | None = None
        self._has_started = False
        self._job_id = ""
        self._progress = progress
        self._queue: deque[tuple[Event, int]] = deque()
        self._delivered: tuple[Event, int]
        self._seen: set[tuple[str, str]] = set()
        self._shared: set[str] = set()  # tasks whose bars were shared only for them
        self._running: dict[Future[instrument.Timed[Work]], tuple[Event, int]] = {}
        self._batches: dict[Future[instrument.Timed[BatchDone]], _Batch] = {}
        self._merging: dict[tuple[str, int], _Merging] = {}  # by job and first grid point
        self._merged: dict[tuple[str, int], list[MergedSets]] = {}
        self._done = self._known = 0
        self._last: Event | None = None
        self._cause: CandlemillError | None = None

    def run(self, first: Event) -> Event:
        """Publish `first` and deliver events until none is left. Return the completed event of its job.
        For a job that failed, raises the error that it failed with."""
        self._job_id = first.partitionkey
        self._publish([first])
        try:
            self._run()
        finally:
            if self._pool is not None:
                self._pool.close()
        if self._cause is not None:
            raise self._cause
        if self._last is None:
            raise _why(self._runtime.store.job(first.partitionkey))
        return self._last

    def _run(self) -> None:
        while self._queue or self._running or self._batches or self._merging:
            while self._queue:
                event, attempt = self._queue.popleft()
                if event.type == events.SLICE_REQUESTED and self._ended(event.partitionkey):
                    continue
                pool = self._pool_for(event)
                if pool is None:
                    self._deliver(event, attempt)
                elif len(self._running) + len(self._batches) < _room(pool):
                    if not self._submit_batch(pool, event, attempt):
                        self._running[pool.submit(event)] = (event, attempt)
                else:
                    self._queue.appendleft((event, attempt))
                    break
            try:
                self._collect()
            except BrokenProcessPool:
                self._recover()

    def _submit_batch(self, pool: Pool, first: Event, attempt: int) -> bool:
        """Submit a task together with the tasks of all other slices of its batch, if one worker is to run them."""
        job = self._runtime.store.job(first.partitionkey) if pool.whole != "no" else None
        plan = plan_of(job) if job is not None else None
        if job is None or plan is None:
            return False
        tasks = gathered(first, [event for event, _ in islice(self._queue, plan.slices - 1)])
        parts = [events.read(event, events.SliceRequested) for event in tasks]
        if not is_whole(plan, parts, pool.workers):
            return False
        for _ in tasks[1:]:
            self._queue.popleft()
        batch = parts[0].batch
        self._batches[pool.submit_batch(first, job, plan, batch)] = _Batch(tasks, attempt, plan, batch)
        return True

    def _recover(self) -> None:
        """Give the tasks of dead workers to new ones; a strategy's code may cause that once."""
        if not isinstance(self._pool, LimitedPool):
            raise CandlemillError(WORKER_DIED)
        tasks = [*self._running.values(), *((one.event, one.attempt) for one in self._merging.values())]
        self._running, self._merging = {}, {}
        try:
            self._pool.recover()
        except BadStrategy as error:
            self._failed(*tasks[0], error)
            return
        self._queue.extendleft(reversed(tasks))

    def _share_for(self, event: Event, attempt: int) -> None:
        """Share the bars of a task with new workers: its outcome was known, but from another start state."""
        others = list(self._running.values())
        self._running = {}
        if self._pool is not None:
            self._pool.close()
        self._pool = None
        self._pool = self._start_workers([event])
        if self._pool is None or event.id in self._shared:
            raise CandlemillError("the bars of a task do not fit into the memory that there is: use more --slices")
        self._shared.add(event.id)
        self._running[self._pool.submit(event)] = (event, attempt)
        self._queue.extendleft(reversed(others))

    def _ended(self, job_id: str) -> bool:
        job = self._runtime.store.job(job_id)
        return job is not None and job.finished

    def _pool_for(self, event: Event) -> "Pool | None":
        if event.type != events.SLICE_REQUESTED or event.error:
            return None
        if not self._has_started:
            waiting = [other for other, _ in self._queue if other.type == events.SLICE_REQUESTED]
            self._pool, self._has_started = self._start_workers([event, *waiting]), True
        return self._pool

    def _publish(self, published: Sequence[Event]) -> None:
        """Queue events without those whose id was published before.
        Completion events go first, so that a batch is merged and released before the next one is computed."""
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
        self._delivered = event, attempt
        try:
            answer = deliver(event, self._runtime)
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
        """Retry an event whose error is temporary; otherwise publish a dead letter."""
        if event.error:
            raise error
        if error.retryable and attempt < ATTEMPTS:
            time.sleep(0.1 * 2**attempt)
            self._queue.append((event, attempt + 1))
            return
        self._cause = error
        self._queue.clear()
        if isinstance(self._pool, LimitedPool):  # other work of its code may never end
            self._pool.kill()
            self._running, self._merging = {}, {}
        self._queue.append((msgspec.structs.replace(event, error=error.public), 1))

    def _merge(self, job: JobRow, plan: Plan, first: int, count: int) -> MergedSets | None:
        """Merge a batch in parts in the workers (`HandlerContext.merge`); the event is then delivered again."""
        key = job.job_id, first
        if key in self._merged:
            parts = self._merged.pop(key)
            return MergedSets(
                [row for part in parts for row in part.results],
                [repair for part in parts for repair in part.repairs],
                [key for part in parts for key in part.set_keys],
                [row for part in parts for row in part.prefixes],
            )
        if self._pool is None or count < MERGED_APART:
            return merge_here(self._runtime, job, plan, first, count)
        if key not in self._merging:
            self._merging[key] = _Merging(*self._delivered, self._merge_apart(self._pool, job, plan, first, count))
        return None

    def _merge_apart(self, pool: Pool, job: JobRow, plan: Plan, first: int, count: int) -> list[Future[MergedSets]]:
        """Submit one part of the merge to each worker."""
        spec = spec_from_json(job.spec)
        cache_keys = CacheKeys(spec, data_of(self._runtime, spec), plan.run)
        cut = [first + count * k // pool.workers for k in range(pool.workers + 1)]
        futures = []
        for lo, hi in pairwise(cut):
            sets = cache_keys.sets(lo, hi - lo)
            slices = slices_of(cache_keys, sets, plan.cuts)
            rows = self._runtime.store.outcomes([one.key for one in sets.values()], cache_keys.code, list(slices))
            futures.append(pool.merge(job, plan, lo, hi - lo, rows))
        return futures

    def _spread(self, work: Callable[[Any], Any], parts: Sequence[Any]) -> Iterable[Any]:
        """Apply a function to parts in the workers (`HandlerContext.spread`)."""
        return map(work, parts) if self._pool is None else self._pool.spread(work, parts)

    def _collect(self) -> None:
        """Wait for a worker and handle its result."""
        awaited: list[Future[Any]] = [*self._running, *self._batches]
        for one in self._merging.values():
            awaited.append(next((future for future in one.futures if not future.done()), one.futures[-1]))
        if not awaited:
            return
        if not wait(awaited, TICK_SECONDS, return_when=FIRST_COMPLETED).done:
            self._tick()
            return
        self._collect_merged()
        self._collect_batch()
        for future in [future for future in self._running if future.done()]:
            event, attempt = self._running[future]
            if isinstance(future.exception(), BrokenProcessPool):
                raise BrokenProcessPool
            del self._running[future]
            try:
                rows, partials, answer = instrument.record_worker_event("execute", event, future.result())
                self._runtime.store.put_outcomes(rows)
                self._runtime.store.put_task_records(partials)
            except CandlemillError as error:
                self._failed(event, attempt, error)
                continue
            except LookupError:  # its bars were not shared: its outcome was known, but from another start state
                if isinstance(self._pool, LimitedPool):
                    self._share_for(event, attempt)
                    return
                self._deliver(event, attempt)
                continue
            self._succeeded(event, answer)

    def _tick(self) -> None:
        """Raise Cancelled or Stopped if the job must not continue."""
        self._progress(self._done, self._known)
        if self._ended(self._job_id):
            raise _why(self._runtime.store.job(self._job_id))
        if isinstance(self._pool, LimitedPool):
            self._pool.kill_overdue()

    def _collect_batch(self) -> None:
        """Handle one batch that a worker has finished. Its results are written before the next one is handled."""
        future = next((future for future in self._batches if future.done()), None)
        if future is None:
            return
        if isinstance(future.exception(), BrokenProcessPool):
            raise BrokenProcessPool
        one = self._batches.pop(future)
        try:
            done = instrument.record_worker_event("execute", one.tasks[0], future.result())
        except CandlemillError as error:
            for task in one.tasks:
                self._failed(task, one.attempt, error)
            return
        job_id = one.tasks[0].partitionkey
        if done.rows:
            self._runtime.store.put_outcomes(done.rows)
        if done.merged is not None:
            self._merged[job_id, one.plan.batch_points(one.batch)[0]] = [done.merged]
        self._runtime.store.put_task_records(records_of(one.plan, job_id, one.batch))
        self._done += len(one.tasks)
        self._progress(self._done, self._known)
        completed = events.SliceCompleted(job_id, one.batch, 0, one.tasks[0].id)
        self._publish([events.make("execute", events.SLICE_COMPLETED, job_id, completed)])

    def _collect_merged(self) -> None:
        """Deliver the events of merged batches again."""
        for key in [key for key, one in self._merging.items() if all(future.done() for future in one.futures)]:
            one = self._merging[key]
            if any(isinstance(future.exception(), BrokenProcessPool) for future in one.futures):
                raise BrokenProcessPool
            del self._merging[key]
            try:
                self._merged[key] = [future.result() for future in one.futures]
            except CandlemillError as error:
                self._failed(one.event, one.attempt, error)
                continue
            self._queue.appendleft((one.event, one.attempt))


class _Batch(msgspec.Struct, frozen=True):
    """A batch that a worker runs as a whole, and the tasks of its slices."""

    tasks: list[Event]
    attempt: int
    plan: Plan
    batch: int


class _Merging(msgspec.Struct, frozen=True):
    """A batch whose parts are merged in workers, and the event that waits for it."""

    event: Event
    attempt: int
    futures: list[Future[MergedSets]]


def _why(job: JobRow | None) -> CandlemillError:
    """Return the reason why a job stopped without a result."""
    if job is not None and job.state == "cancelled":
        return Cancelled(f"job {job.job_id} was cancelled; request it again to continue from what is done")
    return CandlemillError("the job came to rest without a result")


def _room(pool: Pool) -> int:
    """Return how many tasks the workers may have, those in hand included."""
    return (1 if isinstance(pool, LimitedPool) else AHEAD) * pool.workers


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
