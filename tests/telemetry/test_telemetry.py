"""Log lines, metrics and traces; and modules that an executor does not import."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("chdb")
pytest.importorskip("functions_framework")
pytest.importorskip("litestar")
pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("prometheus_client")

from candlemill.backtests.identity import job_id
from candlemill.backtests.resolve import resolve
from candlemill.config import DSN_VARIABLE, bundled
from candlemill.errors import BadInput, StoreDown, StoreError
from candlemill.pipeline import events, prepare, split
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Event
from candlemill.pipeline.rows import JobRow
from candlemill.store.candle_reader import CandleReader
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.store.day_index import FrozenIndex
from candlemill.telemetry import instrument, logs, prometheus, tracing
from candlemill.transport import cloudevents
from candlemill.transport.functions import function_of
from candlemill.transport.http import _page
from candlemill.units import clock_ms
from cloudevents.conversion import to_structured
from cloudevents.http import CloudEvent
from conftest import environment
from gateway.conftest import Gateway, serving
from otlp import Collector, Found, collecting
from prometheus_client.parser import text_string_to_metric_families

JOB = "0123456789abcdef" * 2
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
DAY_MS = 86_400_000
PATIENCE_SECONDS = 300

Figures = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(page: str) -> Figures:
    """Samples of a metrics page, by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def figures() -> Figures:
    found = prometheus.page()
    assert found is not None
    return parsed(found[0].decode())


def figure(found: Figures, name: str, **labels: str) -> float:
    return found.get((name, tuple(sorted(labels.items()))), 0.0)


@contextmanager
def growth(name: str, **labels: str) -> Iterator[Callable[[], float]]:
    """Yield a function that returns the growth of a metric of this process."""
    before = figure(figures(), name, **labels)
    yield lambda: figure(figures(), name, **labels) - before


def task(job: str = JOB, **more: Any) -> Event:
    data = {"job_id": job, "slice": 3, "batch": 1, **more}
    return Event(id="e1", source="/test", type=events.SLICE_REQUESTED, data=json.dumps(data).encode(), partitionkey=job)


# -- log lines -----------------------------------------------------------------------------------------------------


def line_of(message: str) -> dict[str, Any]:
    record = logging.makeLogRecord({"name": "candlemill", "levelno": logging.INFO, "msg": message})
    found: dict[str, Any] = json.loads(logs.JsonLines().format(record))
    return found


def test_log_lines_have_the_fields_of_their_context() -> None:
    assert "job" not in line_of("before")
    with logs.about(job=JOB, slice=0, batch=None, trace=""):
        inside = line_of("in it")
        assert (inside["job"], inside["slice"]) == (JOB, 0)
        assert "batch" not in inside and "trace" not in inside
        with logs.about(event="e1"):
            logs.add_fields(attempt=7)
            deeper = line_of("deeper")
            assert (deeper["job"], deeper["event"], deeper["attempt"]) == (JOB, "e1", 7)
        assert "event" not in line_of("out again") and "attempt" not in line_of("out again")
        with ThreadPoolExecutor(1) as pool:
            assert "job" not in pool.submit(line_of, "another thread").result()
    logs.add_fields(job="nowhere")
    assert "job" not in line_of("after")


@pytest.mark.parametrize(
    ("error", "outcome", "level"),
    [
        (None, "done", "INFO"),
        (BadInput("fast=50 must be less than slow=10"), "refused", "WARNING"),
        (StoreDown("no answer"), "retry", "WARNING"),
        (StoreError("too many parts"), "retry", "WARNING"),
        (ZeroDivisionError("oops"), "bug", "ERROR"),
    ],
)
def test_an_event_is_one_line_and_one_observation(
    error: Exception | None, outcome: str, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "candlemill.pipeline.events")
    labels = {"function": "execute", "type": events.SLICE_REQUESTED, "outcome": outcome}
    seen: list[dict[str, Any]] = []

    def handle(event: Event, _: HandlerContext) -> list[Event]:
        seen.append(line_of("in the handler"))
        if error is not None:
            raise error
        return []

    with growth("candlemill_event_seconds_count", **labels) as counted:
        try:
            instrument.observed("execute", handle)(task(run=5), None)  # type: ignore[arg-type]
        except Exception as raised:
            assert raised is error
        assert counted() == 1
    (record,) = caplog.records
    assert (record.levelname, record.outcome, record.type) == (level, outcome, events.SLICE_REQUESTED)  # type: ignore[attr-defined]
    assert record.seconds >= 0 and (error is None or str(error) in record.getMessage())  # type: ignore[attr-defined]
    assert {name: seen[0][name] for name in ("job", "slice", "batch", "event", "attempt")} == {
        "job": JOB, "slice": 3, "batch": 1, "event": "e1", "attempt": 5,
    }  # fmt: skip


def test_events_of_workers_are_recorded_by_their_parent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "candlemill.pipeline.events")
    labels = {"function": "execute", "type": events.SLICE_REQUESTED}
    with growth("candlemill_event_seconds_count", outcome="done", **labels) as counted:
        timed = instrument.timed(lambda event: event.id, task())
        assert instrument.record_worker_event("execute", task(), timed) == "e1"
        assert counted() == 1

    def refuse(_: Event) -> str:
        raise BadInput("no")

    with (
        growth("candlemill_event_seconds_count", outcome="refused", **labels) as counted,
        pytest.raises(BadInput, match="no"),
    ):
        instrument.record_worker_event("execute", task(), instrument.timed(refuse, task()))
    assert counted() == 1
    assert [record.outcome for record in caplog.records] == ["done", "refused"]  # type: ignore[attr-defined]


# -- metrics -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.floats(0, 20), max_size=30))
def test_a_histogram_counts_its_observations(seconds: list[float]) -> None:
    bounds = (0.1, 1.0, 10.0)
    meter = prometheus.Histogram("test_seconds", "Times", bounds, "what")
    try:
        for one in seconds:
            meter.observe(one, "a")
        found = {(s.name, s.labels.get("le")): s.value for s in meter.family().samples}
    finally:
        del prometheus._meters["test_seconds"]
    if not seconds:
        assert not found
        return
    for bound, le in (*((bound, str(bound)) for bound in bounds), (float("inf"), "+Inf")):
        assert found["test_seconds_bucket", le] == sum(one <= bound for one in seconds)
    assert found["test_seconds_count", None] == len(seconds)
    assert found["test_seconds_sum", None] == pytest.approx(sum(seconds))


def test_counters_are_thread_safe() -> None:
    meter = prometheus.Counter("test_hits", "Hits", "what", known=["b"])
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: meter.add("a"), range(4_000)))
        assert figure(figures(), "test_hits_total", what="a") == 4_000
        assert ("test_hits_total", (("what", "b"),)) in figures()
    finally:
        del prometheus._meters["test_hits"]


def test_unknown_event_types_share_one_label() -> None:
    before = {key for key in figures() if key[0].startswith("candlemill")}
    for k in range(50):
        odd = Event(id=f"id {k}", source=f"/s{k}", type=f"type {k}", data=b"not JSON", partitionkey=f"{k:032x}")
        with instrument.handling(function_of(odd), odd):
            instrument.outgoing(odd, [])
        with instrument.handling("aggregate", events.Event(**{**_fields(odd), "error": f"reason {k}"})):
            pass
    new = {key for key in figures() if key[0].startswith("candlemill")} - before
    assert {value for _, labels in new for name, value in labels if name != "le"} <= {"other", "aggregate", "done"}


def _fields(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


def test_prometheus_client_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with instrument.handling("execute", task()):
        instrument.CACHE.add("month", "hit")
    assert prometheus.page() is None
    text, status, _ = _page("/metrics")
    assert status == 404 and "pip install prometheus-client" in text


def test_states_of_jobs_are_counted_when_they_are_written(store: ClickHouseStore) -> None:
    row = JobRow(JOB, "accepted", "{}", "", "", 0, kind="sweep", attempt=1_000)
    done = JobRow(JOB, "done", "{}", "", "", 0, kind="sweep", attempt=1_000)
    with (
        growth("candlemill_jobs_total", kind="sweep", state="done") as ended,
        growth("candlemill_job_seconds_sum", kind="sweep", state="done") as seconds,
        growth("candlemill_store_seconds_count", operation="insert") as inserts,
    ):
        store.put_jobs([row, done], [1_000, 3_500])
        assert (ended(), seconds(), inserts()) == (1, pytest.approx(2.5), 1)


def test_failures_of_the_store_are_counted() -> None:
    with (
        growth("candlemill_store_errors_total", reason="down") as down,
        pytest.raises(StoreDown),
    ):
        ClickHouseStore("http://127.0.0.1:1/default")
    assert down() == 1


# -- traces --------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.text(max_size=80) | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True))
def test_only_valid_traceparents_are_accepted(text: str) -> None:
    found = tracing.valid(text)
    assert found in ("", text)
    if found:
        version, trace, span, _ = text.split("-")
        assert version != "ff" and int(trace, 16) and int(span, 16)
    odd = Event(id="1", source="/s", type=events.COMPLETED, data=b"{}", traceparent=found)
    assert cloudevents.decode(*cloudevents.encode(odd)).traceparent == found


def test_the_trace_of_an_event_is_not_part_of_its_data() -> None:
    event = events.make("test", events.COMPLETED, JOB, events.Completed(JOB))
    with tracing.continued(PARENT):
        (stamped,) = instrument.with_trace([event])
    assert (stamped.traceparent, stamped.id, stamped.data) == (PARENT, event.id, event.data)
    headers, body = cloudevents.encode(stamped)
    assert headers["ce-traceparent"] == PARENT and cloudevents.decode(headers, body) == stamped
    assert "ce-traceparent" not in cloudevents.encode(event)[0]
    attributes = {"id": "1", "source": "/s", "type": events.COMPLETED, "traceparent": PARENT}
    assert cloudevents.decode(*to_structured(CloudEvent(attributes, {"job_id": JOB}))).traceparent == PARENT
    plain = cloudevents.encode(event)[0]
    assert cloudevents.decode({**plain, "traceparent": PARENT}, event.data).traceparent == PARENT
    for junk in ("", "junk", PARENT.upper(), PARENT + "-00", f"ff{PARENT[2:]}", "00-" + "0" * 32 + "-" + SPAN + "-01"):
        assert cloudevents.decode({**plain, "ce-traceparent": junk}, event.data) == event


def test_processes_without_tracing_pass_the_trace_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "candlemill.pipeline.events")
    completed = events.make("execute", events.SLICE_COMPLETED, JOB, events.SliceCompleted(JOB, 0, 0, "e1"))
    seen: list[str] = []

    def handle(event: Event, _: HandlerContext) -> list[Event]:
        seen.append(line_of("in it")["trace"])
        return [completed]

    requested = Event(**{**_fields(task()), "traceparent": PARENT})
    (answer,) = instrument.observed("execute", handle)(requested, None)  # type: ignore[arg-type]
    assert (answer.traceparent, answer.id, seen) == (PARENT, completed.id, [TRACE])
    assert tracing.current() == ""


# -- candlemill serve ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def traced(stored_market: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Collector]]:
    folder = tmp_path_factory.mktemp("traced") / "db"
    shutil.copytree(stored_market, folder, symlinks=True)
    with collecting() as (collector, settings), serving(folder, **settings) as gateway:
        yield gateway, collector


def test_one_trace_covers_a_request_and_its_job(traced: tuple[Gateway, Collector]) -> None:
    gateway, collector = traced
    body = {"symbol": "AAAUSDT", "strategy": "sma_cross", "params": {"fast": 5, "slow": 20}, "slices": 4}
    body["account"] = "units"  # no slice is computed again: its account needs no order
    status, _, outcomes = gateway.ask("POST", "/api/v1/backtest", body, Traceparent=PARENT)
    assert status == 202
    job = outcomes["job_id"]
    assert gateway.wait(job)["state"] == "done"

    def named(name: str) -> list[Found]:
        return [span for span in collector.named(name) if span.trace == TRACE]

    end = time.monotonic() + PATIENCE_SECONDS
    while (len(named("aggregate")) < 4 or not named("POST /api/v1/backtest")) and time.monotonic() < end:
        time.sleep(0.05)
    (server,) = named("POST /api/v1/backtest")
    assert (server.parent, server.kind, server.service) == (SPAN, 2, "candlemill")
    assert server.attributes["http.response.status_code"] == 202
    assert server.attributes["candlemill.job"] == job
    (split,) = named("split")
    assert (split.parent, split.kind) == (server.id, 5)
    executed = named("execute")
    assert {one.attributes["candlemill.slice"] for one in executed} == {0, 1, 2, 3}
    assert {one.parent for one in executed} == {split.id}
    assert {one.parent for one in named("aggregate")} <= {one.id for one in executed}
    mine = {span.id: span for span in collector.spans if span.trace == TRACE}
    assert {"store columns", "store query"} <= {span.name for span in mine.values()}
    assert all(span.parent in mine for span in mine.values() if span.id != server.id)


def test_log_lines_of_the_server_name_the_job(traced: tuple[Gateway, Collector]) -> None:
    gateway, _ = traced
    job = gateway.finish(symbol="BBBUSDT", strategy="sma_cross", params={"fast": 3, "slow": 9}, slices=3)["job_id"]
    assert gateway.ask("GET", "/api/v1/backtest/nothing")[0] in (400, 404)
    for path in ("/healthz", "/readyz", "/metrics"):
        gateway.get(path)
    lines = [json.loads(line) for line in gateway.log]
    handled = [line for line in lines if line["logger"] == "candlemill.pipeline.events" and line.get("job") == job]
    assert {line["function"] for line in handled} == {"split", "execute", "aggregate"}
    assert {line["slice"] for line in handled if line["function"] == "execute"} == {0, 1, 2}
    assert all(line["outcome"] == "done" and line["seconds"] >= 0 and line["event"] for line in handled)
    (requested,) = [line for line in lines if line.get("job") == job and line.get("method") == "POST"]
    assert (requested["route"], requested["status"], requested["level"]) == ("/api/v1/backtest", 202, "info")
    assert {line["trace"] for line in handled} == {requested["trace"]} and len(requested["trace"]) == 32
    routes = {line["route"] for line in lines if line["logger"] == "candlemill.gateway"}
    assert "/api/v1/backtest/{job_id:str}" in routes or "/api/v1/backtest/{job_id}" in routes
    assert not routes & {"/healthz", "/readyz", "/metrics"}


def test_metrics_of_the_server(traced: tuple[Gateway, Collector]) -> None:
    gateway, _ = traced
    # With a stop, which needs columns that no other test has read into this process's cache.
    body = {"symbol": "BBBUSDT", "strategy": "momentum_v1", "params": {"lookback": 60}, "stop_loss": 50_000}
    two_days = {"range": "2024-02-10..2024-02-11", "slices": 2}
    before = parsed(gateway.get("/metrics"))
    gateway.finish(**body, **two_days)
    assert gateway.submit(**body, **two_days)["state"] == "done"
    found = parsed(gateway.get("/metrics"))

    def grown(name: str, **labels: str) -> float:
        return figure(found, name, **labels) - figure(before, name, **labels)

    requested = {"method": "POST", "route": "/api/v1/backtest", "status": "202"}
    assert grown("candlemill_gateway_request_seconds_count", **requested) == 2
    for state in ("accepted", "done"):
        assert grown("candlemill_jobs_total", kind="backtest", state=state) == 1
    assert grown("candlemill_job_seconds_count", kind="backtest", state="done") == 1
    assert grown("candlemill_tasks_total", kind="slice") == 2
    executed = {"function": "execute", "type": events.SLICE_REQUESTED, "outcome": "done"}
    assert grown("candlemill_event_seconds_count", **executed) >= 2
    assert grown("candlemill_cache_total", what="job", result="hit") == 1
    assert grown("candlemill_cache_total", what="job", result="miss") == 1
    assert grown("candlemill_cache_total", what="month", result="miss") >= 1
    assert grown("candlemill_store_rows_read_total") > 0
    assert grown("candlemill_cache_total", what="outcome", result="miss") == 2
    gateway.finish(**body, range="2024-02-10..2024-02-12", slices=3)
    found = parsed(gateway.get("/metrics"))
    assert grown("candlemill_cache_total", what="outcome", result="hit") == 2
    assert grown("candlemill_cache_total", what="outcome", result="miss") == 3
    for name in ("running", "waiting"):
        assert (f"candlemill_serve_{name}_jobs", ()) in found
    assert figure(found, "process_resident_memory_bytes") > 0
    assert not any(re.search("[0-9a-f]{32}", value) for _, labels in found for _, value in labels)


# -- function process ---------------------------------------------------------------------------------------------


class Sink:
    """HTTP server that accepts events, like a Broker."""

    def __init__(self) -> None:
        self.accepted: list[dict[str, str]] = []

    @contextmanager
    def open(sink) -> Iterator[str]:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                sink.accepted.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/"
            finally:
                server.shutdown()


def first_task(folder: Path) -> Event:
    """First task of a job over a stored market, from split."""
    with ClickHouseStore(f"chdb://{folder}") as store:
        index = FrozenIndex(store)
        day = index.days("BBBUSDT")[0].start
        spec = resolve(
            symbol="BBBUSDT",
            strategy="sma_cross",
            span=(day, day + 2 * DAY_MS),
            params={"fast": 2, "slow": 5},
            account="units",
        )
        job = prepare.prepare(index, spec, 2)
        requested = events.make("t", events.REQUESTED, job_id(job.spec, job.data_digest), events.Requested(job.spec, 2))
        return split.split(requested, HandlerContext(store, index, CandleReader(index.days, store), clock_ms))[0]


@contextmanager
def function(name: str, log: Path, **more: str) -> Iterator[int]:
    """Run a function under functions-framework; yields its port."""
    command = [sys.executable, "-m", "functions_framework", "--source", str(bundled("functions") / name / "main.py")]
    command += ["--target", "main", "--host", "127.0.0.1", "--port", "0"]
    env = environment(THREADS="3", GUNICORN_LOG_LEVEL="info", **more)  # this level logs the port
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        end = time.monotonic() + PATIENCE_SECONDS
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())):
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.02)
        yield int(found[1])
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(PATIENCE_SECONDS)


def test_a_function_process(stored_market: Path, tmp_path: Path) -> None:
    folder, log, sink = tmp_path / "db", tmp_path / "log", Sink()
    shutil.copytree(stored_market, folder, symlinks=True)
    event = first_task(folder)
    with collecting() as (collector, settings), sink.open() as address:
        more = {**settings, "OTEL_SERVICE_NAME": "execute", "K_SINK": address, DSN_VARIABLE: f"chdb://{folder}"}
        with function("execute", log, **more) as port:

            def ask(method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
                connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()

            headers, body = cloudevents.encode(event)
            assert ask("POST", "/", {**headers, "ce-traceparent": PARENT}, body) == (202, "")
            assert ask("POST", "/", {**headers, "ce-id": "poison"}, b"{}")[0] == 422
            found = parsed(ask("GET", "/metrics", {}, b"")[1])
        collector.wait_for("execute", "publish", "store columns")
    labels = {"function": "execute", "type": events.SLICE_REQUESTED}
    assert figure(found, "candlemill_event_seconds_count", outcome="done", **labels) == 1
    assert figure(found, "candlemill_event_seconds_count", outcome="refused", **labels) == 1
    done = next(span for span in collector.named("execute") if not span.failed)
    assert (done.trace, done.parent, done.service) == (TRACE, SPAN, "execute")
    assert [span.trace == TRACE for span in collector.named("execute") if span.failed] == [False]
    (sent,) = sink.accepted
    assert sent["ce-type"] == events.SLICE_COMPLETED
    assert sent["ce-traceparent"] == f"00-{TRACE}-{collector.named('publish')[0].parent}-01"
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    outcomes = [(line["event"], line["outcome"], line.get("trace")) for line in lines if "outcome" in line]
    assert outcomes[0] == (event.id, "done", TRACE) and outcomes[1][:2] == ("poison", "refused")
    assert lines[0]["job"] == event.partitionkey


# -- start-up ------------------------------------------------------------------------------------------------------

FORBIDDEN = (
    "chdb", "hypothesis", "litestar", "opentelemetry", "pandas", "platformdirs", "plotly", "polars",
    "prometheus_client", "pyarrow", "scipy", "tabulate", "tqdm", "uvicorn", "websockets", "yaml",
)  # fmt: skip

# The imports of an executor: its framework, its own modules, and a store whose server is not reachable.
EXECUTOR = """
import json, sys
import functions_framework._cli, functions_framework._http.gunicorn
from candlemill.errors import StoreDown
from candlemill.transport import http
from candlemill.transport.functions import handler
handler("execute")
try:
    http.handler_context()
except StoreDown:
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_an_executor_imports_no_forbidden_module() -> None:
    env = environment(**{DSN_VARIABLE: "http://127.0.0.1:1/default"})
    done = subprocess.run(
        [sys.executable, "-c", EXECUTOR], env=env, capture_output=True, timeout=300, text=True, check=True
    )
    imported = set(json.loads(done.stdout))
    assert "clickhouse_connect" in imported and "numpy" in imported
    assert imported.isdisjoint(FORBIDDEN), imported & set(FORBIDDEN)
