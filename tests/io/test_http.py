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
import msgspec
import pytest
from candlemill import events
from candlemill.errors import BadInput, SinkDown, StoreDown, StoreError, TooLarge
from candlemill.events import Event
from candlemill.io import http
from candlemill.ledger import JobRow
from candlemill.plan import Day
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
    return http.decode(STRUCTURED, json.dumps(envelope(**more)).encode())


# -- decode --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [str, str.upper, str.title, lambda name: name.replace("ce-", "CE-")])
def test_binary_mode_in_any_case(change: Any) -> None:
    assert http.decode({change(name): value for name, value in BINARY.items()}, DATA) == EVENT


def test_structured_mode_with_data_as_json_and_as_base64() -> None:
    assert json.loads(structured(data={"job_id": JOB}).data) == {"job_id": JOB}
    assert structured(data_base64=base64.b64encode(DATA).decode()) == EVENT
    body = json.dumps(envelope(data={})).encode()
    for kind in ("application/cloudevents+json", "Application/CloudEvents+JSON ;charset=utf-8"):
        assert http.decode({"Content-Type": kind, "ce-type": "ignored", "ce-id": "2"}, body).id == "1"


def test_round_trip() -> None:
    event = events.make("test", events.FAILED, JOB, events.Failed(JOB, 'it\'s "odd" – {}\n\x00é'))
    headers, body = http.encode(event)
    assert http.decode(headers, body) == event
    assert headers["content-type"] == "application/json"
    assert headers["ce-partitionkey"] == JOB
    # The library's own reader and writer agree.
    theirs = from_http(headers, body)
    assert (theirs["id"], theirs.get_data()) == (event.id, json.loads(event.data))
    attributes = {name: theirs[name] for name in ("id", "source", "type", "partitionkey")}
    for write in (to_binary, to_structured):
        found = http.decode(*write(CloudEvent(attributes, theirs.get_data())))
        assert events.read(found, events.Failed) == events.read(event, events.Failed)
    assert "ce-partitionkey" not in http.encode(Event(id="1", source="/s", type="t", data=b"{}"))[0]


def test_a_long_tasks_mark_travels() -> None:
    task = Event(id="1", source="/s", type=events.SLICE_REQUESTED, data=b"{}", work="long")
    assert http.decode(*http.encode(task)).work == "long"
    assert "ce-work" not in http.encode(Event(id="1", source="/s", type="t", data=b"{}"))[0]


def test_a_ping_is_a_watch() -> None:
    """Its source cannot choose the type."""
    assert http.decode({**BINARY, "ce-type": "dev.knative.sources.ping"}, b"{}").type == "dev.candlemill.jobs.watch.v1"


def test_header_values_are_percent_decoded() -> None:
    assert http.decode({**BINARY, "ce-source": "/a%20b%C3%A9"}, DATA).source == "/a bé"


@pytest.mark.parametrize(
    ("headers", "body", "said"),
    [
        ({}, DATA, "neither ce-specversion nor"),
        ({"content-type": "application/json"}, json.dumps(envelope(data={})).encode(), "neither ce-specversion nor"),
        *(({k: v for k, v in BINARY.items() if k != n}, DATA, f"neither {n} nor") for n in http.REQUIRED_HEADERS),
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
def test_what_is_no_event_is_poison(headers: dict[str, str], body: bytes, said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        http.decode(headers, body)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    answered, status, _ = respond(headers, body)
    assert status == 422
    assert said in json.loads(answered)["detail"]


# -- dead letters --------------------------------------------------------------------------------------------------


def dead_letter(data: str | None, **more: str) -> str:
    extensions = {"ce-knativeerrordest": "http://execute.here.svc.cluster.local", "ce-knativeerrorcode": "422", **more}
    if data is not None:
        extensions["ce-knativeerrordata"] = data
    return http.decode({**BINARY, **extensions}, b"{not JSON").error


def test_a_dead_letters_reason_is_readable() -> None:
    body = http._problem(422, "bad_input", "fast=50 must be less\nthan slow=10")[0]
    reason = "http://execute.here.svc.cluster.local answered 422: fast=50 must be less than slow=10"
    assert dead_letter(base64.b64encode(body.encode()).decode()) == reason
    assert dead_letter(body) == reason  # older Brokers
    assert dead_letter("no such host") == "http://execute.here.svc.cluster.local answered 422: no such host"
    assert dead_letter(None) == "http://execute.here.svc.cluster.local answered 422"
    assert dead_letter("") == "http://execute.here.svc.cluster.local answered 422"
    assert structured(data={}, knativeerrorcode=500).error == "a function answered 500"
    assert structured(data={}, knativeerrordata="b29wcw==").error == "a function answered with an error: oops"


def test_a_dead_letters_reason_is_bounded_and_one_line() -> None:
    long = http._problem(422, "bad_input", "é" * 5000)[0]
    cut = base64.b64encode(long.encode()).decode()[:1024]
    for data in (cut, cut[:1023], base64.b64encode(b"\xff\x00\n\r\t\x1b[31m" * 100).decode(), "x\x00" * 500):
        reason = dead_letter(data)
        assert reason.startswith("http://execute.here.svc.cluster.local answered 422: ")
        assert len(reason) <= 500
        assert reason.isprintable()
    assert "é" * 100 in dead_letter(cut)
    assert len(dead_letter("", **{"ce-knativeerrordest": "x" * 100_000})) <= 500
    assert http._problem(422, "x", "detail " * 1000)[0].__len__() < 768  # what a Broker hands on whole


# -- respond -------------------------------------------------------------------------------------------------------


class Jobs:
    """As much of a runtime as `respond` looks at."""

    def __init__(self) -> None:
        self.ledger = self
        self.started_ms = 1

    def job_rows(self, job_ids: Sequence[str]) -> dict[str, JobRow]:
        return {job_id: JobRow(job_id, "planned", "", "", "", self.started_ms) for job_id in job_ids}


def respond(
    headers: dict[str, str] = BINARY, body: bytes = DATA, *, method: str = "POST", path: str = "/", handle: Any = None
) -> http.Response:
    made = EnvironBuilder(method=method, path=path, headers=headers, data=body)
    request = flask.Request(made.get_environ())
    answer = http.respond(request, handle or (lambda event, runtime: []))
    if method == "POST":
        assert request.get_data() == b""  # the framework reads what is left: nothing
    return answer


@pytest.fixture(autouse=True)
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    made = Jobs()
    monkeypatch.setattr(http, "runtime", lambda: made)
    monkeypatch.setattr(http, "_asked", http.Asked())
    monkeypatch.delenv("K_SINK", raising=False)
    return made


def raising(error: Exception) -> Any:
    def handle(event: Event, runtime: object) -> list[Event]:
        raise error

    return handle


def test_done_is_202_and_empty() -> None:
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
def test_errors_say_whether_trying_again_can_help(error: Exception, status: int) -> None:
    body, answered, headers = respond(handle=raising(error))
    assert answered == status
    assert headers["Content-Type"] == "application/problem+json"
    assert json.loads(body)["detail"] == str(error)


def test_a_store_that_is_down_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    def down() -> None:
        raise StoreDown("the database does not answer")

    monkeypatch.setattr(http, "runtime", down)
    assert respond()[1] == 503


def test_a_bug_is_500_and_only_the_log_has_the_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        body, status, _ = respond(handle=raising(ZeroDivisionError("secret of /etc/passwd")))
    assert status == 500
    assert "secret" not in body and "Traceback" not in body and "\n" not in body
    assert "ZeroDivisionError" in body
    assert "Traceback" in caplog.text and "raise error" in caplog.text


def test_an_oversized_body_is_refused_without_being_kept() -> None:
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
    index = http.RequestIndex(stored)  # type: ignore[arg-type]
    index.renew()
    first = index.days("X")
    stored.digest = "b"
    assert index.days("X") is first  # a request's end sees what its beginning saw
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
    """Takes events, slowly; `answers` are its first statuses."""

    def __init__(self, answers: Sequence[int] = (), seconds: float = 0.0) -> None:
        self.taken: list[Event] = []
        self.posts = self.busy = self.most = 0
        self.answers = list(answers)
        self.lock = threading.Lock()
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
                time.sleep(seconds)
                with sink.lock:
                    sink.busy -= 1
                    if status == 202:
                        sink.taken.append(http.decode(dict(self.headers), body))
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


def test_many_events_go_out_concurrently_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(Sink(seconds=0.02), monkeypatch) as sink:
        crowd = [threading.Thread(target=http.publish, args=(many(100),)) for _ in range(3)]
        began = time.monotonic()
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
        took = time.monotonic() - began
    assert len(sink.taken) == 300
    assert {event.id for event in sink.taken} == {event.id for event in many(100)}
    assert 4 < sink.most <= http.PUBLISH_THREADS
    assert took < 300 * 0.02 / 2


def test_a_sink_that_stumbles_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(Sink([503, 429]), monkeypatch) as sink:
        http.publish(many(1))
    assert (len(sink.taken), sink.posts) == (1, 3)


@pytest.mark.parametrize("answers", [[400], [301], [503] * 4])
def test_a_sink_that_refuses_makes_the_delivery_fail(monkeypatch: pytest.MonkeyPatch, answers: list[int]) -> None:
    with listening(Sink(answers), monkeypatch), pytest.raises(SinkDown, match=f"answered {answers[0]}"):
        http.publish(many(1))


def test_one_refusal_ends_the_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(Sink([400], seconds=0.01), monkeypatch) as sink:
        assert respond(handle=lambda event, runtime: many(2000))[1] == 503
        assert sink.posts < 1000


def test_without_a_sink_the_delivery_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    http.publish([])
    assert respond(handle=lambda event, runtime: many(1))[1] == 503
    sink = Sink()
    sink.server.server_close()
    monkeypatch.setenv("K_SINK", sink.url)
    with pytest.raises(SinkDown, match="does not answer"):
        http.publish(many(1))


# -- repairs are asked for once ------------------------------------------------------------------------------------


def repair(source: str = "aggregate") -> Event:
    return Event(id="r", source=f"/candlemill/{source}", type=events.SLICE_REQUESTED, data=b"{}", partitionkey=JOB)


def test_a_repair_is_asked_for_once_per_run_of_its_job(monkeypatch: pytest.MonkeyPatch, jobs: Jobs) -> None:
    with listening(Sink(), monkeypatch) as sink:
        for _ in range(3):
            assert respond(handle=lambda event, runtime: [repair(), *many(1)]) == ("", 202, {})
        assert [event.id for event in sink.taken].count("r") == 1
        assert len(sink.taken) == 4  # nothing else is held back
        jobs.started_ms = 2  # the job was asked for again
        respond(handle=lambda event, runtime: [repair()])
        assert [event.id for event in sink.taken].count("r") == 2
        for _ in range(2):
            respond(handle=lambda event, runtime: [repair("split")])
        assert [event.id for event in sink.taken].count("r") == 4


def test_a_job_s_end_is_told_once_per_run(monkeypatch: pytest.MonkeyPatch, jobs: Jobs) -> None:
    """Every completion that comes after it leads to word of it again."""
    end = msgspec.structs.replace(repair(), id="e", type=events.FAILED)
    with listening(Sink(), monkeypatch) as sink:
        for started in (1, 1, 2):
            jobs.started_ms = started
            respond(handle=lambda event, runtime: [end])
        assert [event.id for event in sink.taken] == ["e", "e"]


def test_a_repair_that_could_not_be_sent_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert respond(handle=lambda event, runtime: [repair()])[1] == 503
    with listening(Sink(), monkeypatch) as sink:
        assert respond(handle=lambda event, runtime: [repair()])[1] == 202
        assert len(sink.taken) == 1


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch, jobs: Jobs) -> None:
    monkeypatch.setattr(http, "ASKED_LIMIT", 10)
    asked = http.Asked()
    for k in range(100):
        jobs.started_ms = k
        with asked.new([repair()], jobs) as new:  # type: ignore[arg-type]
            assert new == [repair()]
    assert len(asked._said) == 10


def test_what_another_thread_is_about_to_say_is_asked_for_again(jobs: Jobs) -> None:
    """It may fail to say it: whoever took its word for it would have been the last to come."""
    asked = http.Asked()
    with pytest.raises(RuntimeError), asked.new([repair()], jobs):  # type: ignore[arg-type]
        with pytest.raises(SinkDown, match="ask again"), asked.new([repair()], jobs):  # type: ignore[arg-type]
            pytest.fail("it is said twice at once")
        raise RuntimeError("the sink did not take it")
    with asked.new([repair()], jobs) as new:  # type: ignore[arg-type]
        assert new == [repair()]
    with asked.new([repair()], jobs) as new:  # type: ignore[arg-type]
        assert new == []
