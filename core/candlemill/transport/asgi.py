"""Serve an ASGI app with uvicorn, the project's only HTTP server, until a signal or during a block."""

import asyncio
import contextlib
import ipaddress
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal

import uvicorn

from candlemill.errors import BadInput

HEAD_BYTES_MAX = 64 * 1024  # of a request's line and headers, after their first packet


def is_loopback(host: str) -> bool:
    """Whether the name or address is the loopback interface."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host.lower() == "localhost"


class _Server(uvicorn.Server):
    """uvicorn server that calls `ready` when it listens, and returns after a signal, if it handles `signals`."""

    def __init__(
        self,
        config: uvicorn.Config,
        ready: Callable[[], object],
        stopping: Callable[[], object] = lambda: None,
        signals: bool = True,
    ) -> None:
        super().__init__(config)
        self._ready, self._stopping, self._signals = ready, stopping, signals

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if not self._signals or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _bounded() -> "type[Any] | Literal['h11']":
    """Return uvicorn's httptools protocol with a limit of the request head, or h11, which has one, if not installed."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        return "h11"

    class Protocol(HttpToolsProtocol):
        in_head, size = False, 0

        def data_received(self, data: bytes) -> None:
            was_in_head = self.in_head
            super().data_received(data)
            if was_in_head and self.in_head:
                self.size += len(data)
                if self.size > HEAD_BYTES_MAX and not self.transport.is_closing():
                    self.send_400_response("The request's head is too large.")

        def on_message_begin(self) -> None:
            self.in_head, self.size = True, 0
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self.in_head = False
            super().on_headers_complete()

    return Protocol


def run_app(
    app: Any,
    host: str,
    port: int,
    ready: Callable[[int], object] | None = None,
    stopping: Callable[[], object] = lambda: None,
    *,
    http: Literal["auto", "h11"] = "auto",
    grace: int = 10,
) -> None:
    """Serve until SIGTERM or SIGINT; open requests then get `grace` seconds.

    `port` 0 chooses a free one. `ready` is called with the port when the server listens, `stopping` in the event loop
    when it starts to stop. Raises BadInput if the port is in use.
    """
    with _listener(host, port) as listener:
        bound = int(listener.getsockname()[1])
        config = _config(app, _bounded() if http == "auto" else http, grace)
        _Server(config, lambda: ready(bound) if ready else None, stopping).run(sockets=[listener])


@contextlib.asynccontextmanager
async def serving(app: Any, host: str, port: int, *, grace: int = 1) -> AsyncIterator[int]:
    """Serve in the running event loop during the block; yields the port.

    Open requests get `grace` seconds at its end. Raises BadInput if the port is in use.
    """
    with _listener(host, port) as listener:
        ready = asyncio.Event()
        server = _Server(_config(app, _bounded(), grace), ready.set, signals=False)
        running, starting = asyncio.create_task(server.serve([listener])), asyncio.create_task(ready.wait())
        try:
            await asyncio.wait([running, starting], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            yield int(listener.getsockname()[1])
        finally:
            starting.cancel()
            server.should_exit = True
            await running


def _listener(host: str, port: int) -> socket.socket:
    """Bind a socket with an explicit TCP protocol, without which asyncio keeps Nagle's algorithm (40 ms per reply)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise BadInput(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from None
    return listener


def _config(app: Any, http: "type[Any] | Literal['h11']", grace: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=http,
        ws="none",
        lifespan="off",
        proxy_headers=False,
        log_config=None,  # `telemetry.logs` configures logging
        log_level="warning",
        server_header=False,
        access_log=False,
        timeout_keep_alive=75,  # longer than clients pause, since they do not retry on a closed connection
        timeout_graceful_shutdown=grace,
    )
