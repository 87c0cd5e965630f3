"""Events: what is published is what the code says, what is emitted fits it, and nothing else is taken."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import msgspec
import pytest
from candlemill.backtests.plan import make_plan
from candlemill.backtests.spec import Spec
from candlemill.errors import BadInput
from candlemill.local.broker import Broker
from candlemill.pipeline import events, waves
from candlemill.pipeline.context import Waves
from candlemill.pipeline.events import Event
from candlemill.pipeline.split import split
from slow_engine import Bar
from world import FIRST_DAY, World

SCHEMA = Path(__file__).parents[2] / "schema"
DAY_MS, MINUTE_MS = 86_400_000, 60_000
DAYS = 8
JOB = "0123456789abcdef" * 2


class Spy(Broker):
    """A broker that remembers every event it was given to deliver."""

    def __init__(self, world: World) -> None:
        super().__init__(world.runtime)
        self.seen: list[Event] = []

    def _publish(self, published: Sequence[Event]) -> None:
        self.seen += published
        super()._publish(published)


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", SCHEMA / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def world() -> World:
    """A price that only rises: a position once opened is held, and no warm-up knows the price it was opened at."""
    prices = [10**8 * (1000 + minute // 10) for minute in range(DAYS * 1440)]
    return World([Bar(FIRST_DAY + k * MINUTE_MS, p, p, p, p, 0) for k, p in enumerate(prices)])


def request(world: World, **more: Any) -> Event:
    fields: dict[str, Any] = {
        "strategy": "buy_and_hold",
        "params": {},
        "stop_loss": 500_000,
        "account": "units",
        **more,
    }
    spec = Spec(symbol="X", start=FIRST_DAY, end=FIRST_DAY + DAYS * DAY_MS, **fields)
    return events.make("test", events.REQUESTED, JOB, events.Requested(spec, DAYS))


@pytest.fixture(scope="module")
def emitted(world: World) -> list[Event]:
    """All events of a job with repairs, a sweep, and a job that fails."""
    seen = []
    for first in (
        request(world),
        request(world, strategy="sma_cross", grid={"fast": [5, 30], "slow": [20, 100]}, params={"allow_short": True}),
    ):
        spy = Spy(world)
        assert spy.run(first).type == events.COMPLETED
        seen += spy.seen
    planned = World([Bar(*bar) for bar in bars_of(world)])
    planned.runtime = msgspec.structs.replace(planned.runtime, waves=Waves(DAYS, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waves, "EVENTS_AT_ONCE", 3)
        seen += split(request(planned), planned.runtime)
    broken = msgspec.json.decode(next(e.data for e in seen if e.type == events.SLICE_REQUESTED))
    spy = Spy(world)
    with pytest.raises(BadInput, match="have changed"):
        spy.run(make_raw(events.SLICE_REQUESTED, {**broken, "job_id": "f" * 32, "data_digest": "other"}))
    return [*seen, *spy.seen, events.make("timer", events.WATCH, "", events.Watch())]


def make_raw(kind: str, data: object) -> Event:
    return Event(id="1", source="/test", type=kind, data=msgspec.json.encode(data), partitionkey=JOB)


def test_schema_files_are_what_the_code_generates(generate: ModuleType) -> None:
    files = {path.name: path.read_text() for path in (SCHEMA / "events").iterdir()}
    assert files == {f"{kind}.json": generate.text(kind) for kind in generate.DATA}, "run `make schemas`"


def test_every_event_of_real_jobs_fits_its_schema(emitted: list[Event]) -> None:
    assert {event.type for event in emitted} == set(events.DATA)
    assert any(b'"repairs":[{' in event.data for event in emitted)
    validators = {}
    for kind in events.DATA:
        schema = json.loads((SCHEMA / "events" / f"{kind}.json").read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        validators[kind] = jsonschema.Draft202012Validator(schema)
    for event in emitted:
        validators[event.type].validate(json.loads(event.data))
        data = events.read(event, events.DATA[event.type])
        assert msgspec.json.encode(data) == event.data
        assert len(event.data) <= events.EVENT_BYTES_LIMIT
        assert event.partitionkey or event.type == events.WATCH


def test_ids_are_functions_of_what_is_said(world: World, emitted: list[Event]) -> None:
    by_id: dict[str, Event] = {}
    for event in emitted:
        known = by_id.setdefault(event.id, event)
        assert (known.type, known.data) == (event.type, event.data)
    assert len({(event.type, event.data) for event in emitted}) == len(by_id)
    again = Spy(World([Bar(*bar) for bar in bars_of(world)]))
    again.run(request(world))
    assert {event.id for event in again.seen} <= by_id.keys()
    assert request(world).id != request(world, fee=2000).id
    data = events.Completed(JOB)
    assert events.make("a", events.COMPLETED, JOB, data).id == events.make("b", events.COMPLETED, JOB, data).id
    assert events.make("a", events.COMPLETED, JOB, data).id != events.make("a", events.FAILED, JOB, data).id


def bars_of(world: World) -> list[tuple[int, ...]]:
    columns = [world.columns[name].tolist() for name in ("t", "open", "high", "low", "close", "volume")]
    return list(zip(*columns, strict=True))


def test_a_guess_and_a_repair_of_a_slice_are_distinguished(emitted: list[Event]) -> None:
    requested = [events.read(e, events.SliceRequested) for e in emitted if e.type == events.SLICE_REQUESTED]
    ids = [e.id for e in emitted if e.type == events.SLICE_REQUESTED]
    kind = {name: bool(task.repairs) for name, task in zip(ids, requested, strict=True)}
    finished: dict[tuple[str, int, bool], set[str]] = {}
    for event in emitted:
        if event.type == events.SLICE_COMPLETED:
            done = events.read(event, events.SliceCompleted)
            finished.setdefault((done.job_id, done.slice, kind[done.task]), set()).add(event.id)
    repaired = [(job, number) for job, number, repair in finished if repair]
    assert repaired
    for job, number in repaired:
        assert not finished[job, number, True] & finished[job, number, False]


GOOD = {"job_id": JOB, "batch": 0, "slice": 3, "task": "t"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({k: v for k, v in GOOD.items() if k != "task"}, "missing required field `task`"),
        ({**GOOD, "more": 1}, "unknown field `more`"),
        ({**GOOD, "slice": "3"}, "Expected `int`, got `str`"),
        ({**GOOD, "slice": 3.5}, "Expected `int`"),
        ({**GOOD, "slice": True}, "Expected `int`, got `bool`"),
        ({**GOOD, "slice": -1}, ">= 0"),
        ({**GOOD, "slice": 10**30}, "int"),
        ({**GOOD, "job_id": "../../etc"}, "matching regex"),
        ({**GOOD, "task": "x" * 70_000}, "the limit is 65,536"),
        ([GOOD], "got `array`"),
        (None, "got `null`"),
    ],
)
def test_data_of_another_shape_is_refused(data: object, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        events.read(make_raw(events.SLICE_COMPLETED, data), events.SliceCompleted)


@pytest.mark.parametrize("text", [b"", b"{", b"{}}", b"\xff", b"nul", b'{"job_id": NaN}', b"[" * 60_000])
def test_malformed_json_is_refused(text: bytes) -> None:
    event = Event(id="1", source="/test", type=events.COMPLETED, data=text)
    with pytest.raises(BadInput):
        events.read(event, events.Completed)


@pytest.mark.parametrize("kind", ["", "unknown", events.COMPLETED + ".v2", events.FAILED])
def test_another_type_is_refused(kind: str) -> None:
    with pytest.raises(BadInput, match="not handled here"):
        events.read(make_raw(kind, {"job_id": JOB}), events.Completed)


@pytest.mark.parametrize(
    "change",
    [
        {"cuts": [FIRST_DAY]},
        {"cuts": [FIRST_DAY + DAY_MS, FIRST_DAY]},
        {"cuts": [FIRST_DAY, FIRST_DAY + 2 * DAY_MS, FIRST_DAY + DAY_MS]},
        {"count": 0},
        {"count": 10_000},
        {"repairs": [{"point": 0, "slice": 0, "count": 1, "start": "?"}]},
        {"repairs": [{"point": 7, "slice": 0, "count": 1, "start": "0,0,0,0,0,0|"}]},
        {"repairs": [{"point": 0, "slice": 5, "count": 1, "start": "0,0,0,0,0,0|"}]},
        {"repairs": [{"point": 0, "slice": 0, "count": 1, "start": "0,0,0,0,0,0|", "more": 1}]},
    ],
)
def test_a_task_that_makes_no_sense_is_bad_input(
    world: World, emitted: list[Event], change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from candlemill.pipeline.execute import execute

    monkeypatch.setattr(world, "jobs", {})  # or it would be no job's any more
    task = json.loads(next(e.data for e in emitted if e.type == events.SLICE_REQUESTED))
    with pytest.raises(BadInput):
        execute(make_raw(events.SLICE_REQUESTED, {**task, **change}), world.runtime)


def test_an_event_too_large_is_not_made() -> None:
    with pytest.raises(BadInput, match="the limit is 65,536"):
        events.make("test", events.FAILED, JOB, events.Failed(JOB, "x" * 70_000))


def test_a_spec_is_held_to_the_limits_however_it_comes(world: World) -> None:
    values = list(range(1, 2001))
    wide = request(world, strategy="sma_cross", params={}, grid={"fast": values, "slow": values})
    with pytest.raises(BadInput, match="4,000,000 points"):
        split(wide, world.runtime)
    with pytest.raises(BadInput, match="unknown parameter"):
        split(request(world, params={"no": 1}), world.runtime)
    plans = make_plan(events.read(request(world), events.Requested).spec, world.days("X"), DAYS)
    assert plans.slices == DAYS
