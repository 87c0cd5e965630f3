"""Order strategies one parameter set after another: as the reference plays them, however the job is cut."""

import random
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from candlemill.backtests import spec_rules
from candlemill.backtests.grid import parameters_of
from candlemill.backtests.spec import Leg, Spec
from candlemill.engine.candles import MINUTE_MS
from candlemill.errors import CandlemillError
from candlemill.pipeline import prepare
from candlemill.strategies import build
from hypothesis import event, given, settings
from order_jobs import PARAMS, cash_order_jobs, known, order_jobs, reference_bars, reference_of, reference_options
from reference.books import KEEP, Book, View
from reference.cash import run_cash
from reference.orders_strategies import make
from reference.units import run_units
from world import Market

CASH = ("total_pnl", "max_drawdown", "trades", "wins", "fills", "fees", "turnover", "open_position", "rejected_orders")
UNITS = tuple(name for name in CASH if name != "rejected_orders")


@pytest.fixture(autouse=True, scope="module")
def strategies() -> Iterator[None]:
    with known():
        yield


@pytest.fixture(autouse=True)
def warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec_rules, "WARM_UP_BARS", 3)


class SlowSchedule:
    """Each set from its start on; orders of the next one only from flat."""

    def __init__(self, spec: Spec, takes_over: bool) -> None:
        self.spec, self.takes_over = spec, takes_over
        self.turn, self.closing, self.inner = -1, False, None

    def decide(self, view: View) -> Book:
        ends = view.bars[-1].t + self.spec.timeframe * MINUTE_MS
        turn = sum(leg.start < ends for leg in self.spec.schedule) - 1
        if turn < 0:
            return Book(0) if self.takes_over else KEEP
        if turn != self.turn:
            self.turn, self.closing = turn, True
        if self.closing:
            if view.side and not self.takes_over:
                return Book(0)
            self.closing = False
            self.inner = make(reference_of(self.spec.single(self.spec.schedule[turn].params)), [])
        return self.inner.decide(view)


@st.composite
def scheduled_jobs(draw: Any) -> tuple[Market, Spec]:
    market, spec = draw(st.one_of(order_jobs(), cash_order_jobs()))
    minutes = st.integers(0, (spec.end - spec.start) // MINUTE_MS - 1)
    starts = sorted(draw(st.sets(minutes, min_size=1, max_size=4)))
    legs = []
    for minute in starts:
        params = dict(spec.params) if spec.strategy == "random_books" else draw(PARAMS[spec.strategy])
        if spec.strategy == "random_books":
            params["seed"] = draw(st.integers(0, 10**6))
        legs.append(Leg(spec.start + minute * MINUTE_MS, parameters_of(build(spec.strategy, params))))
    return market, prepare.validated(msgspec.structs.replace(spec, params={}, schedule=legs))


def result_of(market: Market, spec: Spec, slices: int | None = None, seed: int | None = None) -> dict[str, Any] | None:
    try:
        (found,) = market.world().run(spec, slices, None if seed is None else random.Random(seed))
    except CandlemillError:
        return None
    return found


@given(scheduled_jobs())
@settings(max_examples=80, deadline=None)
def test_a_schedule_is_as_the_reference_plays_it(job: tuple[Market, Spec]) -> None:
    market, spec = job
    found = result_of(market, spec)
    if found is None:
        event("refused")
        return
    options, bars = reference_options(market, spec), reference_bars(market)

    def strategy() -> SlowSchedule:
        return SlowSchedule(spec, takes_over=spec.strategy == "weights")

    event(f"{spec.strategy} {spec.account}, {len(spec.schedule)} sets, trades: {min(found['trades'], 2)}")
    if spec.account == "cash":
        wanted, names = run_cash({"X": bars}, strategy, options), CASH
    else:
        rest = {name: options[name] for name in options if name not in ("capital",)}
        wanted, names = run_units(bars, strategy, rest), UNITS
    assert {name: found[name] for name in names} == {name: wanted[name] for name in names}
    assert found["ambiguous_bars"] == wanted["ambiguous_minutes" if spec.account == "cash" else "ambiguous_bars"]


@given(scheduled_jobs(), st.integers(2, 8), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_any_cut_of_a_schedule_is_the_uncut_one(job: tuple[Market, Spec], slices: int, seed: int) -> None:
    market, spec = job
    whole, cut = result_of(market, spec), result_of(market, spec, slices, seed)
    assert (whole and whole["result_digest"]) == (cut and cut["result_digest"])


@given(st.one_of(order_jobs(), cash_order_jobs()))
@settings(max_examples=40, deadline=None)
def test_a_schedule_of_one_set_is_that_set_alone(job: tuple[Market, Spec]) -> None:
    market, spec = job
    alone = result_of(market, spec)
    legs = [Leg(spec.start, dict(spec.params))]
    one = result_of(market, prepare.validated(msgspec.structs.replace(spec, params={}, schedule=legs)))
    ids = {"job_id", "result_digest", "params", "spec"}
    assert {k: v for k, v in (one or {}).items() if k not in ids} == {
        k: v for k, v in (alone or {}).items() if k not in ids
    }
