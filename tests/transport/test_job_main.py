"""Long tasks: the event comes from a file, results go to the sink, failures to the dead letters."""

import json
from pathlib import Path

import pytest
from candlemill.errors import BadInput, StoreDown
from candlemill.pipeline import events
from candlemill.pipeline.events import Event
from candlemill.transport import cloudevents, job_main

EVENT = Event(
    id="7", source="/candlemill/split", type=events.SLICE_REQUESTED, data=b'{"a":1}', partitionkey="k", work="long"
)


class FakeResponse:
    """Fake of a urllib3 response."""

    def __init__(self, status: int) -> None:
        self.status = status


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the event file as a JobSink does: a structured event with JSON data."""
    text = {"specversion": "1.0", "id": "7", "source": EVENT.source, "type": EVENT.type, "data": {"a": 1}}
    text |= {"datacontenttype": "application/json", "partitionkey": "k", "work": "long"}
    (tmp_path / "event").write_text(json.dumps(text))
    monkeypatch.setenv("K_EVENT_PATH", str(tmp_path))
    monkeypatch.setenv("CANDLEMILL_DEAD_LETTERS", "http://aggregate.here")
    monkeypatch.setattr(job_main, "handler_context", lambda: None)


def run(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, failures: int = 10**6
) -> tuple[int, list[Event], list[Event]]:
    """Run a task that fails so often; return its exit status, the published events, and the decoded dead letters."""
    published: list[Event] = []
    dead: list[Event] = []
    left = iter(range(failures))

    def handle(event: Event, context: object) -> list[Event]:
        if error is not None and next(left, None) is not None:
            raise error
        return [event]

    def request(method: str, address: str, body: bytes, headers: dict[str, str], **_: object) -> FakeResponse:
        assert (method, address) == ("POST", "http://aggregate.here")
        dead.append(cloudevents.decode(headers, body))
        return FakeResponse(202)

    monkeypatch.setattr(job_main, "handler", lambda name: handle)
    monkeypatch.setattr(job_main, "publish", published.extend)
    monkeypatch.setattr(job_main.urllib3, "request", request)
    return job_main.main(), published, dead


def test_a_successful_task(mounted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    status, (event,), dead = run(monkeypatch, None)
    assert (status, dead) == (0, [])
    assert json.loads(event.data) == {"a": 1}
    assert (event.id, event.type, event.partitionkey, event.work) == ("7", EVENT.type, "k", "long")


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the task has slept between tries."""
    seconds: list[float] = []
    monkeypatch.setattr(job_main.time, "sleep", seconds.append)
    return seconds


def test_a_database_that_is_away_for_a_while_is_waited_for(
    mounted: None, monkeypatch: pytest.MonkeyPatch, slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    status, published, dead = run(monkeypatch, StoreDown("no database"), failures=7)
    assert (status, len(published), dead) == (0, 1, [])
    assert slept == [1, 2, 4, 8, 16, 32, 64]  # a database came back after 78 s
    assert caplog.messages[0] == "try 1 of 11 of task 7: no database"


def test_after_the_last_try_there_is_a_dead_letter(
    mounted: None, monkeypatch: pytest.MonkeyPatch, slept: list[float]
) -> None:
    status, published, (letter,) = run(monkeypatch, StoreDown("no database"))
    assert (status, published, sum(slept)) == (0, [], 1023)
    assert letter.error.startswith("a long task answered 422: no database")


def test_a_permanent_error_becomes_a_dead_letter(mounted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    status, published, (letter,) = run(monkeypatch, BadInput("fast=50 must be less than slow=10" + " é" * 500))
    assert (status, published) == (0, [])
    assert (letter.id, letter.partitionkey, letter.type) == ("7", "k", EVENT.type)
    assert letter.error.startswith("a long task answered 422: fast=50 must be less than slow=10 é é")
