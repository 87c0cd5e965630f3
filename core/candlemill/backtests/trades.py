"""Trades of one run: columns of closed round trips."""

from enum import IntEnum
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.engine.candles import Column


class Reason(IntEnum):
    """Reason for the end of a trade."""

    SIGNAL = 0
    STOP = 1  # stop loss or trailing stop
    TAKE = 2  # take profit
    ORDER = 3  # an order of the strategy's book
    LIQUIDATION = 4
    RUIN = 5  # the account had nothing left


class Trades(msgspec.Struct, frozen=True):
    """Closed round trips, in order of their exits: one element per trade in every column.

    `entry_t` and `exit_t` are the open times of the bars of the first and the last fill; prices are after slippage.
    Where several fills enlarge or reduce a position, `quantity` is all that was added, and the prices are means by
    quantity, rounded down. `profit` is after fees, funding and borrow. `mae` (<= 0) and `mfe` (>= 0) are the worst and
    the best mark-to-market of the position in money before costs, at its fills and at the lows and highs of its bars.
    `gap`: a minute was missing during the trade; `ambiguous`: the order of events in its last bar is unknown.
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
    borrow: Column
    mae: Column
    mfe: Column
    bars: Column  # bars from the entry's to the exit's
    reason: Column
    gap: NDArray[np.bool_]
    ambiguous: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.entry_t)


def over(pick: Any, column: Column, edges: Column) -> Column:
    """Apply `pick` to `column[edges[2k] : edges[2k + 1]]`; the value for an empty range is undefined."""
    if len(edges) == 0:
        return edges
    found: Column = pick.reduceat(np.append(column, column[-1]), np.minimum(edges, len(column)))[0::2]
    return found
