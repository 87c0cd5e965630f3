"""Waves: how many tasks are under way, that none is left out, and that nobody says many events for one."""

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from candlemill.backtests.plan import Plan
from candlemill.backtests.resolve import resolve
from candlemill.pipeline import events, execute, split, watchdog, waves
from candlemill.pipeline.context import HandlerContext, Waves
from candlemill.pipeline.events import Event
from candlemill.pipeline.job_state import plan_of
from candlemill.pipeline.rows import JobRow
from candlemill.transport.dedup import PublishDeduplicator
from hypothesis import given, settings
from hypothesis import strategies as st
from test_handlers import DAYS, bars, digests, request, sweep
from world import FIRST_DAY, HANDLERS, World

DAY_MS = 86_400_000
SPEC = resolve(symbol="X", strategy="sma_cross", span=(FIRST_DAY, FIRST_DAY + DAY_MS), params={"fast": 2, "slow": 5})


# -- places --------------------------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 60)), st.integers(1, 8))
def test_ranges_keep_all_numbers(numbers: set[int], most: int) -> None:
    exact = waves.ranges_of(sorted(numbers))
    assert [k for first, last in exact for k in range(first, last)] == sorted(numbers)
    found = waves.ranges_of(sorted(numbers), most)
    assert len(found) <= most and all(first < last for first, last in found)
    kept = [k for first, last in found for k in range(first, last)]
    assert kept == sorted(set(kept)) and numbers <= set(kept)
    if len(exact) <= most:
        assert found == exact
    elif numbers:
        assert (kept[0], kept[-1]) == (min(numbers), max(numbers))


def row_of(plan: Plan) -> JobRow:
    return JobRow("a" * 32, "planned", "", msgspec.json.encode(plan).decode(), "d", 1)


def expanded(row: JobRow, plan: Plan, requested: Sequence[Event]) -> list[int]:
    """Return the places of the tasks and checks that are requested at last, by shares of shares."""
    places: list[int] = []
    queue = list(requested)
    while queue:
        event = queue.pop()
        data: Any = events.read(event, events.DATA[event.type])
        if isinstance(data, events.TasksRequested):
            shared = waves.handed_out(row, SPEC, plan, data.first, data.last)
            assert len(shared) <= waves.EVENTS_AT_ONCE
            queue += shared
        else:
            places.append(data.place)
    return places


@given(
    st.sets(st.integers(0, 400)),
    st.sets(st.integers(0, 200)),
    st.integers(1, 60),
    st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_every_place_is_requested_exactly_once(todo: set[int], checks: set[int], lanes: int, at_once: int) -> None:
    plan = Plan([k * DAY_MS for k in range(11)], 1, 2_000, 1, group=2, lanes=lanes)
    plan = waves.with_todo(plan, sorted(todo), sorted(checks))
    row = row_of(plan)
    count = sum(last - first for first, last in (*plan.todo, *plan.checks))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waves, "EVENTS_AT_ONCE", at_once + 1)
        places = expanded(row, plan, waves.first_wave(row, SPEC, plan))
        assert sorted(places) == list(range(min(lanes, count)))
        for place in places:  # grows while it is read
            places += expanded(row, plan, waves.next_task(row, SPEC, plan, place))
    assert sorted(places) == list(range(count))
    assert count >= len(todo) + len(checks)


def test_what_is_at_a_place_is_the_plan_s() -> None:
    plan = Plan([k * DAY_MS for k in range(11)], 3, 7, 1, group=4, lanes=8, todo=[(1, 3), (7, 9)], checks=[(1, 2)])
    row = row_of(plan)
    found = [events.read(event, events.DATA[event.type]) for event in waves.first_wave(row, SPEC, plan)]
    *tasks, check = found
    assert [(t.batch, t.first, t.count, t.slice, [c // DAY_MS for c in t.cuts], t.place) for t in tasks] == [  # type: ignore[attr-defined]
        (0, 0, 3, 4, [4, 5, 6, 7, 8], 0),
        (0, 0, 3, 8, [8, 9, 10], 1),
        (2, 6, 1, 4, [4, 5, 6, 7, 8], 2),
        (2, 6, 1, 8, [8, 9, 10], 3),
    ]
    assert check == events.SliceCompleted("a" * 32, 1, 0, "", 4)


@given(st.integers(1, 300), st.integers(1, 12), st.integers(0, 200))
def test_batches_take_turns(tasks: int, batch_tasks: int, lanes: int) -> None:
    """Each task has a place, and between two tasks of a batch are those of the other batches that take turns with it.
    With few lanes the order is that of the numbers."""
    found = [waves.in_turns(place, tasks, batch_tasks, lanes) for place in range(tasks)]
    assert sorted(found) == list(range(tasks))
    turns = lanes // waves.TURNS
    if turns <= 1:
        assert found == sorted(found)
    places = {number: place for place, number in enumerate(found)}
    for number in range(tasks - tasks % max(1, turns * batch_tasks) if turns else 0):
        if (number + 1) % batch_tasks:
            assert places[number + 1] - places[number] == turns


def test_the_largest_job_is_handed_out_in_few_events_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 tasks for 10,000 executors: two levels of shares, and a plan of a few bytes."""
    plan = Plan([k * DAY_MS for k in range(101)], 512, 512 * 1_000, 1, lanes=10_000)
    plan = waves.with_todo(plan, range(100_000), [])
    row = row_of(plan)
    assert plan.tasks == 100_000 and len(row.plan) < 2_000
    requested = waves.first_wave(row, SPEC, plan)
    assert len(requested) <= waves.EVENTS_AT_ONCE and {event.type for event in requested} == {events.TASKS_REQUESTED}
    assert sorted(expanded(row, plan, requested)) == list(range(10_000))
    (last,) = waves.next_task(row, SPEC, plan, 89_999)
    assert events.read(last, events.SliceRequested).place == 99_999
    assert waves.next_task(row, SPEC, plan, 90_000) == []
    scattered = waves.with_todo(plan, range(0, 100_000, 2), [])
    assert len(msgspec.json.encode(scattered)) < 10_000


def test_tasks_have_as_many_slices_as_fit_their_time() -> None:
    def group(points: int, days: float, seconds: float, slices: int = 10_000) -> int:
        cuts = [int(k * days * DAY_MS) for k in range(slices + 1)]
        plan = Plan(cuts, 512, points, int(slices * days * 1440))
        return waves.grouped(SPEC, plan, Waves(16, seconds)).group

    assert group(1, 182, 1) == 31  # of one set: half-years are read in 30 ms each
    assert group(512, 91, 1) == 4 and group(512, 91, 10) == 16  # of a sweep: a quarter takes 0.2 s
    assert group(512, 91, 0) == group(512, 3650, 1) == 1
    assert group(1, 1, 60) == waves.GROUP_SLICES and group(512, 1, 60) == waves.GROUP_OUTCOMES // 512
    assert group(1, 1, 60, slices=5) == 5
    plain = Plan([0, DAY_MS], 512, 512, 1440)
    assert waves.grouped(SPEC, plain, None) == plain


# -- the handlers --------------------------------------------------------------------------------------------------


class Cluster:
    """The handlers behind a Broker that doubles and shuffles events.
    `most` is the highest number of different tasks, without repairs, that were under way at once."""

    def __init__(self, world: World, lanes: int, seconds: float, rng: random.Random, copies: float) -> None:
        self.world, self._rng, self._copies = world, rng, copies
        self.runtime = msgspec.structs.replace(world.runtime, waves=Waves(lanes, seconds))
        self.requested = PublishDeduplicator()
        self.queue: list[Event] = []
        self.ran: list[Event] = []
        self.most = 0
        self.lose: set[int] = set()  # numbers of completions that are lost

    def send(self, first: Event) -> list[Event]:
        """Deliver until all is quiet. Return the events that no function takes."""
        self.queue, ended, heard = [first], [], 0
        while self.queue:
            under_way = {e.id for e in self.queue if e.type == events.SLICE_REQUESTED and b'"repairs":[]' in e.data}
            self.most = max(self.most, len(under_way))
            event = self.queue.pop(self._rng.randrange(len(self.queue)))
            if event.type not in HANDLERS:
                ended.append(event)
                continue
            heard += event.type == events.SLICE_COMPLETED
            if event.type == events.SLICE_COMPLETED and heard in self.lose:
                continue
            if event.type == events.SLICE_REQUESTED:
                self.ran.append(event)
            if event.type != events.REQUESTED and self._rng.random() < self._copies:
                self.queue.append(event)
            with self.requested.new(HANDLERS[event.type](event, self.runtime)) as answer:
                assert len(answer) <= waves.EVENTS_AT_ONCE
                self.queue += answer
        return ended


@pytest.mark.parametrize("copies", [0, 0.3])
@pytest.mark.parametrize("seed", range(8))
def test_no_more_tasks_are_under_way_than_lanes(seed: int, copies: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "backtests.plan.BATCH_SETS": 7, "pipeline.tasks.REPAIR_EVENT_POINTS": 100,
        "pipeline.waves.EVENTS_AT_ONCE": 3, "pipeline.waves.TURNS": 2,
    }.items():  # fmt: skip
        monkeypatch.setattr(f"candlemill.{name}", value)
    rng = random.Random(seed)
    slices, lanes, seconds = rng.choice([None, 1, 3, DAYS]), rng.randint(1, 6), rng.choice([0, 1e-4, 1.0])
    world = World(bars())
    cluster = Cluster(world, lanes, seconds, rng, copies)
    assert {event.type for event in cluster.send(request(sweep(), slices))} == {events.COMPLETED}
    plan = plan_of(next(iter(world.jobs.values())))
    assert plan is not None and plan.lanes == lanes
    guesses = {event.id for event in cluster.ran if b'"repairs":[]' in event.data}
    assert len(guesses) == plan.batches * plan.batch_tasks
    if not copies:
        assert cluster.most <= lanes
        assert len(cluster.ran) == len({event.id for event in cluster.ran}), "nothing is set off twice"
    monkeypatch.undo()
    other = World(bars())
    other.run(sweep(), 1)
    assert len(world.results) == 40 and digests(world.results) == digests(other.results)


def test_copies_do_not_multiply_along_a_lane() -> None:
    """Each event comes twice; each task runs twice, the last one of a lane too."""
    world = World(bars())
    cluster = Cluster(world, 1, 0, random.Random(5), 0)
    runtime, requested, runs = cluster.runtime, cluster.requested, []
    queue = [request(sweep(), DAYS)]
    while queue:
        event = queue.pop(0)
        for _ in range(2 if event.type != events.REQUESTED else 1):
            runs += [event.id] * (event.type == events.SLICE_REQUESTED)
            if event.type in HANDLERS:
                with requested.new(HANDLERS[event.type](event, runtime)) as answer:
                    queue += answer
    assert len(runs) >= 2 * DAYS and {runs.count(one) for one in runs} <= {2, 4}  # execute itself publishes copies
    assert runs.count(runs[-1]) <= 4


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_lost_completion_is_found_again(lanes: int) -> None:
    """Its lane stands still. The watch requests the job again, and split begins new lanes with what is missing."""
    world = World(bars())
    cluster = Cluster(world, lanes, 0, random.Random(1), 0)
    cluster.lose = {2}
    now = [10**12]
    world.runtime = HandlerContext(world, world, world.runtime.candles, lambda: now[0])  # type: ignore[arg-type]
    cluster.runtime = msgspec.structs.replace(world.runtime, waves=Waves(lanes, 0))
    assert cluster.send(request(sweep(), DAYS)) == []
    done = len(cluster.ran)
    assert done < DAYS
    now[0] += watchdog.STALL_MS + 1
    (again,) = watchdog.watch(cluster.runtime, now[0])
    cluster.lose = set()
    assert [event.type for event in cluster.send(again)] == [events.COMPLETED]
    guesses = [event for event in cluster.ran if b'"repairs":[]' in event.data]
    assert len(guesses) == DAYS, "what was done is not requested again"
    plan = plan_of(next(iter(world.jobs.values())))
    assert plan is not None and sum(last - first for first, last in plan.todo) == DAYS - done


def test_what_is_known_is_only_merged() -> None:
    """No task is requested for outcomes of another job; checks of batches travel in waves too."""
    world = World(bars())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("candlemill.backtests.plan.BATCH_SETS", 7)
        cluster = Cluster(world, 2, 0, random.Random(1), 0)
        cluster.send(request(sweep(), DAYS))
        ran = len(cluster.ran)
        fees = msgspec.structs.replace(sweep(), capital=10**12)  # multiplies nothing that outcomes hold
        requested = split.split(request(fees, DAYS), cluster.runtime)
        assert {event.type for event in requested} == {events.SLICE_COMPLETED} and len(requested) == 2
        assert cluster.send(request(fees, DAYS))[-1].type == events.COMPLETED
        assert len(cluster.ran) == ran and len(world.results) == 80


def test_a_share_of_a_job_that_has_ended_requests_nothing() -> None:
    world = World(bars())
    cluster = Cluster(world, 2, 0, random.Random(1), 0)
    cluster.send(request(sweep(), 2))
    (job,) = world.jobs
    share = events.make("split", events.TASKS_REQUESTED, job, events.TasksRequested(job, 0, 9))
    assert split.split(share, cluster.runtime) == []
    world.jobs.clear()
    with pytest.raises(Exception, match="is not in the store yet"):
        split.split(share, cluster.runtime)


def test_a_place_that_somebody_made_up_sets_off_nothing() -> None:
    world = World(bars())
    runtime = msgspec.structs.replace(world.runtime, waves=Waves(2, 0))
    requested = split.split(request(sweep(), DAYS), runtime)
    (done,) = execute.execute(requested[0], runtime)
    data = events.read(done, events.SliceCompleted)
    assert data.place == 0
    far = msgspec.structs.replace(data, place=100_000)
    forged = events.make("x", events.SLICE_COMPLETED, data.job_id, far)
    assert HANDLERS[events.SLICE_COMPLETED](forged, runtime) == []
