"""Wait for a database that is not up yet, as a process that answers.

At a first deployment the database starts together with the functions. A process that ended for that would be restarted
with growing pauses, and its revision would count as failed.
"""

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Any, Final, TypeVar

from candlemill.errors import StoreDown
from candlemill.transport.asgi import serving

T = TypeVar("T")

RETRY_SECONDS: Final = 2.0

log = logging.getLogger("candlemill")


def open_when_up(open_store: Callable[[], T], host: str, port: int, alive: str) -> T | None:
    """Open a store, again and again while its database is not reachable; meanwhile serve `NotReady` on the port.

    `alive` is the path of the liveness probe. Returns None after SIGTERM or SIGINT. Raises what
    `open_store` raises, except StoreDown.
    """
    try:
        return open_store()
    except StoreDown as error:
        log.warning("waiting for the database: %s", error)
        return asyncio.run(_serve_until_open(open_store, NotReady(str(error), alive), host, port))


async def _serve_until_open(open_store: Callable[[], T], app: "NotReady", host: str, port: int) -> T | None:
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with serving(app, host, port):
        while not stopped.is_set():
            try:
                return await asyncio.to_thread(open_store)
            except StoreDown as error:
                app.problem = str(error)
            try:
                await asyncio.wait_for(stopped.wait(), RETRY_SECONDS)
            except TimeoutError:
                continue
    return None


class NotReady:
    """ASGI app that answers 200 at the path `alive`, and 503 with the reason everywhere else."""

    def __init__(self, problem: str, alive: str) -> None:
        self.problem, self._alive = problem, alive

    async def __call__(self, scope: dict[str, Any], receive: Callable[[], Any], send: Callable[..., Any]) -> None:
        alive = scope.get("path") == self._alive
        body = "ok\n" if alive else f"waiting for the database: {self.problem}\n"
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", b"2")]
        await send({"type": "http.response.start", "status": 200 if alive else 503, "headers": headers})
        await send({"type": "http.response.body", "body": body.encode()})
