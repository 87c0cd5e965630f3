"""Local runs of jobs, one after the other: each in the in-process broker, and between them the steps of workflows."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from candlemill.errors import BadInput, Cancelled, CandlemillError, Stopped
from candlemill.local.broker import Progress as Update
from candlemill.local.job_stores import BufferedJobStore
from candlemill.local.runner import JobRunner
from candlemill.pipeline import events
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Event
from candlemill.pipeline.interfaces import DayIndex
from candlemill.pipeline.lifecycle import cancel, completed
from candlemill.pipeline.rows import JobRow, Progress
from candlemill.store.base import Store
from candlemill.store.candle_reader import CandleReader
from candlemill.store.day_index import FrozenIndex
from candlemill.transport.functions import deliver
from candlemill.units import clock_ms


class WorkflowRunner:
    """Runs jobs to their end, each in the calling thread; several threads may share one store.
    A job that is running in one thread is awaited in the others."""

    def __init__(self, store: Store, strategy_seconds: float | None = None) -> None:
        """`strategy_seconds`: see `JobRunner`."""
        self._store = store
        self.strategy_seconds = strategy_seconds
        self._live: dict[str, Progress] = {}
        self._taken: set[str] = set()
        self._changed = threading.Condition()
        self._stopping = False

    def run(
        self,
        first: Event,
        workers: int | None = None,
        progress: Update = lambda done, known: None,
        index: DayIndex | None = None,
    ) -> JobRow:
        """Run the job that `first` requests, whose id is the event's partition key. Return its row, in state done.

        `index` is the metadata index for the job; by default it is read now. Raises the error that made the job fail,
        Cancelled, or Stopped after a call of `stop`: then the next request continues the job.
        """
        return _Run(self, self._store, first.partitionkey, workers, progress, index).to_its_end(first)

    def stop(self) -> None:
        """Stop all running jobs at their next task, and all later ones. Finished work is stored."""
        self._stopping = True

    def live(self, job_id: str) -> Progress | None:
        """Return the progress of a job that is running here, else None."""
        return self._live.get(job_id)

    def at_work(self) -> frozenset[str]:
        return frozenset(self._live.copy())

    @contextmanager
    def alone(self, job_id: str) -> Iterator[None]:
        """Context that only one thread at a time enters for a job."""
        with self._changed:
            self._changed.wait_for(lambda: job_id not in self._taken)
            self._taken.add(job_id)
        try:
            yield
        finally:
            with self._changed:
                self._taken.discard(job_id)
                self._changed.notify_all()

    def note(self, job_id: str, found: Progress) -> None:
        if self._stopping:
            raise Stopped(f"job {job_id} was stopped; request it again to continue from there")
        self._live[job_id] = found

    def forget(self, job_id: str) -> None:
        self._live.pop(job_id, None)


class _Run:
    """One call of `WorkflowRunner.run`: a job, or a workflow and its jobs."""

    def __init__(
        self,
        runner: WorkflowRunner,
        store: Store,
        root: str,
        workers: int | None,
        progress: Update,
        index: DayIndex | None,
    ) -> None:
        self._runner = runner
        self._root = root
        self._workers = workers
        self._progress = progress
        self._job_runner = JobRunner(store, index or FrozenIndex(store), strategy_seconds=runner.strategy_seconds)
        self._store = BufferedJobStore(store)
        self._runtime = HandlerContext(
            self._store, self._job_runner.index, CandleReader(self._job_runner.index.days, store), clock_ms
        )
        self._waiting: deque[Event] = deque()
        self._ended: deque[Event] = deque()
        self._done = 0
        self._cause: CandlemillError | None = None
        self._end: JobRow | None = None  # last row of the requested job

    def to_its_end(self, first: Event) -> JobRow:
        self._waiting.append(first)
        try:
            self._runner.note(self._root, Progress(0, 1, 0))
            self._deliver_all()
            while self._cause is None and not self._over() and self._ask_again(first):
                self._deliver_all()
        except KeyboardInterrupt:
            self._cancel(self._root)
            raise
        finally:
            self._runner.forget(self._root)
        row = self._end or self._store.job(self._root)
        if row is not None and row.state == "done":
            return row
        if row is not None and row.state == "cancelled":
            raise self._cancelled()
        raise self._cause or CandlemillError(row.reason if row and row.reason else "the job came to rest unfinished")

    def _ask_again(self, first: Event) -> bool:
        """Return whether a workflow needs another request: another thread's may have taken the step that followed
        here."""
        self._publish(self._step(first))
        return bool(self._waiting)

    def _cancel(self, job_id: str) -> None:
        """Cancel the job, so that no other process resumes it."""
        if self._store.job(job_id) is not None:
            cancel(job_id, self._store)

    def _cancelled(self) -> Cancelled:
        return Cancelled(f"job {self._root} was cancelled; request it again to continue from what is done")

    def _deliver_all(self) -> None:
        """Deliver job requests first, then completions: a workflow checks all of its jobs at once.
        Failures are delivered immediately."""
        while self._waiting or self._ended:
            if self._waiting and self._cause is None:
                self._publish(self._step(self._waiting.popleft()))
            elif self._ended:
                self._publish(deliver(self._ended.pop(), self._runtime))
            else:
                return
            if self._over():
                return

    def _over(self) -> bool:
        if self._end is None:
            row = self._store.job(self._root)
            self._end = row if row is not None and row.finished else None
        return self._end is not None

    def _publish(self, published: Sequence[Event]) -> None:
        for event in published:
            (self._waiting if event.type == events.REQUESTED else self._ended).append(event)

    def _step(self, event: Event) -> Sequence[Event]:
        """Run a requested job to its end, or return the requests of a requested workflow."""
        request = events.read(event, events.Requested)
        try:
            if request.is_workflow:
                return deliver(event, self._runtime)
            return self._job(event, request)
        except CandlemillError as error:
            if isinstance(error, Stopped) or self._over():
                raise
            self._cause = error
            following = deliver(msgspec.structs.replace(event, error=error.public), self._runtime)
            failed = events.Failed(event.partitionkey, error.public)
            return following or [events.make("aggregate", events.FAILED, event.partitionkey, failed)]

    def _job(self, event: Event, request: events.Requested) -> Sequence[Event]:
        job = self._job_runner.prepare(request.spec, request.slices)
        if job.job_id != event.partitionkey:
            raise BadInput(
                f"the candles of {job.spec.shown_symbols} have changed since the job was requested: request it again"
            )

        def count(done: int, known: int) -> None:
            tasks, before, all_jobs = job.plan.tasks, self._done, self._done + 1 + len(self._waiting)
            self._runner.note(job.job_id, Progress(min(done, tasks), tasks, max(0, known - tasks)))
            if job.job_id != self._root:
                self._runner.note(self._root, Progress(before * known + done, all_jobs * known, 0))
                if self._over():
                    raise self._cancelled()
            self._progress(before * known + done, all_jobs * known)

        with self._runner.alone(job.job_id):
            try:
                row = self._job_runner.run(job, request, self._workers, count).job(job.job_id)
            except (Cancelled, KeyboardInterrupt):
                if request.parent == self._root:  # no other request needs it
                    self._cancel(job.job_id)
                raise
            finally:
                self._runner.forget(job.job_id)
        if row is not None and row.state != "done":  # a late request, for an attempt that has ended
            raise CandlemillError(row.reason or row.state)
        if job.job_id == self._root:
            self._end = row
        self._done += 1
        return completed("aggregate", job.job_id)
