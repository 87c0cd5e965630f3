"""What a client leaves unsaid: both of uvicorn's protocols, on a clock that the tests set on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("uvicorn")
pytestmark = pytest.mark.timeout(300)

from candlemill.transport import asgi  # noqa: E402

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class SteppedLoop(asyncio.SelectorEventLoop):
    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


class App:
    """Notes what it receives, and answers a whole request when it may."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.may_answer, self.ended = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            while True:
                message = await receive()
                self.received.put_nowait(message)
                if message["type"] == "http.disconnect":
                    return
                if not message["more_body"]:
                    break
            await self.may_answer.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"whole", "more_body": False})
        finally:
            self.ended.set()

    async def has_received(self, body: bytes) -> None:
        found = b""
        while found != body:
            found += (await self.received.get())["body"]


@pytest.fixture(params=["httptools", "h11"])
def attempt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a test's coroutine with an app, a connection to it and a way to let time pass."""
    monkeypatch.setattr(asgi, "SILENCE_SECONDS", 6_000.0)  # a real pause of this machine is far from it
    if request.param == "h11":

        def missing() -> None:
            raise ImportError

        monkeypatch.setattr(asgi, "_bounded", missing)
    else:
        pytest.importorskip("httptools")

    @asynccontextmanager
    async def connected(app: App) -> AsyncIterator[Streams]:
        async with asgi.serving(app, "127.0.0.1", 0) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            yield reader, writer
            writer.close()

    async def run(work: Callable[[App, Streams, SteppedLoop], Awaitable[None]], loop: SteppedLoop) -> None:
        app = App()
        async with connected(app) as streams:
            await work(app, streams, loop)

    def attempt(work: Callable[[App, Streams, SteppedLoop], Awaitable[None]]) -> None:
        loop = SteppedLoop()
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(run(work, loop))

    return attempt


async def answer(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the other side closes."""
    return await reader.read()


@pytest.mark.parametrize("sent", [b"", HEAD[:-9], HEAD + b"\r\n", HEAD + b"\r\n5\r\nab", HEAD + b"\r\n1\r\na\r\n0\r\n"])
def test_a_request_that_is_never_whole_is_ended(attempt: Callable[..., None], sent: bytes) -> None:
    async def work(app: App, streams: Streams, loop: SteppedLoop) -> None:
        reader, writer = streams
        writer.write(sent)
        answered = asyncio.create_task(answer(reader))
        while not answered.done():  # what was sent may arrive later than a step
            loop.ahead += asgi.SILENCE_SECONDS + 1
            await asyncio.sleep(0.01)
        assert answered.result().startswith(b"HTTP/1.1 408 ")
        if sent.startswith(HEAD + b"\r\n"):
            await app.ended.wait()

    attempt(work)


def test_a_slow_body_and_a_slow_app_are_waited_for(attempt: Callable[..., None]) -> None:
    async def work(app: App, streams: Streams, loop: SteppedLoop) -> None:
        reader, writer = streams
        writer.write(HEAD + b"Connection: close\r\n\r\n")
        for letter in b"abcd":
            writer.write(b"1\r\n%c\r\n" % letter)
            await app.has_received(b"%c" % letter)
            loop.ahead += asgi.SILENCE_SECONDS / 2
        writer.write(b"0\r\n\r\n")
        await app.has_received(b"")
        for _ in range(4):
            loop.ahead += asgi.SILENCE_SECONDS + 1
            await asyncio.sleep(0.01)
        app.may_answer.set()
        found = await answer(reader)
        assert found.startswith(b"HTTP/1.1 200 ") and b"whole" in found

    attempt(work)


def test_a_body_that_is_no_http_is_answered_once(
    attempt: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def work(app: App, streams: Streams, loop: SteppedLoop) -> None:
        reader, writer = streams
        app.may_answer.set()
        writer.write(HEAD + b"\r\n1\r\na\r\nxyz\r\n")
        found = await answer(reader)
        assert found.startswith(b"HTTP/1.1 400 ") and found.count(b"HTTP/1.1") == 1
        await app.ended.wait()

    attempt(work)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
