"""Portfolios and walk-forwards as events: in any order, with copies and losses, they end the same, or say why not."""

import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from candlemill import campaigns, control, events, service
from candlemill.errors import BadInput
from candlemill.events import Event
from candlemill.ledger import JobRow, ResultRow, Runtime
from candlemill.model import SCALE, Spec, WalkForward
from candlemill.portfolio import Part, parts_of, portfolio_result
from candlemill.states import steps_of
from test_control import Clock
from test_handlers import bars
from test_states import single
from test_states import sweep as many
from world import HANDLERS, World

MINUTE = 60_000
WEIGHTS = {"X": 3 * SCALE, "Y": SCALE, "Z": SCALE // 2}
ROUTES = {**HANDLERS, events.COMPLETED: service.aggregate, events.FAILED: service.aggregate}


class Campaigns(World):
    """A world whose symbols all have the same candles."""

    def __init__(self) -> None:
        super().__init__(bars())
        self.clock = Clock()
        self.runtime = Runtime(Asked(self), self, self.runtime.tapes, self.clock)  # type: ignore[arg-type]
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


class Asked:
    """The world as a ledger, where `results` are rows that are asked for."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def results(self, job_ids: list[str]) -> list[ResultRow]:
        return self._world.results_of(job_ids)


@pytest.fixture
def world() -> Iterator[Campaigns]:
    yield Campaigns()


def sweep() -> Spec:
    return msgspec.structs.replace(many(), grid={"fast": [5, 9, 20], "slow": [30, 60]})


def portfolio(**more: Any) -> Event:
    return events.make("test", events.REQUESTED, "", events.Requested(single(), 2, weights=WEIGHTS, **more))


def walk(**more: Any) -> Event:
    how = WalkForward("3d", "2d")
    return events.make("test", events.REQUESTED, "", events.Requested(sweep(), 2, walk_forward=how, **more))


def campaign(world: World) -> JobRow:
    (row,) = (row for row in world.jobs.values() if row.kind in ("portfolio", "walk_forward"))
    return row


def joint(world: Campaigns) -> dict[str, Any]:
    """A portfolio's result, made of its parts' by hand."""
    parts = []
    for spec in parts_of(single(), WEIGHTS):
        job = service.prepare(world, spec, 2)
        row = world.result_rows[job.job_id]
        parts.append(Part(spec.symbol, msgspec.json.decode(row.result), row.daily))
    return portfolio_result(single(), WEIGHTS, parts)[0]


def test_a_portfolio_is_its_jobs_and_then_their_sum(world: Campaigns) -> None:
    world.deliver(portfolio())
    row = campaign(world)
    assert (row.state, row.kind, len(steps_of(row)), len(world.jobs)) == ("done", "portfolio", 3, 4)
    found = msgspec.json.decode(world.result_rows[row.job_id].result)
    assert found["result_digest"] == joint(world)["result_digest"] and found["job_id"] == row.job_id
    assert len({event.id for event in world.said if event.type == events.COMPLETED}) == 4
    world.said.clear()
    world.deliver(portfolio())
    assert [event.type for event in world.said] == [events.REQUESTED, events.COMPLETED]


def test_a_walk_forward_is_a_sweep_and_then_what_it_chose(world: Campaigns) -> None:
    world.deliver(walk())
    row = campaign(world)
    chosen = campaigns.chosen_of(row)
    assert (row.state, row.kind, [step.job_id for step in steps_of(row)]) == (
        "done", "walk_forward", [chosen.sweep_id, chosen.job_id]
    )  # fmt: skip
    assert [leg.params for leg in chosen.spec.schedule] == [fold["params"] for fold in chosen.folds]
    assert len(chosen.folds) == 3 and chosen.job_id in world.result_rows


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["portfolio", "walk"])
def test_in_any_order_with_copies_and_losses_it_ends_the_same(kind: str, seed: int) -> None:
    ask = portfolio if kind == "portfolio" else walk
    calm, wild = Campaigns(), Campaigns()
    calm.deliver(ask())
    rng = random.Random(seed)
    wild.deliver(ask(), rng=rng)
    for _ in range(100):
        if wild.jobs and campaign(wild).finished:
            break
        wild.clock.now += 100 * MINUTE
        asked = service.watch(wild.runtime, wild.clock.now) if wild.jobs else [ask()]
        wild.deliver(*asked, rng=rng, lost=0.15)
    row = campaign(wild)
    if row.state == "failed":
        assert "nothing was heard of its tasks" in row.reason
        wild.deliver(ask(), rng=rng)
        row = campaign(wild)
    assert row.state == "done" and row.figures == campaign(calm).figures
    assert set(calm.results) == set(wild.results)
    for one, result in wild.results.items():
        assert result["result_digest"] == calm.results[one]["result_digest"]


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_a_step_that_ends_badly_ends_it_and_asked_again_it_goes_on(world: Campaigns, end: str) -> None:
    for event in service.split(portfolio(), world.runtime):
        service.split(event, world.runtime)
    child = next(row for row in world.jobs.values() if row.kind == "backtest" and '"Y"' in row.spec)
    world.put_job(msgspec.structs.replace(child, state=end, reason="no such luck"))
    word = events.make("test", events.FAILED, child.job_id, events.Failed(child.job_id, "no such luck"))
    world.deliver(word, word)
    row = campaign(world)
    assert row.state == "failed" and row.reason == f"its backtest of Y, job {child.job_id[:12]}: no such luck"
    world.clock.now += 1
    world.deliver(portfolio())
    assert campaign(world).state == "done" and campaign(world).attempt > row.attempt
    assert world.jobs[child.job_id].state == "done"


def test_what_cannot_begin_ends_as_failed_with_its_reason(world: Campaigns) -> None:
    event = events.make("test", events.REQUESTED, "", events.Requested(sweep(), 2, weights=WEIGHTS))
    with pytest.raises(BadInput, match="a grid is for one symbol"):
        service.split(event, world.runtime)
    event = events.make("test", events.REQUESTED, "", events.Requested(sweep(), walk_forward=WalkForward("90d", "2d")))
    with pytest.raises(BadInput, match="leaves nothing of 8 days"):
        service.split(event, world.runtime)
    dead = msgspec.structs.replace(event, error="refused", partitionkey="e" * 32)
    world.deliver(*service.aggregate(dead, world.runtime))
    assert (world.jobs["e" * 32].state, world.jobs["e" * 32].reason) == ("failed", "refused")


def test_a_choice_that_cannot_be_made_fails_the_campaign_and_not_its_sweep(
    world: Campaigns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaigns, "MATRIX_LIMIT", 3)
    world.deliver(walk())
    assert campaign(world).state == "failed" and "the limit is 3" in campaign(world).reason
    assert [row.state for row in world.jobs.values() if row.kind == "sweep"] == ["done"]


def test_afresh_all_of_it_is_computed_again_once(world: Campaigns) -> None:
    world.deliver(portfolio())
    before = {one: row.attempt for one, row in world.jobs.items()}
    world.clock.now += 1
    asked = portfolio(fresh=True, attempt=world.clock.now)
    world.deliver(asked, asked)
    again = {one: row.attempt for one, row in world.jobs.items()}
    assert {row.state for row in world.jobs.values()} == {"done"}
    assert all(again[one] > attempt for one, attempt in before.items())
    world.said.clear()
    world.deliver(asked)
    assert {event.type for event in world.said} == {events.REQUESTED, events.COMPLETED}


def test_a_cancelled_campaign_takes_those_with_it_that_nobody_else_waits_for(world: Campaigns) -> None:
    alone = events.make("test", events.REQUESTED, "", events.Requested(single(), 2))
    service.split(alone, world.runtime)  # X with weight 1: no part of the portfolio
    for event in service.split(portfolio(), world.runtime):
        service.split(event, world.runtime)
    fewer = events.Requested(single(), 2, weights={"Y": SCALE})
    service.split(events.make("test", events.REQUESTED, "", fewer), world.runtime)
    row = max((row for row in world.jobs.values() if row.kind == "portfolio"), key=lambda row: len(steps_of(row)))
    control.cancel(row.job_id, world)
    states = {(row.kind, msgspec.json.decode(row.spec)["quantity"]): row.state for row in world.jobs.values()}
    assert states["backtest", 3 * SCALE] == states["backtest", SCALE // 2] == "cancelled"
    assert [row.state for row in world.waiting_for(steps_of(row)[1].job_id)] == ["planned"]
    assert world.jobs[steps_of(row)[1].job_id].state == "planned"


def test_jobs_are_shared_by_the_campaigns_that_want_them(world: Campaigns) -> None:
    other = events.Requested(single(), 2, weights={"Y": SCALE, "X": 3 * SCALE})
    world.deliver(portfolio(), events.make("test", events.REQUESTED, "", other))
    assert [row.kind for row in world.jobs.values()].count("backtest") == 3
    assert {row.state for row in world.jobs.values()} == {"done"}
