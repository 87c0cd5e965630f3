"""Which attempt a request is for, and that nothing that comes late or twice takes a job back."""

import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from candlemill.backtests.identity import job_id
from candlemill.backtests.spec import Spec
from candlemill.errors import BadInput
from candlemill.pipeline import events, job_state, prepare, split
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Event
from candlemill.pipeline.job_state import Step
from candlemill.pipeline.rows import RANKS, JobRow
from test_handlers import DAYS, bars, digests, sweep
from world import HANDLERS, World


class Clock:
    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        self.now += 1
        return self.now


@pytest.fixture
def world() -> Iterator[World]:
    made = World(bars())
    made.runtime = HandlerContext(made, made, made.runtime.candles, Clock())
    yield made


def request(spec: Spec, slices: int | None = None, fresh: bool = False, attempt: int = 0) -> Event:
    return events.make("test", events.REQUESTED, "", events.Requested(spec, slices, fresh, attempt))


def single() -> Spec:
    return sweep().single({"fast": 5, "slow": 60, "allow_short": False})


def the_job(world: World) -> JobRow:
    (row,) = world.jobs.values()
    return row


def deliver(world: World, *waiting: Event) -> list[Event]:
    """Until all is quiet; what was said."""
    queue, said = list(waiting), []
    while queue:
        event = queue.pop(0)
        said.append(event)
        if event.type in HANDLERS:
            queue += HANDLERS[event.type](event, world.runtime)
    return said


def test_a_doubled_request_does_not_begin_again_and_a_late_one_takes_nothing_back(world: World) -> None:
    requested = request(single(), DAYS, attempt=500)
    tasks = split.split(requested, world.runtime)
    began = the_job(world)
    assert (began.state, began.attempt, began.kind) == ("planned", 500, "backtest")
    assert [event.id for event in split.split(requested, world.runtime)] == [event.id for event in tasks]
    assert the_job(world).attempt == 500
    deliver(world, *tasks)
    done = the_job(world)
    assert done.state == "done"
    again = deliver(world, requested, *tasks)
    assert the_job(world) == done
    assert {event.type for event in again} == {events.REQUESTED, events.SLICE_REQUESTED, events.COMPLETED}


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_an_ended_job_that_is_requested_again_begins_anew_and_the_old_request_does_nothing(
    world: World, end: str
) -> None:
    old, new = request(single(), DAYS, attempt=500), request(single(), DAYS, attempt=600)
    tasks = split.split(old, world.runtime)
    deliver(world, *tasks[:3])
    world.put_job(msgspec.structs.replace(the_job(world), state=end, reason="why"))
    again = split.split(old, world.runtime)
    assert [event.type for event in again] == [events.FAILED] * (end == "failed") and the_job(world).state == end
    deliver(world, *tasks[3:])
    assert the_job(world).state == end
    left = split.split(new, world.runtime)
    assert (the_job(world).state, the_job(world).attempt, the_job(world).reason) == ("planned", 600, "")
    assert len(left) == len(tasks) - 3  # what was done counts
    assert len(split.split(old, world.runtime)) == len(left) and the_job(world).attempt == 600
    deliver(world, *left)
    assert the_job(world).state == "done"


def test_without_its_time_a_request_joins_what_is_under_way(world: World) -> None:
    split.split(request(single(), DAYS), world.runtime)
    number = the_job(world).attempt
    assert number > 1_000
    split.split(request(single()), world.runtime)  # the planner's choice would be one slice
    plan = job_state.plan_of(the_job(world))
    assert plan is not None and plan.slices == DAYS and the_job(world).attempt == number
    split.split(request(single(), 2), world.runtime)
    plan = job_state.plan_of(the_job(world))
    assert plan is not None and plan.slices == 2 and the_job(world).attempt > number


def test_afresh_is_an_attempt_of_its_own_and_one_however_often_it_is_said(world: World) -> None:
    deliver(world, request(single(), DAYS))
    first = the_job(world).attempt
    requested = request(single(), DAYS, fresh=True)
    tasks = split.split(requested, world.runtime)
    again = split.split(requested, world.runtime)
    assert [event.id for event in tasks] == [event.id for event in again] and len(tasks) == DAYS
    plan = job_state.plan_of(the_job(world))
    assert plan is not None and plan.run == the_job(world).attempt > first
    deliver(world, *tasks)
    assert the_job(world).state == "done"


@pytest.mark.parametrize(
    ("known", "given", "now", "number"),
    [
        (None, 0, 700, 700),
        (None, 500, 700, 500),
        (500, 0, 700, 700),
        (500, 600, 700, 600),
        (700, 0, 600, 701),  # the clock went back: the attempt is a new one nevertheless
        (700, 500, 800, 701),
        (700, 700, 800, 701),
    ],
)
def test_an_attempt_is_later_than_the_one_before(known: int | None, given: int, now: int, number: int) -> None:
    row = None if known is None else JobRow("j", "failed", "", "", "", 0, attempt=known)
    assert job_state.next_attempt(row, events.Requested(single(), attempt=given), now) == number


def test_an_attempt_of_the_far_future_is_refused() -> None:
    ahead = 1_000 + job_state.AHEAD_MS
    assert job_state.next_attempt(None, events.Requested(single(), attempt=ahead), 1_000) == ahead
    with pytest.raises(BadInput, match=f"attempt {ahead + 1} lies more than a day ahead"):
        job_state.next_attempt(None, events.Requested(single(), attempt=ahead + 1), 1_000)


def test_a_step_that_another_instance_took_afresh_is_not_taken_again() -> None:
    """Seeds 2000311 and 2001341 of the simulation."""
    before = JobRow("j", "done", "", "", "", 0, attempt=7, request=requested(attempt=7))
    assert job_state.step_of("j", before, 10, fresh=True) == Step("j", 10, fresh=True)
    others = msgspec.structs.replace(before, attempt=10, request=requested(attempt=10, fresh=True))
    assert job_state.step_of("j", others, 10, fresh=True) == Step("j", 10, fresh=True)
    not_afresh = msgspec.structs.replace(others, request=requested(attempt=10))
    assert job_state.step_of("j", not_afresh, 10, fresh=True) == Step("j", 11, fresh=True)
    assert job_state.step_of("j", not_afresh, 10, fresh=False) == Step("j", 10)


def requested(**wishes: Any) -> str:
    return msgspec.json.encode(events.Requested(single(), **wishes)).decode()


def test_what_was_accepted_is_planned_and_what_has_changed_since_ends_with_its_reason(world: World) -> None:
    spec, data = single(), events.Requested(single(), DAYS)
    ready = prepare.prepare(world, spec, DAYS)
    row = job_state.accepted(ready.job_id, ready.spec, ready.data_digest, data, None, 700)
    world.put_job(row)
    requested = job_state.request_of(row)
    assert requested is not None and requested.attempt == 700
    world._days = [
        msgspec.structs.replace(d, digest="0" * 64 if k == 3 else d.digest) for k, d in enumerate(world._days)
    ]
    event = events.make("gateway", events.REQUESTED, ready.job_id, requested)
    (said,) = split.split(event, world.runtime)
    assert said.type == events.FAILED and "have changed since" in world.jobs[ready.job_id].reason
    world._days[3] = msgspec.structs.replace(world._days[3], digest="1" * 64)
    other = prepare.prepare(world, spec, DAYS)
    row = job_state.accepted(other.job_id, other.spec, other.data_digest, data, None, 700)
    world.put_job(row)
    split.split(events.make("gateway", events.REQUESTED, other.job_id, data), world.runtime)
    planned = world.jobs[other.job_id]
    assert (planned.state, planned.attempt, planned.request) == ("planned", 700, row.request)
    assert job_state.accepted(other.job_id, spec, "", data, planned, 600).attempt == 701


def test_a_set_that_a_sweep_had_is_done_at_once(world: World) -> None:
    deliver(world, request(sweep(), 2))
    computed = len(world.rows)
    said = deliver(world, request(single(), DAYS))
    assert [event.type for event in said] == [events.REQUESTED, events.COMPLETED]
    digest = prepare.prepare(world, single(), 1).data_digest
    assert world.jobs[job_id(single(), digest)].state == "done" and len(world.rows) == computed
    assert len(deliver(world, request(single(), DAYS, fresh=True))) > 2


def test_states_come_in_their_order(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("candlemill.backtests.spec_rules.WARM_UP_BARS", 10)  # or no guess would be wrong
    seen: list[str] = []
    put = world.put_job
    world.put_job = lambda row, at_ms=None: (seen.append(row.state), put(row, at_ms))[1]  # type: ignore[method-assign, func-returns-value]
    deliver(world, request(sweep(), 4))
    assert seen == ["planned", "merging", "done"]
    seen.clear()
    held = msgspec.structs.replace(single(), strategy="buy_and_hold", params={}, stop_loss=500_000)
    deliver(world, request(held, DAYS))
    assert seen == ["planned", "repairing", "done"]


@pytest.mark.parametrize("seed", range(20))
def test_requests_in_any_order_and_number_end_in_the_right_bits(seed: int) -> None:
    """Several attempts, cuts and copies at once, in any order, one of which may fail; no state is ever taken back."""
    rng = random.Random(seed)
    fail = rng.random() < 0.5
    world = World(bars())
    world.runtime = HandlerContext(world, world, world.runtime.candles, Clock())
    spec = msgspec.structs.replace(sweep(), grid={"fast": [5, 9], "slow": [60]})
    requested = [
        request(spec, rng.choice([None, 1, 3, DAYS]), rng.random() < 0.2, rng.choice([0, k])) for k in range(1, 5)
    ]
    queue, last = requested * 2, (0, 0)
    while queue:
        event = queue.pop(rng.randrange(len(queue)))
        if rng.random() < 0.2:
            queue.append(event)
        queue += [said for said in HANDLERS[event.type](event, world.runtime) if said.type in HANDLERS]
        assert the_job(world).order >= last
        last = the_job(world).order
        if fail and rng.random() < 0.1 and not the_job(world).finished:
            fail = False
            world.put_job(msgspec.structs.replace(the_job(world), state="failed"))
            queue.append(request(spec, None, attempt=10**6))
    assert last[1] == RANKS["done"]
    alone = World(bars())
    alone.run(spec, 1)
    assert digests(world.results) == digests(alone.results)
