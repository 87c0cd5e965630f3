"""A long task in a process of its own: the event from a file, what follows to the sink, its end told either way."""

import json
from pathlib import Path

import pytest
from candlemill import events
from candlemill.errors import BadInput, StoreDown
from candlemill.events import Event
from candlemill.io import http, jobtask

EVENT = Event(
    id="7", source="/candlemill/split", type=events.SLICE_REQUESTED, data=b'{"a":1}', partitionkey="k", work="long"
)


class Taken:
    """Stands for urllib3's answer."""

    def __init__(self, status: int) -> None:
        self.status = status


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a JobSink writes it: a structured event whose JSON data is no text."""
    text = {"specversion": "1.0", "id": "7", "source": EVENT.source, "type": EVENT.type, "data": {"a": 1}}
    text |= {"datacontenttype": "application/json", "partitionkey": "k", "work": "long"}
    (tmp_path / "event").write_text(json.dumps(text))
    monkeypatch.setenv("K_EVENT_PATH", str(tmp_path))
    monkeypatch.setenv("CANDLEMILL_DEAD_LETTERS", "http://aggregate.here")
    monkeypatch.setattr(jobtask, "runtime", lambda: None)


def run(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> tuple[int, list[Event], list[Event]]:
    """Exit status, what was published, and what was given up as the aggregate reads it."""
    published: list[Event] = []
    dead: list[Event] = []

    def handle(event: Event, runtime: object) -> list[Event]:
        if error is not None:
            raise error
        return [event]

    def request(method: str, address: str, body: bytes, headers: dict[str, str], **_: object) -> Taken:
        assert (method, address) == ("POST", "http://aggregate.here")
        dead.append(http.decode(headers, body))
        return Taken(202)

    monkeypatch.setattr(jobtask, "handler", lambda name: handle)
    monkeypatch.setattr(jobtask, "publish", published.extend)
    monkeypatch.setattr(jobtask.urllib3, "request", request)
    return jobtask.main(), published, dead


def test_a_task_is_done(mounted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    status, (event,), dead = run(monkeypatch, None)
    assert (status, dead) == (0, [])
    assert json.loads(event.data) == {"a": 1}
    assert (event.id, event.type, event.partitionkey, event.work) == ("7", EVENT.type, "k", "long")


def test_what_another_try_may_help_is_tried_again(mounted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, StoreDown("no database")) == (1, [], [])


def test_what_cannot_be_helped_becomes_a_dead_letter(mounted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    status, published, (letter,) = run(monkeypatch, BadInput("fast=50 must be less than slow=10" + " é" * 500))
    assert (status, published) == (0, [])
    assert (letter.id, letter.partitionkey, letter.type) == ("7", "k", EVENT.type)
    assert letter.error.startswith("a long task answered 422: fast=50 must be less than slow=10 é é")
