"""Jobs at home, one after the other: each in the in-process broker, and between them what follows for campaigns."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from candlemill import events
from candlemill.control import cancel, completed
from candlemill.errors import BadInput, Cancelled, CandlemillError, Stopped
from candlemill.events import Event
from candlemill.io.clock import clock_ms
from candlemill.io.functions import handler
from candlemill.io.jobs import Home
from candlemill.io.local import FrozenIndex, LocalLedger
from candlemill.io.local import Progress as Update
from candlemill.io.store import Store
from candlemill.io.tapes import Tapes
from candlemill.ledger import Index, JobRow, Progress, Runtime


class Bus:
    """Runs jobs to their end, each in the thread that asks for it; several threads may ask, with one store. A job that
    is at work in one thread is waited for in the others."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._live: dict[str, Progress] = {}
        self._taken: set[str] = set()
        self._changed = threading.Condition()
        self._stopping = False

    def run(
        self,
        first: Event,
        workers: int | None = None,
        progress: Update = lambda done, known: None,
        index: Index | None = None,
    ) -> JobRow:
        """Run the job that `first` asks for, whose id is the event's partition key. The job as it is then: done.

        `index` is the metadata index as the job shall see it, now where none is given. Raises what made the job fail,
        Cancelled, or Stopped where `stop` was called: then it goes on from there when it is asked for again.
        """
        return _Run(self, self._store, first.partitionkey, workers, progress, index).to_its_end(first)

    def stop(self) -> None:
        """Have all that runs stop at its next task, and whatever comes after. What is done is stored."""
        self._stopping = True

    def live(self, job_id: str) -> Progress | None:
        """How far a job is that is at work here."""
        return self._live.get(job_id)

    def at_work(self) -> frozenset[str]:
        return frozenset(self._live.copy())

    @contextmanager
    def alone(self, job_id: str) -> Iterator[None]:
        """In one thread at a time."""
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
            raise Stopped(f"job {job_id} was stopped; it goes on from there when it is asked for again")
        self._live[job_id] = found

    def forget(self, job_id: str) -> None:
        self._live.pop(job_id, None)


class _Run:
    """One call of `Bus.run`: a job, or a campaign and its jobs."""

    def __init__(
        self, bus: Bus, store: Store, root: str, workers: int | None, progress: Update, index: Index | None
    ) -> None:
        self._bus = bus
        self._root = root
        self._workers = workers
        self._progress = progress
        self._home = Home(store, index or FrozenIndex(store))
        self._ledger = LocalLedger(store)
        self._runtime = Runtime(self._ledger, self._home.index, Tapes(self._home.index.days, store), clock_ms)
        self._waiting: deque[Event] = deque()
        self._ended: deque[Event] = deque()
        self._done = 0
        self._cause: CandlemillError | None = None
        self._end: JobRow | None = None  # what has become of the job that was asked for

    def to_its_end(self, first: Event) -> JobRow:
        self._waiting.append(first)
        try:
            self._bus.note(self._root, Progress(0, 1, 0))
            self._deliver_all()
            while self._cause is None and not self._over() and self._ask_again(first):
                self._deliver_all()
        except KeyboardInterrupt:
            self._cancel(self._root)
            raise
        finally:
            self._bus.forget(self._root)
        row = self._end or self._ledger.job(self._root)
        if row is not None and row.state == "done":
            return row
        if row is not None and row.state == "cancelled":
            raise self._cancelled()
        raise self._cause or CandlemillError(row.reason if row and row.reason else "the job came to rest unfinished")

    def _ask_again(self, first: Event) -> bool:
        """Whether there is more to do for a campaign: another thread's may have taken the step that followed here."""
        self._publish(self._step(first))
        return bool(self._waiting)

    def _cancel(self, job_id: str) -> None:
        """Nobody is to go on with it unasked."""
        if self._ledger.job(job_id) is not None:
            cancel(job_id, self._ledger)

    def _cancelled(self) -> Cancelled:
        return Cancelled(f"job {self._root} was cancelled; asked for again, it goes on from what is done")

    def _deliver_all(self) -> None:
        """Jobs first, then word of those that have ended: a campaign looks at all of its jobs at once. Word of one that
        has failed comes at once."""
        while self._waiting or self._ended:
            if self._waiting and self._cause is None:
                self._publish(self._step(self._waiting.popleft()))
            elif self._ended:
                self._publish(handler("aggregate")(self._ended.pop(), self._runtime))
            else:
                return
            if self._over():
                return

    def _over(self) -> bool:
        if self._end is None:
            row = self._ledger.job(self._root)
            self._end = row if row is not None and row.finished else None
        return self._end is not None

    def _publish(self, published: Sequence[Event]) -> None:
        for event in published:
            (self._waiting if event.type == events.REQUESTED else self._ended).append(event)

    def _step(self, event: Event) -> Sequence[Event]:
        """A requested job's end, or what a requested campaign asks for."""
        request = events.read(event, events.Requested)
        try:
            if request.is_campaign:
                return handler("split")(event, self._runtime)
            return self._job(event, request)
        except CandlemillError as error:
            if isinstance(error, Stopped) or self._over():
                raise
            self._cause = error
            said = handler("aggregate")(msgspec.structs.replace(event, error=str(error)), self._runtime)
            failed = events.Failed(event.partitionkey, str(error))
            return said or [events.make("aggregate", events.FAILED, event.partitionkey, failed)]

    def _job(self, event: Event, request: events.Requested) -> Sequence[Event]:
        job = self._home.prepare(request.spec, request.slices)
        if job.job_id != event.partitionkey:
            raise BadInput(f"the candles of {job.spec.symbol} have changed since the job was asked for: ask again")

        def count(done: int, known: int) -> None:
            tasks, before, all_jobs = job.plan.tasks, self._done, self._done + 1 + len(self._waiting)
            self._bus.note(job.job_id, Progress(min(done, tasks), tasks, max(0, known - tasks)))
            if job.job_id != self._root:
                self._bus.note(self._root, Progress(before * known + done, all_jobs * known, 0))
                if self._over():
                    raise self._cancelled()
            self._progress(before * known + done, all_jobs * known)

        with self._bus.alone(job.job_id):
            try:
                row = self._home.run(job, request, self._workers, count).job(job.job_id)
            except (Cancelled, KeyboardInterrupt):
                if request.parent == self._root:  # nobody else has asked for it
                    self._cancel(job.job_id)
                raise
            finally:
                self._bus.forget(job.job_id)
        if row is not None and row.state != "done":  # the request came late, for an attempt that has ended
            raise CandlemillError(row.reason or row.state)
        if job.job_id == self._root:
            self._end = row
        self._done += 1
        return completed("aggregate", job.job_id)
