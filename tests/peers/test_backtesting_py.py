"""The same trades as backtesting.py on real candles where conventions are made the same, and what differs elsewhere."""

from typing import Any

import cases
import numpy as np
import pandas as pd
import pytest
import why
from candlemill.units import SCALE
from candles import frame_of, resampled, times_of
from cases import COARSE, FEE, FILLS, OTHERS, SLIPPAGE, STOPS, STRATEGIES, every_set, every_strategy, fills_and_stops
from deals import Agreement, Run, assert_near, compare, run_of
from tally import Tally, tally  # noqa: F401

pytest.importorskip("backtesting", reason="backtesting.py is not installed: pip install '.[peers]'")
from backtesting import Strategy
from backtesting.lib import FractionalBacktest, crossover
from with_backtesting import RICH, Simulated, follow, simulate

pytestmark = cases.real_candles
PEER = "backtesting.py"
RATE = FEE / 1e6


def levels(stop: str) -> dict[str, float]:
    return {name: rate / 1e6 for name, rate in STOPS[stop].items()}


def same(run: Run, theirs: Simulated) -> Agreement:
    """Also equity, but at the closes of bars that were filled at: an order at the close is booked a bar later."""
    found = compare(run.deals, theirs.deals)
    assert found.only_ours.empty and found.only_theirs.empty, (found.only_ours, found.only_theirs)
    top = float(run.trace.high.max()) / SCALE
    assert_near(found, top)
    apart = np.abs(theirs.equity - run.trace.equity / SCALE)
    if run.spec.fill == "close":
        position = run.trace.position
        changed = np.diff(position, prepend=0) != 0
        apart = apart[~changed]
    assert apart.max() <= (len(run.deals) + 1) * (7 / SCALE + 1e-10 * top)
    return found


@every_strategy
@every_set
def test_same_signals_same_trades(name: str, label: str, tally: Tally) -> None:  # noqa: F811
    """candlemill's decisions, filled, stopped and accounted for by backtesting.py."""
    strategy, params = STRATEGIES[label]
    for fill, stop in fills_and_stops():
        run = run_of(name, strategy, params, fee=FEE, fill=fill, **STOPS[stop])
        theirs = follow(frame_of(name), run.desired, fill, fee=RATE, rounded=name == COARSE, **levels(stop))
        tally.add(f"our signals, {name}", run, same(run, theirs))


@pytest.mark.parametrize("name", OTHERS)
def test_same_trades_of_the_other_strategies(name: str, tally: Tally) -> None:  # noqa: F811
    strategy, params = OTHERS[name]
    for fill, stop in fills_and_stops():
        run = run_of("BTCUSDT", strategy, params, fee=FEE, fill=fill, **STOPS[stop])
        theirs = follow(frame_of("BTCUSDT"), run.desired, fill, fee=RATE, **levels(stop))
        tally.add("the same, the other built-in strategies", run, same(run, theirs))


def test_all_stops_at_once(tally: Tally) -> None:  # noqa: F811
    for label, fill in ((label, fill) for label in STRATEGIES for fill in FILLS):
        strategy, params = STRATEGIES[label]
        rates = {"stop_loss": 8_000, "trailing_stop": 5_000, "take_profit": 9_000}
        run = run_of("DOGEUSDT", strategy, params, fee=FEE, fill=fill, **rates)
        floats = {name: rate / 1e6 for name, rate in rates.items()}
        theirs = follow(frame_of("DOGEUSDT"), run.desired, fill, fee=RATE, **floats)
        tally.add("the same, stop, trailing stop and target", run, same(run, theirs))


def test_slippage_is_paid_once(tally: Tally) -> None:  # noqa: F811
    """`spread` moves the entry only: each exit of candlemill's is worse by its own slippage."""
    run = run_of("BTCUSDT", "sma_cross", {"allow_short": True}, fee=FEE, slippage=SLIPPAGE)
    theirs = follow(frame_of("BTCUSDT"), run.desired, fee=RATE, spread=SLIPPAGE / 1e6)
    slipped = theirs.deals.assign(exit_price=theirs.deals["exit_price"] * (1 - theirs.deals["side"] * SLIPPAGE / 1e6))
    for price in ("fees", "profit"):
        slipped[price] = run.deals[price]
    found = compare(run.deals, slipped)
    assert found.only_ours.empty and found.only_theirs.empty
    tally.add("slippage, exits of theirs slipped too", run, found._replace(money=0))


def test_notional_in_fractions(tally: Tally) -> None:  # noqa: F811
    """FractionalBacktest trades whole numbers of 10^-8."""
    run = run_of("BTCUSDT", "sma_cross", {"allow_short": True}, fee=FEE, sizing="notional")
    frame = frame_of("BTCUSDT")
    theirs = follow(
        frame, run.desired, fee=RATE, unit=1e-8, kind=FractionalBacktest, size=lambda price: int(1e4 / price + 1e-6)
    )
    ours = run.deals
    found = compare(ours, theirs.deals)
    assert found.only_ours.empty and found.only_theirs.empty
    np.testing.assert_allclose(theirs.deals["quantity"], ours["quantity"], atol=1.1e-8)
    np.testing.assert_allclose(theirs.deals["profit"], ours["profit"], atol=1e-4)
    assert theirs.deals["profit"].sum() == pytest.approx(run.deals["profit"].sum(), rel=1e-6)
    tally.add("sizing notional, in fractions", run, found._replace(money=0))


@every_set
def test_the_example_of_its_readme(name: str, tally: Tally) -> None:  # noqa: F811
    """Buys and sells where averages cross, always in the market after the first crossing. One that is above from its
    first bar on has not crossed; after a tie the crossing is missed."""

    def average(values: Any, n: int) -> Any:
        return pd.Series(values).rolling(n).mean()

    class SmaCross(Strategy):
        def init(self) -> None:
            self.fast = self.I(average, self.data.Close, 10)
            self.slow = self.I(average, self.data.Close, 50)

        def next(self) -> None:
            if crossover(self.fast, self.slow):
                self.buy(size=1)
            elif crossover(self.slow, self.fast):
                self.sell(size=1)

    frame = frame_of(name)
    cash = RICH * float(frame["Open"].iloc[0])
    theirs = simulate(frame, SmaCross, cash=cash, commission=RATE, exclusive_orders=True).deals
    run = run_of(name, "sma_cross", {"allow_short": True}, fee=FEE)
    found = compare(run.deals, theirs)
    other = why.after_ties(run, why.exact_ties(run))
    other[49] = True  # the first bar that has both averages
    reasons = why.by_other_positions(run, found, other, 50)
    tally.add("backtesting.py's README: crossings", run, found, reasons)


def test_the_first_bar_decides_nothing() -> None:
    """backtesting.py asks a strategy from its second bar on: what candlemill buys at bar 1, it buys at bar 2."""
    frame = frame_of("BTCUSDT")

    class Hold(Strategy):
        def init(self) -> None: ...

        def next(self) -> None:
            if not self.position and not self.orders:
                self.buy(size=1)

    stats = simulate(frame, Hold, cash=1e9, commission=RATE, finalize_trades=True)
    assert stats.deals["entry_t"].tolist() == [times_of(frame.index)[2]]
    held = run_of("BTCUSDT", "buy_and_hold", {}, fee=FEE).trace.position
    assert np.flatnonzero(held)[0] == 1


@pytest.mark.parametrize("minutes", [5, 15, 60])
def test_a_timeframe_is_resampled_bars(minutes: int, tally: Tally) -> None:  # noqa: F811
    for name in ("BTCUSDT", "ETHBTC"):
        run = run_of(name, "sma_cross", {"allow_short": True}, fee=FEE, timeframe=minutes)
        width = minutes * 60_000
        labels = run.deals.assign(**{time: run.deals[time] // width * width for time in ("entry_t", "exit_t")})
        found = compare(labels, follow(resampled(frame_of(name), minutes), run.desired, fee=RATE).deals)
        assert found.only_ours.empty and found.only_theirs.empty
        tally.add("timeframes 5m, 15m, 1h against resampled bars", run, found)


# -- figures of a run ----------------------------------------------------------------------------------------------


def test_figures() -> None:
    """Each of its figures, from candlemill's run by its definition: what is named alike is not always the same."""
    run = run_of("BTCUSDT", "sma_cross", {"allow_short": True}, fee=FEE)
    stats = follow(frame_of("BTCUSDT"), run.desired, fee=RATE).stats
    cash = RICH * run.trace.open[0] / SCALE
    value = np.concatenate(([cash], cash + run.trace.equity / SCALE))  # with the bar that was put before
    trades, result = run.deals, run.result
    near = {"rel": 1e-7}
    assert stats["# Trades"] == result["trades"]
    assert stats["Win Rate [%]"] == pytest.approx(100 * result["wins"] / result["trades"], **near)
    assert stats["Equity Final [$]"] == pytest.approx(cash + result["total_pnl"] / SCALE, **near)
    assert stats["Return [%]"] == pytest.approx(100 * result["total_pnl"] / SCALE / cash, rel=1e-5)
    # Entry fees of the position that is open at the end are in equity, not in its list.
    assert stats["Commissions [$]"] == pytest.approx(trades["fees"].sum(), **near)
    peak = np.maximum.accumulate(value)
    assert stats["Max. Drawdown [%]"] == pytest.approx(-100 * ((peak - value) / peak).max(), rel=1e-5)
    # A trade's return is over its entry's value; factor and expectancy are of these, candlemill's are of money.
    gain = trades["profit"] / (trades["entry_price"] * trades["quantity"])
    factor = gain[gain > 0].sum() / -gain[gain < 0].sum()
    assert stats["Profit Factor"] == pytest.approx(factor, **near)
    assert factor != pytest.approx(result["gross_profit"] / result["gross_loss"], rel=1e-6)
    assert stats["Expectancy [%]"] == pytest.approx(100 * gain.mean(), **near)
    # Exposure has the bar of the exit, even where it is left at its open; an open position has none.
    inside = np.zeros(len(value), dtype=bool)
    for first, last in zip(run.trace.trades.entry_bar + 1, run.trace.trades.exit_bar + 1, strict=True):
        inside[first : last + 1] = True
    assert stats["Exposure Time [%]"] == pytest.approx(100 * inside.mean(), **near)
    # Sharpe: the growth that a geometric mean day has in 365 of them over a deviation compounded likewise.
    begin = frame_of("BTCUSDT").index[:1] - pd.Timedelta(minutes=1)
    days = pd.Series(value, index=begin.append(frame_of("BTCUSDT").index)).resample("D").last().pct_change().dropna()
    mean = np.exp(np.log1p(days).mean())
    deviation = np.sqrt((days.var() + mean**2) ** 365 - mean ** (2 * 365))
    assert stats["Sharpe Ratio"] == pytest.approx((mean**365 - 1) / deviation, rel=1e-4)
