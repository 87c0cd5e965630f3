"""What the handlers do with a store that holds other plans' and other runs' rows, and with candles in the making."""

import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from candlemill import events, plan, service
from candlemill.errors import BeingWritten
from candlemill.events import Event
from candlemill.ledger import DONE, GUESS, JobRow, Runtime
from candlemill.model import Spec, grid_points, resolve
from candlemill.plan import Plan
from candlemill.reduce import Repair
from hypothesis import given, settings
from reference import Bar
from world import FIRST_DAY, HANDLERS, Market, World, jobs

DAY_MS, MINUTE_MS = 86_400_000, 60_000
DAYS = 8


def bars(seed: int = 3) -> list[Bar]:
    rng = random.Random(seed)
    price, out = 10**10, []
    for k in range(DAYS * 288):  # every five minutes
        price += rng.randint(-(10**8), 10**8)
        out.append(Bar(FIRST_DAY + k * 5 * MINUTE_MS, price, price, price, price, 0))
    return out


@pytest.fixture
def world() -> World:
    return World(bars())


def sweep() -> Spec:
    span = (FIRST_DAY, FIRST_DAY + DAYS * DAY_MS)
    return resolve(
        symbol="X", strategy="sma_cross", span=span, params={}, grid={"fast": list(range(1, 41)), "slow": [60]}
    )


def request(spec: Spec, slices: int | None, fresh: bool = False) -> Event:
    return events.make("test", events.REQUESTED, "", events.Requested(spec, slices, fresh))


def deliver(runtime: Runtime, first: Event, only: Any = lambda event: True) -> Iterator[Event]:
    queue = [first]
    while queue:
        event = queue.pop(0)
        yield event
        if event.type in HANDLERS and only(event):
            queue += HANDLERS[event.type](event, runtime)


def test_a_batch_of_another_plan_is_not_taken_for_this_plans(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight slices make batches of 8 sets, two slices of 32: batch 0 of the one is not batch 0 of the other."""
    monkeypatch.setattr(plan, "BATCH_OUTCOMES", 64)

    def first_batch(event: Event) -> bool:
        return event.type == events.REQUESTED or msgspec.json.decode(event.data)["batch"] == 0

    said = list(deliver(world.runtime, request(sweep(), 8), first_batch))
    assert len(world.results) == 8
    assert not [event for event in said if event.type == events.COMPLETED]
    assert [row.kind for row in world.rows.values()].count(DONE) == 1
    said = list(deliver(world.runtime, request(sweep(), 2)))
    assert said[-1].type == events.COMPLETED
    assert len(world.results) == 40
    other = World(bars())
    other.run(sweep(), 1)
    assert digests(world.results) == digests(other.results)


def digests(results: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {job: result["result_digest"] for job, result in results.items()}


def test_an_interrupted_job_goes_on_where_it_was(world: World) -> None:
    asked = service.split(request(sweep(), DAYS), world.runtime)
    for event in asked[:5]:
        service.execute(event, world.runtime)
    again = service.split(request(sweep(), DAYS), world.runtime)
    assert [event.id for event in again] == [event.id for event in asked[5:]]


def test_asked_afresh_nothing_stored_is_used(world: World) -> None:
    spec = sweep()
    list(deliver(world.runtime, request(spec, DAYS)))
    right = dict(world.results)
    world.results.clear()
    for key, row in world.kept.items():  # whoever reads these will not get far
        world.kept[key] = msgspec.structs.replace(row, summary="spoilt")
    runtime = Runtime(world, world, world.runtime.tapes, lambda: 1234)
    said = list(deliver(runtime, request(spec, DAYS, fresh=True)))
    assert sum(event.type == events.SLICE_REQUESTED for event in said) >= DAYS
    assert digests(world.results) == digests(right)


def test_candles_in_the_making_are_waited_for(world: World) -> None:
    """Only those of the job's range matter."""
    whole, early = sweep(), msgspec.structs.replace(sweep(), end=FIRST_DAY + 3 * DAY_MS)
    tasks = service.split(request(early, 1), world.runtime)
    world._days = [msgspec.structs.replace(d, digest="" if k == 5 else d.digest) for k, d in enumerate(world._days)]
    with pytest.raises(BeingWritten, match="1 days of X from 2021-01-06"):
        service.split(request(whole, 1), world.runtime)
    assert BeingWritten.retryable
    assert service.execute(tasks[0], world.runtime)


def test_candles_that_change_while_they_are_read_are_not_used(world: World) -> None:
    (task,) = service.split(request(sweep(), 1), world.runtime)
    read = world.read_columns

    def read_and_write(*arguments: Any) -> dict[str, Any]:
        found = read(*arguments)
        world._days = [msgspec.structs.replace(day, digest="") for day in world._days]
        return found

    days = world._days
    world.read_columns = read_and_write  # type: ignore[method-assign]
    with pytest.raises(BeingWritten, match="changed while they were read"):
        service.execute(task, world.runtime)
    assert GUESS not in [row.kind for row in world.rows.values()]
    world.read_columns, world._days = read, days  # type: ignore[method-assign]
    assert service.execute(task, world.runtime)  # nothing of it was kept


def test_repairs_that_do_not_fit_an_event_travel_in_several() -> None:
    spec = sweep()
    cuts = [FIRST_DAY + k * DAY_MS for k in range(1001)]
    row = JobRow("a" * 32, "running", "", "", "digest", 0)
    repairs = [Repair(k, 2 * k, 64, "1,1,0,5,5,0|" + "m" * 900) for k in range(256)]
    made = service._repair_events(row, spec, Plan(cuts, 512, 512, 0), 0, repairs)
    assert len(made) > 1
    assert all(len(event.data) <= events.EVENT_BYTES_LIMIT for event in made)
    tasks = [events.read(event, events.SliceRequested) for event in made]
    assert [repair for task in tasks for repair in task.repairs] == repairs
    for task in tasks:
        service._check_task(msgspec.structs.replace(task, spec=_longer(spec)), range(256))


def _longer(spec: Spec) -> Spec:
    return msgspec.structs.replace(spec, end=FIRST_DAY + 1000 * DAY_MS)


@given(jobs())
@settings(max_examples=60, deadline=None)
def test_checking_a_spec_changes_nothing_in_a_right_one(job: tuple[Market, Spec]) -> None:
    spec = job[1]
    assert service.checked(spec).to_json() == spec.to_json()
    assert service.checked(sweep()).to_json() == sweep().to_json()


def test_checking_a_spec_fills_in_what_was_left_out() -> None:
    short = msgspec.structs.replace(sweep(), grid={}, params={"slow": 60})
    (full,) = [params for _, params, _ in grid_points(short, 0, 1)]
    assert service.checked(short).params == full
    assert len(full) == 3
