"""Desired positions of one symbol in the account `cash`: the quick way is the general one, under any cut."""

import math
import random
from contextlib import suppress
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from accounts import ROW, fill_tape
from candlemill.backtests import spec_rules
from candlemill.backtests.account import Quotation, opened
from candlemill.backtests.marks import account_of
from candlemill.backtests.resolve import resolve
from candlemill.backtests.single import SYMBOL, fills_of, run_cash
from candlemill.backtests.spec import Spec
from candlemill.engine.account import COMPOUND, Sizing, run_account
from candlemill.engine.candles import CandleColumns
from candlemill.engine.compound import LOG
from candlemill.engine.fills import Fills
from candlemill.engine.signals import changes_of
from candlemill.engine.simulate import run
from candlemill.engine.summary import CarriedState, Summary
from candlemill.errors import BadInput
from hypothesis import given, settings
from test_exactness import answer, bits
from world import Market, jobs, markets

FIGURES = (
    "bars", "profit", "peak", "low", "drawdown", "fees", "funding", "borrow", "turnover", "fills", "trades", "wins",
    "gross_profit", "gross_loss", "exposure", "cut", "rejected", "days", "squares", "loss_squares",
)  # fmt: skip


@st.composite
def cash_jobs(draw: Any) -> tuple[Market, Spec]:
    """A job of the tests of exactness, in an account of real money."""
    market, spec = draw(jobs())
    size = draw(st.sampled_from(["equity", "equity", "notional", "units"]))
    capital = draw(st.sampled_from([10**6, 10**10, 10**12]))
    return market, msgspec.structs.replace(
        spec,
        sizing="fixed",
        volume_share=0,
        account="cash",
        size=size,
        quantity=draw(st.integers(1, 10**9)) if size == "units" else 10**8,
        capital=capital,
        notional=draw(st.integers(1, 2 * capital)) if size == "notional" else None,
        step=draw(st.sampled_from([1, 10**5, 10**8])),
        min_quantity=draw(st.sampled_from([0, 10**6])),
        min_notional=draw(st.sampled_from([0, 10**9])),
        leverage=draw(st.sampled_from([10**6, 400_000, 3 * 10**6])),
        borrow=draw(st.sampled_from([0, 300, 50_000])),
    )


@pytest.fixture(autouse=True, params=[4_320, 3], ids=["long-warm-up", "short-warm-up"])
def warm_up(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec_rules, "WARM_UP_BARS", request.param)


@given(cash_jobs(), st.integers(2, 8), st.integers(0, 2**32))
@settings(max_examples=40)
def test_any_cut_in_any_order_equals_the_uncut_run(job: tuple[Market, Spec], slices: int, seed: int) -> None:
    market, spec = job
    assert bits(answer(market, spec, slices, random.Random(seed))) == bits(answer(market, spec))


@given(markets(200), cash_jobs(), st.data())
@settings(max_examples=80)
def test_the_quick_way_is_the_general_one(market: Market, job: tuple[Market, Spec], data: st.DataObject) -> None:
    _, spec = job
    columns = [[getattr(bar, name) for bar in market.bars] for name in ("t", "open", "high", "low", "close", "volume")]
    candles = CandleColumns(*([np.array(column, dtype=np.int64)] for column in columns))
    n = int(candles.n)
    if n == 0:
        return
    if spec.funding:
        candles.add_funding(*(np.array(x, dtype=np.int64) for x in zip(*market.funding, strict=True)))
    desired = np.array(data.draw(st.lists(st.integers(-1, 1), min_size=n, max_size=n)), dtype=np.int8)
    rules, account = spec_rules.rules_of(spec), spec_rules.account_rules(spec)
    assert account is not None
    log = Fills()
    with suppress(OverflowError):
        quick, _, daily = run_cash(candles, changes_of(desired, 0, 0, None), rules, account, CarriedState(), 0, n)
        run(candles, changes_of(desired, 0, 0, None), rules, CarriedState(), 0, n, log)
        bars = candles.columns()
        funding = bars["t"][bars["funding_bars"]], bars["funding_rates"]
        quotes = Quotation(bars["t"], bars["close"], -1, *funding)
        columns = {name: column.tolist() for name, column in fills_of(candles, rules, log, 0).items()}
        rows = [{name: columns[name][k] if name in columns else 0 for name in ROW} for k in range(len(columns["bar"]))]
        fills = fill_tape(rows)
        general = account_of({SYMBOL: fills}, {SYMBOL: quotes}, account, opened(account, [SYMBOL]))
        assert of(closed(quick)) == of(general.summary)
        assert daily == general.daily


def closed(summary: Summary) -> Summary:
    """A whole run's summary: no slice comes after it."""
    return Summary().merge(summary)


def of(summary: Summary) -> dict[str, int]:
    return {name: getattr(summary, name) for name in FIGURES}


def spec_of(**given: Any) -> Spec:
    return resolve(symbol="X", strategy="buy_and_hold", span=(1_600_000_000_000, 1_600_100_000_000), params={}, **given)


def test_the_rules_of_real_money_are_no_rules_of_units() -> None:
    with pytest.raises(BadInput, match="leverage=3000000 does not go with account=units: it belongs to account=cash"):
        spec_of(account="units", leverage=3_000_000)
    with pytest.raises(BadInput, match="sizing=compound does not go with account=cash: it belongs to account=units"):
        spec_of(account="cash", sizing="compound")
    with pytest.raises(BadInput, match="quantity=2 does not go with size=equity"):
        spec_of(account="cash", quantity=2 * 10**8)
    assert spec_of().capital == 10_000 * 10**8
    assert spec_of(account="cash", size="notional").notional == 10_000 * 10**8


def test_all_of_the_equity_buys_what_the_fee_leaves() -> None:
    """10,000 at 100 with a fee of 0.1 %: 100 units would cost 10,010, so 99.9001 are bought; 1 % more is a cut."""
    t = np.arange(3, dtype=np.int64) * 60_000
    price = np.full(3, 100 * 10**8, dtype=np.int64)
    candles = CandleColumns([t], [price], [price], [price], [price], [t])
    spec = spec_of(account="cash")
    account = spec_rules.account_rules(spec)
    assert account is not None
    total, state, _ = run_cash(
        candles, changes_of(np.ones(3, np.int8), 0, 0, None), spec_rules.rules_of(spec), account, CarriedState(), 0, 3
    )
    assert b"[9990009990," in state.account
    assert (total.fills, total.cut, total.rejected, total.fees) == (1, 0, 0, 9_990_009_990 * 10**8 // 10)


@given(st.lists(st.integers(9_000, 11_000), min_size=10, max_size=200), st.data())
@settings(max_examples=30)
def test_all_of_the_equity_is_what_sizing_compound_holds(closes: list[int], data: st.DataObject) -> None:
    """Bars that open at the close before: 100 % of the equity and a fee of 0.1 % in both accounts."""
    price = np.array(closes, dtype=np.int64) * 10**6
    t = 1_600_000_020_000 + np.arange(len(closes), dtype=np.int64) * 60_000
    opened_at = np.append(price[:1], price[:-1])
    candles = CandleColumns([t], [opened_at], [price], [price], [price], [t])
    desired = np.array(
        data.draw(st.lists(st.integers(0, 1), min_size=len(closes), max_size=len(closes))), dtype=np.int8
    )
    changes, n = changes_of(desired, 0, 0, None), len(closes)
    rules = spec_rules.rules_of(spec_of(account="cash"))
    account = spec_rules.account_rules(spec_of(account="cash"))
    assert account is not None
    cash, _, _ = run_cash(candles, changes, rules, account, CarriedState(), 0, n)
    compound, _, _ = run_account(candles, changes, rules, Sizing(COMPOUND), CarriedState(), 0, n)
    growth = [1 + cash.profit / 10**16 / 10_000, math.exp(compound.profit / LOG)]
    assert growth[0] == pytest.approx(growth[1], rel=1e-6 * (1 + cash.fills))
    assert cash.fills == compound.fills
