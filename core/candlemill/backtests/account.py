"""Account of real money: its rules, the state between slices, and the settlement of a slice.

Amounts, quantities and prices are scaled by 10^8, rates are ppm, times UTC milliseconds.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from candlemill.engine.account_events import (
    AFTER_CLOSE,
    BEFORE_OPEN,
    BORROW,
    CUT,
    ENDING,
    FUNDING,
    REJECTED,
    Events,
    FillEvents,
)
from candlemill.engine.candles import DAY_MS, CandleColumns, Column
from candlemill.engine.fill_tape import FillTape
from candlemill.engine.quotes import Quotes, quotes_of
from candlemill.engine.settle import Settler
from candlemill.engine.settle_rules import CROSS, EQUITY, ISOLATED, NO_MARGIN, NOTIONAL, UNITS, SettleRules
from candlemill.engine.wide import MILLION, SCALE

Columns = dict[str, Column]

MARGINS = {"none": NO_MARGIN, "isolated": ISOLATED, "cross": CROSS}
SIZES = {"units": UNITS, "notional": NOTIONAL, "equity": EQUITY}
NEVER = -1
CARRIED = ("held", "trade_cash", "filled", "entry", "margin")  # sums of a Settler that a Holding has


class Lot(msgspec.Struct, frozen=True):
    """Order limits of one symbol at an exchange.

    Quantities are whole multiples of `step`. An order that adds to a position has at least `min_quantity` and a value
    of at least `min_notional`.
    """

    step: int = 1
    min_quantity: int = 0
    min_notional: int = 0


class AccountRules(msgspec.Struct, frozen=True):
    """Rules of an account.

    Exposure (ppm) is of `quantity` (size units), of `notional`, or of the equity. `leverage` (ppm) limits positions;
    shorts pay `borrow` (ppm a day). `lots` has the limits by symbol, `lot` those of all other symbols. With `margin`
    isolated or cross, positions are liquidated.
    """

    capital: int = 1_000_000_000_000
    size: str = "equity"
    quantity: int = 100_000_000
    notional: int = 0
    leverage: int = 1_000_000
    borrow: int = 0
    lot: Lot = Lot()
    lots: Mapping[str, Lot] = {}
    margin: str = "none"

    def of(self, symbols: Sequence[str]) -> SettleRules:
        lots = [self.lots.get(symbol, self.lot) for symbol in symbols]
        return SettleRules(
            SIZES[self.size],
            self.quantity,
            self.notional,
            self.leverage,
            np.array([lot.step for lot in lots], dtype=np.int64),
            np.array([lot.min_quantity for lot in lots], dtype=np.int64),
            np.array([lot.min_notional for lot in lots], dtype=np.int64),
            MARGINS[self.margin],
        )


class Quotation(msgspec.Struct, frozen=True):
    """Candles of a symbol in a slice, as far as settlement needs them, and its funding rates (times 10^8).

    The rates include at least those since the symbol's last candle before the slice. `decided` is the last instant in
    the slice at which its orders were stated (open time of that minute), or NEVER. With `candles`, `t` and `close` are
    those from bar `lo` on, which saves copies; only then the profit over gaps is computed.
    """

    t: Column
    close: Column
    decided: int = NEVER
    funding_t: Column = np.empty(0, dtype=np.int64)
    funding_rate: Column = np.empty(0, dtype=np.int64)
    candles: CandleColumns | None = None
    lo: int = 0

    def quotes(self, last: int) -> Quotes:
        """Return the closes for settlement; `last` is the one before them."""
        if self.candles is None:
            return Quotes(self.t, self.close, last)
        quotes = quotes_of(self.candles, self.lo)
        quotes.last = last
        return quotes


class Holding(msgspec.Struct, frozen=True, array_like=True):
    """State of one symbol between two slices.

    The position, the last candle, the cash of the present trade and whether it ever had a quantity; the time at which
    its orders were last stated, with the close and the equity at that time. With margin also the position's mean entry
    price and its margin.
    """

    held: int = 0
    exposure: int = 0
    t: int = NEVER
    close: int = 0
    trade_cash: int = 0
    filled: int = 0
    made: int = NEVER
    made_price: int = 0
    made_equity: tuple[int, int] = (0, 0)
    entry: int = 0
    margin: int = 0


class AccountState(msgspec.Struct, frozen=True):
    """State of an account between two slices.

    `t` is the last minute in which any symbol has a candle, `equity` the exact equity there, as whole (10^-8) and rest
    (10^-16). Nothing is traded once the account is `ruined`.
    """

    cash: int
    equity: tuple[int, int]
    t: int = NEVER
    ruined: bool = False
    holdings: dict[str, Holding] = {}

    def to_bytes(self) -> bytes:
        """Return canonical bytes: equal states have equal bytes, in any order of the symbols."""
        return msgspec.json.encode(self, order="sorted")

    @staticmethod
    def from_bytes(data: bytes) -> "AccountState":
        return msgspec.json.decode(data, type=AccountState)


def opened(rules: AccountRules, symbols: Sequence[str]) -> AccountState:
    """Return a new account that will trade `symbols`."""
    return AccountState(rules.capital, (rules.capital, 0), holdings={symbol: Holding() for symbol in symbols})


class Entries(msgspec.Struct, frozen=True):
    """Entries of the account in a slice. Each column has one element per event, in the order of settlement.

    `what` is that of a FillTape, or FUNDING, BORROW or ENDING; `symbol` an index into `symbols`; `before` and `after`
    the exposure (ppm), `price` that of the fill; `moved` the signed quantity, `flow` the cash received, `value` and
    `rest` (10^-8 and 10^-16) of the fill, `paid` its fee, or the funding or borrow; `status` has the bits CUT and
    REJECTED. `trades` to `gross_loss` are sums by symbol.
    """

    symbols: list[str]
    minute: Column
    stage: Column
    symbol: Column
    what: Column
    before: Column
    after: Column
    price: Column
    moved: Column
    flow: Column
    value: Column
    rest: Column
    paid: Column
    status: Column
    trades: Column
    wins: Column
    gross_profit: Column
    gross_loss: Column

    @property
    def cut_orders(self) -> int:
        return int(np.count_nonzero(self.status & CUT))

    @property
    def rejected_orders(self) -> int:
        return int(np.count_nonzero(self.status & REJECTED))


def settle(
    fills: Mapping[str, FillTape],
    quotations: Mapping[str, Quotation],
    rules: AccountRules,
    start: AccountState,
    ruin: int | None = None,
) -> tuple[Entries, AccountState]:
    """Settle the fills of a slice from `start`; both mappings have the account's symbols as keys.

    With `ruin`, a minute's open time, all positions end at that minute's closes and nothing is traded after it. Pure:
    neither the order of symbols nor where slices are cut changes a bit. Raises OverflowError for amounts from 2^60 on.
    """
    symbols = sorted(start.holdings)
    parts = [_Part(k, fills[name], quotations[name], start.holdings[name], start.t) for k, name in enumerate(symbols)]
    end = max([start.t, *(part.last[0] for part in parts)])
    columns = _events(parts, rules, start, ruin)
    ordered = columns["instant"] >= 0
    decided = [part.quotes.decided for part in parts if part.quotes.decided != NEVER]
    instants = np.sort(np.append(columns["made"][ordered], np.array(decided, dtype=np.int64)))
    instants = instants[np.flatnonzero(np.diff(instants, prepend=NEVER))]  # each once
    columns["instant"] = np.where(ordered, np.searchsorted(instants, columns["made"]), NEVER)
    settler = _settler(parts, rules.of(symbols), start.cash)
    entries = settle_events(settler, columns, instants, symbols)
    sums = settler.of_symbols()
    carried = list(zip(*(sums[name].tolist() for name in CARRIED), strict=True))
    ruined = start.ruined or ruin is not None
    equities = settler.equities()
    after = {symbols[part.number]: part.holding(carried[part.number], instants, equities, ruined) for part in parts}
    whole, rest = settler.equity(end)
    return entries, AccountState(int(settler.cash), (int(whole), int(rest)), end, ruined, after)


def settle_events(settler: Settler, columns: Columns, instants: Column, symbols: list[str]) -> Entries:
    """Settle ordered events (columns as in EVENT); `instants` are the times at which their orders were made."""
    settler.run(Events(columns, instants))
    notes, sums = settler.columns(), settler.of_symbols()
    return Entries(
        symbols,
        *(columns[name] for name in ("minute", "stage", "symbol", "what", "before", "after", "price")),
        *(notes[name] for name in ("moved", "flow", "value", "rest", "paid", "status")),
        *(sums[name] for name in ("trades", "wins", "gross_profit", "gross_loss")),
    )


def _settler(parts: "Sequence[_Part]", rules: SettleRules, cash: int) -> Settler:
    """Return a Settler with the account's state at the start of the slice."""
    quotes = [part.quotes.quotes(part.start.close) for part in parts]
    starts = [part.start for part in parts]
    columns = [[one.held, one.trade_cash, one.filled, *one.made_equity, one.entry, one.margin] for one in starts]
    held, trade_cash, *carried = np.array(columns, dtype=np.int64).reshape(len(parts), 7).T
    settler = Settler(rules, quotes, cash, held, trade_cash)
    settler.carry(*carried)
    return settler


EVENT = (
    *("minute", "stage", "turn", "symbol", "what", "before", "after", "part", "price", "raw", "rate"),
    *("made", "instant", "made_price"),
)  # fmt: skip


def _events(parts: "Sequence[_Part]", rules: AccountRules, start: AccountState, ruin: int | None) -> Columns:
    """Return all events of a slice in the order of settlement. `instant` is 0 where the equity at `made` is needed."""
    events = FillEvents(sum(int(part.fills.n) for part in parts))
    for part in parts:
        part.add_fills(events)
    found: list[Columns] = [events.columns()]
    found += [part.funding() for part in parts if len(part.quotes.funding_t)]
    found += [part.borrow(rules.borrow) for part in parts if rules.borrow]
    if start.ruined:
        found = [{name: column[:0] for name, column in columns.items()} for columns in found]
    elif ruin is not None:
        found = [{name: column[columns["minute"] <= ruin] for name, column in columns.items()} for columns in found]
        found += [plain_events(part.number, np.array([ruin]), AFTER_CLOSE, ENDING) for part in parts]
    return found[0] if len(parts) == len(found) == 1 else in_order(found)


def in_order(found: Sequence[Columns]) -> Columns:
    """Join events of several sources in the order of settlement."""
    columns = dict(found[0])
    if len(found) > 1:
        columns = {name: np.concatenate([one[name] for one in found]) for name in columns}
    order = np.lexsort([columns[name] for name in ("what", "symbol", "turn", "stage", "minute")])
    return {name: column[order] for name, column in columns.items()}


def plain_events(number: int, minutes: Column, stage: int, what: int, rate: Column | int = 0) -> Columns:
    """Return events that have no order."""
    given: dict[str, Column | int] = {"minute": minutes, "stage": stage, "symbol": number, "what": what, "rate": rate}
    given |= {"made": NEVER, "instant": NEVER}
    return {name: np.full(len(minutes), given.get(name, 0), dtype=np.int64) for name in EVENT}


def turns_of(minute: Column, stage: Column) -> Column:
    """Return the number of each of a symbol's fills within its stage, from 0."""
    numbers = np.arange(len(minute))
    same = (minute[1:] == minute[:-1]) & (stage[1:] == stage[:-1])
    if not same.any():
        return np.zeros_like(numbers)
    found: Column = numbers - np.maximum.accumulate(np.where(np.append(False, same), 0, numbers))
    return found


def at_bars(t: Column, instants: Column, rates: Column) -> tuple[Column, Column]:
    """Return the first candle at or after each instant, if there is one; rates of the same candle are added."""
    bars = np.searchsorted(t, instants)
    inside = bars < len(t)
    bars, rates = bars[inside], rates[inside]
    first = np.flatnonzero(np.diff(bars, prepend=-1))
    return bars[first], np.add.reduceat(rates, first) if len(first) else rates


def midnights_of(t: Column, since: int, ppm: int) -> tuple[Column, Column]:
    """Return the candles of the UTC midnights after `since`, and the borrow rates there (times 10^8)."""
    if len(t) == 0:
        return t, t
    midnights = np.arange(since // DAY_MS + 1, int(t[-1]) // DAY_MS + 1) * DAY_MS
    return at_bars(t, midnights, np.full(len(midnights), ppm * (SCALE // MILLION), dtype=np.int64))


class _Part:
    """One symbol in the settlement of a slice."""

    def __init__(self, number: int, fills: FillTape, quotes: Quotation, start: Holding, before: int) -> None:
        self.number = number
        self.quotes = quotes
        self.start = start
        self.fills = fills
        self._before = before  # last minute of the slices before, NEVER in the first slice
        t = quotes.t
        self.last = (int(t[-1]), int(quotes.close[-1])) if len(t) else (start.t, start.close)  # time and close

    def close_at(self, time: int) -> int:
        """Return the last close at or before a time."""
        return int(self.quotes.quotes(self.start.close).at(time))

    def add_fills(self, events: FillEvents) -> None:
        if self.fills.n:
            start, quotes = self.start, self.quotes.quotes(self.start.close)
            events.add(self.number, self.fills, quotes, self._before, start.made, start.made_price)

    def borrow(self, ppm: int) -> Columns:
        t = self.quotes.t
        since = int(t[0]) if self.start.t == NEVER and len(t) else self.start.t
        return self._flows(BORROW, *midnights_of(t, since, ppm))

    def funding(self) -> Columns:
        instants = self.quotes.funding_t
        new = instants > self.start.t  # the others belong to candles of earlier slices
        return self._flows(FUNDING, *at_bars(self.quotes.t, instants[new], self.quotes.funding_rate[new]))

    def _flows(self, what: int, bars: Column, rates: Column) -> Columns:
        return plain_events(self.number, self.quotes.t[bars], BEFORE_OPEN, what, rates)

    def holding(
        self, carried: Sequence[int], instants: Column, equities: tuple[Column, Column], ruined: bool
    ) -> Holding:
        """Return the state of the symbol after the slice; `carried` are its sums."""
        start = self.start
        made, price, equity = start.made, start.made_price, start.made_equity
        if self.quotes.decided != NEVER:
            made = self.quotes.decided
            price = self.close_at(made)
            at = int(np.searchsorted(instants, made))
            equity = int(equities[0][at]), int(equities[1][at])
        held, cash, filled, entry, margin = carried
        exposure = 0 if ruined else int(self.fills.exposure(start.exposure))
        return Holding(held, exposure, *self.last, cash, filled, made, price, equity, entry, margin)
