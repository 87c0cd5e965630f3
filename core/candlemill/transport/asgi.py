"""Serve an ASGI app with uvicorn, the project's only HTTP server, until a signal or during a block."""

import asyncio
import contextlib
import ipaddress
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal, cast

import uvicorn

from candlemill.errors import BadInput

HEAD_BYTES_MAX = 64 * 1024  # of a request's line and headers, after their first packet
SILENCE_SECONDS = 60.0  # for which nothing may come of a request that is not whole


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


def _protocol(http: Literal["auto", "h11"]) -> type[Any]:
    """Return uvicorn's httptools protocol, or h11 if not installed, with bounds on what a client may leave unsaid."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    if http == "auto":
        with contextlib.suppress(ImportError):
            return _bounded()
    return type("Protocol", (_Patient, H11Protocol), {})  # h11 bounds a request's head itself


class _Patient(asyncio.Protocol):
    """Ends a request of which nothing more comes with 408, and one whose body is no HTTP with 400."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._heard = 0.0
        self._check: asyncio.TimerHandle | None = None

    def connection_made(self: Any, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._heard = self.loop.time()
        self._check = self.loop.call_later(SILENCE_SECONDS, self._end_if_silent)

    def connection_lost(self: Any, error: Exception | None) -> None:
        if self._check is not None:
            self._check.cancel()
        super().connection_lost(error)

    def data_received(self: Any, data: bytes) -> None:
        self._heard = self.loop.time()
        super().data_received(data)

    def _end_if_silent(self: Any) -> None:
        cycle, now = self.cycle, self.loop.time()
        is_whole = cycle is not None and not cycle.response_complete and not cycle.more_body
        if is_whole or self.flow.read_paused or self.timeout_keep_alive_task is not None:
            self._heard = now  # it is for the app to go on, or uvicorn's own limit holds
        left = self._heard + SILENCE_SECONDS - now
        if left > 0:
            self._check = self.loop.call_later(left, self._end_if_silent)
        else:
            if not self._abandon():
                self.transport.write(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()

    def _abandon(self: Any) -> bool:
        """End the app's part in a request that is not whole. Returns whether its answer has begun."""
        cycle = self.cycle
        if cycle is None or (cycle.response_complete and not cycle.more_body):
            return False
        cycle.disconnected = True
        cycle.message_event.set()
        return bool(cycle.response_started)

    def send_400_response(self: Any, text: str) -> None:
        if self._abandon():
            self.transport.close()
        else:
            cast("Any", super()).send_400_response(text)


def _bounded() -> type[Any]:
    """Return the httptools protocol with a limit of the request head. Raises ImportError."""
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class Protocol(_Patient, HttpToolsProtocol):
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
        config = _config(app, _protocol(http), grace)
        _Server(config, lambda: ready(bound) if ready else None, stopping).run(sockets=[listener])


@contextlib.asynccontextmanager
async def serving(app: Any, host: str, port: int, *, grace: int = 1) -> AsyncIterator[int]:
    """Serve in the running event loop during the block; yields the port.

    Open requests get `grace` seconds at its end. Raises BadInput if the port is in use.
    """
    with _listener(host, port) as listener:
        ready = asyncio.Event()
        server = _Server(_config(app, _protocol("auto"), grace), ready.set, signals=False)
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


def _config(app: Any, http: type[Any], grace: int) -> uvicorn.Config:
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
