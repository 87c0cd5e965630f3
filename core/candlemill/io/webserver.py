"""An ASGI app on a port, until a signal comes."""

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

GRACE_SECONDS = 10


class _Server(uvicorn.Server):
    """uvicorn that reports when it listens, and returns on a signal instead of dying of it."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], object], stopping: Callable[[], object]) -> None:
        super().__init__(config)
        self._ready, self._stopping = ready, stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run_app(
    app: Any, host: str, port: int, ready: Callable[[int], None], stopping: Callable[[], object] = lambda: None
) -> None:
    """Serve until SIGTERM or SIGINT; requests under way get some seconds. `port` 0 takes any free one; `ready` is
    called with the port once it listens, `stopping` before connections are waited for. Raises OSError where the port
    is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # By hand, not create_server: without the protocol asyncio leaves Nagle on, and every answer takes 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        taken = int(listener.getsockname()[1])
        config = uvicorn.Config(
            app,
            ws="none",
            proxy_headers=False,
            log_level="warning",
            server_header=False,
            access_log=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        _Server(config, lambda: ready(taken), stopping).run(sockets=[listener])
