"""The gateway as a function of its own, its events going to `K_SINK`."""

import logging

from candlemill.io import logs, plugins
from candlemill.io.gateway.access import access_of
from candlemill.io.gateway.app import create_app
from candlemill.io.gateway.world import World
from candlemill.io.http import publish
from candlemill.io.settings import dsn
from candlemill.io.store import Store
from candlemill.io.webserver import run_app

log = logging.getLogger("candlemill")


def run(host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. Raises UnsafeHost without keys, StoreDown without a database."""
    logs.setup_once()
    access = access_of(host)
    for problem in plugins.load_offered():
        log.warning("%s", problem)
    with Store(dsn()) as store:
        world = World(store, publish)
        run_app(
            create_app(world, access), host, port, lambda taken: log.info("listening on %d", taken), world.stopping.set
        )
