"""Asynchronous HTTP requests: responses, limits, failures and cancellation."""

import asyncio
import contextlib
import gzip
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from candlemill.errors import BadInput
from candlemill.feed import web_client
from candlemill.feed.web_client import HttpResponse, RequestFailed, ResponseTooLarge, WebClient
from candlemill.transport.asgi import serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

Stream = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(request: Request) -> Response:
    assert request.client is not None
    sent = {"query": dict(request.query_params), "body": (await request.body()).decode(), "from": request.client.port}
    return JSONResponse(sent, 201, {"X-Method": request.method})


async def compressed(request: Request) -> Response:
    body = gzip.compress(b"0" * int(request.query_params["size"]))
    return Response(body, headers={"Content-Encoding": "gzip"})


async def away(request: Request) -> Response:
    return RedirectResponse("/echo")


APP = Starlette(
    routes=[
        Route("/echo", echo, methods=["GET", "POST"]),
        Route("/compressed", compressed),
        Route("/away", away),
    ]
)


@contextlib.asynccontextmanager
async def raw(answer: Stream) -> AsyncIterator[str]:
    """A server that calls `answer` for each request; yields its URL."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await answer(reader, writer)
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def get(url: str, seconds: float = 300.0, max_bytes: int = 2**20, **more: Any) -> HttpResponse:
    with contextlib.closing(WebClient(4)) as client:
        return await client.request("GET", url, seconds=seconds, max_bytes=max_bytes, **more)


async def failure_of(answer: Stream, **more: Any) -> RequestFailed:
    async with raw(answer) as url:
        with pytest.raises(RequestFailed) as caught:
            await get(url, **more)
    return caught.value


def test_requests_share_an_open_connection() -> None:
    async def run() -> None:
        async with serving(APP, "127.0.0.1", 0) as port:
            with contextlib.closing(WebClient(2)) as client:
                url = f"http://127.0.0.1:{port}/echo"
                ports = set()
                for k in range(5):
                    query = {"symbol": f"{k}&=ä"}
                    answer = await client.request("GET", url, query=query, seconds=300, max_bytes=1000)
                    found = json.loads(answer.body)
                    assert (answer.status, found["query"], found["body"]) == (201, query, "")
                    assert answer.headers["x-method"] == answer.headers["X-Method"] == "GET"
                    ports.add(found["from"])
                assert len(ports) == 1
                answer = await client.request(
                    "POST", url, body=b"{}", headers={"ce-id": "1"}, seconds=300, max_bytes=1000
                )
                assert json.loads(answer.body)["body"] == "{}" and answer.headers["X-Method"] == "POST"
            missing = await get(f"http://127.0.0.1:{port}/missing")
            assert missing.status == 404

    asyncio.run(run())


def test_redirects_are_not_followed() -> None:
    async def run() -> None:
        async with serving(APP, "127.0.0.1", 0) as port:
            assert (await get(f"http://127.0.0.1:{port}/away")).status == 307

    asyncio.run(run())


def test_the_decompressed_size_of_a_response_is_limited() -> None:
    async def run() -> None:
        async with serving(APP, "127.0.0.1", 0) as port:
            url = f"http://127.0.0.1:{port}/compressed"
            assert (await get(url, query={"size": "1000000"}, max_bytes=10**6)).body == b"0" * 10**6
            for size in ("1000001", "100000000"):
                with pytest.raises(ResponseTooLarge, match="more than 1,000,000 bytes"):
                    await get(url, query={"size": size}, max_bytes=10**6)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("head", "partial"),
    [
        (b"", None),
        (b"SSH-2.0-x\r\n\r\n", None),
        (b"HTTP/1.1 206 X\r\nContent-Length: 20\r\n\r\nhalf of it", (206, b"half of it")),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n9\r\n", (200, b"half")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Encoding: gzip\r\n\r\nrubb", (200, b"")),
    ],
    ids=["nothing", "no HTTP", "half a body", "half a chunked body", "not compressed"],
)
def test_interrupted_and_damaged_responses(head: bytes, partial: tuple[int, bytes] | None) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)

    error = asyncio.run(failure_of(answer))
    assert (error.partial and (error.partial.status, error.partial.body)) == partial
    assert 0 < len(str(error)) <= web_client.SHOWN_MAX and str(error).isprintable()


def test_the_timeout_covers_the_whole_response() -> None:
    async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    for seconds in (0.5, 5.0, 50.0):  # on a busy machine the first byte may come after the shortest
        error = asyncio.run(failure_of(trickle, seconds=seconds))
        if error.partial is not None:
            break
    assert str(error) == "no response in time" and error.partial is not None
    assert error.partial.status == 200 and error.partial.body.startswith(b"x")
    error = asyncio.run(failure_of(silent, seconds=0.3))
    assert str(error) == "no response in time" and error.partial is None


def test_an_unreachable_server() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # without listen()
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        with pytest.raises(RequestFailed, match="cannot connect") as caught:
            asyncio.run(get(url))
    assert caught.value.partial is None
    for url in ("http://", "ftp://127.0.0.1/"):
        with pytest.raises(RequestFailed):
            asyncio.run(get(url))


def test_requests_run_in_parallel() -> None:
    in_flight = most = 0

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        if in_flight == 20:
            together.set()
        await together.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def run() -> None:
        nonlocal together
        together = asyncio.Event()
        async with raw(answer) as url:
            assert {one.status for one in await asyncio.gather(*(get(url) for _ in range(20)))} == {200}

    together: asyncio.Event
    asyncio.run(run())
    assert most == 20


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)

    async def run() -> None:
        async with serving(APP, "127.0.0.1", 0) as port:
            assert (await get(f"http://127.0.0.1:{port}/echo")).status == 201

    asyncio.run(run())


CANCELS = """
import asyncio, sys
from candlemill.feed.web_client import WebClient

async def main():
    request = asyncio.create_task(WebClient(1).request("GET", sys.argv[1], seconds=600, max_bytes=1))
    await asyncio.sleep(0.3)
    request.cancel()
    try:
        await request
    except asyncio.CancelledError:
        print("cancelled")

asyncio.run(main())
"""


def test_a_cancelled_request_does_not_delay_the_end_of_the_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections and sends nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        done = subprocess.run(
            [sys.executable, "-c", CANCELS, url], capture_output=True, text=True, timeout=300, check=True
        )
    assert (done.stdout, done.stderr) == ("cancelled\n", "")


# -- serving an application --------------------------------------------------------------------------------------------


def test_a_server_ends_with_its_block_although_a_request_is_open() -> None:
    async def endless(request: Request) -> Response:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError("never")

    async def run() -> None:
        nonlocal begun
        begun = asyncio.Event()
        app = Starlette(routes=[Route("/", endless)])
        async with serving(app, "127.0.0.1", 0, grace=0) as port:
            with pytest.raises(BadInput, match=f"cannot listen on 127.0.0.1:{port}"):
                async with serving(app, "127.0.0.1", port):
                    raise AssertionError("never")
            waiting = asyncio.create_task(get(f"http://127.0.0.1:{port}/"))
            await begun.wait()
            began = time.monotonic()
        assert time.monotonic() - began < 300
        with contextlib.suppress(RequestFailed):  # or status 500
            assert (await waiting).status == 500
        with pytest.raises(RequestFailed, match="cannot connect"):
            await get(f"http://127.0.0.1:{port}/")

    begun: asyncio.Event
    asyncio.run(run())
