"""The same trades as vectorbt on real candles, where conventions are made the same; and what differs where not."""

from collections import Counter
from typing import Any

import cases
import numpy as np
import pandas as pd
import pytest
import why
from candlemill.backtests.metrics import metrics
from candlemill.units import SCALE
from candles import frame_of, resampled
from cases import COARSE, FEE, FILLS, OTHERS, SLIPPAGE, STOPS, STRATEGIES, every_set, every_strategy, fills_and_stops
from deals import Agreement, Run, assert_near, compare, run_of
from tally import Tally, tally  # noqa: F401

vbt = pytest.importorskip("vectorbt", reason="vectorbt is not installed: pip install '.[peers]'")
from usual import USUAL, wanted_by_users  # noqa: E402
from with_vectorbt import Simulated, in_order, plain, rounded_stops, stops, trades_of  # noqa: E402

pytestmark = cases.real_candles
PEER = "vectorbt"
COSTS = {"fees": FEE / 1e6, "slippage": SLIPPAGE / 1e6}
RECURSIVE = {"ema_cross": 150, "macd": 150, "rsi_reversion": 150}  # bars until averages that began apart have met


def same(run: Run, theirs: Simulated) -> Agreement:
    found = compare(run.deals, theirs.deals)
    assert found.only_ours.empty and found.only_theirs.empty, (found.only_ours, found.only_theirs)
    top = float(run.trace.high.max()) / SCALE
    assert_near(found, top)
    apart = np.abs(theirs.equity - run.trace.equity / SCALE)
    assert apart.max() <= (len(run.deals) + 1) * (7 / SCALE + 1e-10 * top)
    return found


def coarse_stops(name: str, run: Run, stop: str) -> dict[str, Any]:
    """vectorbt's options for the stops; with distances rounded as candlemill's where that decides."""
    rates = STOPS[stop]
    if name in (COARSE, "BTTUSDT") and rates and "trailing_stop" not in rates:
        rates = {"stop_loss": 0, "take_profit": 0} | rates
        return rounded_stops(frame_of(name), run.desired, run.spec.fill, SLIPPAGE, **rates)
    return stops(**rates)


@every_strategy
@every_set
def test_same_signals_same_trades(name: str, label: str, tally: Tally) -> None:  # noqa: F811
    """candlemill's decisions, filled, stopped and accounted for by vectorbt in candlemill's order of events."""
    strategy, params = STRATEGIES[label]
    for fill, stop in fills_and_stops():
        if name == COARSE and stop == "trailing":
            continue  # vectorbt cannot round a level that moves
        run = run_of(name, strategy, params, fee=FEE, slippage=SLIPPAGE, fill=fill, **STOPS[stop])
        theirs = in_order(frame_of(name), run.desired, fill, **COSTS, **coarse_stops(name, run, stop))
        tally.add(f"our signals, two rows per bar, {name}", run, same(run, theirs))


@pytest.mark.parametrize("name", OTHERS)
def test_same_trades_of_the_other_strategies(name: str, tally: Tally) -> None:  # noqa: F811
    strategy, params = OTHERS[name]
    for symbol in ("BTCUSDT", "DOGEUSDT"):
        for fill, stop in fills_and_stops():
            run = run_of(symbol, strategy, params, fee=FEE, slippage=SLIPPAGE, fill=fill, **STOPS[stop])
            theirs = in_order(frame_of(symbol), run.desired, fill, **COSTS, **stops(**STOPS[stop]))
            tally.add("the same, the other built-in strategies", run, same(run, theirs))


def test_trailing_stop_with_target(tally: Tally) -> None:  # noqa: F811
    """Without slippage: vectorbt counts both from one price, candlemill the trail from the raw one."""
    for label, fill in ((label, fill) for label in STRATEGIES for fill in FILLS):
        strategy, params = STRATEGIES[label]
        rates = {"trailing_stop": 5_000, "take_profit": 9_000}
        run = run_of("DOGEUSDT", strategy, params, fee=FEE, fill=fill, **rates)
        theirs = in_order(frame_of("DOGEUSDT"), run.desired, fill, fees=FEE / 1e6, **stops(**rates))
        tally.add("the same, trailing stop with target", run, same(run, theirs))


def test_unrounded_levels_of_coarse_prices(tally: Tally) -> None:  # noqa: F811
    """What rounding distances up to 10^-8 does where prices are few such units: other bars touch the level."""
    for name in (COARSE, "BTTUSDT"):
        for label, fill in ((label, fill) for label in STRATEGIES for fill in FILLS):
            strategy, params = STRATEGIES[label]
            run = run_of(name, strategy, params, fee=FEE, slippage=SLIPPAGE, fill=fill, **STOPS["stop and target"])
            theirs = in_order(frame_of(name), run.desired, fill, **COSTS, **stops(**STOPS["stop and target"]))
            found = compare(run.deals, theirs.deals)
            other = len(found.only_ours) + len(found.only_theirs)
            tally.add(f"levels not rounded, {name}", run, found, Counter({"rounding of the level": other}))
            assert name == COARSE or other <= 2


@every_strategy
@every_set
def test_one_row_per_bar(name: str, label: str, tally: Tally) -> None:  # noqa: F811
    """As users have it. Without stops all is the same; with stops each trade that is not has a known reason."""
    strategy, params = STRATEGIES[label]
    for fill, stop in fills_and_stops():
        if name == COARSE and stop == "trailing":
            continue
        run = run_of(name, strategy, params, fee=FEE, slippage=SLIPPAGE, fill=fill, **STOPS[stop])
        theirs = plain(frame_of(name), run.desired, fill, **COSTS, **coarse_stops(name, run, stop))
        if stop == "none":
            tally.add("our signals, one row per bar, no stops", run, same(run, theirs))
            continue
        found = compare(run.deals, theirs.deals)
        reasons = why.one_row_per_bar(run, theirs.deals, theirs.left_open, found)
        tally.add(f"our signals, one row per bar, stops, fill {fill}", run, found, reasons)
        if fill == "close":
            assert found.only_theirs.empty and set(reasons) <= {why.BOTH}
            assert "short" in label or found.only_ours.empty


@pytest.mark.parametrize("strategy", USUAL)
@every_set
def test_signals_as_users_compute_them(name: str, strategy: str, tally: Tally) -> None:  # noqa: F811
    """pandas on floats decides, vectorbt trades: only ties of the exact comparison and beginnings differ."""
    params = {"momentum_v1": STRATEGIES["momentum_v1, short too"][1], "donchian": STRATEGIES["donchian"][1]}
    run = run_of(name, strategy, params.get(strategy, {}), fee=FEE, slippage=SLIPPAGE)
    wanted = wanted_by_users(strategy, frame_of(name), params.get(strategy, {}))
    beginning = RECURSIVE.get(strategy, 0)
    other = why.other_positions(run, wanted, why.exact_ties(run), beginning)
    found = compare(run.deals, plain(frame_of(name), wanted, **COSTS).deals)
    reasons = why.by_other_positions(run, found, other, beginning)
    tally.add(f"signals of pandas, {strategy}", run, found, reasons)


@every_set
def test_the_example_of_vectorbts_readme(name: str, tally: Tally) -> None:  # noqa: F811
    """Crossings of vectorbt's own averages, all the cash, filled at the close. A crossing needs a bar on the other side
    before it, so an average that is above from its first bar on is no entry; and a tie is answered by noise."""
    close = frame_of(name)["Close"]
    fast, slow = vbt.MA.run(close, 10), vbt.MA.run(close, 50)
    portfolio = vbt.Portfolio.from_signals(
        close, fast.ma_crossed_above(slow), fast.ma_crossed_below(slow), init_cash=10_000, fees=FEE / 1e6, freq="1min"
    )
    run = run_of(name, "sma_cross", {}, fee=FEE, fill="close", sizing="compound")
    theirs = trades_of(portfolio, frame_of(name))
    found = compare(run.deals, theirs)
    other = why.exact_ties(run)
    other[49] = True  # the first bar that has both averages
    reasons = why.by_other_positions(run, found, other, 50)
    tally.add("vectorbt's README: crossings, all cash", run, found._replace(money=0), reasons)
    if not why.exact_ties(run).any() and len(found.only_ours) == 0:
        final = run.result["total_pnl"] / SCALE + 10_000
        fee = FEE / 1e6
        wanted = portfolio.final_value() * (1 - fee * fee) ** (run.result["fills"] - len(run.deals))
        assert final == pytest.approx(wanted, rel=1e-9)


def test_compound_and_notional(tally: Tally) -> None:  # noqa: F811
    """vectorbt buys for cash / (1 + fee), candlemill's equity is multiplied by 1 - fee: a fee of f / (1 - f) at
    entries makes them the same."""
    frame, fee = frame_of("BTCUSDT"), FEE / 1e6
    for fill in FILLS:
        run = run_of("BTCUSDT", "sma_cross", {}, fee=FEE, slippage=SLIPPAGE, fill=fill, sizing="compound")
        fees = np.full(2 * len(frame), fee / (1 - fee))
        fees[_exit_rows(run, fill)] = fee
        theirs = in_order(frame, run.desired, fill, fees=fees, slippage=SLIPPAGE / 1e6, size=np.inf, init_cash=1e4)
        found = compare(run.deals, theirs.deals)
        assert found.only_ours.empty and found.only_theirs.empty
        np.testing.assert_allclose(theirs.equity, run.trace.equity / SCALE, rtol=0, atol=1e-5)
        tally.add("sizing compound", run, found._replace(money=0))
        run = run_of("BTCUSDT", "sma_cross", {"allow_short": True}, fee=FEE, fill=fill, sizing="notional")
        price = frame["Open" if fill == "next_open" else "Close"].to_numpy()
        size = np.floor(1e4 / price * 1e8) / 1e8
        theirs = in_order(frame, run.desired, fill, fees=fee, size=size)
        np.testing.assert_allclose(theirs.deals["quantity"], run.deals["quantity"], atol=1.1e-8)
        tally.add("sizing notional", run, same_money(run, theirs))
        fall = np.max(np.maximum.accumulate(np.maximum(theirs.equity, 0)) - theirs.equity)
        assert run.result["max_drawdown"] / SCALE == pytest.approx(fall, rel=1e-7)


def same_money(run: Run, theirs: Simulated) -> Agreement:
    """A quantity may be one unit of 10^-8 off, and be worth that much more."""
    found = compare(run.deals, theirs.deals)
    assert found.only_ours.empty and found.only_theirs.empty
    apart = np.abs(theirs.deals["profit"].to_numpy() - run.deals["profit"].to_numpy())
    moves = (run.deals["exit_price"] - run.deals["entry_price"]).abs() + run.deals["fees"] / run.deals["quantity"]
    assert (apart <= 1.1e-8 * moves + 1e-7).all()
    return found._replace(money=0)


def _exit_rows(run: Run, fill: str) -> Any:
    """The rows, two per bar, at which nothing is wanted."""
    acted = np.concatenate(([0], run.desired[:-1])) if fill == "next_open" else run.desired
    return np.flatnonzero(np.repeat(acted, 2) == 0) + (fill == "close")


@pytest.mark.parametrize("minutes", [5, 15, 60])
def test_a_timeframe_is_resampled_bars(minutes: int, tally: Tally) -> None:  # noqa: F811
    """Filled at the next bar's open, a run on k-minute bars is vectorbt's on bars resampled so."""
    for name in ("BTCUSDT", "ETHBTC"):
        frame = resampled(frame_of(name), minutes)
        run = run_of(name, "sma_cross", {"allow_short": True}, fee=FEE, slippage=SLIPPAGE, timeframe=minutes)
        width = minutes * 60_000
        labels = run.deals.assign(**{time: run.deals[time] // width * width for time in ("entry_t", "exit_t")})
        found = compare(labels, plain(frame, run.desired, **COSTS).deals)
        assert found.only_ours.empty and found.only_theirs.empty
        tally.add("timeframes 5m, 15m, 1h against resampled bars", run, found)


# -- figures of a run ----------------------------------------------------------------------------------------------


def test_figures_of_a_fixed_quantity() -> None:
    """Counts, rates and money of closed trades; drawdown in money; exposure."""
    run = run_of("BTCUSDT", "sma_cross", {"allow_short": True}, fee=FEE, slippage=SLIPPAGE)
    theirs = plain(frame_of("BTCUSDT"), run.desired, **COSTS)
    closed = theirs.portfolio.trades.closed
    figures = metrics(run.trace.days, run.trace.daily, run.trace.capital, run.result)
    near = {"rel": 1e-8, "abs": 2e-8}
    assert closed.count() == run.result["trades"]
    assert closed.win_rate() == pytest.approx(figures["win_rate"] / SCALE, **near)
    assert closed.profit_factor() == pytest.approx(figures["profit_factor"] / SCALE, **near)
    assert closed.expectancy() == pytest.approx(figures["average_trade"] / SCALE, **near)
    assert theirs.portfolio.position_coverage() == pytest.approx(figures["exposure"] / SCALE, **near)
    assert theirs.portfolio.total_profit() == pytest.approx(run.result["total_pnl"] / SCALE, **near)
    value = theirs.portfolio.value()
    assert (value.cummax() - value).max() == pytest.approx(run.result["max_drawdown"] / SCALE, **near)
    daily = value.resample("1D").last().diff()
    daily.iloc[0] = value.resample("1D").last().iloc[0] - theirs.portfolio.init_cash
    assert daily.mean() / daily.std() * np.sqrt(365) == pytest.approx(run.result["sharpe_ratio"] / SCALE, rel=1e-7)


def test_figures_of_a_compound_account() -> None:
    """Return and drawdown are vectorbt's. Its Sharpe ratio is of minutes unless it is given days."""
    frame, fee = frame_of("BTCUSDT"), FEE / 1e6
    run = run_of("BTCUSDT", "sma_cross", {}, fee=FEE, slippage=SLIPPAGE, sizing="compound")
    fees = np.where(np.concatenate(([0], run.desired[:-1])) == 1, fee / (1 - fee), fee)
    theirs = plain(frame, run.desired, fees=fees, slippage=SLIPPAGE / 1e6, size=np.inf, init_cash=1e4).portfolio
    figures = metrics(run.trace.days, run.trace.daily, run.trace.capital, run.result)
    assert theirs.total_return() == pytest.approx(figures["return"] / SCALE, rel=1e-8)
    assert -theirs.max_drawdown() == pytest.approx(run.result["max_drawdown"] / SCALE, rel=1e-7)
    minutes = pd.Series(run.trace.equity / SCALE + 1e4).pct_change().fillna(0)
    assert theirs.sharpe_ratio() == pytest.approx(minutes.mean() / minutes.std() * np.sqrt(365 * 1440), rel=1e-5)
    value = theirs.value().resample("1D").last()
    before = pd.Series([1e4], index=value.index[:1] - pd.Timedelta(days=1))
    days = pd.concat([before, value]).pct_change().dropna().vbt.returns(freq="1D", year_freq="365 days")
    assert days.sharpe_ratio() == pytest.approx(run.result["sharpe_ratio"] / SCALE, rel=1e-7)
    assert days.sortino_ratio() == pytest.approx(run.result["sortino_ratio"] / SCALE, rel=1e-7)
    assert days.annualized_volatility() == pytest.approx(figures["volatility"] / SCALE, rel=1e-7)


def test_fees_of_coarse_prices() -> None:
    """A fee of a price of a few hundred units of 10^-8 is less than one: it is a share of the value all the same."""
    frame, rich = frame_of(COARSE), {"fees": FEE / 1e6, "init_cash": 1e6}
    fixed = run_of(COARSE, "sma_cross", {}, fee=FEE, quantity=10**6 * SCALE)
    orders = in_order(frame, fixed.desired, size=1e6, **rich).portfolio.orders.records
    assert fixed.result["fees"] / SCALE == pytest.approx(orders["fees"].sum(), rel=1e-7)
    notional = run_of(COARSE, "sma_cross", {}, fee=FEE, sizing="notional", notional=10 * SCALE)
    size = np.floor(10 / frame["Open"].to_numpy() * 1e8) / 1e8
    orders = in_order(frame, notional.desired, size=size, **rich).portfolio.orders.records
    assert notional.result["fees"] / SCALE == pytest.approx(orders["fees"].sum(), rel=1e-7)
