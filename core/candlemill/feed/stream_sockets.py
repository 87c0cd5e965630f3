"""WebSocket connections by number, one task each, over the library `websockets`.

The library handles pings, compression, limits of messages and queues, and close codes. `feed.connections` decides when
to reconnect, because the exchange limits all connections together.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.client import process_exception
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.frames import CloseCode

from candlemill.feed.rest_client import Clock

MESSAGE_BYTES_MAX: Final = 2**20  # decompressed
CONNECT_SECONDS: Final = 20.0
CLOSE_SECONDS: Final = 1.0
PING_SECONDS: Final = 20.0  # between pings, and for each pong
NEXT_ADDRESS_SECONDS: Final = 0.25  # until the next address of a host is tried in parallel
REFUSALS: Final = (CloseCode.POLICY_VIOLATION, CloseCode.TRY_AGAIN_LATER)

log = logging.getLogger("candlemill.feed")


class Sockets:
    """Open connections. `closed(number, refused)` is called exactly once for every `open`, even if it failed.

    `refused`: the server rejected the connection, so an early retry is useless.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        opened: Callable[[int], None],
        received: Callable[[int, bytes], None],
        closed: Callable[[int, bool], None],
    ) -> None:
        self._url = url
        self._clock = clock
        self._opened = opened
        self._received = received
        self._closed = closed
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._connections: dict[int, ClientConnection] = {}
        self._close_code = CloseCode.NORMAL_CLOSURE

    def open(self, number: int) -> None:
        self._tasks[number] = asyncio.create_task(self._run(number))

    def close(self, number: int, why: str) -> None:
        if number in self._tasks:
            log.info("connection %d: closed, %s", number, why)
            self._tasks[number].cancel()

    async def send(self, number: int, text: str) -> None:
        """Send a message if the connection is still open."""
        connection = self._connections.get(number)
        if connection is not None:
            with contextlib.suppress(ConnectionClosed):
                await connection.send(text)

    async def end(self) -> None:
        """Close all connections."""
        self._close_code = CloseCode.GOING_AWAY
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, number: int) -> None:
        refused = False
        try:
            await self._receive_all(number)
        except (WebSocketException, OSError, ValueError) as error:
            refused = is_refusal(error)
            log.log(logging.WARNING if refused else logging.INFO, "connection %d: %s", number, _reason(error))
        finally:
            self._tasks.pop(number, None)
            self._closed(number, refused)

    async def _receive_all(self, number: int) -> None:
        connection = await connect(
            self._url,
            open_timeout=self._clock.real_seconds(CONNECT_SECONDS),
            ping_interval=PING_SECONDS,
            ping_timeout=PING_SECONDS,
            close_timeout=CLOSE_SECONDS,
            max_size=MESSAGE_BYTES_MAX,
            proxy=None,  # as for REST
            happy_eyeballs_delay=NEXT_ADDRESS_SECONDS,
        )
        try:
            self._connections[number] = connection
            self._opened(number)
            while True:
                self._received(number, await connection.recv(decode=False))  # JSON decoders accept bytes
        finally:
            self._connections.pop(number, None)
            await connection.close(self._close_code)


def is_refusal(error: Exception) -> bool:
    """Whether an early retry is useless: the library classifies the failed handshake as permanent, or the server closed
    the connection because of a policy or its load."""
    if isinstance(error, ConnectionClosed):
        return error.rcvd is not None and error.rcvd.code in REFUSALS
    return process_exception(error) is not None


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
