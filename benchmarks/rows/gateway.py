"""Rows that ask `candlemill serve` over HTTP: many clients at once, each with a connection of its own.

Without a pause each sends its next request when it is answered: fifty of them ask for as much as there can be had, and
the times are those of a server with more to do than it can. At a rate they take turns, evenly, and a time begins when
the request was due, late or not.
"""

import asyncio
import http.client
import itertools
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Thread

from data.market import SYMBOL, YEAR
from lab import Lab, environment
from measure import Row

CLIENTS = 50
REQUESTS = 3_000
NEW_JOBS = 500
RATES = (50, 100)  # new jobs a second, of all clients together
RATE_SECONDS = 10
START_SECONDS = 60
READ_SECONDS = 60
JOB = {"symbol": SYMBOL, "strategy": "momentum_v1", "range": f"{YEAR}-03"}

Request = bytes


def rows_gateway(lab: Lab) -> Iterator[Row]:
    """A job requested over REST: time to the answer with 50 clients at once, beside the server's bare answer."""
    folder = lab.folder("gateway")
    shutil.rmtree(folder)
    shutil.copytree(lab.year_store, folder, symlinks=True)
    fees = itertools.count(1)

    def new() -> Request:
        return post(JOB | {"fee": next(fees)})

    again, bare = post(JOB), b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving(lab, folder) as port:
        asyncio.run(load(port, lambda: again, CLIENTS))
        floor = asyncio.run(load(port, lambda: bare, lab.rounds(REQUESTS)))
        yield output("gateway: GET /healthz, 50 clients", floor, floor, "")
        for what, make, count in (
            ("gateway: POST of a finished job, 50 clients without a pause", lambda: again, REQUESTS),
            ("gateway: POST of new jobs, 50 clients without a pause", new, NEW_JOBS),
        ):
            yield output(what, asyncio.run(load(port, make, lab.rounds(count))), floor, "p99 <= 50 ms")
        for rate in RATES:
            seconds = asyncio.run(load(port, new, lab.rounds(rate * RATE_SECONDS), rate=rate))
            yield output(f"gateway: POST of new jobs, 50 clients, {rate} a second", seconds, floor, "p99 <= 50 ms")
        alone = asyncio.run(load(port, lambda: again, 200, 1))
        yield output("gateway: POST of a finished job, 1 client", alone, floor, "p50 <= 10 ms")
        job_id = ask(port, JOB)["job_id"]
        found = f"GET /api/v1/backtest/{job_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        alone = asyncio.run(load(port, lambda: found, 200, 1))
        yield output("gateway: GET of a finished job's result, 1 client", alone, floor, "p50 <= 10 ms")


def output(what: str, seconds: Sequence[float], floor: Sequence[float], reach: str) -> Row:
    def at(share: float, of: Sequence[float]) -> float:
        return sorted(of)[min(int(share * len(of)), len(of) - 1)]

    figures = {name: at(share, seconds) for name, share in (("p50", 0.5), ("p99", 0.99))}
    text = f"p50 {1e3 * figures['p50']:.1f}, p99 {1e3 * figures['p99']:.1f} ms"
    return Row(what, text, "/healthz", figures["p50"] / at(0.5, floor), reach, "", figures)


def post(body: dict[str, object]) -> Request:
    text = json.dumps(body).encode()
    head = f"POST /api/v1/backtest HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text)}\r\n\r\n"
    return head.encode() + text


async def load(
    port: int, make: Callable[[], Request], count: int, clients: int = CLIENTS, rate: float = 0
) -> list[float]:
    """The seconds that each of `count` requests took, at a `rate` a second or as fast as they are answered. Raises
    RuntimeError for an answer that is none of 2xx."""
    taken: list[float] = []
    start = time.perf_counter() + 0.1

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for turn in range(max(1, count // clients)):
            request = make()
            begin = time.perf_counter()
            if rate:
                due = start + (turn * clients + number) / rate
                await asyncio.sleep(max(0.0, due - begin))
                begin = due
            writer.write(request)
            async with asyncio.timeout(READ_SECONDS):
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                body = await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
            taken.append(time.perf_counter() - begin)
            if not head.startswith(b"http/1.1 2"):
                raise RuntimeError(f"{head[:40]!r} {body[:200]!r}")
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return taken


def ask(port: int, body: dict[str, object]) -> dict[str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READ_SECONDS)
    connection.request("POST", "/api/v1/backtest", json.dumps(body))
    found: dict[str, str] = json.loads(connection.getresponse().read())
    connection.close()
    return found


@contextmanager
def serving(lab: Lab, folder: object) -> Iterator[int]:
    """The port of a gateway on a store."""
    command = [sys.executable, "-m", "candlemill", "serve", "--port", "0"]
    process = subprocess.Popen(command, env=environment(folder), stderr=subprocess.PIPE, text=True)  # type: ignore[arg-type]
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if " serves http" in line)  # jobs of other rows may end before
        port = int(line.rstrip().rpartition(":")[2])
        Thread(target=process.stderr.read, daemon=True).start()  # its log: it would wait with a full pipe
        yield port
        process.send_signal(signal.SIGTERM)
        process.wait(START_SECONDS)
    finally:
        process.kill()
        process.wait()
