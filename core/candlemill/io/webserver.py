"""An ASGI app on a port, until a signal comes."""

import contextlib
import ipaddress
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

import uvicorn

from candlemill.errors import BadInput

HEAD_BYTES_MAX = 64 * 1024  # of a request: its line and its headers, beyond what came with the first of them


def is_loopback(host: str) -> bool:
    """Whether the name or address can only mean this machine."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host.lower() == "localhost"


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


def _bounded() -> "type[Any] | Literal['h11']":
    """uvicorn's quick protocol, which alone would take in a head of any size before it looks at it; the slow one, which
    bounds heads itself, where httptools is not installed."""
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
    """Serve until SIGTERM or SIGINT; requests under way get `grace` seconds. `port` 0 takes any free one; `ready` is
    called with the port once it listens, `stopping` in the event loop when the end begins. Raises BadInput where the
    port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # By hand, not create_server: without the protocol asyncio leaves Nagle on, and every answer takes 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise BadInput(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from None
        taken = int(listener.getsockname()[1])
        config = uvicorn.Config(
            app,
            http=_bounded() if http == "auto" else http,
            ws="none",
            lifespan="off",
            proxy_headers=False,
            log_config=None,  # the process's own, see `logs`
            log_level="warning",
            server_header=False,
            access_log=False,
            timeout_keep_alive=75,  # longer than clients pause: a request on a closed connection is not sent again
            timeout_graceful_shutdown=grace,
        )
        _Server(config, lambda: ready(taken) if ready else None, stopping).run(sockets=[listener])
