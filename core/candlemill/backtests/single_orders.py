"""Books and weights of one symbol in an account of real money: settle and mark the decided fills.

The counterpart of `single`, whose book has positions of -1, 0 and 1 only. Orders may wait over many bars and slices, so
the account stores when the last orders were stated, with the close and the equity at that time.
"""

import numpy as np

from candlemill.backtests.account import NEVER, AccountRules, AccountState, Columns, Holding, opened, turns_of
from candlemill.backtests.gaps import bars_at
from candlemill.backtests.recording import Recording
from candlemill.backtests.single import SYMBOL, AccountSlice
from candlemill.engine.candles import Bars, CandleColumns, Column
from candlemill.engine.fill_tape import ORDER, FillTape
from candlemill.engine.summary import CarriedState, Summary


def account_for_orders(
    candles: CandleColumns,
    bars: Bars,
    fills: FillTape,
    account: AccountRules,
    before: AccountState,
    lo: int,
    hi: int,
    record: Recording | None = None,
    funded: Column | None = None,
    waiting: int = 0,
) -> tuple[Summary, CarriedState, list[int]]:
    """Settle the fills of bars `lo` to `hi - 1`; return the Summary, the state after them and the daily profits.

    Amounts are in 10^-16. The account is the whole state; `before` is that before bar `lo`. Funding is paid on the
    prices `funded` of the bars before, if given. `waiting` is the time at which the orders that wait after them were
    stated, 0 if none does: a target that only fills in parts may be older than the last decision.
    """
    decided = last_decision(candles, bars, lo, hi)
    if waiting:
        decided = waiting if waiting > before.t else NEVER
    slice_ = AccountSlice(candles, account, before, lo, hi, decided, funded)
    last = slice_.account_for(events_of(candles, fills, before))
    total, daily = slice_.summary()
    columns = candles.columns()
    ambiguous = np.searchsorted(columns["t"], fills.ambiguous()["minute"])  # bars; after a ruin nothing is traded
    total.ambiguous = int(np.count_nonzero(ambiguous <= last))
    if record is not None:
        record.account = slice_.log(ambiguous)
    total.first, total.last = int(columns["open"][lo]), int(columns["close"][hi - 1])
    return total, CarriedState(account=slice_.after().to_bytes()), daily


def account_before(account: AccountRules, start: CarriedState) -> AccountState:
    """Return the account of `start`, or a new one."""
    return AccountState.from_bytes(start.account) if start.account else opened(account, [SYMBOL])


def last_decision(candles: CandleColumns, bars: Bars, lo: int, hi: int) -> int:
    """Return the open time (ms) of the last of bars `lo` to `hi - 1` that ends a decision bar; NEVER without one."""
    at = hi - 1
    if bars.last is not None:
        ended = int(np.searchsorted(bars.last, hi))
        at = int(bars.last[ended - 1]) if ended else -1
    return int(candles.columns()["t"][at]) if at >= lo else NEVER


def events_of(candles: CandleColumns, fills: FillTape, before: AccountState) -> Columns:
    """Return the fills as events; `bar` is the bar number of each one. Raises ValueError for orders that were never
    stated.
    """
    given, columns = fills.columns(), candles.columns()
    minute, made, n = given["minute"], given["made"], int(fills.n)
    start: Holding = before.holdings[SYMBOL]
    ordered = (given["what"] <= ORDER) & (given["after"] != 0)
    fresh = ordered & (made > before.t)
    if (early := made[ordered & ~fresh]).size and (early != start.made).any():
        raise ValueError(f"orders made at {early.tolist()[:3]} are none of the last that were carried, {start.made}")
    price = np.where(ordered, start.made_price, 0)
    price[fresh] = columns["close"][bars_at(columns, made[fresh])]
    bar = bars_at(columns, minute)
    names = ("minute", "stage", "what", "before", "after", "part", "price", "raw", "rate", "made")
    return {name: given[name] for name in names} | {
        "turn": turns_of(bar, given["stage"]),
        "symbol": np.zeros(n, dtype=np.int64),
        "instant": np.where(ordered, 0, NEVER),
        "made_price": price,
        "bar": bar,
    }
