"""One run in full: every fill, trade and mark. Results keep sums; who wants to look asks for this.

Columns are NumPy arrays, times UTC milliseconds, money and prices scaled by 10^8, money for the job's quantity.
"""

from enum import IntEnum
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.engine.account import FEE, FINE
from candlemill.engine.fills import BOTH, SIGNAL, STOP, TAKE, Curve, Fills
from candlemill.engine.signals import parts_per_million
from candlemill.engine.tape import DAY_MS, Column, Tape
from candlemill.errors import TooLarge
from candlemill.model import SCALE, Spec
from candlemill.reduce import Merged, Returns
from candlemill.strategies import Strategy
from candlemill.work import Window, rules_of, run_logged, sizing_of, summary_of


class Reason(IntEnum):
    """Why a trade ended."""

    SIGNAL = 0
    STOP = 1  # stop loss or trailing stop
    TAKE = 2  # take profit


class Trades(msgspec.Struct, frozen=True):
    """Closed round trips, in order of their exits: one element per trade in every column.

    `entry_t` and `exit_t` are the open times of the bars in which the fills happened; prices are after slippage;
    `profit` is after fees and funding. `mae` (<= 0) and `mfe` (>= 0) are the worst and best mark-to-market of the
    position in money, from the entry price to the lows and highs of its bars. `gap` tells that a minute was missing
    while it was held, `ambiguous` that its last bar touched both stop and target.
    """

    entry_bar: Column
    exit_bar: Column
    entry_t: Column
    exit_t: Column
    side: Column  # 1 long, -1 short
    quantity: Column
    entry_price: Column
    exit_price: Column
    profit: Column
    fees: Column
    funding: Column
    mae: Column
    mfe: Column
    bars: Column  # held, from the entry's to the exit's
    reason: Column
    gap: NDArray[np.bool_]
    ambiguous: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.entry_t)


class Trace(msgspec.Struct, frozen=True):
    """A run bar by bar, day by day, trade by trade. `n` bars, `d` UTC days that have bars.

    `equity` is the account's profit so far at each bar's close (0 before the first): its value is `capital + equity`.
    """

    spec: Spec
    result: dict[str, Any]  # as stored, see reduce.result_of
    capital: int
    t: Column  # n, open times of the bars
    open: Column
    high: Column
    low: Column
    close: Column
    equity: Column  # n
    position: NDArray[np.int8]  # n, at the bar's close
    days: Column  # d, midnights
    daily: Column  # d, the day's profit
    ratios: Column  # d, what the Sharpe ratio is of: the same, of a compound account the returns in 10^-15
    trades: Trades


def trace_of(spec: Spec, tape: Tape, strategy: Strategy, result: dict[str, Any]) -> Trace:
    """Run the job again, all of it at once and with everything taken down.

    `tape` holds all bars of the job with highs and lows (and the funding rates, where the job has them); `result` is
    the job's. Raises TooLarge where an equity or a trade in money leaves 64 bits.
    """
    try:
        return _traced(spec, tape, strategy, result)
    except OverflowError:
        raise TooLarge(f"{spec.symbol} {spec.strategy}: the account leaves 64 bits; use less capital") from None


def _traced(spec: Spec, tape: Tape, strategy: Strategy, result: dict[str, Any]) -> Trace:
    window = Window(tape, 0, int(tape.n), True)
    log = Fills(Curve())
    days, outcome = run_logged(spec, window, strategy, log)
    returns = Returns(
        spec, Merged(summary_of(outcome), outcome.end.encode(), 0, np.array(days, np.int64), outcome.daily)
    )
    daily = np.array(returns.profits, dtype=np.int64)
    equity = _Equity(spec, tape, log, returns)
    bars = tape.columns()
    return Trace(
        spec,
        result,
        returns.capital,
        bars["t"],
        bars["open"],
        bars["high"],
        bars["low"],
        bars["close"],
        equity.marks(),
        _positions(log, int(tape.n)),
        np.array(days, dtype=np.int64) * DAY_MS,
        daily,
        np.array(returns.daily, dtype=np.int64),
        _trades(spec, tape, log, equity),
    )


def _positions(log: Fills, n: int) -> NDArray[np.int8]:
    """The position at each bar's close: that after the bar's last fill."""
    fills = log.columns()
    bars = np.append(fills["bar"], n)
    held = np.diff(bars)
    return np.concatenate((np.zeros(int(bars[0])), np.repeat(fills["side"], held))).astype(np.int8)


class _Equity:
    """The account's profit in money, from the line that the engine drew."""

    def __init__(self, spec: Spec, tape: Tape, log: Fills, returns: Returns) -> None:
        if log.curve is None:
            raise ValueError("the run drew no curve")
        self._spec, self._bars, self._fills, self._returns = spec, tape.columns(), log.columns(), returns
        self._curve = log.curve
        self.capital = returns.capital
        self._compound = spec.sizing == "compound"
        # What the account was worth when the day of a bar began; only a compound one starts anew each day.
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
            return _times(base.astype(np.int64)[line] + holding.astype(np.int64)[line] * close, self._spec.quantity)
        exact = base[line] + holding[line] * close.astype(object)
        return np.array([self._returns.money(x) for x in exact], dtype=np.int64)

    def after_fills(self) -> Column:
        """Of a compound account, the profit in money after each fill."""
        return self._money_of_day(np.array(self._curve.filled), self._day_of[self._fills["bar"]])

    def _money_of_day(self, ratio: NDArray[np.float64], day: NDArray[np.intp]) -> Column:
        capital = float(self._returns.capital)
        return np.rint((capital + self._opening[day]) * ratio - capital).astype(np.int64)


def _small(base: list[Any], quantity: int) -> bool:
    """Whether equity (per unit, with the open position) times the quantity's whole and rest stays below 2^63."""
    top = 2 * max((abs(int(x)) for x in base), default=0) // SCALE + 2
    return top * max(quantity, SCALE) < 1 << 62


def _times(per_unit: Column, quantity: int) -> Column:
    """`per_unit * quantity // 10^8` without leaving 64 bits on the way."""
    whole, rest = np.divmod(per_unit, SCALE)
    if quantity <= 1 << 36:
        found: Column = whole * quantity + rest * quantity // SCALE
        return found
    return np.array([int(x) * quantity // SCALE for x in per_unit], dtype=np.int64)


# -- trades --------------------------------------------------------------------------------------------------------


def _trades(spec: Spec, tape: Tape, log: Fills, equity: _Equity) -> Trades:
    """Fills alternate from a cold start: one that opens, one that closes."""
    fills, columns = log.columns(), tape.columns()
    bar, price, reason = fills["bar"], fills["price"], fills["reason"]
    closed = len(bar) // 2 * 2
    entry_bar, exit_bar = bar[0:closed:2], bar[1:closed:2]
    entry_price, exit_price = price[0:closed:2], price[1:closed:2]
    side, why = fills["side"][0:closed:2], reason[1:closed:2]
    quantity = _quantities(spec, tape, entry_bar, entry_price, equity)
    fees = _fees(spec, entry_price, False) + _fees(spec, exit_price, why == TAKE)
    funding = side * _funding_between(tape, entry_bar, exit_bar)
    gains = side * (exit_price - entry_price) - fees - funding
    worst, best = _excursions(spec, tape, entry_bar, exit_bar, exit_price, why, side)
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
        profit=_each_times(gains, quantity),
        fees=_each_times(fees, quantity),
        funding=_each_times(funding, quantity),
        mae=_each_times(np.minimum(side * (worst - entry_price), 0), quantity),
        mfe=_each_times(np.maximum(side * (best - entry_price), 0), quantity),
        bars=exit_bar - entry_bar,
        reason=np.where(why == BOTH, STOP, why),
        gap=np.searchsorted(gaps, entry_bar, side="right") < np.searchsorted(gaps, exit_bar, side="right"),
        ambiguous=why == BOTH,
    )
    if spec.sizing == "compound":
        after = equity.after_fills()
        before = np.concatenate(([0], after[1:-1:2]))[: len(found)] if len(after) else after
        return msgspec.structs.replace(found, profit=after[1:closed:2] - before)
    if sizing_of(spec) is not None:
        profit, fees, funding = _exact_sums(spec, tape, found)
        found = msgspec.structs.replace(found, profit=profit, fees=fees, funding=funding)
    filled = quantity > 0
    return found if filled.all() else Trades(**{name: getattr(found, name)[filled] for name in found.__struct_fields__})


def _exact_sums(spec: Spec, tape: Tape, trades: Trades) -> tuple[Column, Column, Column]:
    """Profits, fees and funding: of a sized account nothing is rounded before the end."""
    rules = rules_of(spec)
    profits, fees, funding = [], [], []
    for k in range(len(trades)):
        side, q = int(trades.side[k]), int(trades.quantity[k])
        entry, exit = int(trades.entry_price[k]), int(trades.exit_price[k])
        leaving = rules.maker_fee if trades.reason[k] == TAKE else rules.fee
        paid = (entry * int(rules.fee) + exit * int(leaving)) * FEE
        instants = _instants(tape, trades.entry_bar[k], trades.exit_bar[k])
        funded = sum(side * price * rate for price, rate in instants)
        gained = (side * (exit - entry)) * FINE - paid - funded
        profits.append(gained * q // (FINE * SCALE))
        fees.append(paid * q // (FINE * SCALE))
        funding.append(funded * q // (FINE * SCALE))
    return tuple(np.array(column, dtype=np.int64) for column in (profits, fees, funding))  # type: ignore[return-value]


def _instants(tape: Tape, entry_bar: int, exit_bar: int) -> list[tuple[int, int]]:
    """The close before each funding instant that a trade holds through, and its rate."""
    columns = tape.columns()
    bars = columns["funding_bars"]
    first, last = np.searchsorted(bars, [entry_bar, exit_bar], side="right")
    return list(
        zip(columns["close"][bars[first:last] - 1].tolist(), columns["funding_rates"][first:last].tolist(), strict=True)
    )


def _quantities(spec: Spec, tape: Tape, bars: Column, prices: Column, equity: _Equity) -> Column:
    sizing = sizing_of(spec)
    if sizing is None:
        return np.full(len(bars), spec.quantity, dtype=np.int64)
    if spec.sizing == "compound":  # all of what was left after the entry's fee
        left = equity.after_fills()[: 2 * len(bars) : 2].astype(np.float64) + equity.capital
        found = np.floor(left / np.maximum(prices, 1) * SCALE)
        if len(found) and float(found.max()) >= 2.0**63:
            raise OverflowError("a trade's quantity (scaled) does not fit 64 bits")
        units: Column = found.astype(np.int64)
        return units
    pairs = zip(bars.tolist(), prices.tolist(), strict=True)
    return np.array([sizing.at_entry(tape, bar, price) for bar, price in pairs], dtype=np.int64)


def _fees(spec: Spec, prices: Column, making: NDArray[np.bool_] | bool) -> Column:
    rules = rules_of(spec)
    taken = parts_per_million(prices, int(rules.fee))
    return np.where(making, parts_per_million(prices, int(rules.maker_fee)), taken)


def _funding_between(tape: Tape, entry_bar: Column, exit_bar: Column) -> Column:
    """What a long of one unit paid at the instants after each entry's bar, up to the exit's."""
    columns = tape.columns()
    bars, rates = columns["funding_bars"], columns["funding_rates"]
    if len(bars) == 0:
        return np.zeros(len(entry_bar), dtype=np.int64)
    before = columns["close"][bars - 1].tolist()
    due = [price * rate // SCALE for price, rate in zip(before, rates.tolist(), strict=True)]
    sums = np.concatenate(([0], np.cumsum(np.array(due, dtype=np.int64))))
    first, last = (np.searchsorted(bars, edge, side="right") for edge in (entry_bar, exit_bar))
    found: Column = sums[last] - sums[first]
    return found


def _excursions(
    spec: Spec, tape: Tape, entry_bar: Column, exit_bar: Column, exit_price: Column, why: Column, side: Column
) -> tuple[Column, Column]:
    """The worst and the best price of each trade for its side: over the bars that it was held all through, and at its
    exit."""
    at_close = spec.fill == "close"
    bars = tape.columns()
    first = entry_bar + at_close  # a bar's range before its close is not the trade's
    last = exit_bar + (at_close & (why == SIGNAL))
    edges = np.empty(2 * len(first), dtype=np.int64)
    edges[0::2], edges[1::2] = first, np.maximum(last, first)
    held = last > first
    low = np.where(held, _over(np.minimum, bars["low"], edges), exit_price)
    high = np.where(held, _over(np.maximum, bars["high"], edges), exit_price)
    low, high = np.minimum(low, exit_price), np.maximum(high, exit_price)
    return np.where(side > 0, low, high), np.where(side > 0, high, low)


def _over(pick: Any, column: Column, edges: Column) -> Column:
    """`pick` over `column[edges[2k] : edges[2k + 1]]`; whatever where that is empty."""
    if len(edges) == 0:
        return edges
    found: Column = pick.reduceat(np.append(column, column[-1]), np.minimum(edges, len(column)))[0::2]
    return found


def _each_times(per_unit: Column, quantity: Column) -> Column:
    """`per_unit * quantity // 10^8`, element by element, exact."""
    pairs = zip(per_unit.tolist(), quantity.tolist(), strict=True)
    return np.array([one * times // SCALE for one, times in pairs], dtype=np.int64)
