"""A panel's run in full: every fill and trade of all symbols, the equity of each minute, contributions by symbol.

Slices are recorded one after the other, symbols are added one at a time: only events and one symbol's candles are held.
"""

from itertools import accumulate
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.backtests.account import Entries
from candlemill.backtests.account_log import AccountLog, equity_of, trades_of
from candlemill.backtests.fill_list import fills_of_log
from candlemill.backtests.panel import panel_rules, run_set
from candlemill.backtests.panel_bars import PanelWindow, aligned
from candlemill.backtests.replay import PanelDetails, Replay
from candlemill.backtests.spec import Spec
from candlemill.backtests.states import COLD
from candlemill.backtests.trades import Trades
from candlemill.engine.account_events import ENDING, FUNDING
from candlemill.engine.candles import DAY_MS, CandleColumns, Column
from candlemill.engine.fill_tape import AT_CLOSE
from candlemill.engine.wide import SCALE
from candlemill.strategies import Strategy

EVENTS = ("minute", "stage", "symbol", "what", "before", "after", "moved", "price", "flow", "paid")


class PanelRecorder:
    """Records a job of one parameter set: `add` its slices in order, then `add_symbol` each, then `replay`.

    With `path=both` it is the run of the worst path. Raises as `run_panel_slice`.
    """

    def __init__(self, spec: Spec, strategy: Strategy, result: dict[str, Any]) -> None:
        self._spec = msgspec.structs.replace(spec, path="worst") if spec.path == "both" else spec
        self._strategy, self._result = strategy, result
        self._capital: int = result["capital"]
        self._state = COLD
        self._entries: list[Entries] = []
        self._ambiguous: dict[str, list[Column]] = {name: [] for name in spec.symbols}
        self._minutes: list[Column] = []
        self._equity: list[Column] = []
        self._days: list[int] = []
        self._daily: list[int] = []
        self._contribution: dict[str, Column] = {}
        self._trades: list[tuple[str, Trades]] = []
        self._hold: NDArray[np.float64] = np.empty(0)
        self._joined = False

    def add(self, window: PanelWindow) -> None:
        """Run the next slice."""
        bars = aligned(window, self._spec.timeframe)
        run = run_set(window, bars, self._strategy, panel_rules(self._spec), self._state)
        self._state = run.state
        self._entries.append(run.accounted.entries)
        self._minutes.append(bars.minutes)
        self._equity.append(run.accounted.marks.equity() - self._capital)
        self._days += run.accounted.days
        self._daily += run.accounted.daily
        for name, minutes in run.ambiguous.items():
            self._ambiguous[name].append(minutes)

    def add_symbol(self, name: str, candles: CandleColumns) -> None:
        """Add the trades and the contribution of a symbol from all its candles, with highs and lows."""
        self._join()
        number, bars = self._names.index(name), candles.columns()
        own, t = np.flatnonzero(self._events["symbol"] == number), bars["t"]
        ended = own[self._events["what"][own] == ENDING]
        if len(t):
            last = np.searchsorted(t, self._events["minute"][ended], side="right") - 1
            self._events["price"][ended] = bars["close"][last]
        events = {one: column[own] for one, column in self._events.items()}
        if len(t):
            first, share = int(bars["open"][0]), self._capital / len(self._spec.symbols)
            last = np.searchsorted(t, self._t, side="right") - 1
            prices = np.where(last < 0, first, bars["close"][last])
            self._hold += share * (prices / max(1, first) - 1)
        log = _log_of(events, t, np.concatenate([*self._ambiguous[name], t[:0]]))
        self._trades.append((name, trades_of(log, bars)))
        self._contribution[name] = _contribution(events, bars, self._t[self._day_ends])
        self._count(events)

    def _join(self) -> None:
        """Put the slices together, once."""
        if self._joined:
            return
        self._joined = True
        self._names = self._entries[0].symbols
        self._events = {one: np.concatenate([getattr(x, one) for x in self._entries]) for one in EVENTS}
        self._t = np.concatenate(self._minutes)
        self._day_ends = np.flatnonzero(np.diff(self._t // DAY_MS, append=-1) != 0)
        self._hold = np.zeros(len(self._t))
        self._changes = np.zeros(len(self._t) + 1, dtype=np.int64)

    def _count(self, events: dict[str, Column]) -> None:
        """Add a symbol to the number of symbols that are held at each mark."""
        held = np.cumsum(events["moved"]) != 0
        changes = np.diff(held.astype(np.int64), prepend=0)
        at = np.searchsorted(self._t, events["minute"]) + (
            events["what"] == ENDING
        )  # held up to the mark that ended it
        np.add.at(self._changes, at, changes)

    def replay(self) -> Replay:
        """Return the run, after all symbols were added. Raises OverflowError for figures that do not fit 64 bits."""
        self._join()
        bar = np.searchsorted(self._t, self._events["minute"])
        joint = _account_log(self._events, bar, self._events["stage"], bar[:0])
        filled = (joint.is_fill | (joint.what == ENDING)) & (joint.moved != 0)
        trades, of = _in_order(self._trades, self._names)
        levels = [level // SCALE for level in accumulate(self._daily, initial=0)]
        daily: Column = np.diff(np.array(levels, dtype=np.int64)).astype(np.int64)
        details = PanelDetails(
            tuple(self._names),
            of,
            self._events["symbol"][filled],
            np.stack([self._contribution[name] for name in self._names], axis=1),
            self._hold.astype(np.int64),
        )
        none = np.empty(0, dtype=np.int64)
        return Replay(
            self._spec, self._result, self._capital, self._t, none, none, none, none, np.concatenate(self._equity),
            np.cumsum(self._changes[:-1]).astype(np.int16), np.array(self._days, dtype=np.int64) * DAY_MS, daily, daily,
            trades, fills_of_log(joint, self._t), details,
        )  # fmt: skip


def _log_of(events: dict[str, Column], t: Column, ambiguous: Column) -> AccountLog:
    """Return the events of one symbol with its own bars: those of the panel's minutes come after its last bar."""
    bar = np.maximum(np.searchsorted(t, events["minute"], side="right") - 1, 0)
    later = t[bar] != events["minute"] if len(t) else bar > 0
    stage = np.where(later & (events["what"] < FUNDING), AT_CLOSE, events["stage"])
    return _account_log(events, bar, stage, np.searchsorted(t, ambiguous))


def _account_log(events: dict[str, Column], bar: Column, stage: Column, ambiguous: Column) -> AccountLog:
    what, before, after, moved, price, flow, paid = (events[one] for one in EVENTS[3:])
    return AccountLog(bar, stage, what, before, after, moved, price, flow, paid, ambiguous)


def _contribution(events: dict[str, Column], bars: dict[str, Column], ends: Column) -> Column:
    """Return what a symbol has brought up to each of the minutes `ends`, rounded down."""
    cash = np.append(0, np.cumsum(events["flow"]))
    held = np.append(0, np.cumsum(events["moved"]))
    done = np.searchsorted(events["minute"], ends, side="right")
    last = np.searchsorted(bars["t"], ends, side="right") - 1
    closes = np.where(last < 0, 0, bars["close"][last]) if len(bars["t"]) else np.zeros(len(ends), dtype=np.int64)
    return equity_of(cash[done], np.zeros_like(closes), 1, held[done], closes)


def _in_order(found: list[tuple[str, Trades]], names: list[str]) -> tuple[Trades, Column]:
    """Return the trades of all symbols in the order of their exits, and the number of each one's symbol."""
    of = np.concatenate([np.full(len(trades), names.index(name)) for name, trades in found]).astype(np.int64)
    columns = {one: np.concatenate([getattr(trades, one) for _, trades in found]) for one in Trades.__struct_fields__}
    order = np.lexsort((of, columns["entry_t"], columns["exit_t"]))
    return Trades(**{one: column[order] for one, column in columns.items()}), of[order]
