"""`candlemill serve`: gateway, dashboard, broker and functions in one process, for one machine."""

import logging
import queue
import threading
from collections.abc import Callable, Sequence

from candlemill import events
from candlemill.errors import CandlemillError
from candlemill.events import Event
from candlemill.io.gateway.app import create_app
from candlemill.io.gateway.world import World
from candlemill.io.jobs import Home
from candlemill.io.store import Store
from candlemill.io.webserver import run_app

JOBS_AT_ONCE = 4
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})

log = logging.getLogger("candlemill")


class Driver:
    """Runs requested jobs, some at once, in threads; the compiled engine's worker processes are each job's own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: queue.Queue[Event | None] = queue.Queue()
        self._threads = [threading.Thread(target=self._drive, name=f"job-{k}") for k in range(JOBS_AT_ONCE)]
        for thread in self._threads:
            thread.start()

    def publish(self, published: Sequence[Event]) -> None:
        for event in published:
            self._queue.put(event)

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
                home.run(job, request.slices, None, request.fresh, lambda done, known: None)
            except CandlemillError as error:
                log.warning("job %s: %s", event.partitionkey, error)
            except Exception:
                log.exception("job %s", event.partitionkey)


def serve(dsn: str, host: str, port: int, ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT. Raises DatabaseLocked, OSError where the port is taken."""
    with Store(dsn) as store:
        driver = Driver(store)
        try:
            app = create_app(World(store, driver.publish), LOOPBACK_HOSTS)
            run_app(app, host, port, ready)
        finally:
            driver.close()
