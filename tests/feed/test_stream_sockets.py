"""WebSocket connections to servers that close, refuse, stall, or send too much or invalid data."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from candlemill.feed import stream_sockets
from candlemill.feed.rest_client import Clock
from candlemill.feed.stream_sockets import MESSAGE_BYTES_MAX, Sockets
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection as BlockingConnection
from websockets.sync.server import serve as serve_in_thread

Handler = Callable[[ServerConnection], Awaitable[None]]
SECONDS = 300.0


class LongTimeout(Clock):
    def real_seconds(self, seconds: float) -> float:
        return SECONDS


class ShortTimeout(Clock):
    def real_seconds(self, seconds: float) -> float:
        return 0.3


class Client:
    """Sockets with one connection, and the events that it reported."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self.received: list[bytes] = []
        self.opened = asyncio.Event()
        self.ended = asyncio.Event()
        self.refused: list[bool] = []  # one per `closed` event
        self.sockets = Sockets(url, clock or LongTimeout(), self._open, self._receive, self._close)
        self.sockets.open(1)

    def _open(self, number: int) -> None:
        self.opened.set()

    def _receive(self, number: int, raw: bytes) -> None:
        self.received.append(raw)

    def _close(self, number: int, refused: bool) -> None:
        self.refused.append(refused)
        self.ended.set()

    async def end(self) -> bool:
        """Wait for the end of the connection; return whether it was refused."""
        async with asyncio.timeout(SECONDS):
            await self.ended.wait()
        (refused,) = self.refused
        return refused


@pytest.fixture(autouse=True)
def patient_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for a while ends no connection."""
    monkeypatch.setattr(stream_sockets, "PING_SECONDS", SECONDS)


@contextlib.asynccontextmanager
async def client_of(handler: Handler, **options: object) -> AsyncIterator[Client]:
    patient: dict[str, Any] = {"open_timeout": SECONDS, "ping_interval": None}
    async with serve(handler, "127.0.0.1", 0, **(patient | options)) as server:
        client = Client(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        try:
            yield client
        finally:
            await client.sockets.end()


def run_client(handler: Handler, **options: object) -> tuple[bool, list[bytes]]:
    """Run a connection to this handler; return whether it was refused, and the received messages."""

    async def run() -> tuple[bool, list[bytes]]:
        async with client_of(handler, **options) as client:
            return await client.end(), client.received

    return asyncio.run(run())


# -- messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["deflate", None])
def test_messages_are_bytes_in_order_compressed_or_not(compression: str | None) -> None:
    negotiated: list[bool] = []

    async def handler(connection: ServerConnection) -> None:
        assert connection.response is not None
        negotiated.append("permessage-deflate" in connection.response.headers.get("Sec-WebSocket-Extensions", ""))
        await connection.send('{"price": "0.1 €"}')
        await connection.send(b"binary")
        await connection.send(["in ", "three ", "fragments"])
        await connection.send(b"\xff is no UTF-8", text=True)  # invalid UTF-8 is left to the decoder
        await connection.send("")

    expected = ['{"price": "0.1 €"}'.encode(), b"binary", b"in three fragments", b"\xff is no UTF-8", b""]
    assert run_client(handler, compression=compression) == (False, expected)
    assert negotiated == [compression is not None]


@pytest.mark.parametrize("compression", ["deflate", None])
def test_the_decompressed_size_of_a_message_is_limited(compression: str | None) -> None:
    codes: list[int | None] = []

    async def handler(connection: ServerConnection) -> None:
        await connection.send(b"x" * MESSAGE_BYTES_MAX)
        with contextlib.suppress(ConnectionClosed):
            await connection.send(b"x" * (100 * MESSAGE_BYTES_MAX))
        await connection.wait_closed()
        codes.append(connection.close_code)

    refused, received = run_client(handler, compression=compression)
    assert not refused and [len(one) for one in received] == [MESSAGE_BYTES_MAX]
    assert codes == [1009]


def test_the_size_limit_includes_all_fragments() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send(b"x" * (MESSAGE_BYTES_MAX // 2) for _ in range(3))  # type: ignore[arg-type]
        await connection.wait_closed()

    assert run_client(handler) == (False, [])


def test_a_slow_reader_slows_the_server_and_loses_no_message() -> None:
    """The server runs in its own thread; the first message blocks the reader's event loop."""
    size, count, sent = 2**16, 2000, 0

    def handler(connection: BlockingConnection) -> None:
        nonlocal sent
        for k in range(count):
            connection.send(k.to_bytes(4, "big") * (size // 4))
            sent += 1

    async def run(port: int) -> None:
        client, ahead = Client(f"ws://127.0.0.1:{port}/"), 0

        def stall(number: int, raw: bytes) -> None:
            nonlocal ahead
            if not client.received:
                before = -1
                while sent != before or not sent:  # until the server is blocked
                    before = sent
                    time.sleep(0.2)
                ahead = sent
            client.received.append(raw)

        client.sockets._received = stall
        assert not await client.end()
        assert 0 < ahead < count // 2
        assert client.received == [k.to_bytes(4, "big") * (size // 4) for k in range(count)]

    with serve_in_thread(handler, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            asyncio.run(run(server.socket.getsockname()[1]))
        finally:
            server.shutdown()
            serving.join()


# -- ends --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "refused"),
    [(1000, False), (1001, False), (1008, True), (1011, False), (1012, False), (1013, True), (4000, False)],
)
def test_close_codes_that_count_as_refusal(code: int, refused: bool) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send("last")
        await connection.close(code, "as agreed")

    assert run_client(handler) == (refused, [b"last"])


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\xff" * 40, b"\x81\x7e\x01\x00half", b"\x81\x85masked", b"\x83\x00", b"\xc1\x04\xff\xff\xff\xff"],
    ids=["nothing", "reserved bits", "half a frame", "masked", "unknown opcode", "not deflated"],
)
def test_invalid_frames_end_the_connection(garbage: bytes) -> None:
    async def handler(connection: ServerConnection) -> None:
        connection.transport.write(garbage)
        connection.transport.close()

    assert run_client(handler) == (False, [])


def test_a_connection_without_pongs_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_sockets, "PING_SECONDS", 0.2)

    async def handler(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await client.ended.wait()
        connection.transport.abort()

    async def run() -> None:
        nonlocal client
        async with client_of(handler, ping_interval=None) as client:
            assert not await client.end()

    client: Client
    asyncio.run(run())


def test_pings_of_the_server_are_answered() -> None:
    async def handler(connection: ServerConnection) -> None:
        await (await connection.ping())

    assert run_client(handler) == (False, [])


@pytest.mark.parametrize(("all_of_them", "code"), [(False, 1000), (True, 1001)])
def test_close_sends_a_code_and_no_later_message(all_of_them: bool, code: int) -> None:
    received: list[object] = []

    async def handler(connection: ServerConnection) -> None:
        async for message in connection:
            received.append(message)
        received.append(connection.close_code)

    async def run() -> None:
        async with client_of(handler) as client:
            await client.opened.wait()
            await client.sockets.send(1, "hello")
            if all_of_them:
                await client.sockets.end()
            else:
                client.sockets.close(1, "replaced by its successor")
            assert not await client.end()
            await client.sockets.send(1, "too late")
            client.sockets.close(1, "once more")

    asyncio.run(run())
    assert received == ["hello", code]


# -- handshakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "refused"), [(403, True), (404, True), (429, True), (500, False), (503, False)])
def test_handshake_statuses_that_count_as_refusal(status: int, refused: bool) -> None:
    async def handler(connection: ServerConnection) -> None:
        raise AssertionError("never reached")

    assert run_client(handler, process_request=lambda c, _: c.respond(status, "no")) == (refused, [])


@pytest.mark.parametrize(("reply", "refused"), [(b"", False), (b"SSH-2.0-x\r\n\r\n", True)])
def test_a_server_without_websocket_protocol(reply: bytes, refused: bool) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        writer.close()

    async def run() -> bool:
        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            return await Client(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/").end()

    assert asyncio.run(run()) is refused


def test_a_silent_or_missing_server() -> None:
    async def run() -> None:
        stop = asyncio.Event()

        async def wait(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await stop.wait()
            writer.close()

        async with await asyncio.start_server(wait, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            assert not await Client(url, ShortTimeout()).end()
            stop.set()
        assert not await Client(url).end()

    asyncio.run(run())


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)

    async def handler(connection: ServerConnection) -> None:
        await connection.send("direct")

    assert run_client(handler) == (False, [b"direct"])
