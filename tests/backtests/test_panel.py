"""Panels: decisions on aligned bars, own next opens, exact ranks, whatever the order of symbols."""

from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
import slow_strategies
from accounts import ROW
from candlemill.backtests.account import AccountRules, Lot
from candlemill.backtests.marks import Accounted
from candlemill.backtests.panel import PanelRules, run_panel
from candlemill.backtests.panel_bars import PanelWindow, SymbolWindow, aligned
from candlemill.engine.candles import CandleColumns
from candlemill.engine.position import ExecutionRules
from candlemill.errors import BadStrategy
from candlemill.strategies import KEEP, Panel, PanelStrategy
from candlemill.strategies.builtin.panels import InverseVolatility, PairReversion
from candlemill.strategies.panels import XsMomentum
from hypothesis import given, settings
from slow_cash import CashAccount

MINUTE, DAY, SCALE, MILLION = 60_000, 86_400_000, 10**8, 10**6
NAMES = ("AAA", "BBB", "CCC", "DDD")
Candle = tuple[int, int]  # open, close
Market = dict[str, dict[int, Candle]]


class Given(PanelStrategy, frozen=True):
    """Targets by k-bar number and symbol."""

    said: dict[str, Any]

    def positions(self, panel: Panel) -> Any:
        return [[self.said.get(f"{name}{number}", KEEP) for name in panel.names] for number in panel.numbers.tolist()]


@st.composite
def markets(draw: Any) -> Market:
    out: Market = {}
    for name in NAMES[: draw(st.integers(1, 4))]:
        minutes = sorted(draw(st.sets(st.integers(1430, 1475), min_size=1)))
        price = draw(st.sampled_from([900, 10**5, 3 * 10**12]))
        # few different prices, so that ratios are often equal
        candle = st.tuples(*[st.sampled_from([price, price * 2, price * 3, price // 2])] * 2)
        out[name] = {t * MINUTE: draw(candle) for t in minutes}
    return out


def columns_of_symbols(market: Market) -> dict[str, CandleColumns]:
    out = {}
    for name, candles in market.items():
        t, opens, closes = ([*column] for column in zip(*[(t, *c) for t, c in sorted(candles.items())], strict=True))
        columns = (np.array(column, dtype=np.int64) for column in (t, opens, opens, opens, closes, opens))
        out[name] = CandleColumns(*([column] for column in columns))
    return out


class Costs(msgspec.Struct, frozen=True):
    fee: int
    slippage: int
    at_close: bool


def run(market: Market, k: int, strategy: PanelStrategy, costs: Costs, rules: AccountRules) -> tuple[Accounted, Any]:
    execution = ExecutionRules(costs.fee, costs.slippage, at_close=costs.at_close, maker_fee=costs.fee, timeframe=k)
    return run_panel(columns_of_symbols(market), k, strategy, PanelRules(execution, rules))


def slow_fills(market: Market, k: int, decide: Any, costs: Costs) -> dict[str, list[dict[str, int]]]:
    """Minute by minute: `decide(number, closes)` says the targets of the symbols with a new k-bar, by name, from the
    closes of all k-bars so far."""
    fills: dict[str, list[dict[str, int]]] = {name: [] for name in market}
    held, orders = dict.fromkeys(market, 0), {}
    closes: dict[str, list[int]] = {name: [] for name in market}
    minutes = sorted(set().union(*market.values()))
    new: dict[str, int] = {}

    def fill(name: str, minute: int, stage: int, made: int, target: int, raw: int) -> None:
        old = held[name]
        for before, after in [(old, 0), (0, target)] if old * target < 0 else [(old, target)]:
            if before != after:
                slip = -(-raw * costs.slippage // MILLION)
                price = max(1, raw + slip if after > before else raw - slip)
                row = (minute, stage, made, 0, -1, before, after, target, 0, price, raw, costs.fee, int(before == 0))
                fills[name].append(dict(zip(ROW, row, strict=True)))
        held[name] = target

    for at, minute in enumerate(minutes):
        for name, candles in market.items():
            if minute in candles:
                if name in orders:
                    fill(name, minute, 0, *orders.pop(name), candles[minute][0])
                new[name] = candles[minute][1]
        if at + 1 == len(minutes) or minutes[at + 1] // (k * MINUTE) != minute // (k * MINUTE):
            for name, close in new.items():
                closes[name].append(close)
            for name, target in decide(minute // (k * MINUTE), {name: closes[name] for name in sorted(new)}).items():
                over = (minute // MINUTE + 1) % k == 0  # the k-bar is known to be over
                if target != KEEP and costs.at_close and over:
                    fill(name, minute, 2, minute, target, new[name])
                elif target != KEEP:
                    orders[name] = (minute, target)
            new = {}
    return fills


def checked(market: Market, found: Accounted, fills: Any, rules: AccountRules) -> None:
    account = CashAccount(
        {name: {t: close for t, (_, close) in candles.items()} for name, candles in market.items()},
        fills,
        dict.fromkeys(market, (rules.lot.step, rules.lot.min_quantity, rules.lot.min_notional)),
        capital=rules.capital,
        size=rules.size,
        quantity=rules.quantity,
        notional=rules.notional,
        leverage=rules.leverage,
    ).run()
    s, last = found.summary, list(account.equity.values())[-1]
    assert s.profit == (last - rules.capital) * SCALE
    assert (s.trades, s.wins) == (len(account.profits), sum(x > 0 for x in account.profits))
    assert (s.fills, s.fees) == (account.traded, account.fees * SCALE)
    assert (s.cut, s.rejected, s.exposure) == (account.cut, account.rejected, account.exposure)
    assert {name: one.held for name, one in found.end.holdings.items()} == account.held


COSTS = st.builds(Costs, st.sampled_from([0, 1000]), st.sampled_from([0, 50]), st.booleans())
RULES = st.builds(
    AccountRules,
    leverage=st.sampled_from([MILLION, 2 * MILLION]),
    lot=st.builds(Lot, st.sampled_from([1, 10**6]), st.just(0), st.sampled_from([0, 10**9])),
)


@given(markets(), st.sampled_from([1, 2, 5]), COSTS, RULES, st.data())
@settings(max_examples=80)
def test_targets_trade_as_minute_by_minute(
    market: Market, k: int, costs: Costs, rules: AccountRules, data: st.DataObject
) -> None:
    targets = st.sampled_from([0, MILLION, 500_000, -300_000, -MILLION, KEEP, KEEP])
    keys = [f"{name}{number}" for name in market for number in range(1430 // k, 1475 // k + 1)]
    said = data.draw(st.fixed_dictionaries(dict.fromkeys(keys, targets)))

    def decide(number: int, closes: dict[str, list[int]]) -> dict[str, int]:
        return {name: said[f"{name}{number}"] for name in closes}

    try:
        found, figures = run(market, k, Given(said), costs, rules)
    except OverflowError:
        return  # prices of some units of 10^-8 that double each minute leave 64 bits
    checked(market, found, slow_fills(market, k, decide, costs), rules)
    assert abs(sum(one["profit"] for one in figures.values()) - found.summary.profit // SCALE) <= len(market)


@given(markets(), st.sampled_from([1, 5]), COSTS, st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=80)
def test_xs_momentum_agrees_with_its_slow_writing(
    market: Market, k: int, costs: Costs, lookback: int, top: int, every: int
) -> None:
    def decide(number: int, closes: dict[str, list[int]]) -> dict[str, int]:
        if number % every:
            return dict.fromkeys(closes, KEEP)
        ratios = {n: Fraction(c[-1], c[-1 - lookback]) for n, c in closes.items() if len(c) > lookback}
        rising = sorted((name for name, ratio in ratios.items() if ratio > 1), key=lambda name: (-ratios[name], name))
        return {name: MILLION // top if name in rising[:top] else 0 for name in closes}

    strategy = msgspec.convert({"lookback": lookback, "top": top, "every": every}, XsMomentum)
    found, _ = run(market, k, strategy, costs, AccountRules())
    checked(market, found, slow_fills(market, k, decide, costs), AccountRules())


def rows_of(market: Market, k: int) -> tuple[Panel, list[dict[str, int | None]]]:
    """The aligned bars, and the closes of each row."""
    candles = columns_of_symbols(market)
    symbols = {name: SymbolWindow(one, 0, int(one.n), True) for name, one in candles.items()}
    panel = aligned(PanelWindow(0, 1 << 50, symbols), k).panel
    closes = [
        {name: close if here else None for name, close, here in zip(panel.names, row, present, strict=True)}
        for row, present in zip(panel.close.tolist(), panel.present.tolist(), strict=True)
    ]
    return panel, closes


def said_by(strategy: PanelStrategy, panel: Panel) -> list[list[int | None]]:
    """The targets of present symbols; None for no trade."""
    found = zip(strategy.targets(panel).tolist(), panel.present.tolist(), strict=True)
    return [[x if here and x != KEEP else None for x, here in zip(*row, strict=True)] for row in found]


@given(markets(), st.sampled_from([1, 3]), st.integers(2, 6), st.integers(1, 200), st.integers(1, 100))
def test_pair_reversion_agrees_with_its_slow_writing(market: Market, k: int, length: int, exit: int, more: int) -> None:
    panel, rows = rows_of({name: market[sorted(market)[min(j, len(market) - 1)]] for j, name in enumerate("AB")}, k)
    found = said_by(PairReversion(length, exit + more, exit), panel)
    assert found == [slow_strategies.pair_reversion(rows[: j + 1], length, exit + more, exit) for j in range(len(rows))]


@given(markets(), st.sampled_from([1, 3]), st.integers(2, 6), st.integers(1, 3), st.integers(1, 10**7))
def test_inverse_volatility_agrees_with_its_slow_writing(
    market: Market, k: int, length: int, every: int, gross: int
) -> None:
    panel, rows = rows_of(market, k)
    numbers = panel.numbers.tolist()
    wanted = [
        slow_strategies.inverse_volatility(rows[: j + 1], number, length, every, gross)
        for j, number in enumerate(numbers)
    ]
    wanted = [
        [x if row[name] is not None else None for x, name in zip(said, sorted(row), strict=True)]
        for said, row in zip(wanted, rows, strict=True)
    ]
    assert said_by(InverseVolatility(length, every, gross), panel) == wanted


@given(markets(), st.permutations(NAMES), COSTS)
def test_no_order_of_symbols_matters(market: Market, order: list[str], costs: Costs) -> None:
    strategy = msgspec.convert({"lookback": 2, "top": 2, "every": 1}, XsMomentum)
    other = {name: market[name] for name in order if name in market}
    (found, figures), (again, same) = (run(m, 1, strategy, costs, AccountRules()) for m in (market, other))
    assert (found.summary.to_list(), found.end.to_bytes(), figures) == (
        again.summary.to_list(), again.end.to_bytes(), same,
    )  # fmt: skip


def test_ratios_that_floats_cannot_tell_apart_are_compared_exactly() -> None:
    high = 2**57
    now, before = np.array([[high + 1, high + 2, high + 3], [3, 6, 9]]), np.array([[high, high, high], [2, 4, 6]])
    found = XsMomentum(1, 2)._targets(now, before)
    assert found.tolist() == [[0, MILLION // 2, MILLION // 2], [MILLION // 2, MILLION // 2, 0]]  # ties by name


def test_weights_are_rounded_once() -> None:
    def targets(given: Any) -> list[list[int]]:
        class Weights(PanelStrategy, frozen=True):
            def positions(self, panel: Panel) -> Any:
                return given

        empty = np.zeros((2, 1), dtype=np.int64)
        columns = dict.fromkeys(("open", "high", "low", "close", "volume"), empty)
        panel = Panel(("AAA",), 1, np.arange(2) * MINUTE, **columns, present=empty == 0, member=empty == 0)
        found: list[list[int]] = Weights().targets(panel).tolist()
        return found

    assert targets(np.array([[1 / 3], [np.nan]])) == [[333_333], [KEEP]]
    assert targets(np.array([[0.0000005], [-2.5]])) == [[0], [-2_500_000]]
    assert targets(np.array([[True], [False]])) == [[MILLION], [0]]
    with pytest.raises(BadStrategy, match=r"positions of shape \(1, 1\), expected \(2, 1\)"):
        targets(np.array([[1]]))
    with pytest.raises(BadStrategy, match="a target of 200000000 ppm, the limit is 100,000,000"):
        targets(np.array([[200.0], [0.0]]))
    with pytest.raises(BadStrategy, match="a position is infinite"):
        targets(np.array([[np.inf], [0.0]]))


def test_figures_by_symbol() -> None:
    """Half of 10,000 each: AAA doubles, BBB stays. No costs."""
    market: Market = {
        "AAA": {0: (100, 100), MINUTE: (100, 100), 2 * MINUTE: (200, 200)},
        "BBB": {0: (50, 50), MINUTE: (50, 50), 2 * MINUTE: (50, 50)},
    }
    said = {"AAA0": 500_000, "BBB0": 500_000, "AAA1": 0}
    _, figures = run(market, 1, Given(said), Costs(0, 0, False), AccountRules())
    assert figures == {
        "AAA": {"trades": 1, "wins": 1, "profit": 5_000 * SCALE, "fees": 0, "exposure_bars": 1},
        "BBB": {"trades": 0, "wins": 0, "profit": 0, "fees": 0, "exposure_bars": 2},
    }
