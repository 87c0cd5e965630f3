"""`candlemill serve`: gateway, dashboard, broker and functions in one process, for one machine."""

import logging
import queue
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from candlemill.errors import Cancelled, CandlemillError, Stopped
from candlemill.gateway.access import access_of
from candlemill.gateway.app import create_app
from candlemill.gateway.job_service import CachedIndex, JobService
from candlemill.gateway.study_runs import StudyRuns
from candlemill.local.describer import described_elsewhere
from candlemill.local.workflows import WorkflowRunner
from candlemill.pipeline import events, lifecycle, watchdog
from candlemill.pipeline.context import HandlerContext, Unchanged
from candlemill.pipeline.events import Event
from candlemill.pipeline.rows import Progress
from candlemill.store import shared_memory
from candlemill.store.candle_reader import CandleReader
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.store.column_cache import ColumnCache
from candlemill.store.day_index import FrozenIndex
from candlemill.store.known_keys import KnownKeys
from candlemill.stored_days import Day
from candlemill.strategies import loader
from candlemill.telemetry import instrument
from candlemill.telemetry.prometheus import Gauge
from candlemill.transport.asgi import run_app
from candlemill.units import clock_ms, monotonic_ms

LONG_JOBS, SHORT_JOBS = 2, 1  # at once; runs of a single set do not wait for sweeps
SWITCH_SECONDS = 0.0005  # how long a job's thread may keep the interpreter while a response waits
WATCH_SECONDS = 60.0

Queue = queue.Queue[Event | None]

log = logging.getLogger("candlemill")


class Driver:
    """Runs submitted jobs in threads, several at once; each job has its own worker processes of the compiled engine."""

    def __init__(
        self, store: ClickHouseStore, days: Callable[[str], Sequence[Day]], strategy_seconds: float | None = None
    ) -> None:
        """`days` returns a symbol's days, at least as new as the job's submission; `strategy_seconds`: see
        `JobRunner`."""
        self._store = store
        self._days = days
        self._runner = WorkflowRunner(store, strategy_seconds)
        self._long: Queue = queue.Queue()
        self._short: Queue = queue.Queue()
        self._taken: Counter[str] = Counter()  # requests of each job that wait or are being worked on
        self._working: Counter[str] = Counter()  # those of them that a thread has
        self._counting = threading.Condition()
        self._ending = threading.Event()
        lanes = [self._long] * LONG_JOBS + [self._short] * SHORT_JOBS
        self._threads = [threading.Thread(target=self._retry, args=(lane,)) for lane in lanes]
        self._threads.append(threading.Thread(target=self._watch))
        for thread in self._threads:
            thread.start()

    def publish(self, published: Sequence[Event]) -> None:
        for event in published:
            if event.type == events.REQUESTED:
                self._count(self._taken, event.partitionkey, 1)
                request = events.read(event, events.Requested)
                (self._long if request.spec.grid or request.is_workflow else self._short).put(event)

    def live(self, job_id: str) -> Progress | None:
        """Return the progress of a job that runs or waits here; None of one that has just ended, though its thread may
        not have put it away."""
        found = self._runner.live(job_id)
        waits = found is None and self._taken[job_id] > self._working[job_id]
        return Progress(0, 1, 0) if waits else found

    def at_rest(self, job_id: str, seconds: float) -> bool:
        """Wait until no request of a job waits or is worked on, and return whether that is so. Blocking."""
        with self._counting:
            return self._counting.wait_for(lambda: not self._taken[job_id], seconds)

    def waiting(self) -> int:
        return len(self._known() - self._runner.at_work())

    def _known(self) -> set[str]:
        with self._counting:
            return set(self._taken)

    def at_work(self) -> int:
        return len(self._runner.at_work())

    def close(self) -> None:
        """Stop the running jobs, so that the next start resumes them; return when this is stored."""
        self._runner.stop()
        self._ending.set()
        for lane in [self._long] * LONG_JOBS + [self._short] * SHORT_JOBS:
            lane.put(None)
        for thread in self._threads:
            thread.join()

    def _watch(self) -> None:
        """Resume jobs of an earlier process at once, and stalled jobs after a while."""
        index = FrozenIndex(self._store)
        candles, unchanged = CandleReader(index.days, self._store), Unchanged(monotonic_ms)
        runtime = HandlerContext(self._store, index, candles, clock_ms, unchanged=unchanged)
        is_resumed = False
        self._store.load_known_keys()
        while True:
            try:
                known = self._runner.at_work() | self._known()
                self.publish(
                    watchdog.watch(runtime, clock_ms(), known) if is_resumed else watchdog.resume(runtime, known)
                )
                is_resumed = True
            except CandlemillError as error:
                log.warning("jobs that stall were not looked for: %s", error)
            if self._ending.wait(WATCH_SECONDS):
                return

    def _retry(self, lane: Queue) -> None:
        while (event := lane.get()) is not None and not self._ending.is_set():
            self._count(self._working, event.partitionkey, 1)
            try:
                with instrument.working(event):
                    self._runner.run(event, index=FrozenIndex(self._store, self._days))
            except (Stopped, Cancelled):
                pass
            except CandlemillError as error:
                log.warning("job %s: %s", event.partitionkey, error)
            except BaseException as error:  # an error that ended a lane would stay unnoticed
                log.exception("job %s", event.partitionkey)
                self._give_up(event, f"internal error: {type(error).__name__}; the log has more")
            finally:
                self._count(self._taken, event.partitionkey, -1)
                self._count(self._working, event.partitionkey, -1)

    def _count(self, counter: Counter[str], job_id: str, change: int) -> None:
        with self._counting:
            counter[job_id] += change
            if not counter[job_id]:
                del counter[job_id]
            self._counting.notify_all()

    def _give_up(self, event: Event, reason: str) -> None:
        """End a job that no regular error has ended. The workflow runner ends jobs that fail."""
        try:
            row = self._store.job(event.partitionkey)
            if row is not None and not row.finished:
                lifecycle.fail(row, reason, self._store)
        except CandlemillError as error:
            log.warning("job %s: %s", event.partitionkey, error)


@contextmanager
def loaded_strategies() -> Iterator[None]:
    """Load the operator's strategies, whose code runs in worker processes."""
    with described_elsewhere() if loader.has_offers() else nullcontext():
        for problem in loader.load_offered():
            log.warning("%s", problem)
        yield


def serve(dsn: str, host: str, port: int, ready: Callable[[int], None], strategy_seconds: float | None = None) -> None:
    """Serve until SIGTERM or SIGINT. Raises UnsafeHost for an address other than loopback without keys, DatabaseLocked,
    BadInput if the port is in use."""
    access = access_of(host)
    sys.setswitchinterval(SWITCH_SECONDS)
    shared_memory.sweep()
    # Each store has its own connection, so that a response does not wait for the reads of jobs.
    with loaded_strategies(), ClickHouseStore(dsn) as store, ClickHouseStore(dsn) as of_jobs:
        store.columns = of_jobs.columns = ColumnCache()
        if store.embedded:
            store.known_keys = of_jobs.known_keys = KnownKeys()
        index = CachedIndex(store)
        driver = Driver(of_jobs, index.days, strategy_seconds)
        Gauge("candlemill_serve_waiting_jobs", "Jobs that wait to be run", driver.waiting)
        Gauge("candlemill_serve_running_jobs", "Jobs that are run", driver.at_work)
        try:
            world = JobService(store, driver.publish, driver, index, strategy_seconds)
            runs = StudyRuns(world)
            try:
                runs.resume()
                run_app(create_app(world, access, runs), host, port, ready, world.stopping.set)
            finally:
                runs.close()
        finally:
            driver.close()
