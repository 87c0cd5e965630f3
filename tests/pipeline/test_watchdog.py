"""Jobs that are cancelled, and jobs whose events are lost."""

import random

import msgspec
import pytest
from candlemill.errors import UnknownName
from candlemill.pipeline import aggregate, events, execute, job_state, lifecycle, split, watchdog
from candlemill.pipeline.context import HandlerContext, Unchanged
from candlemill.pipeline.events import Event
from candlemill.pipeline.rows import JobRow
from test_handlers import DAYS, bars, digests, sweep
from test_job_state import request, single
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
    made.runtime = HandlerContext(made, made, made.runtime.candles, clock)
    return made


def the_job(world: World) -> JobRow:
    (row,) = world.jobs.values()
    return row


def watched(world: World) -> list[Event]:
    return aggregate.aggregate(events.make("timer", events.WATCH, "", events.Watch()), world.runtime)


def test_a_cancelled_job_s_tasks_are_dropped_and_what_is_done_is_kept(world: World) -> None:
    tasks = split.split(request(single(), DAYS), world.runtime)
    (word,) = execute.execute(tasks[0], world.runtime)
    job = the_job(world).job_id
    assert lifecycle.cancel(job, world).state == "cancelled"
    assert lifecycle.cancel(job, world).state == "cancelled"
    rows = dict(world.rows)
    assert execute.execute(tasks[1], world.runtime) == aggregate.aggregate(word, world.runtime) == []
    assert aggregate.aggregate(msgspec.structs.replace(tasks[1], error="lost"), world.runtime) == []
    assert world.rows == rows and the_job(world).state == "cancelled"
    assert len(split.split(request(single(), DAYS), world.runtime)) == DAYS - 1
    with pytest.raises(UnknownName):
        lifecycle.cancel("f" * 32, world)


def test_a_task_that_waited_too_long_in_a_queue_fails_nothing(world: World, clock: Clock) -> None:
    """A queue of hours before the executors is no fault of a job: the watch requests what is missing again."""
    tasks = split.split(request(single(), DAYS), world.runtime)
    lost = msgspec.structs.replace(tasks[3], error="execute answered 504", unanswered=True)
    assert aggregate.aggregate(lost, world.runtime) == [] and the_job(world).state == "planned"
    for task in tasks[:3] + tasks[4:]:
        for done in execute.execute(task, world.runtime):
            aggregate.aggregate(done, world.runtime)
    clock.now += 5 * MINUTE
    (again,) = watched(world)
    (missing,) = split.split(again, world.runtime)
    assert missing.data == tasks[3].data
    (done,) = execute.execute(missing, world.runtime)
    repairs = aggregate.aggregate(done, world.runtime)
    while repairs and repairs[0].type == events.SLICE_REQUESTED:
        repairs = [said for task in repairs for one in execute.execute(task, world.runtime)
                   for said in aggregate.aggregate(one, world.runtime)]  # fmt: skip
    assert the_job(world).state == "done"
    assert aggregate.aggregate(lost, world.runtime)[0].type == events.COMPLETED
    refused = msgspec.structs.replace(tasks[3], error="execute answered 422: nonsense")
    other = World(bars())
    split.split(request(single(), DAYS), other.runtime)
    aggregate.aggregate(refused, other.runtime)
    assert the_job(other).state == "failed"


def test_a_job_that_makes_no_progress_is_requested_again_later_and_later_then_fails(world: World, clock: Clock) -> None:
    split.split(request(single(), DAYS), world.runtime)  # and its tasks are lost
    ids = set()
    for wait in (5, 10, 20):
        clock.now += wait * MINUTE - 1
        assert watched(world) == []
        clock.now += 1
        (again,) = watched(world)
        ids.add(again.id)
        clock.now += 1
        assert len(split.split(again, world.runtime)) == DAYS
        assert the_job(world).state == "planned"
    clock.now += 40 * MINUTE
    (failed,) = watched(world)
    assert failed.type == events.FAILED and len(ids) == 3
    assert (the_job(world).state, "its tasks made no progress" in the_job(world).reason) == ("failed", True)
    assert watched(world) == []


def test_the_new_plan_is_valid_though_the_watch_s_clock_was_ahead(world: World, clock: Clock) -> None:
    """Otherwise its tasks would have the time of those before, and pass for requests that were published already."""
    split.split(request(single(), DAYS), world.runtime)
    clock.now += 6 * MINUTE
    (again,) = watched(world)
    written = world.jobs_at[the_job(world).job_id]
    clock.now -= MINUTE  # the next function's machine
    tasks = split.split(again, world.runtime)
    assert world.jobs_at[the_job(world).job_id] > written
    assert {task.since for task in tasks} == {clock.now}


def test_a_job_that_goes_on_between_is_driven_on_as_often_as_it_takes(world: World, clock: Clock) -> None:
    """A task gets through each time."""
    waiting = [request(single(), DAYS)]
    for _ in range(DAYS):
        (event,) = waiting
        task = split.split(event, world.runtime)[0]
        clock.now += 1
        execute.execute(task, world.runtime)
        clock.now += 21 * MINUTE
        waiting = watched(world)
    (event,) = waiting
    (word,) = split.split(event, world.runtime)
    (done,) = aggregate.aggregate(word, world.runtime)
    assert done.type == events.COMPLETED
    requested = job_state.request_of(the_job(world))
    assert requested is not None and (requested.retry, requested.last_progress) == (1, DAYS), "none of them was in vain"


def test_what_makes_no_sense_of_one_job_does_not_keep_the_others(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    split.split(request(single(), DAYS), world.runtime)
    for retry, progress in ((0, 7), (2**40, 0)):
        odd = events.Requested(single(), DAYS, attempt=9, retry=retry, last_progress=progress)
        world.put_job(msgspec.structs.replace(the_job(world), attempt=9, request=msgspec.json.encode(odd).decode()))
        clock.now += 40 * MINUTE
        assert len(aggregate.watch(world.runtime, clock.now)) == 1
    monkeypatch.setattr(world, "job_history", lambda job_id: [])  # a replica that lags
    assert aggregate.watch(world.runtime, clock.now + 99 * MINUTE) == []


def test_what_another_release_wrote_down_fails_and_what_is_at_work_is_left_alone(world: World, clock: Clock) -> None:
    split.split(request(single(), DAYS), world.runtime)
    job, later = the_job(world), clock.now + 5 * MINUTE
    assert aggregate.watch(world.runtime, later, frozenset({job.job_id})) == []
    assert len(aggregate.watch(world.runtime, later)) == 1
    world.put_job(msgspec.structs.replace(job, attempt=job.attempt + 1, request='{"of": "another"}'))
    (failed,) = watched(world)
    assert events.read(failed, events.Failed).reason == watchdog.OTHER_RELEASE


def test_a_start_is_not_a_silence(world: World, clock: Clock) -> None:
    """A process that starts again and again, a minute apart, requests what waits, and fails nothing."""
    split.split(request(single(), DAYS), world.runtime)
    before = the_job(world)
    for _ in range(50):
        clock.now += MINUTE
        (again,) = watchdog.resume(world.runtime)
        assert again.partitionkey == before.job_id and the_job(world) == before
    assert watchdog.resume(world.runtime, frozenset({before.job_id})) == []
    assert len(split.split(again, world.runtime)) == DAYS


def test_what_only_waits_in_a_queue_is_not_failed(world: World, clock: Clock) -> None:
    """Of two jobs one waits for days, while the other's tasks are done: a task every quarter of an hour."""
    world.runtime = msgspec.structs.replace(world.runtime, unchanged=Unchanged(clock))
    waiting = request(single(), 2)
    split.split(waiting, world.runtime)
    name = the_job(world).job_id
    others = split.split(request(sweep(), 500), world.runtime)
    for task in others[:150]:
        clock.now += 15 * MINUTE - 1
        execute.execute(task, world.runtime)
        assert all(event.type == events.REQUESTED for event in watched(world))
    assert world.jobs[name].state == "planned"
    for _ in range(100):  # then nothing is done any more
        clock.now += 15 * MINUTE
        watched(world)
    assert world.jobs[name].state == "failed"


def test_a_request_that_nobody_has_taken_is_repeated_and_not_failed(world: World, clock: Clock) -> None:
    row = job_state.accepted("a" * 32, single(), "d", events.Requested(single()), None, clock.now)
    world.put_job(row)
    sent = 0
    for _ in range(24 * 60):
        clock.now += MINUTE
        sent += len(watched(world))
    assert the_job(world).state == "accepted" and 24 * 60 / 41 < sent < 24 * 60 / 30


@pytest.mark.parametrize("step", [-2 * 60, -3 * 24 * 60, 10, 60, 3 * 24 * 60])
def test_a_clock_that_steps_neither_stops_nor_fails_jobs(world: World, clock: Clock, step: int) -> None:
    """The wall clock is set by `step` minutes while a job runs, a minute after each of its tasks."""
    true = Clock()
    world.runtime = msgspec.structs.replace(world.runtime, unchanged=Unchanged(true))

    def goes_on(minutes: int) -> None:
        clock.now += minutes * MINUTE
        true.now += minutes * MINUTE

    first, *rest = split.split(request(single(), DAYS), world.runtime)
    execute.execute(first, world.runtime)
    clock.now += step * MINUTE
    for task in rest[:-1]:
        goes_on(1)
        assert len(watched(world)) <= 1
        execute.execute(task, world.runtime)
    waits, failed = [], False
    for minute in range(200):  # now the last one is lost
        goes_on(1)
        for event in watched(world):
            waits.append(minute)
            failed = event.type == events.FAILED
        if failed:
            break
    assert failed and len(waits) == 4 and waits[0] <= 6
    for a, b, wait in zip(waits, waits[1:], (10, 20, 40), strict=False):
        assert b - a in (wait, wait + 1)


@pytest.mark.parametrize("seed", range(10))
def test_a_job_ends_in_the_right_bits_whatever_is_lost(world: World, clock: Clock, seed: int) -> None:
    """A third of all events never arrives; the watch comes now and then."""
    rng = random.Random(seed)
    spec = msgspec.structs.replace(sweep(), grid={"fast": [5, 9], "slow": [60]})
    queue = [request(spec, 3)]
    split.split(queue[0], world.runtime)  # that it was requested is known
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
    assert row.state == "done" or (row.state, "made no progress" in row.reason) == ("failed", True)
    if row.state == "failed":
        for event in (queue := [request(spec, 3)]):
            queue += [said for said in HANDLERS[event.type](event, world.runtime) if said.type in HANDLERS]
    alone = World(bars())
    alone.run(spec, 1)
    assert digests(world.results) == digests(alone.results)
