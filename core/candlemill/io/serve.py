"""`candlemill serve`: gateway, dashboard, broker and functions in one process, for one machine."""

import logging
import queue
import threading
from collections.abc import Callable, Sequence

from candlemill import events
from candlemill.errors import CandlemillError
from candlemill.events import Event
from candlemill.io.gateway.access import access_of
from candlemill.io.gateway.app import create_app
from candlemill.io.gateway.world import World
from candlemill.io.jobs import Home
from candlemill.io.store import Store
from candlemill.io.webserver import run_app
from candlemill.ledger import Progress

JOBS_AT_ONCE = 4

log = logging.getLogger("candlemill")


class Driver:
    """Runs requested jobs, some at once, in threads; the compiled engine's worker processes are each job's own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: queue.Queue[Event | None] = queue.Queue()
        self._running: dict[str, Progress] = {}
        self._threads = [threading.Thread(target=self._drive, name=f"job-{k}") for k in range(JOBS_AT_ONCE)]
        for thread in self._threads:
            thread.start()

    def publish(self, published: Sequence[Event]) -> None:
        for event in published:
            self._queue.put(event)

    def live(self, job_id: str) -> Progress | None:
        """How far a job is that runs here."""
        return self._running.get(job_id)

    def close(self) -> None:
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _drive(self) -> None:
        while (event := self._queue.get()) is not None:
            try:
                request = events.read(event, events.Requested)
                home = Home(self._store)
                job = home.prepare(request.spec, request.slices)
                self._running[job.job_id] = Progress(0, job.plan.tasks, 0)
                home.run(job, request.slices, None, request.fresh, self._counting(job.job_id, job.plan.tasks))
            except CandlemillError as error:
                log.warning("job %s: %s", event.partitionkey, error)
            except Exception:
                log.exception("job %s", event.partitionkey)
            finally:
                self._running.pop(event.partitionkey, None)

    def _counting(self, job_id: str, tasks: int) -> Callable[[int, int], None]:
        def count(done: int, known: int) -> None:
            self._running[job_id] = Progress(min(done, tasks), tasks, max(0, known - tasks))

        return count


def serve(dsn: str, host: str, port: int, ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT. Raises UnsafeHost for an address beyond this machine without keys,
    DatabaseLocked, OSError where the port is taken."""
    access = access_of(host)
    with Store(dsn) as store:
        driver = Driver(store)
        try:
            world = World(store, driver.publish, driver.live)
            run_app(create_app(world, access), host, port, ready, world.stopping.set)
        finally:
            driver.close()
