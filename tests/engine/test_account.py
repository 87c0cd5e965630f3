"""Accounts over a log of fills: the logarithm, and examples worked out by hand. Properties are in test_exactness."""

from collections.abc import Sequence
from decimal import Decimal, localcontext
from math import nextafter

import hypothesis.strategies as st
import numpy as np
import pytest
from candlemill.backtests.spec_rules import COLUMNS
from candlemill.engine.account import COMPOUND, FIXED, NOTIONAL, Sizing, run_account
from candlemill.engine.candles import CandleColumns
from candlemill.engine.compound import DAY_SHARES, LOG, NO_SHARE, ln
from candlemill.engine.fills import SIGNAL, STOP, TAKE, Fills
from candlemill.engine.position import ExecutionRules, fee_of, funding_of
from candlemill.engine.signals import changes_of
from candlemill.engine.simulate import run
from candlemill.engine.summary import FINE, CarriedState, Summary
from hypothesis import example, given
from slow_engine import DAY, MINUTE, SCALE, Bar

POSITIVE = st.floats(1e-300, 1e300) | st.floats(0.5, 2.0) | st.floats(0.999, 1.001)
MONEY = 10**24  # of a sized account


@given(POSITIVE)
@example(1.0)
@example(1e-300)
def test_ln_is_within_its_bound(x: float) -> None:
    with localcontext(prec=50):
        exact = Decimal(x).ln()
        assert abs(Decimal(ln(x)) - exact) <= Decimal("5e-16") * abs(exact)


@given(POSITIVE)
@example(nextafter(0.5**0.5, 0.0))
@example(2**0.5)
def test_ln_never_falls(x: float) -> None:
    assert ln(nextafter(x, 0.0)) <= ln(x) <= ln(nextafter(x, 1e308))


@given(st.integers(0, 2**58), st.integers(-(10**8), 10**8))
def test_funding_is_exact(price: int, rate: int) -> None:
    down, rest = funding_of(price, rate)
    assert 0 <= rest < FINE
    assert down * FINE + rest == price * rate


@given(st.integers(0, 2**58), st.integers(-100_000, 1_000_000))
@example(90, -1)
def test_a_fee_is_exact(fill: int, ppm: int) -> None:
    down, rest = fee_of(fill, ppm)
    assert 0 <= rest < FINE
    assert (down * FINE + rest) * 10**6 == fill * ppm * FINE


# -- by hand -------------------------------------------------------------------------------------------------------


def bars(*prices: int, volume: int = 0, step: int = MINUTE) -> list[Bar]:
    """Each opens where the one before closed."""
    pairs = zip([prices[0], *prices], prices, strict=False)
    return [Bar(k * step, o, max(o, c), min(o, c), c, volume) for k, (o, c) in enumerate(pairs)]


def candle_columns(rows: list[Bar], funding: Sequence[tuple[int, int]]) -> CandleColumns:
    candles = CandleColumns(*([np.array([getattr(bar, name) for bar in rows], dtype=np.int64)] for name in COLUMNS))
    candles.add_funding(*(np.array([pair[k] for pair in funding], dtype=np.int64) for k in (0, 1)))
    return candles


def ran(
    rows: list[Bar], desired: list[int], sizing: Sizing | None, funding: Sequence[tuple[int, int]] = (), **rules: int
) -> tuple[Summary, list[int]]:
    changes = changes_of(np.array(desired, dtype=np.int8), 0, 0, None)
    given_rules = ExecutionRules(**{"fee": 0, "maker_fee": rules.get("fee", 0), "short_entries": True, **rules})
    candles = candle_columns(rows, funding)
    if sizing is None:
        summary, _, daily = run(candles, changes, given_rules, CarriedState(), 0, len(rows))
    else:
        summary, _, daily = run_account(candles, changes, given_rules, sizing, CarriedState(), 0, len(rows))
    return summary, daily


@pytest.mark.parametrize(
    ("side", "rate", "paid"), [(1, 10_000, 2), (-1, 10_000, -2), (1, -10_000, -2), (-1, -10_000, 2)]
)
def test_a_long_pays_a_positive_rate_and_a_short_receives_it(side: int, rate: int, paid: int) -> None:
    """Bought or sold at bar 1's open; the rate of 0.01 % is settled before bar 2's, on bar 1's close of 20,000."""
    rows = bars(20_000, 20_000, 20_000, 20_000)
    summary, _ = ran(rows, [side] * 4, None, [(2 * MINUTE, rate)])
    paid *= FINE
    assert (summary.funding, summary.profit, summary.tail_cash) == (paid, -paid, -side * 20_000 * FINE - paid)
    # In the bar that opens the position nothing is paid, in the one that closes it all of it.
    assert ran(rows, [side] * 4, None, [(MINUTE, rate)])[0].funding == 0
    closed, _ = ran(rows, [side, 0, 0, 0], None, [(MINUTE + 1, rate // 2), (2 * MINUTE, rate // 2)])
    assert (closed.funding, closed.trades, closed.profit) == (paid, 1, -paid)


def test_a_notional_trade_has_its_quantity_from_its_entry_price() -> None:
    # 100 at a price of 30: 3.33333333 units. In at 30, out at 33, a fee of 1 % of 30 and of 33 for each of them.
    rows = bars(30 * SCALE, 30 * SCALE, 33 * SCALE, 33 * SCALE)
    summary, daily = ran(rows, [1, 1, 0, 0], Sizing(NOTIONAL, notional=100 * SCALE), fee=10_000)
    units = 333_333_333
    assert summary.turnover == units * (30 + 33) * SCALE * 10**8
    assert summary.fees * 100 == summary.turnover
    assert daily == [summary.profit] == [units * 3 * SCALE * 10**8 - summary.fees]
    assert summary.profit * SCALE // MONEY == units * 3 - units * 63 // 100 - 1  # rounded down once


def test_the_volume_of_the_entry_bar_limits_a_trade() -> None:
    rows = bars(10, 10, 12, 12, volume=7_000)  # in thousandths: 7 units, of which 1 % is 0.07
    summary, _ = ran(rows, [1, 1, 0, 0], Sizing(FIXED, quantity=SCALE, volume_share=10_000, volume_scale=1_000))
    assert summary.profit == 7_000_000 * 2 * 10**8
    rows = bars(10, 10, 12, 12, volume=0)
    summary, _ = ran(rows, [1, 1, 0, 0], Sizing(FIXED, quantity=SCALE, volume_share=10_000, volume_scale=1_000))
    assert (summary.unfilled, summary.fills, summary.trades, summary.profit, summary.exposure) == (1, 0, 0, 0, 2)


def shares(daily: list[int]) -> list[dict[str, int]]:
    """The days of a compound account."""
    width = len(DAY_SHARES)
    return [dict(zip(DAY_SHARES, daily[k : k + width], strict=True)) for k in range(0, len(daily), width)]


def returns(daily: list[int]) -> list[int]:
    return [day["returned"] for day in shares(daily)]


def test_a_compound_account_trades_all_of_its_equity() -> None:
    # A long from 100 to 110, then a short from 110 to 99: 1.1 times 1.1.
    rows = bars(100, 100, 110, 99, 99)
    summary, daily = ran(rows, [1, 1, -1, 0, 0], Sizing(COMPOUND))
    # Bought at bar 1's open (100), sold and gone short at bar 3's open (110), closed at bar 4's open (99).
    assert (summary.trades, summary.wins, summary.fills) == (2, 2, 4)
    (day,) = shares(daily)
    wanted = {"returned": 0.21, "fees": 0, "funding": 0, "turnover": 1 + 1.1 + 1.1 + 1.21, "won": 0.21, "lost": 0}
    assert {name: day[name] for name in wanted} == pytest.approx({k: x * LOG for k, x in wanted.items()}, abs=2)
    assert (day["closed"], day["opened"], day["over_gaps"]) == (NO_SHARE, NO_SHARE, 0)


def test_a_trade_over_days_has_the_equity_before_and_after_it() -> None:
    # Bought on the second day at 100, with a fee of 1 %; sold on the fifth at 150. Every day comes after a gap.
    rows = bars(100, 100, 125, 150, 150, step=DAY)
    _, daily = ran(rows, [1, 1, 1, 0, 0], Sizing(COMPOUND), fee=10_000)
    days = shares(daily)
    assert [day["opened"] for day in days] == [NO_SHARE, LOG, NO_SHARE, NO_SHARE, NO_SHARE]
    assert [day["closed"] >= 0 for day in days] == [False, False, False, False, True]
    assert [day["over_gaps"] for day in days] == [0] * 5  # opens are the closes before
    assert days[4]["closed"] == pytest.approx(LOG * 99 // 100, abs=1)
    assert [day["fees"] for day in days] == pytest.approx([0, LOG // 100, 0, 0, LOG // 100], abs=1)


def test_a_short_that_has_lost_everything_stays_ruined() -> None:
    # Sold at 100; at 200 nothing is left, and the way back to 50 brings nothing back.
    rows = bars(100, 100, 200, 50, 50)
    _, daily = ran(rows, [-1] * 5, Sizing(COMPOUND))
    assert returns(daily) == [-LOG]
    _, daily = ran(rows, [-1, -1, -1, 1, 1], Sizing(COMPOUND), fee=-1_000)
    assert returns(daily) == [-LOG]
    # One step less and it lives: 2 - 199/100 = 0.01, then 2 - 50/100.
    _, daily = ran(bars(100, 100, 199, 50, 50), [-1] * 5, Sizing(COMPOUND))
    assert abs(daily[0] - LOG // 2) <= 1


def test_what_leaves_nothing_ruins() -> None:
    """A fee of everything; and slippage of everything for a short, which is sold at one unit. A long keeps a little."""
    rows = bars(100, 100, 100, 100, 100)
    for desired in ([1, 0, 1, 0, 0], [-1, 0, -1, 0, 0]):
        assert returns(ran(rows, desired, Sizing(COMPOUND), fee=1_000_000)[1]) == [-LOG]
    assert returns(ran(rows, [-1, 0, -1, 0, 0], Sizing(COMPOUND), slippage=1_000_000)[1]) == [-LOG]
    (left,) = returns(ran(rows, [1, 0, 1, 0, 0], Sizing(COMPOUND), fee=0, slippage=1_000_000)[1])
    assert left == LOG // 200 // 200 - LOG  # bought at 200 and sold at 1, twice


def test_funding_shrinks_a_compound_position() -> None:
    # At 150 a long of 1 is worth 1.5 and pays 1 % of it; a short is of 1.5 too and receives 1 %, beside 0.5 of equity.
    rows = bars(100, 100, 150, 150, 150)
    (day,) = shares(ran(rows, [1] * 5, Sizing(COMPOUND), [(3 * MINUTE, SCALE // 100)])[1])
    assert abs(day["returned"] - (LOG * 15 // 10 * 99 // 100 - LOG)) <= 1
    assert abs(day["funding"] - LOG * 15 // 1000) <= 1
    (day,) = shares(ran(rows, [-1] * 5, Sizing(COMPOUND), [(3 * MINUTE, SCALE // 100)])[1])
    assert abs(day["returned"] - (LOG // 2 + LOG * 15 // 1000 - LOG)) <= 1
    assert abs(day["funding"] + LOG * 15 // 1000) <= 1


def test_days_of_a_compound_account_are_worked_out_one_by_one() -> None:
    rows = bars(100, 100, 125, 150, step=DAY)
    _, long = ran(rows, [1] * 4, Sizing(COMPOUND))
    assert returns(long) == pytest.approx([0, 0, LOG // 4, LOG // 5], abs=1)
    _, short = ran(rows, [-1] * 4, Sizing(COMPOUND))
    assert returns(short) == pytest.approx([0, 0, -LOG // 4, -LOG // 3], abs=1)  # 1, 0.75, 0.5


def test_fills_are_logged_with_their_reasons() -> None:
    log = Fills()
    changes = changes_of(np.array([1, 1, 1, 0, -1, -1], dtype=np.int8), 0, 0, None)
    rows = bars(100, 100, 103, 103, 100, 100)
    rules = ExecutionRules(fee=0, slippage=10_000, stop_loss=500_000, take_profit=10_000, maker_fee=0)
    run(candle_columns(rows, []), changes, rules, CarriedState(), 0, 6, log)
    columns = (log.bar, log.side, log.price, log.reason)
    found = list(zip(*([column[k] for k in range(len(column))] for column in columns), strict=True))
    # In at 100 + 1; the target of 101 + 1.01 -> 103 in bar 2, less 1.03 -> 2; short at bar 5's open, 100 - 1.
    assert found == [(1, 1, 101, SIGNAL), (2, 0, 101, TAKE), (5, -1, 99, SIGNAL)]
    assert STOP not in list(log.reason)
