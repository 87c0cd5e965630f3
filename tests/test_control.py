"""Jobs that are cancelled, and jobs whose events are lost."""

import random

import msgspec
import pytest
from candlemill import control, events, service, states
from candlemill.errors import UnknownName
from candlemill.events import Event
from candlemill.ledger import JobRow, Runtime
from test_handlers import DAYS, bars, digests, sweep
from test_states import request, single
from world import HANDLERS, World

MINUTE = 60_000


class Clock:
    def __init__(self) -> None:
        self.now = 10**12

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def world(clock: Clock) -> World:
    made = World(bars())
    made.runtime = Runtime(made, made, made.runtime.tapes, clock)
    return made


def the_job(world: World) -> JobRow:
    (row,) = world.jobs.values()
    return row


def watched(world: World) -> list[Event]:
    return service.aggregate(events.make("timer", events.WATCH, "", events.Watch()), world.runtime)


def test_a_cancelled_job_s_tasks_are_dropped_and_what_is_done_is_kept(world: World) -> None:
    tasks = service.split(request(single(), DAYS), world.runtime)
    (word,) = service.execute(tasks[0], world.runtime)
    job = the_job(world).job_id
    assert control.cancel(job, world).state == "cancelled"
    assert control.cancel(job, world).state == "cancelled"
    rows = dict(world.rows)
    assert service.execute(tasks[1], world.runtime) == service.aggregate(word, world.runtime) == []
    assert service.aggregate(msgspec.structs.replace(tasks[1], error="lost"), world.runtime) == []
    assert world.rows == rows and the_job(world).state == "cancelled"
    assert len(service.split(request(single(), DAYS), world.runtime)) == DAYS - 1
    with pytest.raises(UnknownName):
        control.cancel("f" * 32, world)


def test_a_job_that_nothing_is_heard_of_is_asked_for_again_later_and_later_then_fails(
    world: World, clock: Clock
) -> None:
    service.split(request(single(), DAYS), world.runtime)  # and its tasks are lost
    ids = set()
    for wait in (5, 10, 20):
        clock.now += wait * MINUTE - 1
        assert watched(world) == []
        clock.now += 1
        (again,) = watched(world)
        ids.add(again.id)
        assert len(service.split(again, world.runtime)) == DAYS
        assert the_job(world).state == "planned"
    clock.now += 40 * MINUTE
    (failed,) = watched(world)
    assert failed.type == events.FAILED and len(ids) == 3
    assert (the_job(world).state, "nothing was heard of its tasks" in the_job(world).reason) == ("failed", True)
    assert watched(world) == []


def test_a_job_that_goes_on_between_is_driven_on_as_often_as_it_takes(world: World, clock: Clock) -> None:
    """A task gets through each time."""
    waiting = [request(single(), DAYS)]
    for _ in range(DAYS):
        (event,) = waiting
        task = service.split(event, world.runtime)[0]
        clock.now += 1
        service.execute(task, world.runtime)
        clock.now += 21 * MINUTE
        waiting = watched(world)
    (event,) = waiting
    (word,) = service.split(event, world.runtime)
    (done,) = service.aggregate(word, world.runtime)
    assert done.type == events.COMPLETED
    asked = states.request_of(the_job(world))
    assert asked is not None and asked.drive == DAYS


def test_what_makes_no_sense_of_one_job_does_not_keep_the_others(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.split(request(single(), DAYS), world.runtime)
    for drive, heard in ((0, 7), (2**40, 0)):
        odd = events.Requested(single(), DAYS, attempt=9, drive=drive, heard=heard)
        world.put_job(msgspec.structs.replace(the_job(world), attempt=9, request=msgspec.json.encode(odd).decode()))
        assert len(service.watch(world.runtime, clock.now, 0)) == 1
    monkeypatch.setattr(world, "job_history", lambda job_id: [])  # a replica that lags
    assert service.watch(world.runtime, clock.now, 0) == []


def test_what_another_release_wrote_down_fails_and_what_is_at_work_is_left_alone(world: World, clock: Clock) -> None:
    service.split(request(single(), DAYS), world.runtime)
    job = the_job(world)
    assert service.watch(world.runtime, clock.now, 0, frozenset({job.job_id})) == []
    assert len(service.watch(world.runtime, clock.now, 0)) == 1
    world.put_job(msgspec.structs.replace(job, attempt=job.attempt + 1, request='{"of": "another"}'))
    (failed,) = watched(world)
    assert events.read(failed, events.Failed).reason == control.OTHER_RELEASE


@pytest.mark.parametrize("seed", range(10))
def test_a_job_ends_in_the_right_bits_whatever_is_lost(world: World, clock: Clock, seed: int) -> None:
    """A third of all events never arrives; the watch comes now and then."""
    rng = random.Random(seed)
    spec = msgspec.structs.replace(sweep(), grid={"fast": [5, 9], "slow": [60]})
    queue = [request(spec, 3)]
    service.split(queue[0], world.runtime)  # that it was asked for is known
    for _ in range(10_000):
        if not queue:
            if the_job(world).finished:
                break
            clock.now += 45 * MINUTE
            queue = watched(world)
            continue
        event = queue.pop(rng.randrange(len(queue)))
        clock.now += 1
        if rng.random() > 0.3:
            queue += [said for said in HANDLERS[event.type](event, world.runtime) if said.type in HANDLERS]
    row = the_job(world)
    assert row.state == "done" or (row.state, "nothing was heard" in row.reason) == ("failed", True)
    if row.state == "failed":
        for event in (queue := [request(spec, 3)]):
            queue += [said for said in HANDLERS[event.type](event, world.runtime) if said.type in HANDLERS]
    alone = World(bars())
    alone.run(spec, 1)
    assert digests(world.results) == digests(alone.results)
