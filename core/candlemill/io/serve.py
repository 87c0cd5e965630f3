"""`candlemill serve`: gateway, dashboard, broker and functions in one process, for one machine."""

import logging
import queue
import sys
import threading
from collections.abc import Callable, Sequence

from candlemill import control, events
from candlemill.errors import Cancelled, CandlemillError, Stopped
from candlemill.events import Event
from candlemill.io import plugins, telemetry
from candlemill.io.bus import Bus
from candlemill.io.clock import clock_ms
from candlemill.io.columns import Columns
from candlemill.io.gateway.access import access_of
from candlemill.io.gateway.app import create_app
from candlemill.io.gateway.world import Index, World
from candlemill.io.local import FrozenIndex
from candlemill.io.meters import Gauge
from candlemill.io.seen import Seen
from candlemill.io.store import Store
from candlemill.io.tapes import Tapes
from candlemill.io.webserver import run_app
from candlemill.ledger import Progress, Runtime
from candlemill.plan import Day

LONG_JOBS, SHORT_JOBS = 2, 1  # at once; a run of one set need not wait for sweeps
SWITCH_SECONDS = 0.0005  # how long a job's thread may keep an answer waiting for the interpreter
WATCH_SECONDS = 60.0

Queue = queue.Queue[Event | None]

log = logging.getLogger("candlemill")


class Driver:
    """Runs requested jobs, some at once, in threads; the compiled engine's worker processes are each job's own."""

    def __init__(self, store: Store, days: Callable[[str], Sequence[Day]]) -> None:
        """`days` tells a symbol's days, never as they were before a job was asked for."""
        self._store = store
        self._days = days
        self._bus = Bus(store)
        self._long: Queue = queue.Queue()
        self._short: Queue = queue.Queue()
        self._waiting: set[str] = set()
        self._ending = threading.Event()
        lanes = [self._long] * LONG_JOBS + [self._short] * SHORT_JOBS
        self._threads = [threading.Thread(target=self._drive, args=(lane,)) for lane in lanes]
        self._threads.append(threading.Thread(target=self._watch))
        for thread in self._threads:
            thread.start()

    def publish(self, published: Sequence[Event]) -> None:
        for event in published:
            if event.type == events.REQUESTED:
                self._waiting.add(event.partitionkey)
                request = events.read(event, events.Requested)
                (self._long if request.spec.grid or request.is_campaign else self._short).put(event)

    def live(self, job_id: str) -> Progress | None:
        """How far a job is that runs or waits here."""
        return self._bus.live(job_id) or (Progress(0, 1, 0) if job_id in self._waiting else None)

    def waiting(self) -> int:
        return len(self._waiting)

    def at_work(self) -> int:
        return len(self._bus.at_work())

    def close(self) -> None:
        """Leave what is running for the next start; returns when it is in the store."""
        self._bus.stop()
        self._ending.set()
        for lane in [self._long] * LONG_JOBS + [self._short] * SHORT_JOBS:
            lane.put(None)
        for thread in self._threads:
            thread.join()

    def _watch(self) -> None:
        """What an earlier process left is gone on with at once, what stalls after a while."""
        index = FrozenIndex(self._store)
        runtime = Runtime(self._store, index, Tapes(index.days, self._store), clock_ms)
        stall_ms = 0
        self._store.learn_keys()
        while True:
            try:
                known = self._bus.at_work() | self._waiting.copy()
                self.publish(control.watch(runtime, clock_ms(), stall_ms, known))
                stall_ms = control.STALL_MS
            except CandlemillError as error:
                log.warning("jobs that stall were not looked for: %s", error)
            if self._ending.wait(WATCH_SECONDS):
                return

    def _drive(self, lane: Queue) -> None:
        while (event := lane.get()) is not None and not self._ending.is_set():
            self._waiting.discard(event.partitionkey)
            try:
                with telemetry.working(event):
                    self._bus.run(event, index=FrozenIndex(self._store, self._days))
            except (Stopped, Cancelled):
                pass
            except CandlemillError as error:
                log.warning("job %s: %s", event.partitionkey, error)
            except Exception as error:
                log.exception("job %s", event.partitionkey)
                self._give_up(event, f"internal error: {type(error).__name__}; the log has more")

    def _give_up(self, event: Event, reason: str) -> None:
        """The bus ends jobs that fail; this is for one that no error of ours has ended."""
        try:
            row = self._store.job(event.partitionkey)
            if row is not None and not row.finished:
                control.fail(row, reason, self._store)
        except CandlemillError as error:
            log.warning("job %s: %s", event.partitionkey, error)


def serve(dsn: str, host: str, port: int, ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT. Raises UnsafeHost for an address beyond this machine without keys,
    DatabaseLocked, BadInput where the port is taken."""
    access = access_of(host)
    for problem in plugins.load_offered():
        log.warning("%s", problem)
    sys.setswitchinterval(SWITCH_SECONDS)
    # Each with a connection of its own: an answer need not wait until the jobs have read what they read.
    with Store(dsn) as store, Store(dsn) as of_jobs:
        store.columns = of_jobs.columns = Columns()
        if store.embedded:
            store.seen = of_jobs.seen = Seen()
        index = Index(store)
        driver = Driver(of_jobs, index.days)
        Gauge("candlemill_serve_waiting_jobs", "Jobs that wait to be run", driver.waiting)
        Gauge("candlemill_serve_running_jobs", "Jobs that are run", driver.at_work)
        try:
            world = World(store, driver.publish, driver.live, index)
            run_app(create_app(world, access), host, port, ready, world.stopping.set)
        finally:
            driver.close()
