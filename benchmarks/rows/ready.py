"""How soon an executor serves: from the start of functions-framework to its first answers, on a database server."""

import http.client
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from threading import Thread

from candlemill.backtests.identity import job_id
from candlemill.backtests.resolve import resolve
from candlemill.config import bundled
from candlemill.pipeline import events, prepare, split
from candlemill.pipeline.context import HandlerContext
from candlemill.store.candle_reader import CandleReader
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.store.day_index import FrozenIndex
from candlemill.transport.cloudevents import encode
from candlemill.units import clock_ms
from data.market import SYMBOL
from lab import Lab, environment
from measure import Row, milliseconds

MONTH = (1_704_067_200_000, 1_706_745_600_000)  # January 2024, in ms
PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.003


@dataclass(frozen=True)
class Started:
    """One start, in ns: wall time until the first probe and until the first task were answered, and the CPU time of
    all its processes until they had ended."""

    ready: int
    task: int
    cpu: int


def rows_ready(lab: Lab) -> Iterator[Row]:
    """An executor from nothing to its first answers, on a database server."""
    with lab.served(lab.year_store) as dsn, _sink() as sink:
        settings = _settings(lab, dsn, sink)
        output = encode(_task(dsn))
        _start(settings, *output)  # compiles to byte code, which images bring along
        found = [_start(settings, *output) for _ in range(lab.rounds(9))]
    raw = {name: [getattr(one, name) for one in found] for name in ("ready", "task", "cpu")}
    note = f"CPU of the whole {milliseconds(median(raw['cpu']))}"
    yield Row("executor: start to ready", milliseconds(median(raw["ready"])), note, None, "<= 0.60 s", "", raw)
    yield Row("executor: start to its first task's answer", milliseconds(median(raw["task"])))


def _task(dsn: str) -> events.Event:
    """One slice of a month, as split asks for it."""
    with ClickHouseStore(dsn) as store:
        index = FrozenIndex(store)
        spec = resolve(
            symbol=SYMBOL, strategy="sma_cross", span=MONTH, params={"fast": 10, "slow": 50}, account="units"
        )
        prepared = prepare.prepare(index, spec, 1)
        requested = events.Requested(prepared.spec, 1, True)
        first = events.make("bench", events.REQUESTED, job_id(prepared.spec, prepared.data_digest), requested)
        return split.split(first, HandlerContext(store, index, CandleReader(index.days, store), clock_ms))[0]


def _settings(lab: Lab, dsn: str, sink: str) -> dict[str, str]:
    kept = {name: value for name, value in environment(dsn).items() if name != "PYTHONDONTWRITEBYTECODE"}
    byte_code = str(lab.folder("byte-code"))
    return {**kept, "PYTHONPYCACHEPREFIX": byte_code, "K_SINK": sink, "THREADS": "3", "OPENBLAS_NUM_THREADS": "1"}


def _start(settings: dict[str, str], headers: dict[str, str], body: bytes) -> Started:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    source = str(bundled("functions") / "execute" / "main.py")
    command = [sys.executable, "-m", "functions_framework", "--target", "main", "--source", source]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter_ns()
    with subprocess.Popen(command, env=settings, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            _requested(port, "GET", "/healthz", {}, b"", 200)
            ready = time.perf_counter_ns() - begin
            _requested(port, "POST", "/", headers, body, 202)
            task = time.perf_counter_ns() - begin
        finally:
            os.killpg(process.pid, signal.SIGTERM)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Started(ready, task, int(cpu * 1e9))


def _requested(port: int, method: str, path: str, headers: dict[str, str], body: bytes, wanted: int) -> None:
    """Ask until there is an answer."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            if answer.status != wanted:
                raise SystemExit(f"the executor answered {answer.status}: {answer.read().decode()}")
            return
        except OSError:
            time.sleep(POLL_SECONDS)
        finally:
            connection.close()
    raise SystemExit("the executor does not answer")


@contextmanager
def _sink() -> Iterator[str]:
    """Somewhere that takes events."""

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(202)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Taking) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
