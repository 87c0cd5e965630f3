"""The HTTP side of the functions: what counts as an event, what is answered, and how events are sent on."""

import base64
import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import flask
import pytest
from candlemill import config
from candlemill.errors import BadInput, SinkDown, StoreDown, StoreError, TooLarge
from candlemill.pipeline import events
from candlemill.pipeline.context import Waves
from candlemill.pipeline.events import Event
from candlemill.store import day_index
from candlemill.stored_days import Day
from candlemill.transport import cloudevents, dedup, http, sink
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent, from_http
from werkzeug.test import EnvironBuilder

JOB = "0123456789abcdef" * 2
DATA = b'{"job_id":"' + JOB.encode() + b'"}'
BINARY = {
    "ce-specversion": "1.0",
    "ce-id": "1",
    "ce-source": "/test",
    "ce-type": events.COMPLETED,
    "ce-partitionkey": JOB,
    "content-type": "application/json",
}
EVENT = Event(id="1", source="/test", type=events.COMPLETED, data=DATA, partitionkey=JOB)
STRUCTURED = {"content-type": "application/cloudevents+json; charset=UTF-8"}


def envelope(**more: Any) -> dict[str, Any]:
    plain = {"specversion": "1.0", "id": "1", "source": "/test", "type": events.COMPLETED, "partitionkey": JOB}
    return {**plain, **more}


def structured(**more: Any) -> Event:
    return cloudevents.decode(STRUCTURED, json.dumps(envelope(**more)).encode())


# -- decode --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [str, str.upper, str.title, lambda name: name.replace("ce-", "CE-")])
def test_binary_mode_in_any_case(change: Any) -> None:
    assert cloudevents.decode({change(name): value for name, value in BINARY.items()}, DATA) == EVENT


def test_structured_mode_with_data_as_json_and_as_base64() -> None:
    assert json.loads(structured(data={"job_id": JOB}).data) == {"job_id": JOB}
    assert structured(data_base64=base64.b64encode(DATA).decode()) == EVENT
    body = json.dumps(envelope(data={})).encode()
    for kind in ("application/cloudevents+json", "Application/CloudEvents+JSON ;charset=utf-8"):
        assert cloudevents.decode({"Content-Type": kind, "ce-type": "ignored", "ce-id": "2"}, body).id == "1"


def test_round_trip() -> None:
    event = events.make("test", events.FAILED, JOB, events.Failed(JOB, 'it\'s "odd" – {}\n\x00é'))
    headers, body = cloudevents.encode(event)
    assert cloudevents.decode(headers, body) == event
    assert headers["content-type"] == "application/json"
    assert headers["ce-partitionkey"] == JOB
    # The library's own reader and writer agree.
    theirs = from_http(headers, body)
    assert (theirs["id"], theirs.get_data()) == (event.id, json.loads(event.data))
    attributes = {name: theirs[name] for name in ("id", "source", "type", "partitionkey")}
    for write in (to_binary, to_structured):
        found = cloudevents.decode(*write(CloudEvent(attributes, theirs.get_data())))
        assert events.read(found, events.Failed) == events.read(event, events.Failed)
    assert "ce-partitionkey" not in cloudevents.encode(Event(id="1", source="/s", type="t", data=b"{}"))[0]


def test_the_mark_of_a_long_task_is_an_attribute() -> None:
    task = Event(id="1", source="/s", type=events.SLICE_REQUESTED, data=b"{}", work="long")
    assert cloudevents.decode(*cloudevents.encode(task)).work == "long"
    assert "ce-work" not in cloudevents.encode(Event(id="1", source="/s", type="t", data=b"{}"))[0]


def test_a_ping_event_becomes_a_watch_event() -> None:
    """A PingSource cannot choose the type of its events."""
    assert (
        cloudevents.decode({**BINARY, "ce-type": "dev.knative.sources.ping"}, b"{}").type
        == "dev.candlemill.jobs.watch.v1"
    )


def test_header_values_are_percent_decoded() -> None:
    assert cloudevents.decode({**BINARY, "ce-source": "/a%20b%C3%A9"}, DATA).source == "/a bé"


@pytest.mark.parametrize(
    ("headers", "body", "message"),
    [
        ({}, DATA, "neither ce-specversion nor"),
        ({"content-type": "application/json"}, json.dumps(envelope(data={})).encode(), "neither ce-specversion nor"),
        *(
            ({k: v for k, v in BINARY.items() if k != n}, DATA, f"neither {n} nor")
            for n in cloudevents.REQUIRED_HEADERS
        ),
        *(({**BINARY, f"ce-{n}": ""}, DATA, n) for n in ("id", "source", "type")),
        ({**BINARY, "ce-id": "x" * 300}, DATA, "id is not text of 1 to 256 characters"),
        ({**BINARY, "ce-specversion": "2.0"}, DATA, "specversion 2.0"),
        *((BINARY, text, "the data is not JSON") for text in (b"", b"{", b"{} {}", b"\xff\xfe", b"[" * 60_000)),
        (BINARY, b'"' + b"x" * 70_000 + b'"', "the limit is 65,536"),
        (BINARY, b" " * 140_000, "the body has 140,000 bytes, the limit is 131,072"),
        ({"content-type": "application/cloudevents-batch+json"}, b"[]", "batch"),
        ({**BINARY, "content-type": "application/cloudevents-batch+json"}, b"[]", "batch"),
        ({"content-type": "application/cloudevents+avro"}, b"", "avro"),
        *((STRUCTURED, text, "not a CloudEvent") for text in (b"", b"{", b"[]", b"1", b"\xff", b"[" * 60_000)),
        (STRUCTURED, b'{"specversion":["1.0"]}', "not a CloudEvent"),
        *((STRUCTURED, json.dumps(envelope(data={}, id=value)).encode(), "id") for value in (None, 1, "", {}, ["1"])),
        (STRUCTURED, json.dumps(envelope(data={}, partitionkey=1)).encode(), "partitionkey"),
        (STRUCTURED, json.dumps(envelope()).encode(), "the data is not JSON"),
        (STRUCTURED, json.dumps(envelope(data_base64=5)).encode(), "not a CloudEvent"),
        (STRUCTURED, json.dumps(envelope(data_base64="e30")).encode(), "not a CloudEvent"),
    ],
)  # fmt: skip
def test_invalid_events_are_rejected(headers: dict[str, str], body: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        cloudevents.decode(headers, body)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    answered, status, _ = respond(headers, body)
    assert status == 422
    assert message in json.loads(answered)["detail"]


# -- dead letters --------------------------------------------------------------------------------------------------


def dead_letter(data: str | None, **more: str) -> str:
    extensions = {"ce-knativeerrordest": "http://execute.here.svc.cluster.local", "ce-knativeerrorcode": "422", **more}
    if data is not None:
        extensions["ce-knativeerrordata"] = data
    return cloudevents.decode({**BINARY, **extensions}, b"{not JSON").error


def test_the_reason_of_a_dead_letter() -> None:
    body = http._problem(422, "bad_input", "fast=50 must be less\nthan slow=10")[0]
    reason = "http://execute.here.svc.cluster.local answered 422: fast=50 must be less than slow=10"
    assert dead_letter(base64.b64encode(body.encode()).decode()) == reason
    assert dead_letter(body) == reason  # older Brokers
    assert dead_letter("no such host") == "http://execute.here.svc.cluster.local answered 422: no such host"
    assert dead_letter(None) == "http://execute.here.svc.cluster.local answered 422"
    assert dead_letter("") == "http://execute.here.svc.cluster.local answered 422"
    assert structured(data={}, knativeerrorcode=500).error == "a function answered 500"
    assert structured(data={}, knativeerrordata="b29wcw==").error == "a function answered with an error: oops"


@pytest.mark.parametrize(
    ("code", "body", "unanswered"),
    [
        ("504", "activator request timeout", True),
        ("503", "pending request queue full", True),
        ("502", "", True),
        ("429", "", True),
        ("-1", "dial tcp: connection refused", True),
        ("503", http._problem(503, "store_down", "no database")[0], False),
        ("500", "a bug", False),
        ("422", http._problem(422, "bad_input", "nonsense")[0], False),
    ],
)
def test_a_dead_letter_that_no_function_answered(code: str, body: str, unanswered: bool) -> None:
    data = base64.b64encode(body.encode()).decode()
    headers = {"ce-knativeerrordest": "execute", "ce-knativeerrorcode": code, "ce-knativeerrordata": data}
    assert cloudevents.decode({**BINARY, **headers}, b"{}").unanswered is unanswered
    assert not cloudevents.decode(BINARY, b"{}").unanswered


def test_the_reason_of_a_dead_letter_is_one_short_line() -> None:
    long = http._problem(422, "bad_input", "é" * 5000)[0]
    cut = base64.b64encode(long.encode()).decode()[:1024]
    for data in (cut, cut[:1023], base64.b64encode(b"\xff\x00\n\r\t\x1b[31m" * 100).decode(), "x\x00" * 500):
        reason = dead_letter(data)
        assert reason.startswith("http://execute.here.svc.cluster.local answered 422: ")
        assert len(reason) <= 500
        assert reason.isprintable()
    assert "é" * 100 in dead_letter(cut)
    assert len(dead_letter("", **{"ce-knativeerrordest": "x" * 100_000})) <= 500
    assert http._problem(422, "x", "detail " * 1000)[0].__len__() < 768  # limit of a Broker


# -- respond -------------------------------------------------------------------------------------------------------


class Jobs:
    """Fake of the handler context for `respond`."""

    def __init__(self) -> None:
        self.store = self


def respond(
    headers: dict[str, str] = BINARY, body: bytes = DATA, *, method: str = "POST", path: str = "/", handle: Any = None
) -> http.Response:
    made = EnvironBuilder(method=method, path=path, headers=headers, data=body)
    request = flask.Request(made.get_environ())
    answer = http.respond(request, handle or (lambda event, context: []))
    if method == "POST":
        assert request.get_data() == b""  # the body has been read completely
    return answer


@pytest.fixture(autouse=True)
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    made = Jobs()
    monkeypatch.setattr(http, "handler_context", lambda: made)
    monkeypatch.setattr(http, "_published", dedup.PublishDeduplicator())
    monkeypatch.delenv("K_SINK", raising=False)
    return made


def raising(error: Exception) -> Any:
    def handle(event: Event, runtime: object) -> list[Event]:
        raise error

    return handle


def test_success_is_202_without_a_body() -> None:
    assert respond() == ("", 202, {})


def test_health_and_other_methods() -> None:
    assert respond({}, b"", method="GET", path="/healthz") == ("ok\n", 200, {})
    assert respond({}, b"", method="HEAD", path="/healthz")[1] == 200
    assert respond({}, b"", method="GET", path="/")[1] == 404
    assert respond(method="PUT")[1] == 405
    assert respond(method="DELETE")[1] == 405


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadInput("no"), 422),
        (TooLarge("no"), 422),
        (StoreDown("the database does not answer"), 503),
        (StoreError("the database refused: MEMORY_LIMIT_EXCEEDED"), 503),
        (SinkDown("no"), 503),
    ],
)
def test_the_status_shows_whether_a_retry_can_help(error: Exception, status: int) -> None:
    body, answered, headers = respond(handle=raising(error))
    assert answered == status
    assert headers["Content-Type"] == "application/problem+json"
    assert json.loads(body)["detail"] == str(error)


def test_an_unreachable_store_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    def down() -> None:
        raise StoreDown("the database does not answer")

    monkeypatch.setattr(http, "handler_context", down)
    assert respond()[1] == 503


def test_a_bug_is_500_and_only_the_log_has_the_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        body, status, _ = respond(handle=raising(ZeroDivisionError("secret of /etc/passwd")))
    assert status == 500
    assert "secret" not in body and "Traceback" not in body and "\n" not in body
    assert "ZeroDivisionError" in body
    assert "Traceback" in caplog.text and "raise error" in caplog.text


def test_an_oversized_body_is_rejected_and_discarded() -> None:
    body, status, _ = respond(body=b" " * 3_000_000)
    assert status == 422
    assert "3,000,000 bytes" in body


# -- the index -----------------------------------------------------------------------------------------------------


def test_the_index_is_read_once_per_request() -> None:
    class Stored:
        def __init__(self) -> None:
            self.digest = "a"
            self.reads = 0

        def days(self, symbol: str) -> list[Day]:
            self.reads += 1
            return [Day(0, 1, 0, 0, self.digest)]

    stored = Stored()
    index = day_index.RequestIndex(stored)  # type: ignore[arg-type]
    index.renew()
    first = index.days("X")
    stored.digest = "b"
    assert index.days("X") is first  # constant during a request
    other: list[list[Day]] = []

    def next_request() -> None:
        index.renew()
        other.append(index.days("X"))

    thread = threading.Thread(target=next_request)
    thread.start()
    thread.join()
    assert other[0][0].digest == "b"
    assert index.days("X") is first
    index.renew()
    assert index.days("X") is other[0]  # equal days are the same object
    assert stored.reads == 3


# -- publish -------------------------------------------------------------------------------------------------------


class Sink:
    """Slow event sink; `answers` are its first statuses. It responds when `together` requests are open."""

    def __init__(self, answers: Sequence[int] = (), seconds: float = 0.0, together: int = 1) -> None:
        self.accepted: list[Event] = []
        self.posts = self.busy = self.most = 0
        self.answers = list(answers)
        self.lock = threading.Lock()
        crowd = threading.Event()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with sink.lock:
                    sink.posts += 1
                    sink.busy += 1
                    sink.most = max(sink.most, sink.busy)
                    status = sink.answers.pop(0) if sink.answers else 202
                    if sink.most >= together:
                        crowd.set()
                crowd.wait(300)
                time.sleep(seconds)
                with sink.lock:
                    sink.busy -= 1
                    if status == 202:
                        sink.accepted.append(cloudevents.decode(dict(self.headers), body))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@contextmanager
def listening(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    monkeypatch.setenv("K_SINK", sink.url)
    thread = threading.Thread(target=sink.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield sink
    finally:
        sink.server.shutdown()
        sink.server.server_close()
        thread.join()


def many(count: int) -> list[Event]:
    return [
        events.make("test", events.SLICE_COMPLETED, JOB, events.SliceCompleted(JOB, 0, k, "t")) for k in range(count)
    ]


def test_events_are_published_in_parallel_by_a_bounded_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(Sink(together=sink.PUBLISH_THREADS), monkeypatch) as server:
        crowd = [threading.Thread(target=sink.publish, args=(many(100),)) for _ in range(3)]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
    assert len(server.accepted) == 300
    assert {event.id for event in server.accepted} == {event.id for event in many(100)}
    assert server.most == sink.PUBLISH_THREADS


def test_a_sink_that_stumbles_is_requested_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(Sink([503, 429]), monkeypatch) as server:
        sink.publish(many(1))
    assert (len(server.accepted), server.posts) == (1, 3)


@pytest.mark.parametrize("answers", [[400], [301], [503] * 4])
def test_a_rejected_event_fails_the_delivery(monkeypatch: pytest.MonkeyPatch, answers: list[int]) -> None:
    with listening(Sink(answers), monkeypatch), pytest.raises(SinkDown, match=f"answered {answers[0]}"):
        sink.publish(many(1))


def test_one_rejected_event_cancels_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(Sink([400], seconds=0.05), monkeypatch) as sink:
        assert respond(handle=lambda event, context: many(2000))[1] == 503
        assert sink.posts < 1000


def test_without_a_sink_the_delivery_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    sink.publish([])
    assert respond(handle=lambda event, context: many(1))[1] == 503
    gone = Sink()
    gone.server.server_close()
    monkeypatch.setenv("K_SINK", gone.url)
    with pytest.raises(SinkDown, match="does not answer"):
        sink.publish(many(1))


# -- deduplication ------------------------------------------------------------------------------------------------


def once(event_id: str = "r", since: int | None = 1, kind: str = events.SLICE_REQUESTED) -> Event:
    return Event(id=event_id, source="/candlemill/aggregate", type=kind, data=b"{}", partitionkey=JOB, since=since)


def test_a_task_is_published_once_per_request_of_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(Sink(), monkeypatch) as sink:
        for _ in range(3):
            assert respond(handle=lambda event, context: [once(), *many(1)]) == ("", 202, {})
        assert [event.id for event in sink.accepted].count("r") == 1
        assert len(sink.accepted) == 4  # other events are not deduplicated
        assert all(event.since is None for event in sink.accepted)  # which is not sent
        respond(handle=lambda event, context: [once(since=2)])  # the job was requested again
        assert [event.id for event in sink.accepted].count("r") == 2
        for _ in range(2):
            respond(handle=lambda event, context: [once(since=None)])
        assert [event.id for event in sink.accepted].count("r") == 4


def test_the_end_of_a_job_is_published_once_per_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every later completion results in the same event."""
    with listening(Sink(), monkeypatch) as sink:
        for since in (1, 1, 2):
            respond(handle=lambda event, context, since=since: [once("e", since, events.FAILED)])
        assert [event.id for event in sink.accepted] == ["e", "e"]


def test_a_task_that_could_not_be_published_is_published_by_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    assert respond(handle=lambda event, context: [once()])[1] == 503
    with listening(Sink(), monkeypatch) as sink:
        assert respond(handle=lambda event, context: [once()])[1] == 202
        assert len(sink.accepted) == 1


def test_the_memory_of_published_events_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "KEYS_LIMIT", 10)
    deduplicator = dedup.PublishDeduplicator()
    for k in range(100):
        with deduplicator.new([once(since=k)]) as new:
            assert new == [once(since=k)]
    assert len(deduplicator._published) == 10


def test_an_event_that_another_thread_is_publishing_is_retried() -> None:
    """The other thread may fail, so the delivery must be retried."""
    deduplicator = dedup.PublishDeduplicator()
    with pytest.raises(RuntimeError), deduplicator.new([once()]):
        with pytest.raises(SinkDown, match="retry"), deduplicator.new([once()]):
            pytest.fail("it is published twice at the same time")
        raise RuntimeError("the sink failed")
    with deduplicator.new([once()]) as new:
        assert new == [once()]
    with deduplicator.new([once()]) as new:
        assert new == []


@pytest.mark.parametrize(
    ("name", "text", "limits"),
    [
        (config.TASKS_VARIABLE, "0", "1 to 100000"),
        (config.TASKS_VARIABLE, "many", "1 to 100000"),
        (config.TASK_SECONDS_VARIABLE, "-1", "0 to 60"),
        (config.TASK_SECONDS_VARIABLE, "nan", "0 to 60"),
    ],
)
def test_settings_of_waves_that_make_no_sense_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, limits: str
) -> None:
    assert http.waves() == Waves(16, 1.0)
    monkeypatch.setenv(name, text)
    with pytest.raises(BadInput, match=f"^{name}={text} is not a number from {limits}$"):
        http.waves()
    monkeypatch.setenv(name, "2")
    assert 2 in (http.waves().tasks, http.waves().seconds)
