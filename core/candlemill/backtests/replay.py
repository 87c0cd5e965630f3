"""One run in full: every fill, trade and mark. Results store sums only; a replay computes the details again.

Columns are NumPy arrays, times UTC milliseconds, money and prices scaled by 10^8, money for the job's quantity.
"""

from itertools import accumulate, pairwise
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.backtests.account_log import AccountLog, joined, marks_of, trades_of
from candlemill.backtests.fill_list import FillList, fills_of_log, fills_of_run
from candlemill.backtests.grid import grid_points
from candlemill.backtests.merge import MergedSlices
from candlemill.backtests.order_chart import OrderChart, last_orders
from candlemill.backtests.recording import Recording
from candlemill.backtests.result import Returns
from candlemill.backtests.slice import SliceWindow, run_recorded, summary_of
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import rules_of, sizing_of
from candlemill.backtests.states import COLD
from candlemill.backtests.trades import Trades, over
from candlemill.engine.account import FEE
from candlemill.engine.candles import DAY_MS, CandleColumns, Column
from candlemill.engine.fills import BOTH, LATE, SIGNAL, STOP, TAKE, Fills
from candlemill.engine.summary import FINE, Summary
from candlemill.errors import TooLarge
from candlemill.strategies import Strategy
from candlemill.units import SCALE


class PanelDetails(msgspec.Struct, frozen=True):
    """What a run of several symbols with one account has besides: `k` symbols in alphabetical order.

    `of_trade` and `of_fill` are the numbers of their symbols. `contribution` is what each symbol has brought up to the
    end of each day, `hold` the profit of equal parts of the capital in all symbols from each one's first open on.
    """

    symbols: tuple[str, ...]
    of_trade: Column
    of_fill: Column
    contribution: Column  # d, k
    hold: Column  # n


class Replay(msgspec.Struct, frozen=True):
    """Run by bars, days and trades: `n` bars, `d` UTC days that have bars.

    `equity` is the account's profit so far at each bar's close (0 before the first): its value is `capital + equity`.
    With several symbols, bars are the minutes in which any of them has a candle, `position` is how many are held, and
    there are no prices.
    """

    spec: Spec
    result: dict[str, Any]  # as stored, see result.result_of
    capital: int
    t: Column  # n, open times of the bars
    open: Column
    high: Column
    low: Column
    close: Column
    equity: Column  # n
    position: NDArray[np.int8 | np.int16]  # n, at the bar's close
    days: Column  # d, midnights
    daily: Column  # d, the day's profit
    ratios: Column  # d, base of the Sharpe ratio: `daily`, or returns in 10^-15 of a compound account
    trades: Trades
    fills: FillList | None = None  # None: not recorded
    panel: PanelDetails | None = None
    orders: OrderChart | None = None  # around the last fill


def replay_of(
    spec: Spec,
    candles: CandleColumns,
    strategy: Strategy,
    result: dict[str, Any],
    marks: CandleColumns | None = None,
) -> Replay:
    """Run the job again in one piece and record everything.

    `candles` are all bars of the job with highs and lows (and the funding rates, if the job has them); `result` is the
    job's, `marks` its mark prices, if it uses any. With `path=both` it is the run of the worst path. Raises TooLarge if
    an equity or a trade in money exceeds 64 bits.
    """
    if spec.path == "both":
        spec = msgspec.structs.replace(spec, path="worst")
    try:
        return _traced(spec, candles, strategy, result, marks)
    except OverflowError:
        raise TooLarge(f"{spec.symbol} {spec.strategy}: the account leaves 64 bits; use less capital") from None


def _traced(
    spec: Spec, candles: CandleColumns, strategy: Strategy, result: dict[str, Any], marks: CandleColumns | None
) -> Replay:
    record, merged = _run_legs(spec, candles) if spec.varies else _run(spec, candles, strategy, marks)
    days, returns = merged.days, Returns(spec, merged)
    daily = np.array(returns.profits, dtype=np.int64)
    bars = candles.columns()
    if record.account is not None:
        profit, position = marks_of(record.account, bars["close"])
        trades = trades_of(record.account, bars)
        fills = fills_of_log(record.account, bars["t"])
    else:
        equity = _Equity(spec, candles, record.fills, returns)
        profit, position = equity.marks(), _positions(record.fills, int(candles.n))
        trades = _trades(spec, candles, record.fills, equity)
        fills = _fill_list(spec, candles, record.fills, equity)
    return Replay(
        spec,
        result,
        returns.capital,
        bars["t"],
        bars["open"],
        bars["high"],
        bars["low"],
        bars["close"],
        profit,
        position,
        days * DAY_MS,
        daily,
        np.array(returns.daily, dtype=np.int64),
        trades,
        fills,
        orders=last_orders(spec, candles, strategy, marks, fills.t),
    )


def _run(
    spec: Spec, candles: CandleColumns, strategy: Strategy, marks: CandleColumns | None
) -> tuple[Recording, MergedSlices]:
    record = Recording()
    days, outcome = run_recorded(spec, SliceWindow(candles, 0, int(candles.n), True, marks), strategy, record)
    summary, end = summary_of(outcome), outcome.end.encode()
    return record, MergedSlices(summary, end, 0, np.array(days, np.int64), outcome.daily)


def _run_legs(spec: Spec, candles: CandleColumns) -> tuple[Recording, MergedSlices]:
    """Run a schedule whose legs have options of their own, a leg at a time."""
    starts = [spec.start, *(leg.start for leg in spec.schedule[1:])]
    edges = np.searchsorted(candles.columns()["t"], [*starts, spec.end]).tolist()
    total, state = Summary(), COLD
    days: list[int] = []
    daily: list[int] = []
    logs: list[AccountLog] = []
    for start, (lo, hi) in zip(starts, pairwise(edges), strict=True):
        one, part = spec.at(start), Recording()
        ((_, _, strategy),) = grid_points(one, 0, 1)
        own, outcome = run_recorded(one, SliceWindow(candles, lo, hi, True), strategy, part, state)
        total, state = total.merge(summary_of(outcome)), outcome.end.encode()
        days, daily = days + own, daily + outcome.daily
        logs += [part.account] if part.account is not None else []
    record = Recording(account=joined(logs))
    return record, MergedSlices(total, state, 0, np.array(days, np.int64), daily)


def _fill_list(spec: Spec, candles: CandleColumns, log: Fills, equity: "_Equity") -> FillList:
    fills = log.columns()
    quantity = _quantities(spec, candles, fills["bar"][0::2], fills["price"][0::2], equity)
    return fills_of_run(spec, log, quantity, candles.columns()["t"])


def _positions(log: Fills, n: int) -> NDArray[np.int8]:
    """Return the position at each bar's close, which is the position after the bar's last fill."""
    fills = log.columns()
    bars = np.append(fills["bar"], n)
    held = np.diff(bars)
    return np.concatenate((np.zeros(int(bars[0])), np.repeat(fills["side"], held))).astype(np.int8)


class _Equity:
    """Profit of the account in money, from the equity line that the engine recorded."""

    def __init__(self, spec: Spec, candles: CandleColumns, log: Fills, returns: Returns) -> None:
        if log.curve is None:
            raise ValueError("the run drew no curve")
        self._spec, self._bars, self._fills, self._returns = spec, candles.columns(), log.columns(), returns
        self._curve = log.curve
        self.capital = returns.capital
        self._compound = spec.sizing == "compound"
        # Value of the account at the start of each bar's day; only a compound account begins again each day.
        self._opening = np.concatenate(([0], np.cumsum(np.array(returns.profits, dtype=np.float64))))
        self._day_of = np.searchsorted(self._bars["day_ends"], np.arange(len(self._bars["t"])))

    def marks(self) -> Column:
        n = len(self._bars["t"])
        at = np.array(self._curve.at, dtype=np.int64)
        line = np.searchsorted(at, np.arange(n), side="right") - 1  # -1: before the first fill
        kind = np.float64 if self._compound else object
        base = np.array([*self._curve.base, 0], dtype=kind)
        holding = np.array([*self._curve.holding, 0], dtype=kind)
        close = self._bars["close"]
        if self._compound:
            return self._money_of_day(base[line] + holding[line] * close, self._day_of)
        if sizing_of(self._spec) is None and _small(self._curve.base, self._spec.quantity):
            quantity = self._spec.quantity
            whole, side = (base // FINE).astype(np.int64), (holding // FINE).astype(np.int64)
            rest = (base % FINE * quantity // FINE).astype(np.int64)
            return _times(whole[line] + side[line] * close, quantity, rest[line])
        exact = base[line] + holding[line] * close.astype(object)
        return np.array([self._returns.money(x) for x in exact], dtype=np.int64)

    def after_fills(self) -> Column:
        """Return the profit in money after each fill of a compound account."""
        return self._money_of_day(np.array(self._curve.filled), self._day_of[self._fills["bar"]])

    def _money_of_day(self, ratio: NDArray[np.float64], day: NDArray[np.intp]) -> Column:
        capital = float(self._returns.capital)
        return np.rint((capital + self._opening[day]) * ratio - capital).astype(np.int64)


def _small(base: list[Any], quantity: int) -> bool:
    """Return whether `_times` fits equities (in the book's unit, with the open position) for this quantity."""
    top = 2 * max((abs(int(x)) for x in base), default=0) // (FINE * SCALE) + 2
    return quantity <= 1 << 36 and top * max(quantity, SCALE) < 1 << 62


def _times(per_unit: Column, quantity: int, more: Column) -> Column:
    """Return `(per_unit * quantity + more) // 10^8`, with intermediate values within 64 bits."""
    whole, rest = np.divmod(per_unit, SCALE)
    found: Column = whole * quantity + (rest * quantity + more) // SCALE
    return found


# -- trades --------------------------------------------------------------------------------------------------------


def _trades(spec: Spec, candles: CandleColumns, log: Fills, equity: _Equity) -> Trades:
    """Return the trades. From a cold start, fills alternate: one that opens, one that closes."""
    fills, columns = log.columns(), candles.columns()
    bar, price, reason = fills["bar"], fills["price"], fills["reason"]
    closed = len(bar) // 2 * 2
    entry_bar, exit_bar = bar[0:closed:2], bar[1:closed:2]
    entry_price, exit_price = price[0:closed:2], price[1:closed:2]
    side, why = fills["side"][0:closed:2], reason[1:closed:2]
    quantity = _quantities(spec, candles, entry_bar, entry_price, equity)
    paid = _funding_between(candles, entry_bar, exit_bar)
    profit, fees, funding = _sums(spec, side, quantity, entry_price, exit_price, why == TAKE, paid)
    late = reason[0:closed:2] == LATE
    worst, best = _excursions(spec, candles, entry_bar, exit_bar, exit_price, why, side, late)
    t, gaps = columns["t"], columns["gaps"]
    found = Trades(
        entry_bar=entry_bar,
        exit_bar=exit_bar,
        entry_t=t[entry_bar],
        exit_t=t[exit_bar],
        side=side,
        quantity=quantity,
        entry_price=entry_price,
        exit_price=exit_price,
        profit=profit,
        fees=fees,
        funding=funding,
        borrow=np.zeros_like(funding),
        mae=_each_times(np.minimum(side * (worst - entry_price), 0), quantity),
        mfe=_each_times(np.maximum(side * (best - entry_price), 0), quantity),
        bars=exit_bar - entry_bar,
        reason=np.where(why == BOTH, STOP, np.where(why == LATE, SIGNAL, why)),
        gap=np.searchsorted(gaps, entry_bar, side="right") < np.searchsorted(gaps, exit_bar, side="right"),
        ambiguous=why == BOTH,
    )
    if spec.sizing == "compound":
        after = equity.after_fills()
        before = np.concatenate(([0], after[1:-1:2]))[: len(found)] if len(after) else after
        return msgspec.structs.replace(found, profit=after[1:closed:2] - before)
    filled = quantity > 0
    return found if filled.all() else Trades(**{name: getattr(found, name)[filled] for name in found.__struct_fields__})


def _sums(
    spec: Spec,
    side: Column,
    quantity: Column,
    entry_price: Column,
    exit_price: Column,
    making: NDArray[np.bool_],
    funding: list[int],
) -> tuple[Column, Column, Column]:
    """Return profits, fees and funding of trades in money, each rounded down once.

    `funding` is the payment of a long of one unit, in the book's unit.
    """
    rules = rules_of(spec)
    fee, maker_fee = int(rules.fee) * FEE, int(rules.maker_fee) * FEE
    columns = (side, quantity, entry_price, exit_price, making)
    found = []
    for s, q, entry, exit, made, due in zip(*(column.tolist() for column in columns), funding, strict=True):
        paid = entry * fee + exit * (maker_fee if made else fee)
        gained = s * (exit - entry) * FINE - paid - s * due
        found.append([amount * q // (FINE * SCALE) for amount in (gained, paid, s * due)])
    profit, fees, funded = np.ascontiguousarray(np.array(found, dtype=np.int64).reshape(-1, 3).T)
    return profit, fees, funded


def _quantities(spec: Spec, candles: CandleColumns, bars: Column, prices: Column, equity: _Equity) -> Column:
    sizing = sizing_of(spec)
    if sizing is None:
        return np.full(len(bars), spec.quantity, dtype=np.int64)
    if spec.sizing == "compound":  # the whole equity after the entry's fee
        left = equity.after_fills()[: 2 * len(bars) : 2].astype(np.float64) + equity.capital
        found = np.floor(left / np.maximum(prices, 1) * SCALE)
        if len(found) and float(found.max()) >= 2.0**63:
            raise OverflowError("a trade's quantity (scaled) does not fit 64 bits")
        units: Column = found.astype(np.int64)
        return units
    pairs = zip(bars.tolist(), prices.tolist(), strict=True)
    return np.array([sizing.at_entry(candles, bar, price) for bar, price in pairs], dtype=np.int64)


def _funding_between(candles: CandleColumns, entry_bar: Column, exit_bar: Column) -> list[int]:
    """Return the funding that a long of one unit paid after each entry's bar, up to the exit's; in the book's unit."""
    columns = candles.columns()
    bars, rates = columns["funding_bars"], columns["funding_rates"]
    closes = columns["close"][bars - 1].tolist()
    sums = list(accumulate((close * rate for close, rate in zip(closes, rates.tolist(), strict=True)), initial=0))
    first, last = (np.searchsorted(bars, edge, side="right").tolist() for edge in (entry_bar, exit_bar))
    return [sums[b] - sums[a] for a, b in zip(first, last, strict=True)]


def _excursions(
    spec: Spec,
    candles: CandleColumns,
    entry_bar: Column,
    exit_bar: Column,
    exit_price: Column,
    why: Column,
    side: Column,
    late: NDArray[np.bool_],
) -> tuple[Column, Column]:
    """Return the worst and the best price of each trade for its side.

    They cover the bars during which the position was open from start to end, and its exit.
    """
    at_close = spec.fill == "close"
    bars = candles.columns()
    first = entry_bar + (at_close & ~late)  # a bar's range before its close is not part of the trade
    last = exit_bar + (at_close & (why == SIGNAL))
    edges = np.empty(2 * len(first), dtype=np.int64)
    edges[0::2], edges[1::2] = first, np.maximum(last, first)
    held = last > first
    low = np.where(held, over(np.minimum, bars["low"], edges), exit_price)
    high = np.where(held, over(np.maximum, bars["high"], edges), exit_price)
    low, high = np.minimum(low, exit_price), np.maximum(high, exit_price)
    return np.where(side > 0, low, high), np.where(side > 0, high, low)


def _each_times(per_unit: Column, quantity: Column) -> Column:
    """Return `per_unit * quantity // 10^8`, element by element, exact."""
    pairs = zip(per_unit.tolist(), quantity.tolist(), strict=True)
    return np.array([one * times // SCALE for one, times in pairs], dtype=np.int64)
