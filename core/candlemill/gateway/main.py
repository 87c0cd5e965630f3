"""The gateway as a separate process, which publishes its events to `K_SINK`."""

import logging

from candlemill.config import dsn
from candlemill.gateway.access import access_of
from candlemill.gateway.app import create_app
from candlemill.gateway.job_service import JobService
from candlemill.gateway.study_runs import StudyRuns
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.strategies import loader
from candlemill.telemetry import logs
from candlemill.transport.asgi import run_app
from candlemill.transport.sink import publish
from candlemill.transport.waiting import open_when_up

log = logging.getLogger("candlemill")


def run(host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; answer 503 while the database is not reachable.

    Raises UnsafeHost without keys.
    """
    logs.setup_once()
    access = access_of(host)
    for problem in loader.load_offered():
        log.warning("%s", problem)
    opened = open_when_up(lambda: ClickHouseStore(dsn()), host, port, "/healthz")
    if opened is None:
        return
    with opened as store:
        world = JobService(store, publish)
        runs = StudyRuns(world)
        try:
            app = create_app(world, access, runs)
            run_app(app, host, port, lambda taken: log.info("listening on %d", taken), world.stopping.set)
        finally:
            runs.close()
