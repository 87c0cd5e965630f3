"""Account of a whole job of one symbol, settled and marked from the tapes that its slices have kept."""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from candlemill.backtests.account import (
    NEVER,
    AccountRules,
    AccountState,
    Columns,
    Entries,
    Holding,
    in_order,
    midnights_of,
    opened,
    plain_events,
    settle_events,
    turns_of,
)
from candlemill.backtests.gaps import held_over_gaps
from candlemill.backtests.marks import steps_of, summarised
from candlemill.backtests.merge import MergedSlices
from candlemill.backtests.single import SYMBOL, count_trades
from candlemill.backtests.slice import account_rules, join_state, rules_of, split_state
from candlemill.backtests.spec import Spec
from candlemill.backtests.tapes import FILL, Tape, distinct, unpacked
from candlemill.engine.candles import DAY_MS, MINUTE_MS, CandleColumns, Column
from candlemill.engine.fill_tape import TAKE
from candlemill.engine.mark import NO_BAR, Marks, mark_symbol
from candlemill.engine.position import SCALE, ExecutionRules
from candlemill.engine.settle import AFTER_CLOSE, BEFORE_OPEN, BORROW, ENDING, FUNDING, Settler, quotes_of
from candlemill.engine.summary import Summary
from candlemill.errors import TooLarge

CLOSES = 4  # by which a piece is marked

Read = Callable[[int, int], tuple[Column, Column]]  # the times and closes of the bars of `start <= t < end` (ms)


def with_account(spec: Spec, merged: MergedSlices, read: Read) -> MergedSlices:
    """Return merged slices with their account settled; as they are, if they have no tapes.

    `read` returns the times and closes of the bars of `start <= t < end` (ms). Raises TooLarge where the numbers cannot
    be computed exactly.
    """
    account = account_rules(spec)
    if account is None or not merged.tapes:
        return merged
    try:
        found = settled([unpacked(text) for text in merged.tapes], rules_of(spec), account, read)
    except OverflowError as error:
        raise TooLarge(f"{spec.symbol} {spec.strategy}: {error}; use less capital or smaller rates") from None
    total = found.summary
    total.first, total.last = merged.summary.first, merged.summary.last
    state, memory = split_state(merged.end)
    state.account = found.end.to_bytes()
    return msgspec.structs.replace(merged, summary=total, daily=found.daily, end=join_state(state, memory), tapes=[])


class Settlement(msgspec.Struct, frozen=True):
    """Account of a whole job: figures and daily profits in 10^-16, and the quantity held at the end."""

    summary: Summary
    daily: list[int]
    end: AccountState


def settled(tapes: Sequence[Tape], rules: ExecutionRules, account: AccountRules, read: Read) -> Settlement:
    """Settle and mark a whole job from the tapes of its slices: as `single.run_cash` does with its candles.

    `read` is called for the bars of one piece if a mark in it ruins the account. Raises OverflowError for amounts from
    2^60 on.
    """
    fills, pieces, gaps = (_joined(tapes, name) for name in ("fills", "pieces", "gaps"))
    job = _Job(fills, pieces, gaps, sum(tape.bars for tape in tapes), rules, account)
    if (ruin := job.settle(None)) is not None:
        job.end_at(ruin, read)
    return job.found()


class _Job:
    """A whole job during its settlement."""

    entries: Entries
    marks: Marks

    def __init__(
        self, fills: Columns, pieces: Columns, gaps: Columns, bars: int, rules: ExecutionRules, account: AccountRules
    ) -> None:
        self._fills, self._pieces, self._gaps, self._bars = fills, pieces, gaps, bars
        self._account, self._start = account, opened(account, [SYMBOL])
        self._events = in_order([_events(fills, rules), *_flows(pieces, account)])
        self._quotes = _quotes(fills, pieces)

    def settle(self, ending: tuple[int, int] | None) -> int | None:
        """Settle and mark, up to the bar and minute of `ending`; return the piece that ruins the account, if any."""
        events, start = self._events, self._start
        if ending is not None:
            bar, minute = ending
            last = plain_events(0, np.array([minute]), AFTER_CLOSE, ENDING) | {"bar": np.array([bar])}
            kept = events["bar"] <= bar
            events = {name: np.append(column[kept], last[name]) for name, column in events.items()}
        ordered = events["after"] != 0
        instants = distinct(np.sort(events["made"][ordered], kind="stable"))
        instant = np.where(ordered, np.searchsorted(instants, events["made"]), NEVER)
        none = np.zeros(1, dtype=np.int64)
        settler = Settler(self._account.of([SYMBOL]), [quotes_of(self._quotes, 0)], start.cash, none, none)
        whole, rest = (np.array([part]) for part in start.equity)
        settler.carry(none, whole, rest, none, none)
        self._events = events
        self.entries = settle_events(settler, events | {"instant": instant}, instants, [SYMBOL])
        self._trade_cash = int(settler.of_symbols()["trade_cash"][0])
        self._held = np.append(0, np.cumsum(self.entries.moved))
        self._cash = np.append(start.cash, start.cash + np.cumsum(self.entries.flow))
        steps, at = steps_of(events["bar"])
        self._state = steps[np.searchsorted(at, self._pieces["bar"], side="right") - 1]
        self.marks = _marks(self._pieces, self._cash[self._state], self._held[self._state], start, ending is not None)
        ruin = self.marks.totals()["ruin"]
        return None if ruin == NO_BAR else ruin // CLOSES

    def end_at(self, piece: int, read: Read) -> None:
        """Settle again, up to the bar of a piece whose close ruins the account."""
        first, day = int(self._pieces["minute"][piece]), int(self._pieces["minute"][piece]) // DAY_MS
        t, close = read(first, (day + 1) * DAY_MS)
        cash, held = int(self._cash[self._state[piece]]), int(self._held[self._state[piece]])
        worth = (cash * SCALE + held * price for price in close.tolist())
        at = next(k for k, value in enumerate(worth) if value <= 0)
        bar, minute = int(self._pieces["bar"][piece]) + at, int(t[at])
        self._pieces = _split(self._pieces, piece, bar, minute, close[:at])
        self._quotes = _with(_quotes(self._fills, self._pieces), minute, int(close[at]))
        self.settle((bar, minute))

    def found(self) -> Settlement:
        events, entries, pieces, gaps = self._events, self.entries, self._pieces, self._gaps
        begin = self._start.equity[0] * SCALE + self._start.equity[1]
        total = summarised(entries, self.marks, begin, self._bars)
        lengths = np.diff(np.append(pieces["bar"], self._bars))
        ended = bool((entries.what == ENDING).any())
        total.exposure = int(lengths[self._held[self._state] != 0].sum()) + int(
            (entries.moved[entries.what == ENDING] != 0).sum()
        )
        daily = np.diff(np.array([begin, *self.marks.days()], dtype=object)).tolist()
        total.count_days(daily)
        before = self._held[np.searchsorted(events["bar"], gaps["bar"])]
        total.gap_profit = held_over_gaps(before, gaps["before"], gaps["open"])
        count_trades(total, entries, events["bar"], events["after"], gaps["bar"], self._bars - 1, self._trade_cash)
        last = int(events["bar"][-1]) if ended else self._bars
        total.ambiguous = int(self._fills["both"][self._fills["bar"] <= last].sum())
        t = int(pieces["minute"][-1])
        holding = Holding(int(self._held[-1]), 0, t, int(pieces["last"][-1]))
        whole, rest = divmod(self.marks.totals()["last"], SCALE)
        return Settlement(total, daily, AccountState(int(self._cash[-1]), (whole, rest), t, ended, {SYMBOL: holding}))


def _split(pieces: Columns, number: int, bar: int, minute: int, before: Column) -> Columns:
    """Split a piece at the bar that ruins the account; `before` are the closes before it."""
    head = {name: column[: number + 1].copy() for name, column in pieces.items()}
    tail = {name: column[number:].copy() for name, column in pieces.items()}
    tail["bar"][0], tail["minute"][0] = bar, minute
    tail["funded"][0] = 0
    if not len(before):
        head = {name: column[:-1] for name, column in head.items()}
    else:
        side = int(head["side"][-1])
        high = np.maximum.accumulate(side * before)
        shape = {"top": before.max(), "bottom": before.min(), "fall": (high - side * before).max(), "last": before[-1]}
        for name, value in shape.items():
            head[name][-1] = value
    return {name: np.append(column, tail[name]) for name, column in head.items()}


def _with(quotes: CandleColumns, minute: int, close: int) -> CandleColumns:
    """Return quotes with one more close."""
    columns = quotes.columns()
    at = int(np.searchsorted(columns["t"], minute))
    keep = columns["t"] != minute
    t = np.insert(columns["t"][keep], at, minute)
    closes = np.insert(columns["close"][keep], at, close)
    return CandleColumns([t], [closes], [], [], [closes], [])


def _joined(tapes: Sequence[Tape], name: str) -> Columns:
    """Put the columns of all tapes one after the other, by bar numbers of the whole job."""
    found: list[Columns] = [getattr(tape, name) for tape in tapes]
    first = np.cumsum([0, *(tape.bars for tape in tapes[:-1])])
    parts = [{**columns, "bar": columns["bar"] + at} for columns, at in zip(found, first.tolist(), strict=True)]
    return {one: np.concatenate([columns[one] for columns in parts]) for one in found[0]}


def _events(fills: Columns, rules: ExecutionRules) -> Columns:
    zeros = np.zeros(len(fills["bar"]), dtype=np.int64)
    rate = np.where(fills["what"] == TAKE, int(rules.maker_fee), int(rules.fee))
    given = {"turn": turns_of(fills["minute"], fills["stage"]), "symbol": zeros, "part": zeros, "rate": rate}
    return {name: fills[name] for name in FILL if name != "both"} | given | {"instant": zeros}


def _flows(pieces: Columns, account: AccountRules) -> list[Columns]:
    """Return funding and borrow as events."""
    due, t = np.flatnonzero(pieces["funded"]), pieces["minute"]
    found = [(FUNDING, due, pieces["rate"][due])] if len(due) else []
    if account.borrow:
        found.append((BORROW, *midnights_of(t, int(t[0]), account.borrow)))
    return [plain_events(0, t[at], BEFORE_OPEN, what, rates) | {"bar": pieces["bar"][at]} for what, at, rates in found]


def _quotes(fills: Columns, pieces: Columns) -> CandleColumns:
    """Return the closes at the instants of orders, and those before each piece, as bars."""
    ordered = fills["after"] != 0
    t = np.append(fills["made"][ordered], pieces["minute"][1:] - MINUTE_MS)
    close = np.append(fills["made_price"][ordered], pieces["last"][:-1])
    order = np.argsort(t, kind="stable")
    order = order[np.flatnonzero(np.diff(t[order], prepend=-1))]
    return CandleColumns([t[order]], [close[order]], [], [], [close[order]], [])


def _marks(pieces: Columns, cash: Column, held: Column, start: AccountState, ruined: bool) -> Marks:
    """Mark each piece by closes that have its extremes, its deepest fall and its last close.

    For a long these are the lowest close and the deepest fall above it, the lowest, the highest, and the last close: no
    other two of them are further apart than two closes of the piece in this order.
    """
    down = pieces["side"] > 0
    first = np.where(down, pieces["bottom"] + pieces["fall"], pieces["top"] - pieces["fall"])
    second, third = (np.where(down, pieces[a], pieces[b]) for a, b in (("bottom", "top"), ("top", "bottom")))
    closes = np.stack((first, second, third, pieces["last"]), axis=1).reshape(-1)
    t = np.arange(len(closes)) * MINUTE_MS
    candles = CandleColumns([t], [closes], [], [], [closes], [])
    day_ends = np.flatnonzero(np.diff(pieces["minute"] // DAY_MS, append=-1) != 0) * CLOSES + CLOSES - 1
    at = np.arange(len(first)) * CLOSES
    return mark_symbol(candles, 0, len(closes), at, cash, held, *start.equity, ruined, day_ends)
