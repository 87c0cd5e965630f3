"""The functions as processes of their own, with `candlemill db` as their store and a broker that is at its worst: every
event comes twice and in any order. What they leave in the store is what the embedded store computes, to the bit."""

import base64
import heapq
import http.client
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

for module in ("chdb", "functions_framework", "gunicorn", "uvicorn"):
    pytest.importorskip(module)

from candlemill.backtests.resolve import resolve  # noqa: E402
from candlemill.backtests.spec import Spec, WalkForward  # noqa: E402
from candlemill.local.workflow_runs import workflow_result  # noqa: E402
from candlemill.pipeline import events  # noqa: E402
from candlemill.pipeline.events import Event  # noqa: E402
from candlemill.pipeline.rows import JobFilter, JobRow  # noqa: E402
from candlemill.store.clickhouse import ClickHouseStore  # noqa: E402
from candlemill.transport.functions import DEAD_LETTERS, ROUTES  # noqa: E402
from data import synthetic  # noqa: E402

ROOT = Path(__file__).parents[2]
SYMBOL = "SYNTHUSDT"
DAYS = 10
DAY_MS = 86_400_000
START = 1_672_531_200_000  # 2023-01-01
SEED = 20_240_229
PATIENCE_SECONDS = 300
LANES = 3  # tasks of a job that are under way at once

# The same jobs in the embedded store, in a process of its own: chDB opens one folder per process.
HOME = """
import json, sys
from pathlib import Path
from candlemill.pipeline.events import Requested
from candlemill.ingest.candles import ingest
from candlemill.local.runner import JobRunner
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.backtests.spec import spec_from_json
with ClickHouseStore(f"chdb://{sys.argv[1]}") as store:
    ingest(store, [Path(sys.argv[2])])
    out = {}
    for name, (spec, slices) in json.load(sys.stdin).items():
        embedded = JobRunner(store)
        job = embedded.prepare(spec_from_json(json.dumps(spec)), slices)
        embedded.run(job, Requested(job.spec, slices), 1, lambda done, known: None)
        rows = list(store.sweep_results(job.job_id, "total_pnl", True, None))
        rows += [row.result for row in store.results([job.job_id])]
        out[name] = [job.job_id, {r["job_id"]: r["result_digest"] for r in map(json.loads, rows)}]
print(json.dumps(out))
"""


def spec_of(strategy: str, grid: dict[str, list[object]] | None = None, **more: Any) -> Spec:
    params = more.pop("params", {})
    span = (START, START + DAYS * DAY_MS)
    return resolve(symbol=SYMBOL, strategy=strategy, span=span, params=params, grid=grid, **{"account": "units"} | more)


JOBS: dict[str, tuple[Spec, int | None]] = {
    "whole": (spec_of("donchian", timeframe=5), None),
    "stops": (spec_of("sma_cross", stop_loss=8_000, take_profit=20_000, trailing_stop=6_000, slippage=100), DAYS),
    "sweep": (spec_of("sma_cross", {"fast": list(range(2, 32)), "slow": list(range(40, 60))}), 4),
    "repairs": (spec_of("buy_and_hold", stop_loss=500_000), DAYS),
    "killed": (spec_of("momentum_v1", params={"lookback": 600, "allow_short": True}, stop_loss=30_000), DAYS),
}


# -- a broker ------------------------------------------------------------------------------------------------------


class Delivery(msgspec.Struct, order=True):
    """One event on its way to one function. The least `due` goes first."""

    due: float
    number: int
    to: str
    headers: dict[str, str]
    body: bytes
    attempt: int = 0


class Activator:
    """The queue in front of the executors: so many are at work, so many requests wait, for so many seconds."""

    def __init__(self, executors: int, waiting: int, seconds: float) -> None:
        self._free, self._room, self._seconds = threading.Semaphore(executors), threading.Semaphore(waiting), seconds
        self.refused: Counter[int] = Counter()

    def __call__(self, post: Callable[[], tuple[int, bytes]]) -> tuple[int, bytes]:
        if not self._free.acquire(blocking=False):
            if not self._room.acquire(blocking=False):
                return self._refuse(503, b"pending request queue full")
            try:
                if not self._free.acquire(timeout=self._seconds):
                    return self._refuse(504, b"activator request timeout")
            finally:
                self._room.release()
        try:
            return post()
        finally:
            self._free.release()

    def _refuse(self, status: int, reason: bytes) -> tuple[int, bytes]:
        self.refused[status] += 1
        return status, reason


class TestBroker:
    """Takes events and delivers each of them twice, in any order, with the rules of a Knative Broker: 5xx, 404, 408,
    409, 429 and no answer are tried again with back-off, anything else but 2xx is a dead letter; so is the last try."""

    __test__ = False
    RETRIES = 300  # within as many seconds a function that was killed is up again
    BACKOFF_SECONDS = 0.05
    BACKOFF_SECONDS_MAX = 1.0
    COPIES = 2
    SPREAD_SECONDS = 0.03

    def __init__(self, seed: int) -> None:
        self.urls: dict[str, int] = {}
        self.activator: Activator | None = None
        self.taken: list[Event] = []
        self.answers: Counter[tuple[str, int]] = Counter()
        self.dead: list[tuple[str, str]] = []
        self.faults: list[str] = []  # what a real Broker would choke on
        self._random = random.Random(seed)
        self._queue: list[Delivery] = []
        self._numbers = itertools.count()
        self._under_way = 0
        self._changed = threading.Condition()
        self._closed = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._threads = [threading.Thread(target=self._deliver_all, daemon=True) for _ in range(8)]
        self._threads.append(threading.Thread(target=self._server.serve_forever, daemon=True))
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join(10)

    def _handler(broker) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                broker.take({name.lower(): value for name, value in self.headers.items()}, body)
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def take(self, headers: dict[str, str], body: bytes) -> None:
        kept = {n: v for n, v in headers.items() if n.startswith("ce-") or n == "content-type"}
        seen = json.loads(body) if kept["content-type"].startswith("application/cloudevents+json") else {}
        found = {name: seen.get(name, kept.get(f"ce-{name}", "")) for name in ("id", "source", "type", "partitionkey")}
        data = json.dumps(seen["data"]).encode() if seen else body
        with self._changed:
            self.taken.append(Event(**found, data=data))
            if to := ROUTES.get(found["type"]):
                for _ in range(self.COPIES):
                    self._put(to, kept, body, self._random.uniform(0, self.SPREAD_SECONDS))

    def _put(self, to: str, headers: dict[str, str], body: bytes, delay: float, attempt: int = 0) -> None:
        due = time.monotonic() + delay
        heapq.heappush(self._queue, Delivery(due, next(self._numbers), to, headers, body, attempt))
        self._changed.notify_all()

    def _deliver_all(self) -> None:
        while (delivery := self._next()) is not None:
            activator = self.activator if delivery.to == "execute" else None
            post = partial(self._post, delivery)
            status, answer = activator(post) if activator else post()
            with self._changed:
                self._settle(delivery, status, answer)
                self._under_way -= 1
                self._changed.notify_all()

    def _next(self) -> Delivery | None:
        with self._changed:
            while not self._closed:
                wait = self._queue[0].due - time.monotonic() if self._queue else 1.0
                if self._queue and wait <= 0:
                    self._under_way += 1
                    return heapq.heappop(self._queue)
                self._changed.wait(wait)
        return None

    def _post(self, delivery: Delivery) -> tuple[int, bytes]:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.urls[delivery.to], timeout=PATIENCE_SECONDS)
            try:
                connection.request("POST", "/", delivery.body, delivery.headers)
                response = connection.getresponse()
                return response.status, response.read()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            return 0, f"dispatch error: {error}".encode()

    def _settle(self, delivery: Delivery, status: int, answer: bytes) -> None:
        self.answers[delivery.to, status] += 1
        if 200 <= status < 300:
            if answer or status != 202:
                self.faults.append(f"{delivery.to} answered {status} with a body that is no event: {answer[:100]!r}")
            return
        again = status in (0, 404, 408, 409, 429) or status >= 500
        if again and delivery.attempt < self.RETRIES:
            delay = min(self.BACKOFF_SECONDS * 2 ** min(delivery.attempt, 9), self.BACKOFF_SECONDS_MAX)
            self._put(delivery.to, delivery.headers, delivery.body, delay, delivery.attempt + 1)
        elif "ce-knativeerrorcode" in delivery.headers or b'"knativeerrorcode"' in delivery.body:
            self.faults.append(f"a dead letter was not taken: {status} {answer[:200]!r}")
        else:
            self._bury(delivery, status or 500, answer)

    def _bury(self, delivery: Delivery, status: int, answer: bytes) -> None:
        self.dead.append((delivery.to, f"{status} {answer.decode()}"))
        more = {
            "knativeerrordest": f"http://{delivery.to}.default.svc.cluster.local",
            "knativeerrorcode": str(status),
            "knativeerrordata": base64.b64encode(answer[:1024]).decode()[:1024],
        }
        headers, body = delivery.headers, delivery.body
        if "ce-id" in headers:
            headers = {**headers, **{f"ce-{name}": value for name, value in more.items()}}
        else:
            body = json.dumps({**json.loads(body), **more}).encode()
        for _ in range(self.COPIES):
            self._put(DEAD_LETTERS, headers, body, self._random.uniform(0, self.SPREAD_SECONDS))

    def wait_for(self, what: Callable[[], object]) -> None:
        """Until it is so and nothing is left to deliver."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self._changed:
            while not (what() and not self._queue and not self._under_way):
                if time.monotonic() > deadline:
                    raise AssertionError(f"still waiting: {self.answers} {self.dead[:3]} {self.faults[:3]}")
                self._changed.wait(0.1)

    def said(self, kind: str, job: str) -> list[Event]:
        return [event for event in self.taken if event.type == kind and event.partitionkey == job]


# -- processes -----------------------------------------------------------------------------------------------------


def environment(**more: str) -> dict[str, str]:
    dropped = ("CANDLEMILL", "K_SINK", "FUNCTION_", "THREADS", "WORKERS", "PORT")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**kept, "PYTHONPATH": str(ROOT / "core"), "no_proxy": "*", "PYTHONUNBUFFERED": "1", **more}


@contextmanager
def process(log: Path, command: list[str], **more: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in a group of its own, all of which is gone afterwards."""
    with log.open("ab") as out:
        started = subprocess.Popen(command, env=environment(**more), stdout=out, stderr=out, start_new_session=True)
    try:
        yield started
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def port_in(log: Path, started: "subprocess.Popen[bytes]") -> int:
    """The port that the process says it listens on: none is chosen beforehand, so none can be taken by another."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if found := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text()):
            return int(found[1])
        if started.poll() is not None:
            break
        time.sleep(0.02)
    raise AssertionError(f"{log.name} did not start: {log.read_text()[-2000:]}")


class Cluster:
    """A database, three functions and a broker between them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.functions: dict[str, subprocess.Popen[bytes]] = {}
        self.broker = TestBroker(SEED)
        stack.callback(self.broker.close)
        log = folder / "db.log"
        command = [sys.executable, "-m", "candlemill", "db", "--port", "0"]
        db = stack.enter_context(process(log, command, CANDLEMILL_CLICKHOUSE_DSN=f"chdb://{folder}/served"))
        self.dsn = f"http://127.0.0.1:{port_in(log, db)}/default"

    def function(self, name: str, port: int = 0, tasks: int = LANES) -> "subprocess.Popen[bytes]":
        log = self.folder / f"{name}{tasks if tasks != LANES else ''}.log"
        source = ROOT / "functions" / name / "main.py"
        options = ["--source", str(source), "--target", "main", "--host", "127.0.0.1", "--port", str(port)]
        return self.stack.enter_context(
            process(
                log,
                [sys.executable, "-m", "functions_framework", *options],
                K_SINK=self.broker.url,
                CANDLEMILL_CLICKHOUSE_DSN=self.dsn,
                THREADS="4",
                CANDLEMILL_TASKS_UNDER_WAY=str(tasks),
                CANDLEMILL_TASK_SECONDS="0",  # a task for each slice, however short
                GUNICORN_LOG_LEVEL="info",  # at which it tells its port
            )
        )

    def cli(self, *arguments: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "candlemill", *arguments, "--json"]
        env = environment(CANDLEMILL_CLICKHOUSE_DSN=self.dsn)
        done = subprocess.run(command, env=env, capture_output=True, timeout=PATIENCE_SECONDS, check=False)
        assert done.returncode == 0, done.stderr.decode() + self.logs()
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def logs(self) -> str:
        return "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in sorted(self.folder.glob("*.log")))

    def send(self, kind: str, data: object, job: str, mode: str = "binary") -> None:
        body = msgspec.json.encode(data)
        headers = {
            "ce-specversion": "1.0",
            "ce-id": f"test-{hash(body)}",
            "ce-source": "/test",
            "ce-type": kind,
            "ce-partitionkey": job,
            "Content-Type": "application/json",
        }
        if mode == "structured":
            plain = {n.removeprefix("ce-"): v for n, v in headers.items() if n.startswith("ce-")}
            body = json.dumps({**plain, "data": json.loads(body)}).encode()
            headers = {"Content-Type": "application/cloudevents+json"}
        connection = http.client.HTTPConnection(self.broker.url.split("/")[2], timeout=PATIENCE_SECONDS)
        connection.request("POST", "/", body, headers)
        assert connection.getresponse().status == 202
        connection.close()

    def ask(self, name: str, job: str, mode: str = "binary") -> None:
        spec, slices = JOBS[name]
        self.send(events.REQUESTED, events.Requested(spec, slices), job, mode)


def write_days(folder: Path) -> None:
    candles = synthetic.year(7, 2023)
    for day in range(DAYS):
        begin = START + day * DAY_MS
        inside = (candles["t"] >= begin) & (candles["t"] < begin + DAY_MS)
        text = synthetic.csv_text({name: column[inside] for name, column in candles.items()}, False)
        stem = f"{SYMBOL}-1m-2023-01-{day + 1:02d}"
        with zipfile.ZipFile(folder / f"{stem}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{stem}.csv", text)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "zips").mkdir()
    write_days(folder / "zips")
    with ExitStack() as stack:
        made = Cluster(folder, stack)
        started = {name: made.function(name) for name in ("split", "execute", "aggregate")}
        assert made.cli("ingest", str(folder / "zips"))["stored"] == DAYS * 1440
        for name, function in started.items():
            made.broker.urls[name] = port_in(folder / f"{name}.log", function)
        made.functions = started
        yield made


Expected = dict[str, tuple[str, dict[str, str]]]


@pytest.fixture(scope="module")
def embedded(cluster: Cluster) -> Expected:
    """Of every job: its id, and the digests of its results by their ids."""
    jobs = {name: (msgspec.to_builtins(spec), slices) for name, (spec, slices) in JOBS.items()}
    command = [sys.executable, "-c", HOME, str(cluster.folder / "embedded"), str(cluster.folder / "zips")]
    done = subprocess.run(
        command, input=json.dumps(jobs).encode(), env=environment(), capture_output=True, timeout=PATIENCE_SECONDS,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return {name: (job, digests) for name, (job, digests) in json.loads(done.stdout).items()}


@pytest.fixture(scope="module")
def ended(cluster: Cluster, embedded: Expected) -> Expected:
    """Four jobs at once, one of them requested in structured mode, have ended; what was expected of all jobs."""
    broker = cluster.broker
    dead = len(broker.dead)
    cluster.ask("stops", embedded["stops"][0])
    cluster.ask("sweep", embedded["sweep"][0])
    cluster.ask("repairs", embedded["repairs"][0], "structured")
    cluster.ask("whole", "")  # nobody has to know the id beforehand
    names = ("stops", "sweep", "repairs", "whole")
    broker.wait_for(lambda: all(broker.said(events.COMPLETED, embedded[name][0]) for name in names))
    assert len(broker.dead) == dead, cluster.logs()
    return embedded


@pytest.fixture
def store(cluster: Cluster) -> Iterator[ClickHouseStore]:
    with ClickHouseStore(cluster.dsn) as opened:
        yield opened
    assert not cluster.broker.faults


def check(store: ClickHouseStore, expected: tuple[str, dict[str, str]]) -> list[dict[str, Any]]:
    job, digests = expected
    row = store.job(job)
    assert row is not None
    assert (row.state, row.reason) == ("done", "")
    results = [json.loads(row.result) for row in store.results(list(digests))]
    assert {r["job_id"]: r["result_digest"] for r in results} == digests
    return results


def rows_of(store: ClickHouseStore, job: str) -> int:
    return int(store._rows("SELECT count() FROM backtest_results WHERE job_id = {job:String}", {"job": job})[0][0])


# -- tests ---------------------------------------------------------------------------------------------------------


def test_jobs_end_as_they_do_with_the_embedded_store(cluster: Cluster, ended: Expected, store: ClickHouseStore) -> None:
    (alone,) = check(store, ended["stops"])
    assert alone["slices"] == DAYS
    assert alone["trades"] > 50
    assert len(check(store, ended["sweep"])) == 600
    check(store, ended["whole"])
    listed = [row.job_id for _, row in store.recent_results(10_000)]
    assert len(listed) == len(set(listed))  # however often a result was written
    (repaired,) = check(store, ended["repairs"])
    assert repaired["repaired_slices"] >= 4
    for job, _ in ended.values():
        said = [*cluster.broker.said(events.FAILED, job), *cluster.broker.said(events.REQUESTED, job)]
        assert not [event for event in said if event.source != "/test"]


def test_workflows_go_on_when_their_jobs_have_ended(cluster: Cluster, store: ClickHouseStore) -> None:
    """A portfolio that shares a job, and a walk-forward whose second job is known only when the first is done."""
    broker, spec = cluster.broker, JOBS["stops"][0]
    dead = len(broker.dead)
    swept = spec_of("sma_cross", {"fast": [5, 20], "slow": [60, 240]})
    wanted = {
        "portfolio": events.Requested(spec, DAYS, weights={SYMBOL: 10**8}),
        "walk_forward": events.Requested(swept, 4, walk_forward=WalkForward("4d", "3d")),
    }
    for request in wanted.values():
        cluster.send(events.REQUESTED, request, "")
    broker.wait_for(lambda: {e.row.kind for e in store.jobs(JobFilter(state="done"))} >= wanted.keys())
    for kind in wanted:
        (entry,) = store.jobs(JobFilter(kind=kind))
        result = workflow_result(store, entry.row)
        (part,) = result["parts"] if kind == "portfolio" else [result["result"]]
        assert cluster.cli("verify", part["job_id"])["same"]
        assert broker.said(events.COMPLETED, entry.row.job_id)
    assert len(broker.dead) == dead, cluster.logs()


def test_a_job_of_many_tasks_never_fills_a_small_queue(
    cluster: Cluster, ended: Expected, store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty tasks pass a queue of three. Requested all at once, most of them are turned away."""
    broker = cluster.broker
    monkeypatch.setattr(broker, "COPIES", 1)
    grid: dict[str, list[object]] = {"fast": list(range(2, 32)), "slow": list(range(40, 60))}
    digests, refused = [], []
    for tasks in (LANES, 1_000):
        monkeypatch.setattr(broker, "activator", Activator(2, 3, PATIENCE_SECONDS))
        if tasks != LANES:
            port = port_in(cluster.folder / f"split{tasks}.log", cluster.function("split", tasks=tasks))
            monkeypatch.setitem(broker.urls, "split", port)
        done = len([event for event in broker.taken if event.type == events.COMPLETED])
        spec = spec_of("sma_cross", grid, fee=700)
        cluster.send(events.REQUESTED, events.Requested(spec, DAYS, fresh=True), "")
        broker.wait_for(lambda done=done: sum(e.type == events.COMPLETED for e in broker.taken) > done)
        job = [event.partitionkey for event in broker.taken if event.type == events.COMPLETED][-1]
        rows = [json.loads(row) for row in store.sweep_results(job, ["total_pnl"], True, None)]
        digests.append({row["job_id"]: row["result_digest"] for row in rows})
        assert broker.activator is not None
        refused.append(broker.activator.refused.total())
    assert refused[0] == 0 < refused[1], (refused, cluster.logs())
    assert digests[0] == digests[1] and len(digests[0]) == 600


def test_duplicates_do_not_multiply_repairs(cluster: Cluster, ended: Expected, store: ClickHouseStore) -> None:
    """A repair is requested once per start of its job, and the request that starts it came twice."""
    requested = [
        event.id
        for event in cluster.broker.said(events.SLICE_REQUESTED, ended["repairs"][0])
        if events.read(event, events.SliceRequested).repairs
    ]
    assert requested
    assert max(Counter(requested).values()) <= cluster.broker.COPIES


def test_a_stored_result_is_verified_by_computing_it_again(cluster: Cluster, ended: Expected) -> None:
    """The partials that the functions left must not be taken for a computation."""
    job, digests = ended["whole"]
    found = cluster.cli("verify", job)
    assert found["same"]
    assert found["computed"] == digests[job]


def test_asking_again(cluster: Cluster, ended: Expected, store: ClickHouseStore) -> None:
    """What is stored is reported at once; requested again without the cache, all of it is computed again."""
    broker, (job, _) = cluster.broker, ended["stops"]
    before = len(broker.taken)
    cluster.ask("stops", job)
    broker.wait_for(lambda: len(broker.taken) >= before + 3)
    assert [event.type for event in broker.taken[before:]] == [events.REQUESTED] + 2 * [events.COMPLETED]

    before, rows = len(broker.taken), rows_of(store, job)
    spec, slices = JOBS["stops"]
    cluster.send(events.REQUESTED, events.Requested(spec, slices, fresh=True), job)
    broker.wait_for(lambda: any(event.type == events.COMPLETED for event in broker.taken[before:]))
    tasks = {
        events.read(event, events.SliceRequested).slice
        for event in broker.taken[before:]
        if event.type == events.SLICE_REQUESTED
    }
    assert tasks == set(range(DAYS))
    assert rows_of(store, job) > rows
    check(store, ended["stops"])


def test_a_function_that_is_killed_costs_time_only(
    cluster: Cluster, embedded: Expected, store: ClickHouseStore
) -> None:
    broker = cluster.broker
    executor = cluster.functions["execute"]
    os.killpg(executor.pid, signal.SIGKILL)
    executor.wait()
    lost = broker.answers["execute", 0]
    cluster.ask("killed", embedded["killed"][0])
    deadline = time.monotonic() + PATIENCE_SECONDS
    while broker.answers["execute", 0] < lost + 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    cluster.functions["execute"] = cluster.function("execute", broker.urls["execute"])
    broker.wait_for(lambda: broker.said(events.COMPLETED, embedded["killed"][0]))
    assert broker.answers["execute", 0] >= lost + 5
    check(store, embedded["killed"])


def test_poison_ends_its_job_as_failed(cluster: Cluster, store: ClickHouseStore) -> None:
    broker = cluster.broker
    spec, _ = JOBS["stops"]
    began = JobRow("e" * 32, "running", spec.to_json().decode(), "{}", "other", 0)
    store.put_job(began)
    for job in (began.job_id, "f" * 32):  # one that is known, and one that nobody has heard of
        task = events.SliceRequested(job, "other", spec, 0, 0, 1, 0, [START, START + DAY_MS])
        cluster.send(events.SLICE_REQUESTED, task, job)
        broker.wait_for(lambda job=job: broker.said(events.FAILED, job))
        row = store.job(job)
        assert row is not None and row.state == "failed"
        assert row.reason == (
            "http://execute.default.svc.cluster.local answered 422: "
            f"the candles of {SYMBOL} have changed since the job was planned: request it again"
        )
        (reason,) = {events.read(event, events.Failed).reason for event in broker.said(events.FAILED, job)}
        assert reason == row.reason


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_a_job_that_cannot_begin_ends_as_failed(cluster: Cluster, store: ClickHouseStore, mode: str) -> None:
    broker = cluster.broker
    job = ("a" if mode == "binary" else "b") * 32
    spec = msgspec.structs.replace(JOBS["stops"][0], symbol="SINTHUSDT")
    cluster.send(events.REQUESTED, events.Requested(spec), job, mode)
    broker.wait_for(lambda: broker.said(events.FAILED, job))
    row = store.job(job)
    assert row is not None
    assert row.state == "failed"
    assert f"did you mean '{SYMBOL}'?" in row.reason


def test_what_is_no_event_is_refused(cluster: Cluster) -> None:
    for name, port in cluster.broker.urls.items():
        for method, path, body, status in [
            ("GET", "/healthz", None, 200),
            ("GET", "/", None, 404),
            ("POST", "/", b"{", 422),
            ("POST", "/", b" " * 1_000_000, 422),
            ("PUT", "/", b"{}", 405),
        ]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
            connection.request(method, path, body)
            response = connection.getresponse()
            answer = response.read()
            assert (name, response.status) == (name, status)
            assert b"Traceback" not in answer
            connection.close()
