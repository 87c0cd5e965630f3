"""Asynchronous HTTP requests over urllib3, the project's only HTTP client.

Each request runs in its own daemon thread. After a timeout or cancellation the thread stops at the next chunk or at its
socket's timeout; it does not delay the end of the process. No retries, no redirects, and no proxies of the environment.
"""

import asyncio
import contextlib
import threading
from collections.abc import Mapping
from typing import Final, NamedTuple

import urllib3
from urllib3 import exceptions

from candlemill.errors import one_line

CONNECT_SECONDS: Final = 5.0  # per address of the host
CHUNK: Final = 2**18
SHOWN_MAX: Final = 200


class HttpResponse(NamedTuple):
    """Status, headers and decompressed body of a response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class RequestFailed(Exception):
    """A request without a complete response; `partial` is the part that arrived, or None."""

    def __init__(self, text: str, partial: HttpResponse | None = None) -> None:
        super().__init__(text)
        self.partial = partial


class ResponseTooLarge(RequestFailed):
    """The response is larger than `max_bytes`."""


class _Transfer:
    """Response so far, shared by the event loop and the request's thread."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.body = bytearray()
        self.cancelled = False

    def response(self) -> HttpResponse:
        return HttpResponse(self.status, self.headers, bytes(self.body))


class WebClient:
    """Client that keeps up to `connections` idle connections per host. Must be closed."""

    def __init__(self, connections: int) -> None:
        self._pool = urllib3.PoolManager(maxsize=connections)

    def close(self) -> None:
        self._pool.clear()

    async def request(
        self,
        method: str,
        url: str,
        *,
        seconds: float,
        max_bytes: int,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> HttpResponse:
        """Return the complete response, within `seconds` and of at most `max_bytes` bytes. Raises RequestFailed."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        transfer = _Transfer()

        def end(error: Exception | None) -> None:
            if ended.done():  # timed out or cancelled
                return
            if error is None:
                ended.set_result(None)
            else:
                ended.set_exception(error)

        def run() -> None:
            problem: Exception | None = None
            try:
                response = self._pool.request(
                    method, url, fields=query, headers=headers, body=body, preload_content=False,
                    timeout=urllib3.Timeout(connect=min(seconds, CONNECT_SECONDS), read=seconds),
                    retries=False,
                )  # fmt: skip
                with response:
                    _read_body(response, transfer, max_bytes)
            except Exception as error:
                problem = error
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                loop.call_soon_threadsafe(end, problem)

        threading.Thread(target=run, name="http", daemon=True).start()
        try:
            async with asyncio.timeout(seconds):
                await ended
        except TimeoutError:
            raise RequestFailed("no response in time", _partial(transfer)) from None
        except exceptions.HTTPError as error:
            raise RequestFailed(_reason(error), _partial(transfer)) from None
        finally:
            transfer.cancelled = True
        return transfer.response()


def _read_body(response: urllib3.BaseHTTPResponse, transfer: _Transfer, max_bytes: int) -> None:
    transfer.status, transfer.headers = response.status, response.headers
    while not transfer.cancelled and (chunk := response.read1(CHUNK, decode_content=True)):
        transfer.body += chunk
        if len(transfer.body) > max_bytes:
            raise ResponseTooLarge(f"a response of more than {max_bytes:,} bytes")


def _partial(transfer: _Transfer) -> HttpResponse | None:
    return transfer.response() if transfer.status else None


def _reason(error: Exception) -> str:
    """Short reason of a failure."""
    if isinstance(error, exceptions.ConnectTimeoutError):  # includes refused connections
        return f"cannot connect: {_short(error)}"
    if isinstance(error, exceptions.TimeoutError):
        return "no response in time"
    if isinstance(error, exceptions.ProtocolError):
        return "the connection was interrupted"
    return _short(error) or type(error).__name__


def _short(error: Exception) -> str:
    return one_line(str(error))[:SHOWN_MAX]
