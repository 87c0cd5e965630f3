"""Slice of a job of several symbols with one account: targets, their fills, settlement and marks.

The account and what each symbol's fills depend on are the state between slices, so any cut gives the same bits.
"""

from collections.abc import Mapping, Sequence, Set

import msgspec
import numpy as np

from candlemill.backtests.account import (
    NEVER,
    AccountRules,
    AccountState,
    Holding,
    Quotation,
    opened,
)
from candlemill.backtests.marks import Accounted, account_of
from candlemill.backtests.panel_bars import NO_FUNDING, AlignedBars, PanelWindow, SymbolWindow, aligned
from candlemill.backtests.slice import SliceOutcome, SliceOutcomes, both_paths
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import account_rules, rules_of
from candlemill.backtests.states import COLD, digest_of, join_state, split_state
from candlemill.engine.account_events import ENDING, FUNDING
from candlemill.engine.candles import DAY_MS, MINUTE_MS, CandleColumns, Column
from candlemill.engine.panel_fills import PanelFills
from candlemill.engine.position import ExecutionRules
from candlemill.engine.summary import CarriedState
from candlemill.engine.wide import SCALE
from candlemill.errors import BadInput, TooLarge
from candlemill.strategies import Strategy
from candlemill.strategies.panels import PanelStrategy

DELIST_AFTER_MS = DAY_MS
FIGURES = ("trades", "wins", "profit", "fees", "exposure_bars")  # of each symbol
_memory = msgspec.json.Decoder(dict[str, str])


class PanelRules(msgspec.Struct, frozen=True):
    """Costs and protective levels, the rules of the account, and when a symbol without candles counts as ended."""

    execution: ExecutionRules
    account: AccountRules
    delist_after: int = DELIST_AFTER_MS


class PanelRun(msgspec.Struct, frozen=True):
    """Slice of one parameter set: its account, the state after it, and by symbol sums in the order of `FIGURES` and the
    minutes in which the order of events is unknown.

    A symbol's `profit` in `sums` is its flow of cash, without what its position is worth.
    """

    accounted: Accounted
    state: bytes
    sums: dict[str, tuple[int, ...]]
    ambiguous: dict[str, Column]


def run_panel_slice(
    spec: Spec, window: PanelWindow, sets: Sequence[tuple[int, Strategy]], starts: Mapping[int, bytes] | None = None
) -> SliceOutcomes:
    """Run each of `sets` over the slice, from `starts` if given, otherwise as from the job's start.

    Nobody can guess an account. With `path=both`, states and sums are those of both paths. Raises TooLarge where the
    numbers cannot be computed exactly.
    """
    try:
        bars = aligned(window, spec.timeframe)

        def run(spec: Spec, starts: Mapping[int, bytes] | None) -> SliceOutcomes:
            rules = panel_rules(spec)
            found = [
                _outcome(point, starts[point] if starts else COLD, window, bars, strategy, rules)
                for point, strategy in sets
            ]
            return SliceOutcomes(np.unique(bars.minutes // DAY_MS).tolist(), found)

        return both_paths(spec, starts, run) if spec.path == "both" else run(spec, starts)
    except OverflowError as error:
        raise TooLarge(f"{spec.strategy}: {error}; use less capital or smaller rates") from None


def panel_rules(spec: Spec) -> PanelRules:
    """Return the rules of a job. Raises BadInput for an account that symbols cannot share."""
    account = account_rules(spec)
    if account is None:
        raise BadInput(f"{spec.strategy} trades many symbols with one account: give account=cash")
    return PanelRules(rules_of(spec), account, spec.delist_after * MINUTE_MS)


def _outcome(
    point: int, start: bytes, window: PanelWindow, bars: AlignedBars, strategy: Strategy, rules: PanelRules
) -> SliceOutcome:
    run = run_set(window, bars, strategy, rules, start)
    found, sums = run.accounted, [number for name in sorted(run.sums) for number in run.sums[name]]
    return SliceOutcome(point, digest_of(start), run.state.decode(), found.summary.to_list(), found.daily, sums)


def run_set(window: PanelWindow, bars: AlignedBars, strategy: Strategy, rules: PanelRules, start: bytes) -> PanelRun:
    """Run one parameter set over a slice from the state before it. Raises BadStrategy, OverflowError."""
    if not isinstance(strategy, PanelStrategy):
        raise BadInput(f"{type(strategy).__name__} is no strategy of many symbols")
    carried, memory = split_state(start)
    before = _account_before(bars, rules.account, carried.account)
    states = _memory.decode(memory) if memory else {}
    source = PanelFills(bars.rows, strategy.targets(bars.panel).reshape(-1), rules.execution, rules.delist_after)
    fills, quotes, after, ambiguous = {}, {}, {}, {}
    waiting: set[str] = set()
    for k, name in enumerate(bars.panel.names):
        one, holding = window.symbols[name], before.holdings[name]
        fills[name] = source.run(k, states.get(name, "").encode(), holding.t, holding.close, holding.made)
        after[name] = source.state
        ambiguous[name] = fills[name].ambiguous()["minute"]
        columns = one.candles.columns()
        t, close = columns["t"][one.lo : one.hi], columns["close"][one.lo : one.hi]
        if (stated := int(source.pending)) != NEVER:
            waiting.add(name)
        decided = stated if stated > before.t else NEVER  # of an earlier slice: its equity is carried
        quotes[name] = Quotation(t, close, decided, *one.funding, one.candles, one.lo)
    accounted = account_of(fills, quotes, rules.account, before, bars.minutes)
    accounted.summary.ambiguous = _ambiguous(accounted, before, ambiguous)
    state = _state_after(accounted.end, after, waiting)
    return PanelRun(accounted, state, _sums(accounted, len(bars.minutes)), ambiguous)


# -- the state between slices ----------------------------------------------------------------------------------------


def _account_before(bars: AlignedBars, rules: AccountRules, account: bytes) -> AccountState:
    """Return the account before the slice. A state has those symbols only that are held or wait for a fill."""
    state = AccountState.from_bytes(account) if account else opened(rules, [])
    times, closes = bars.rows.before()
    holdings = {}
    for name, t, close in zip(bars.panel.names, times.tolist(), closes.tolist(), strict=True):
        known = state.holdings.get(name)
        if known is None:
            holdings[name] = Holding(t=t, close=close)
        else:
            holdings[name] = known if t == NEVER else msgspec.structs.replace(known, t=t, close=close)
    return msgspec.structs.replace(state, holdings=holdings)


def _state_after(end: AccountState, states: Mapping[str, bytes], waiting: Set[str]) -> bytes:
    """Return the state as canonical bytes, without what has no influence on later bars.

    `states` are those of the symbols' fills; targets of the symbols `waiting` are to be filled.
    """
    holdings = {}
    for name, one in end.holdings.items():
        waits = name in waiting and not end.ruined
        if waits:
            holdings[name] = one
        elif one.held or one.exposure:
            holdings[name] = msgspec.structs.replace(one, made=NEVER, made_price=0, made_equity=(0, 0))
    account = msgspec.structs.replace(end, holdings=holdings).to_bytes()
    kept = {} if end.ruined else {name: state.decode() for name, state in states.items() if state}
    memory = msgspec.json.encode(kept, order="sorted") if kept else b""
    return join_state(CarriedState(account=account), memory)


# -- figures ---------------------------------------------------------------------------------------------------------


def _ambiguous(accounted: Accounted, before: AccountState, ambiguous: Mapping[str, Column]) -> int:
    """Return the number of ambiguous minutes of all symbols up to a ruin."""
    if before.ruined:
        return 0
    entries = accounted.entries
    ended = entries.minute[entries.what == ENDING]
    minutes = np.concatenate(list(ambiguous.values()))
    return int(np.count_nonzero(minutes <= ended[0])) if len(ended) else len(minutes)


def _sums(accounted: Accounted, minutes: int) -> dict[str, tuple[int, ...]]:
    """Return the sums of each symbol; the last is the number of minutes in which it is held."""
    entries = accounted.entries
    k = len(entries.symbols)
    flow, fees = np.zeros(k, dtype=np.int64), np.zeros(k, dtype=np.int64)
    np.add.at(flow, entries.symbol, entries.flow)
    np.add.at(fees, entries.symbol, np.where(entries.what < FUNDING, entries.paid, 0))
    columns = (entries.trades, entries.wins, flow, fees, accounted.moves.minutes_held(minutes))
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return dict(zip(entries.symbols, rows, strict=True))


def figures_of(symbols: Sequence[str], sums: Sequence[int], end: bytes) -> tuple[dict[str, dict[str, int]], int]:
    """Return each symbol's figures from the sums of all slices, and how many symbols are held at the end.

    `end` is the state after the job. Except for rounding the profits add up to the account's.
    """
    holdings = AccountState.from_bytes(split_state(end)[0].account).holdings
    out = {}
    for k, name in enumerate(sorted(symbols)):
        figures = dict(zip(FIGURES, sums[k * len(FIGURES) :], strict=False))
        if name in holdings:
            figures["profit"] += holdings[name].held * holdings[name].close // SCALE
        out[name] = figures
    return out, sum(1 for one in holdings.values() if one.held)


# -- a whole job at once ---------------------------------------------------------------------------------------------


def run_panel(
    candles: Mapping[str, CandleColumns],
    timeframe: int,
    strategy: PanelStrategy,
    rules: PanelRules,
    funding: Mapping[str, tuple[Column, Column]] = {},
) -> tuple[Accounted, dict[str, dict[str, int]]]:
    """Run a strategy over all candles; return its account and each symbol's figures.

    `funding` has instants and rates. Raises BadStrategy for errors of the strategy, OverflowError for amounts from 2^60
    on.
    """
    symbols = {
        name: SymbolWindow(candles, 0, int(candles.n), True, funding.get(name, NO_FUNDING))
        for name, candles in candles.items()
    }
    times = [candles.columns()["t"] for candles in candles.values() if candles.n]
    start = min((int(t[0]) for t in times), default=0)
    end = max((int(t[-1]) + MINUTE_MS for t in times), default=0)
    window = PanelWindow(start, end, symbols)
    run = run_set(window, aligned(window, timeframe), strategy, rules, COLD)
    sums = [number for name in sorted(run.sums) for number in run.sums[name]]
    return run.accounted, figures_of(list(candles), sums, run.state)[0]
