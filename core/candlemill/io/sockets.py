"""WebSocket connections by number, each a task of its own. What happens on them is told to three functions."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

import aiohttp

from candlemill.io.rest import Clock, reason

MESSAGE_BYTES_MAX: Final = 2**20
CONNECT_SECONDS: Final = 20.0

log = logging.getLogger("candlemill.feed")


class Sockets:
    """`closed` is called exactly once for every `open`, whether it came to a connection or not."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        clock: Clock,
        opened: Callable[[int], None],
        received: Callable[[int, bytes | str], None],
        closed: Callable[[int], None],
    ) -> None:
        self._session = session
        self._url = url
        self._clock = clock
        self._opened = opened
        self._received = received
        self._closed = closed
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._sockets: dict[int, aiohttp.ClientWebSocketResponse] = {}

    def open(self, number: int) -> None:
        self._tasks[number] = asyncio.create_task(self._run(number))

    def close(self, number: int, why: str) -> None:
        if number in self._tasks:
            log.info("connection %d: closed, %s", number, why)
            self._tasks[number].cancel()

    async def send(self, number: int, text: str) -> None:
        """Send it, if there is still somebody to send it to."""
        socket = self._sockets.get(number)
        if socket is not None and not socket.closed:
            with contextlib.suppress(aiohttp.ClientError, ConnectionError, RuntimeError):
                await socket.send_str(text)

    async def end(self) -> None:
        """Close all of them."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, number: int) -> None:
        limit = aiohttp.ClientWSTimeout(ws_close=1.0)
        try:
            async with asyncio.timeout(self._clock.patience(CONNECT_SECONDS)):
                socket = await self._session.ws_connect(self._url, timeout=limit, max_msg_size=MESSAGE_BYTES_MAX)
            async with socket:
                self._sockets[number] = socket
                self._opened(number)
                async for message in socket:
                    if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                        break
                    self._received(number, message.data)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            log.info("connection %d: %s", number, reason(error))
        finally:
            self._sockets.pop(number, None)
            self._tasks.pop(number, None)
            self._closed(number)
