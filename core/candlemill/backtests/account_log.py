"""Log of an account of one symbol over a whole run, and the marks and trades that follow from it."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.backtests.marks import steps_of
from candlemill.backtests.trades import Reason, Trades, over
from candlemill.engine.account_events import BORROW, ENDING, FUNDING
from candlemill.engine.candles import Column
from candlemill.engine.fill_tape import AT_CLOSE, AT_OPEN, LIQUIDATION, ORDER, STOP, TAKE, TARGET
from candlemill.engine.wide import SCALE

REASONS = {
    TARGET: Reason.SIGNAL,
    ORDER: Reason.ORDER,
    STOP: Reason.STOP,
    TAKE: Reason.TAKE,
    LIQUIDATION: Reason.LIQUIDATION,
    ENDING: Reason.RUIN,
}

Bars = dict[str, Column]


class AccountLog(msgspec.Struct, frozen=True):
    """Events of an account that began without a position. Columns have one element per event, in order.

    `bar` is the number of its bar; `stage`, `what`, `before`, `after` (exposure) and `price` are as in a FillTape,
    `what` may also be FUNDING, BORROW or ENDING. `moved` is the signed quantity, `flow` the cash received, `paid` the
    fee, funding or borrow; both are in parts of 10^-8: `fine` parts are 10^-8. `ambiguous` has the bars in which the
    order of events is unknown.
    """

    bar: Column
    stage: Column
    what: Column
    before: Column
    after: Column
    moved: Column
    price: Column
    flow: NDArray[Any]
    paid: NDArray[Any]
    ambiguous: Column
    fine: int = 1

    @property
    def is_fill(self) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.what < FUNDING
        return found

    @property
    def is_real(self) -> NDArray[np.bool_]:
        """Fills that make a trade count: in an account of real money those with a quantity."""
        return self.is_fill if self.fine > 1 else self.is_fill & (self.moved != 0)


def joined(logs: Sequence[AccountLog]) -> AccountLog:
    """Return the log of consecutive stretches of one run."""
    columns = {name: np.concatenate([getattr(one, name) for one in logs]) for name in AccountLog.__struct_fields__[:-1]}
    return AccountLog(**columns, fine=logs[0].fine)


def marks_of(log: AccountLog, close: Column) -> tuple[Column, NDArray[np.int8]]:
    """Return the profit so far and the side of the position at each bar's close.

    Raises OverflowError for amounts that do not fit 64 bits.
    """
    levels = list(accumulate(log.flow.tolist(), initial=0))
    whole = np.array([level // log.fine for level in levels], dtype=np.int64)
    rest = np.array([level % log.fine for level in levels], dtype=np.int64)
    held = np.append(0, np.cumsum(log.moved))
    steps, first = steps_of(log.bar)
    counts = np.diff(first, append=len(close))
    cash, more, quantity = (np.repeat(column[steps], counts) for column in (whole, rest, held))
    position = np.sign(quantity).astype(np.int8)
    ended = log.what == ENDING
    position[log.bar[ended]] = -np.sign(log.moved[ended])  # held up to the mark that ended it
    return equity_of(cash, more, log.fine, quantity, close), position


def equity_of(cash: Column, rest: Column, fine: int, held: Column, close: Column) -> Column:
    """Return `cash + rest / fine + held * close / 10^8`, rounded down, with intermediate values within 64 bits."""
    if np.abs(held.astype(np.float64) * close).max(initial=0) >= 2.0**62 * SCALE:
        raise OverflowError("the value of a position does not fit 64 bits")
    units, parts = np.divmod(held, SCALE)
    prices, small = np.divmod(close, SCALE)
    carry, left = np.divmod(parts * small, SCALE)
    found: Column = cash + units * close + parts * prices + carry
    return found if fine == 1 else found + (left * (fine // SCALE) + rest) // fine


def trades_of(log: AccountLog, bars: Bars) -> Trades:
    """Return the closed trades: stretches from flat to flat, as decided, that ever had a quantity.

    `bars` are the columns of the candles. Raises OverflowError for figures that do not fit 64 bits.
    """
    begins = np.flatnonzero((log.before == 0) & (log.after != 0) & log.is_fill)
    ends = np.flatnonzero(((log.after == 0) & log.is_fill) | (log.what == ENDING))
    real = np.flatnonzero(log.is_real)
    last = np.searchsorted(ends, begins)
    entry = np.searchsorted(real, begins)
    known = (last < len(ends)) & (entry < len(real))
    begins, last, entry = begins[known], ends[last[known]], real[entry[known]]
    filled = entry <= last
    return _trades(log, bars, entry[filled], last[filled])


def _trades(log: AccountLog, bars: Bars, entry: Column, last: Column) -> Trades:
    """Return the trades whose first and last events are `entry` and `last`."""
    within = np.stack((entry, last + 1), axis=1).reshape(-1)

    def total(amounts: NDArray[Any]) -> NDArray[Any]:
        """Return the sum of each trade."""
        whole = np.append(amounts.astype(object), 0)
        return np.add.reduceat(whole, within)[::2] if len(within) else np.empty(0, dtype=object)

    side = np.sign(log.after[entry])
    moved, price = log.moved.astype(object), log.price.astype(object)
    number = np.searchsorted(last, np.arange(len(moved)))  # of the trade, for the events of trades
    signs = np.append(side, 0)[number]
    added, cut = np.where(log.moved * signs > 0, abs(moved), 0), np.where(log.moved * signs < 0, abs(moved), 0)
    quantity, entry_bar, exit_bar = total(added), log.bar[entry], log.bar[last]
    worst, best = _excursions(log, bars, entry, last)

    def mean(amounts: NDArray[Any], fill: Column) -> Column:
        """Return the mean price of each trade; without a quantity, that of its fill."""
        sums = [total(amounts * price).tolist(), total(amounts).tolist(), log.price[fill].tolist()]
        return np.array([x // q if q else p for x, q, p in zip(*sums, strict=True)], dtype=np.int64)

    gaps, what = bars["gaps"], log.what
    return Trades(
        entry_bar=entry_bar,
        exit_bar=exit_bar,
        entry_t=bars["t"][entry_bar],
        exit_t=bars["t"][exit_bar],
        side=side,
        quantity=_column(quantity),
        entry_price=mean(added, entry),
        exit_price=mean(cut, last),
        profit=_column(total(log.flow) // log.fine),
        fees=_column(total(np.where(log.is_fill, log.paid, 0)) // log.fine),
        funding=_column(total(np.where(what == FUNDING, log.paid, 0)) // log.fine),
        borrow=_column(total(np.where(what == BORROW, log.paid, 0)) // log.fine),
        mae=worst,
        mfe=best,
        bars=exit_bar - entry_bar,
        reason=np.array([REASONS[kind] for kind in what[last].tolist()], dtype=np.int64),
        gap=np.searchsorted(gaps, entry_bar, side="right") < np.searchsorted(gaps, exit_bar, side="right"),
        ambiguous=np.isin(exit_bar, log.ambiguous) & (log.stage[last] < AT_CLOSE) & (what[last] != TARGET),
    )


def _column(values: NDArray[Any]) -> Column:
    """Return Python integers as a column. Raises OverflowError."""
    return np.array(values.tolist(), dtype=np.int64)


def _excursions(log: AccountLog, bars: Bars, entry: Column, last: Column) -> tuple[Column, Column]:
    """Return the lowest and the highest value of each trade before costs, at most and at least 0.

    It is marked at its fills, and at the lows and highs of the bars between them that it was open for in whole.
    """
    found = []
    real = np.flatnonzero(log.moved != 0)
    rows = [log.bar, log.stage, log.moved, log.price]
    fills = list(zip(*(column[real].tolist() for column in rows), strict=True))
    firsts, ends = np.searchsorted(real, entry), np.searchsorted(real, last, side="right")
    edges = _stretches(log.bar[real], log.stage[real])
    held = edges[1::2] > edges[::2]
    lows, highs = (over(pick, bars[name], edges).tolist() for pick, name in ((np.minimum, "low"), (np.maximum, "high")))
    for first, end in zip(firsts.tolist(), ends.tolist(), strict=True):
        worst = best = cash = quantity = 0
        for k in range(first, end):
            _, _, moved, price = fills[k]
            cash, quantity = cash - moved * price, quantity + moved
            values = [cash + quantity * price]
            if k + 1 < end and held[k]:
                values += [cash + quantity * lows[k], cash + quantity * highs[k]]
            worst, best = min(worst, *values), max(best, *values)
        found.append((worst // SCALE, best // SCALE))
    columns: Column = np.array(found, dtype=np.int64).reshape(-1, 2).T
    return columns[0], columns[1]


def _stretches(bar: Column, stage: Column) -> Column:
    """Return the bars between each fill and the next, as pairs of the first and the end."""
    edges = np.zeros(2 * len(bar), dtype=np.int64)
    if len(bar) > 1:
        first = bar + (stage != AT_OPEN)
        end = np.append((bar + (stage >= AT_CLOSE))[1:], 0)
        edges[::2], edges[1::2] = first, np.maximum(first, end)
    return edges
