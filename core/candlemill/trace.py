"""One run in full: every fill, trade and mark. Results keep sums; who wants to look asks for this.

Columns are NumPy arrays, times UTC milliseconds, money and prices scaled by 10^8, money for the job's quantity.
"""

from enum import IntEnum
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.model import Spec

Column = NDArray[np.int64]


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
    trades: Trades
