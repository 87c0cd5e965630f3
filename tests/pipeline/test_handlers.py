"""What the handlers do with a store that holds other plans' and other runs' rows, and with candles in the making."""

import random
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from candlemill.backtests import plan
from candlemill.backtests.grid import grid_points
from candlemill.backtests.merge import Repair
from candlemill.backtests.plan import Plan
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import Spec
from candlemill.errors import BadInput, BeingWritten, CandlesMissing
from candlemill.pipeline import aggregate, events, execute, job_state, prepare, split, tasks
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Event
from candlemill.pipeline.rows import DONE, GUESS, JobRow
from candlemill.store.candle_reader import CandleReader
from hypothesis import given, settings
from slow_engine import Bar
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
        symbol="X",
        strategy="sma_cross",
        span=span,
        params={},
        grid={"fast": list(range(1, 41)), "slow": [60]},
        account="units",
    )


def request(spec: Spec, slices: int | None, fresh: bool = False) -> Event:
    return events.make("test", events.REQUESTED, "", events.Requested(spec, slices, fresh))


def deliver(runtime: HandlerContext, first: Event, only: Any = lambda event: True) -> Iterator[Event]:
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
    requested = split.split(request(sweep(), DAYS), world.runtime)
    for event in requested[:5]:
        execute.execute(event, world.runtime)
    again = split.split(request(sweep(), DAYS), world.runtime)
    assert [event.id for event in again] == [event.id for event in requested[5:]]


def test_requested_afresh_nothing_stored_is_used(world: World) -> None:
    spec = sweep()
    list(deliver(world.runtime, request(spec, DAYS)))
    right = dict(world.results)
    world.results.clear()
    for key, row in world.kept.items():  # whoever reads these will not get far
        world.kept[key] = msgspec.structs.replace(row, summary="spoilt")
    runtime = HandlerContext(world, world, world.runtime.candles, lambda: 1234)
    said = list(deliver(runtime, request(spec, DAYS, fresh=True)))
    assert sum(event.type == events.SLICE_REQUESTED for event in said) >= DAYS
    assert digests(world.results) == digests(right)


@pytest.mark.parametrize("state", ["failed", "planned"])
@pytest.mark.parametrize("spec", [sweep(), msgspec.structs.replace(sweep(), params={"fast": 5, "slow": 60}, grid={})])
def test_lost_results_of_merged_batches_are_computed_again(
    world: World, monkeypatch: pytest.MonkeyPatch, spec: Spec, state: str
) -> None:
    """The job's last states are lost too, such as with parts of both tables: `doctor` has nothing to find."""
    monkeypatch.setattr(plan, "BATCH_OUTCOMES", 64)
    list(deliver(world.runtime, request(spec, 8)))
    right, (row,) = digests(world.results), world.jobs.values()
    for name in [*world.results][::2]:
        del world.results[name], world.result_rows[name]
    world.jobs[row.job_id] = msgspec.structs.replace(row, state=state)
    said = list(deliver(world.runtime, request(spec, 8)))
    assert said[-1].type == events.COMPLETED and digests(world.results) == right


def test_candles_in_the_making_are_waited_for(world: World) -> None:
    """Only those of the job's range matter."""
    whole, early = sweep(), msgspec.structs.replace(sweep(), end=FIRST_DAY + 3 * DAY_MS)
    tasks = split.split(request(early, 1), world.runtime)
    world._days = [msgspec.structs.replace(d, digest="" if k == 5 else d.digest) for k, d in enumerate(world._days)]
    with pytest.raises(BeingWritten, match="1 days of X from 2021-01-06"):
        split.split(request(whole, 1), world.runtime)
    assert BeingWritten.retryable
    assert execute.execute(tasks[0], world.runtime)


def test_candles_that_change_while_they_are_read_are_not_used(world: World) -> None:
    (task,) = split.split(request(sweep(), 1), world.runtime)
    read = world.read_columns

    def read_and_write(*arguments: Any) -> dict[str, Any]:
        found = read(*arguments)
        world._days = [msgspec.structs.replace(day, digest="") for day in world._days]
        world.columns = world.columns | {"volume": world.columns["volume"] + 1}
        return found

    days, columns = world._days, world.columns
    world.read_columns = read_and_write  # type: ignore[method-assign]
    with pytest.raises(BeingWritten, match="changed while they were read"):
        execute.execute(task, world.runtime)
    assert GUESS not in [row.kind for row in world.rows.values()]
    world.read_columns, world._days, world.columns = read, days, columns  # type: ignore[method-assign]
    assert execute.execute(task, world.runtime)  # nothing of it was kept


def test_candles_that_are_counted_while_a_write_is_open_are_used(world: World) -> None:
    """A writer that died has marked a day, and written nothing: the candles that are read are those of the job."""
    (task,) = split.split(request(sweep(), 1), world.runtime)
    counted = world._days
    world._days = [msgspec.structs.replace(day, digest="") for day in counted]
    index = SimpleNamespace(days=lambda symbol: counted, funding=world.funding)
    runtime = msgspec.structs.replace(world.runtime, index=index, candles=CandleReader(index.days, world))  # type: ignore[arg-type]
    assert execute.execute(task, runtime)


def test_candles_that_went_missing_under_the_index_are_refused(world: World) -> None:
    """Of a part that a database has lost nothing is said but that rows are not there."""
    (task,) = split.split(request(sweep(), 1), world.runtime)
    whole = world.columns
    for lost, message in (
        (slice(288, 576), "on 1 days, 2021-01-02 (0 of 288 rows)"),
        (slice(5, 6), "(287 of 288 rows)"),
    ):
        kept = np.ones(len(whole["t"]), dtype=bool)
        kept[lost] = False
        world.columns = {name: column[kept] for name, column in whole.items()}
        with pytest.raises(CandlesMissing, match=re.escape(message)):
            execute.execute(task, world.runtime)
    assert GUESS not in [row.kind for row in world.rows.values()] and not CandlesMissing.retryable
    world.columns = whole
    assert execute.execute(task, world.runtime)


def test_a_task_of_several_slices_keeps_each_under_its_own_name(world: World) -> None:
    """No outcome of two slices is stored under the name of one; the task's record names both."""
    requested = [
        events.read(event, events.SliceRequested) for event in split.split(request(sweep(), DAYS), world.runtime)
    ]
    wide = msgspec.structs.replace(requested[0], cuts=requested[0].cuts + requested[1].cuts[1:])
    execute.execute(events.make("test", events.SLICE_REQUESTED, wide.job_id, wide), world.runtime)
    kept, (record,) = dict(world.kept), world.rows.values()
    assert record.task.startswith(f"{wide.cuts[0]}-{wide.cuts[2]}/") and record.kind == GUESS
    for one in requested[:2]:  # the same outcomes, computed one slice at a time
        world.kept.clear()
        execute.execute(events.make("test", events.SLICE_REQUESTED, one.job_id, one), world.runtime)
        assert world.kept and world.kept.items() <= kept.items()
    assert len(kept) == 2 * 40
    turned = msgspec.structs.replace(wide, cuts=[wide.cuts[0], wide.cuts[2], wide.cuts[1]])
    with pytest.raises(BadInput, match=r"slice 0: cuts .* do not bound its slices in order"):
        execute._check_task(turned, range(40))
    execute._check_task(msgspec.structs.replace(wide, repairs=[Repair(0, 0, 2, "0,0,0,0,0,0|")]), range(40))


def test_candles_that_changed_after_the_plan_are_not_merged(world: World) -> None:
    said = list(deliver(world.runtime, request(sweep(), 2), lambda event: event.type != events.SLICE_COMPLETED))
    (job,) = world.jobs.values()
    made = job_state.plan_of(job)
    assert made is not None
    world._days = [msgspec.structs.replace(day, digest="f" * 32) for day in world._days]
    with pytest.raises(BadInput, match="the candles of X have changed since the job was planned"):
        aggregate.aggregate(said[-1], world.runtime)
    with pytest.raises(BadInput, match="the candles of X have changed since the job was planned"):
        aggregate.merge_here(world.runtime, job, made, 0, 1)
    assert not world.results


def test_repairs_that_do_not_fit_an_event_travel_in_several() -> None:
    spec = sweep()
    cuts = [FIRST_DAY + k * DAY_MS for k in range(1001)]
    row = JobRow("a" * 32, "running", "", "", "digest", 0)
    repairs = [Repair(k, 2 * k, 64, "1,1,0,5,5,0|" + "m" * 900) for k in range(256)]
    made = tasks.repair_events(row, spec, Plan(cuts, 512, 512, 0), 0, repairs)
    assert len(made) > 1
    assert all(len(event.data) <= events.EVENT_BYTES_LIMIT for event in made)
    parts = [events.read(event, events.SliceRequested) for event in made]
    assert [repair for task in parts for repair in task.repairs] == repairs
    for task in parts:
        execute._check_task(msgspec.structs.replace(task, spec=_longer(spec)), range(256))


def _longer(spec: Spec) -> Spec:
    return msgspec.structs.replace(spec, end=FIRST_DAY + 1000 * DAY_MS)


@given(jobs())
@settings(max_examples=60, deadline=None)
def test_checking_a_spec_changes_nothing_in_a_right_one(job: tuple[Market, Spec]) -> None:
    spec = job[1]
    assert prepare.validated(spec).to_json() == spec.to_json()
    assert prepare.validated(sweep()).to_json() == sweep().to_json()


def test_checking_a_spec_fills_in_what_was_left_out() -> None:
    short = msgspec.structs.replace(sweep(), grid={}, params={"slow": 60})
    (full,) = [params for _, params, _ in grid_points(short, 0, 1)]
    assert prepare.validated(short).params == full
    assert len(full) == 3
