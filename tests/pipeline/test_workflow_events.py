"""Portfolios and walk-forwards as events: in any order, with copies and losses, they end the same, or say why not."""

import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from candlemill.backtests.portfolio import Part, parts_of, portfolio_result
from candlemill.backtests.spec import Spec, WalkForward
from candlemill.errors import BadInput
from candlemill.pipeline import aggregate, events, lifecycle, prepare, split, workflows
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Event
from candlemill.pipeline.job_state import steps_of
from candlemill.pipeline.rows import JobRow, ResultRow
from candlemill.units import SCALE
from test_handlers import bars
from test_job_state import single
from test_job_state import sweep as many
from test_watchdog import Clock
from world import HANDLERS, World

MINUTE = 60_000
WEIGHTS = {"X": 3 * SCALE, "Y": SCALE, "Z": SCALE // 2}
ROUTES = {**HANDLERS, events.COMPLETED: aggregate.aggregate, events.FAILED: aggregate.aggregate}


class Workflows(World):
    """A world whose symbols all have the same candles."""

    def __init__(self) -> None:
        super().__init__(bars())
        self.clock = Clock()
        self.runtime = HandlerContext(StoreWithJoints(self), self, self.runtime.candles, self.clock)  # type: ignore[arg-type]
        self.said: list[Event] = []

    def deliver(self, *waiting: Event, rng: random.Random | None = None, lost: float = 0.0) -> None:
        """Until all is quiet; shuffled and doubled with `rng`, and then some are lost."""
        queue = list(waiting)
        while queue:
            self.clock.now += 1
            event = queue.pop(rng.randrange(len(queue)) if rng else 0)
            if rng and rng.random() < 0.2:
                queue.append(event)
            if rng and rng.random() < lost:
                continue
            self.said.append(event)
            if event.type in ROUTES:
                queue += ROUTES[event.type](event, self.runtime)


class StoreWithJoints:
    """The world as a store whose `results` are rows."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def results(self, job_ids: list[str]) -> list[ResultRow]:
        return self._world.results_of(job_ids)


@pytest.fixture
def world() -> Iterator[Workflows]:
    yield Workflows()


def sweep() -> Spec:
    return msgspec.structs.replace(many(), grid={"fast": [5, 9, 20], "slow": [30, 60]})


def portfolio(**more: Any) -> Event:
    return events.make("test", events.REQUESTED, "", events.Requested(single(), 2, weights=WEIGHTS, **more))


def walk(**more: Any) -> Event:
    how = WalkForward("3d", "2d")
    return events.make("test", events.REQUESTED, "", events.Requested(sweep(), 2, walk_forward=how, **more))


def workflow(world: World) -> JobRow:
    (row,) = (row for row in world.jobs.values() if row.kind in ("portfolio", "walk_forward", "sweeps"))
    return row


def joint(world: Workflows) -> dict[str, Any]:
    """A portfolio's result, made of its parts' by hand."""
    parts = []
    for spec in parts_of(single(), WEIGHTS):
        job = prepare.prepare(world, spec, 2)
        row = world.result_rows[job.job_id]
        parts.append(Part(spec.symbol, msgspec.json.decode(row.result), row.daily))
    return portfolio_result(single(), WEIGHTS, parts)[0]


def test_a_portfolio_is_its_jobs_and_then_their_sum(world: Workflows) -> None:
    world.deliver(portfolio())
    row = workflow(world)
    assert (row.state, row.kind, len(steps_of(row)), len(world.jobs)) == ("done", "portfolio", 3, 4)
    found = msgspec.json.decode(world.result_rows[row.job_id].result)
    assert found["result_digest"] == joint(world)["result_digest"] and found["job_id"] == row.job_id
    assert len({event.id for event in world.said if event.type == events.COMPLETED}) == 4
    world.said.clear()
    world.deliver(portfolio())
    assert [event.type for event in world.said] == [events.REQUESTED, events.COMPLETED]


def test_a_walk_forward_is_a_sweep_and_then_what_it_chose(world: Workflows) -> None:
    world.deliver(walk())
    row = workflow(world)
    chosen = workflows.fold_choices(row)
    assert (row.state, row.kind, [step.job_id for step in steps_of(row)]) == (
        "done", "walk_forward", [chosen.sweep_id, chosen.job_id]
    )  # fmt: skip
    assert [leg.params for leg in chosen.spec.schedule] == [fold["params"] for fold in chosen.folds]
    assert len(chosen.folds) == 3 and chosen.job_id in world.result_rows


def of_symbols(how: WalkForward | None = None, **more: Any) -> Event:
    weights = dict.fromkeys(WEIGHTS, 10**8)
    requested = events.Requested(sweep(), 2, weights=weights, walk_forward=how, **more)
    return events.make("test", events.REQUESTED, "", requested)


def test_sweeps_and_walk_forwards_of_several_symbols_are_those_of_each(world: Workflows) -> None:
    world.deliver(of_symbols())
    row = workflow(world)
    alone = [prepare.prepare(world, msgspec.structs.replace(sweep(), symbol=one), 2).job_id for one in WEIGHTS]
    assert (row.state, row.kind, [step.job_id for step in steps_of(row)]) == ("done", "sweeps", alone)
    assert all(world.jobs[one].kind == "sweep" and world.jobs[one].figures for one in alone)
    again = Workflows()
    how = WalkForward("3d", "2d")
    again.deliver(of_symbols(how))
    row = next(row for row in again.jobs.values() if row.kind == "walk_forwards")
    walks = [again.jobs[step.job_id] for step in steps_of(row)]
    assert row.state == "done" and [one.kind for one in walks] == ["walk_forward"] * len(WEIGHTS)
    assert [workflows.fold_choices(one).sweep_id for one in walks] == alone


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["portfolio", "walk", "sweeps"])
def test_in_any_order_with_copies_and_losses_it_ends_the_same(kind: str, seed: int) -> None:
    ask = {"portfolio": portfolio, "walk": walk, "sweeps": of_symbols}[kind]
    calm, wild = Workflows(), Workflows()
    calm.deliver(ask())
    rng = random.Random(seed)
    wild.deliver(ask(), rng=rng)
    for _ in range(100):
        if wild.jobs and workflow(wild).finished:
            break
        wild.clock.now += 100 * MINUTE
        requested = aggregate.watch(wild.runtime, wild.clock.now) if wild.jobs else [ask()]
        wild.deliver(*requested, rng=rng, lost=0.15)
    row = workflow(wild)
    if row.state == "failed":
        assert "its tasks made no progress" in row.reason
        wild.deliver(ask(), rng=rng)
        row = workflow(wild)
    assert row.state == "done" and row.figures == workflow(calm).figures
    assert set(calm.results) == set(wild.results)
    for one, result in wild.results.items():
        assert result["result_digest"] == calm.results[one]["result_digest"]


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_a_step_that_ends_badly_ends_it_and_requested_again_it_goes_on(world: Workflows, end: str) -> None:
    for event in split.split(portfolio(), world.runtime):
        split.split(event, world.runtime)
    child = next(row for row in world.jobs.values() if row.kind == "backtest" and '"Y"' in row.spec)
    world.put_job(msgspec.structs.replace(child, state=end, reason="no such luck"))
    word = events.make("test", events.FAILED, child.job_id, events.Failed(child.job_id, "no such luck"))
    world.deliver(word, word)
    row = workflow(world)
    assert row.state == "failed" and row.reason == f"its backtest of Y, job {child.job_id[:12]}: no such luck"
    world.clock.now += 1
    world.deliver(portfolio())
    assert workflow(world).state == "done" and workflow(world).attempt > row.attempt
    assert world.jobs[child.job_id].state == "done"


def test_what_cannot_begin_ends_as_failed_with_its_reason(world: Workflows) -> None:
    event = events.make("test", events.REQUESTED, "", events.Requested(sweep(), 2, weights={"X": 3}))
    with pytest.raises(BadInput, match="a sweep of each symbol has none"):
        split.split(event, world.runtime)
    event = events.make("test", events.REQUESTED, "", events.Requested(sweep(), walk_forward=WalkForward("90d", "2d")))
    with pytest.raises(BadInput, match="leaves nothing of 8 days"):
        split.split(event, world.runtime)
    dead = msgspec.structs.replace(event, error="refused", partitionkey="e" * 32)
    world.deliver(*aggregate.aggregate(dead, world.runtime))
    assert (world.jobs["e" * 32].state, world.jobs["e" * 32].reason) == ("failed", "refused")


def test_a_choice_that_cannot_be_made_fails_the_workflow_and_not_its_sweep(
    world: Workflows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflows, "MATRIX_LIMIT", 3)
    world.deliver(walk())
    assert workflow(world).state == "failed" and "the limit is 3" in workflow(world).reason
    assert [row.state for row in world.jobs.values() if row.kind == "sweep"] == ["done"]


def test_afresh_all_of_it_is_computed_again_once(world: Workflows) -> None:
    world.deliver(portfolio())
    before = {one: row.attempt for one, row in world.jobs.items()}
    world.clock.now += 1
    requested = portfolio(fresh=True, attempt=world.clock.now)
    world.deliver(requested, requested)
    again = {one: row.attempt for one, row in world.jobs.items()}
    assert {row.state for row in world.jobs.values()} == {"done"}
    assert all(again[one] > attempt for one, attempt in before.items())
    world.said.clear()
    world.deliver(requested)
    assert {event.type for event in world.said} == {events.REQUESTED, events.COMPLETED}


def test_a_cancelled_workflow_takes_those_with_it_that_nobody_else_waits_for(world: Workflows) -> None:
    alone = events.make("test", events.REQUESTED, "", events.Requested(single(), 2))
    split.split(alone, world.runtime)  # X with weight 1: no part of the portfolio
    for event in split.split(portfolio(), world.runtime):
        split.split(event, world.runtime)
    fewer = events.Requested(single(), 2, weights={"Y": SCALE})
    split.split(events.make("test", events.REQUESTED, "", fewer), world.runtime)
    row = max((row for row in world.jobs.values() if row.kind == "portfolio"), key=lambda row: len(steps_of(row)))
    lifecycle.cancel(row.job_id, world)
    states = {(row.kind, msgspec.json.decode(row.spec)["quantity"]): row.state for row in world.jobs.values()}
    assert states["backtest", 3 * SCALE] == states["backtest", SCALE // 2] == "cancelled"
    assert [row.state for row in world.waiting_for(steps_of(row)[1].job_id)] == ["planned"]
    assert world.jobs[steps_of(row)[1].job_id].state == "planned"


def test_jobs_are_shared_by_the_workflows_that_want_them(world: Workflows) -> None:
    other = events.Requested(single(), 2, weights={"Y": SCALE, "X": 3 * SCALE})
    world.deliver(portfolio(), events.make("test", events.REQUESTED, "", other))
    assert [row.kind for row in world.jobs.values()].count("backtest") == 3
    assert {row.state for row in world.jobs.values()} == {"done"}
