"""Tests of strategies that place orders or state weights, by the orders that fill and the state after them."""

import copy
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Final
from zlib import crc32

import msgspec
import numpy as np

from candlemill.checks.hidden_state import Answers, Elsewhere
from candlemill.checks.lookahead import POSITIONS, positions
from candlemill.checks.markets import COLUMNS, FUTURES, STYLES, Market, Rng, draw, other_future
from candlemill.checks.report import Change, Counterexample, Finding, Progress, Report, report_of, rows
from candlemill.checks.subject import ORDINARY_PRICE, Broken, Params, Refused, one_line_of, params_of
from candlemill.checks.trials import Trial, Trials
from candlemill.checks.turns import in_turns
from candlemill.engine.candles import MINUTE_MS, Bars, CandleColumns, k_minute_bars
from candlemill.engine.fill_tape import NO_KEY, STOP, TAKE, TARGET
from candlemill.engine.position import ExecutionRules
from candlemill.strategies import Strategy
from candlemill.strategies.orders import decide_fills
from candlemill.units import iso

TRIALS: Final = 16
BARS: Final = 300  # decision bars of a trial, in addition to the lookback
NAMES: Final = {TARGET: "target", STOP: "stop", TAKE: "take"}
RULES: Final = (
    ExecutionRules(),
    ExecutionRules(slippage=200, stop_loss=20_000, take_profit=30_000),
    ExecutionRules(at_close=True, trailing_stop=15_000, best_path=True),
)


class Fill(msgspec.Struct, frozen=True):
    """One fill: its minute (ms), its stage, what filled, the exposure after it and the price."""

    t: int
    stage: int
    what: str
    after: int
    price: int


class OrderRun(msgspec.Struct, frozen=True):
    """Fills of some minutes, and the state after them."""

    fills: list[Fill]
    state: bytes


class OrderSubject(msgspec.Struct, frozen=True):
    """Strategy with its parameters, on decision bars of `k` minutes, under one of RULES."""

    strategy: Strategy
    params: Params
    k: int
    rules: int

    def lookback(self) -> int:
        try:
            return int(self.strategy.lookback())
        except Exception as error:
            raise Broken(f"lookback() fails: {one_line_of(error)}") from error

    def run(self, market: Market, lo: int = 0, start: bytes = b"", begin: int = 0, hi: int | None = None) -> OrderRun:
        """Return the fills of minutes `lo` to `hi - 1` from `start`; the candles begin with minute `begin`."""
        candles = market.crop(begin, len(market)).candles(sorted({*self.strategy.needs(), "high", "low"}))
        bars = k_minute_bars(candles, self.k, skip_first=begin > 0)
        return self.run_on(candles, bars, lo - begin, (len(market) if hi is None else hi) - begin, start, begin == 0)

    def run_on(self, candles: CandleColumns, bars: Bars, lo: int, hi: int, start: bytes, cold: bool) -> OrderRun:
        """Return the fills of minutes `lo` to `hi - 1` of `candles`, whose decision bars are `bars`."""
        try:
            with np.errstate(all="ignore"):
                fills, state = decide_fills(
                    candles, self.k, self.strategy, RULES[self.rules], start, lo, hi, cold, bars=bars
                )
        except OverflowError as error:
            if int(candles.top) > ORDINARY_PRICE:
                raise Refused(str(error)) from None
            raise Broken(f"it fails: {one_line_of(error)}, at prices up to {int(candles.top)} (scaled)") from error
        except Exception as error:
            raise Broken(f"it fails: {one_line_of(error)}") from error
        columns = fills.columns()
        names = ("minute", "stage", "what", "key", "after", "price")
        found = zip(*(columns[name].tolist() for name in names), strict=True)
        return OrderRun(
            [Fill(t, stage, fills.keys[key] if key != NO_KEY else NAMES[what], after, price)
             for t, stage, what, key, after, price in found],
            state,
        )  # fmt: skip

    def answer(self, market: Market) -> tuple[bytes, bytes]:
        """Return the fills and the state after them as bytes, for another process."""
        found = self.run(market)
        return FILLS.encode(found.fills), found.state


FILLS: Final = msgspec.json.Encoder()
READ_FILLS: Final = msgspec.json.Decoder(list[Fill])


def check_orders(
    strategy: Strategy,
    data: Market | None = None,
    *,
    timeframes: Sequence[int],
    seed: int = 1,
    pinned: Iterable[str] = (),
    only: Iterable[str] = (),
    elsewhere: Elsewhere | None = None,
    seconds: float = 5.0,
    progress: Progress | None = None,
) -> Report:
    """Check a strategy of orders or weights on synthetic markets, or on parts of `data`.

    `elsewhere` runs it in another process.
    """
    trials = _Trials(Trials(strategy, list(timeframes), seed, frozenset(pinned), seconds), data, elsewhere)
    chosen = [test for test in (*TESTS, PROCESS) if not only or test in set(only)]
    label = "synthetic markets" if data is None else f"{len(data):,} candles"
    return report_of(strategy, timeframes, label, seed, chosen, trials.finding, progress)


class _Trials:
    """Inputs of one check."""

    def __init__(self, trials: Trials[Strategy], data: Market | None, elsewhere: Elsewhere | None) -> None:
        self._trials, self._data, self._elsewhere = trials, data, elsewhere

    def finding(self, test: str, tests: int) -> Finding:
        """Return the finding of one test."""
        if test == PROCESS:
            return self._in_another_process()
        fills = 0

        def attempt(trial: Trial[Strategy]) -> Counterexample | None:
            nonlocal fills
            subject = OrderSubject(
                trial.strategy, params_of(trial.strategy), trial.timeframe, trial.number % len(RULES)
            )
            market = self._market(trial.rng, subject)
            whole = subject.run(market)
            fills += len(whole.fills)
            return TESTS[test](subject, market, trial.rng, whole)

        found, runs = self._trials.run(test, tests, TRIALS, attempt)
        if found:
            return found
        if not fills and test == "repeat":
            return Finding(test, "warning", "no order has filled in any trial: little was tried", runs)
        return Finding(test, "ok", f"{runs:,} trials, {fills:,} fills", runs)

    def _in_another_process(self) -> Finding:
        if self._trials.found("repeat"):
            return Finding(PROCESS, "skipped", "its fills are not the same twice: see repeat")
        if self._elsewhere is None:
            return Finding(PROCESS, "skipped", "no way to start another process was given")
        strategy = self._trials.strategy
        subject = OrderSubject(strategy, params_of(strategy), self._trials.timeframes[0], 0)
        rng = np.random.default_rng([self._trials.seed, crc32(PROCESS.encode())])
        markets = [self._market(rng, subject) for _ in range(3)]
        try:
            answers = self._elsewhere(subject, markets)
            case = None if isinstance(answers, str) else other_process(subject, markets, answers)
        except (Broken, Refused) as error:
            return Finding(PROCESS, "fault", str(error), 1)
        if isinstance(answers, str):
            return Finding(PROCESS, "skipped", answers)
        if case:
            return Finding(PROCESS, "fault", case.text, len(markets), case)
        text = "the same with another environment, time zone, hash seed and folder"
        return Finding(PROCESS, "ok", f"{text}, and at {answers.moments:,} other times", len(markets))

    def _market(self, rng: Rng, subject: OrderSubject) -> Market:
        wanted = BARS + 2 * min(subject.lookback(), 5_000)
        if self._data is None:
            return draw(rng, str(rng.choice(STYLES)), wanted * (3 if subject.k > 1 else 1), subject.k)
        size = min(len(self._data), wanted * subject.k)
        begin = int(rng.integers(0, len(self._data) - size + 1))
        return self._data.crop(begin, begin + size)


# -- the tests -------------------------------------------------------------------------------------------------------


def _differs(left: list[Fill], right: list[Fill]) -> tuple[int | None, str, str] | None:
    """Return the minute of the first fill that differs, and both fills as text."""
    for one, other in zip(left, right, strict=False):
        if one != other:
            return min(one.t, other.t), _said(one), _said(other)
    if len(left) == len(right):
        return None
    longer = (left if len(left) > len(right) else right)[min(len(left), len(right))]
    said = [_said(longer) if side is left else "no fill" for side in (left, right)]
    if len(right) > len(left):
        said = ["no fill", _said(longer)]
    return longer.t, said[0], said[1]


def _said(fill: Fill) -> str:
    return f"{fill.what} at {fill.price}, then {fill.after:+,} ppm"


def _compared(
    subject: OrderSubject, market: Market, left: OrderRun, right: OrderRun, text: str, said: tuple[str, str]
) -> Counterexample | None:  # fmt: skip
    """Return the case if the fills differ, or the states after them."""
    found = _differs(left.fills, right.fills)
    if found is None and left.state != right.state:
        found = (None, f"state {left.state[:120]!r}", f"state {right.state[:120]!r}")
    if found is None:
        return None
    t, one, other = found
    return Counterexample(
        text=text,
        params=subject.params,
        timeframe=subject.k,
        market=market.label,
        t=t,
        said=[(said[0], one), (said[1], other)],
        bars=len(market),
        candles=rows(market),
    )


def repeated(subject: OrderSubject, market: Market, rng: Rng, whole: OrderRun) -> Counterexample | None:
    """Test that the same candles give the same fills again, also after other candles, and to a copy of the strategy.

    `whole` is the first run on these candles, so that what a strategy has kept of it makes a difference.
    """
    text, said = "its fills are not the same twice", ("at first", "again")
    if case := _compared(subject, market, whole, subject.run(market), text, said):
        return case
    for bits in (-7, 7):  # at lower prices, then at higher ones
        subject.run(draw(rng, "jumps", len(market), subject.k).scaled(bits))
        said = ("at first", "after other candles")
        if case := _compared(subject, market, whole, subject.run(market), text, said):
            return case
    twin = OrderSubject(copy.deepcopy(subject.strategy), subject.params, subject.k, subject.rules)
    return _compared(subject, market, whole, twin.run(market), text, ("at first", "a copy of it"))


def inputs(subject: OrderSubject, market: Market, rng: Rng, whole: OrderRun) -> Counterexample | None:
    """Test that the strategy does not write to the bars, which the engine and other parameter sets read too."""
    candles = market.candles(COLUMNS)
    bars = k_minute_bars(candles, subject.k, skip_first=False)
    kept = {name: getattr(bars, name).copy() for name in COLUMNS}
    subject.run_on(candles, bars, 0, len(market), b"", True)
    for name in COLUMNS:
        changed = np.flatnonzero(getattr(bars, name) != kept[name])
        if len(changed):
            j = int(changed[0])
            t = int(kept["t"][j])
            return Counterexample(
                text=f"it writes to bars.{name}: copy it first",
                params=subject.params,
                timeframe=subject.k,
                market=market.label,
                t=t,
                changed=[Change(t, name, int(kept[name][j]), int(getattr(bars, name)[j]))],
                bars=len(market),
            )
    return None


def columns(subject: OrderSubject, market: Market, rng: Rng, whole: OrderRun) -> Counterexample | None:
    """Test that columns which are not in `reads` change no fill. Another setting, for example, adds such columns."""
    candles = market.candles(COLUMNS)
    bars = k_minute_bars(candles, subject.k, skip_first=False)
    every = subject.run_on(candles, bars, 0, len(market), b"", True)
    text = "its fills depend on columns that `reads` does not name: they are empty where nothing else needs them"
    return _compared(subject, market, every, whole, text, ("with all columns", "with those it names"))


def threads(subject: OrderSubject, market: Market, rng: Rng, whole: OrderRun) -> Counterexample | None:
    """Test that two threads, each with its own candles, fill the same orders as alone."""
    other = draw(rng, "walk", len(market), subject.k)
    alone = [whole, subject.run(other)]
    file = getattr(sys.modules.get(type(subject.strategy).__module__), "__file__", None)
    runs = (lambda: subject.run(market)), (lambda: subject.run(other))
    together = in_turns(file, *runs) if file else []
    for one, candles, run in zip(alone, (market, other), together, strict=False):
        text, said = "two threads disturb each other", ("alone", "beside another thread")
        if case := _compared(subject, candles, one, run, text, said):
            return case
    return None


def other_process(subject: OrderSubject, markets: Sequence[Market], answers: Answers) -> Counterexample | None:
    """Test that a fresh process fills the same orders, also when its clock shows another time."""
    if answers.moment is not None:
        text, said = "its fills depend on the time at which they are computed", ("now", f"at {iso(answers.moment)}")
        for market, now, then in zip(markets, answers.runs, answers.other, strict=True):
            if case := _compared(subject, market, _read(now), _read(then), text, said):
                return case
    text = "a fresh process, with another environment, time zone, hash seed and folder, fills other orders"
    for market, there in zip(markets, answers.runs, strict=True):
        if case := _compared(subject, market, subject.run(market), _read(there), text, ("here", "in a fresh process")):
            return case
    return None


def _read(answer: tuple[bytes, bytes]) -> OrderRun:
    return OrderRun(READ_FILLS.decode(answer[0]), answer[1])


def future_cut(subject: OrderSubject, market: Market, rng: Rng, whole: OrderRun) -> Counterexample | None:
    """Test that fills up to a minute, and what is ordered then, are the same where the candles end there."""
    for i in _bar_ends(subject, market, rng):
        text = "what its orders fill, or what it orders, changes when the candles after it are cut off"
        said = ("with the candles after it", "ending there")
        ended = subject.run(market.crop(0, i + 1))
        if case := _compared(subject, market, _until(subject, market, i, whole), ended, text, said):
            return case
    return None


def future_altered(subject: OrderSubject, market: Market, rng: Rng, whole: OrderRun) -> Counterexample | None:
    """Test that fills up to a minute, and what is ordered then, do not depend on later candles."""
    for i in _bar_ends(subject, market, rng):
        if i >= len(market) - 1:
            continue
        kind = str(rng.choice(FUTURES))
        text = "what its orders fill, or what it orders, changes with candles after it"
        said = ("as they are", f"with other candles: {kind}")
        altered = other_future(rng, market, i, kind)
        other = _until(subject, altered, i, subject.run(altered))
        if case := _compared(subject, market, _until(subject, market, i, whole), other, text, said):
            return case
    return None


def _until(subject: OrderSubject, market: Market, i: int, whole: OrderRun) -> OrderRun:
    """Return the fills of the whole run up to minute `i`, with the state after it, in which the orders stand."""
    return OrderRun([fill for fill in whole.fills if fill.t <= int(market.t[i])], subject.run(market, hi=i + 1).state)


def _bar_ends(subject: OrderSubject, market: Market, rng: Rng) -> list[int]:
    """Return some minutes that end a decision bar: a bar that the candles' end cuts would decide early."""
    ends = np.flatnonzero((market.t + MINUTE_MS) % (subject.k * MINUTE_MS) == 0)
    if len(ends) == 0:
        return []
    before = np.searchsorted(ends, positions(rng, market, POSITIONS), side="right") - 1
    return [int(ends[max(0, k)]) for k in before.tolist()]


def lookback(subject: OrderSubject, market: Market, rng: Rng, whole: OrderRun) -> Counterexample | None:
    """Test that the state and `lookback()` bars before a minute are all that later fills depend on, as in a slice."""
    back = subject.lookback()
    if len(market) < 3:
        return None
    context = ((back + 1) * subject.k if subject.k > 1 else back) + 1
    for lo in positions(rng, market, POSITIONS):
        if lo < 1:
            continue
        state = subject.run(market, hi=lo).state
        rest = subject.run(market, lo, state)
        part = subject.run(market, lo, state, max(0, lo - context))
        text = f"its fills depend on more than its state and the {back:,} bars before it that lookback() tells"
        said = ("with all bars before", f"with {back:,} bars before")
        if case := _compared(subject, market, rest, part, text, said):
            return case
    return None


def resumed(subject: OrderSubject, market: Market, rng: Rng, whole: OrderRun) -> Counterexample | None:
    """Test that stopping at a minute and going on from the state gives what the uninterrupted run gives."""
    for lo in (0, *positions(rng, market, POSITIONS)) if len(market) > 1 else (0,):
        first = subject.run(market, hi=lo)
        rest = subject.run(market, lo, first.state)
        joined = OrderRun(first.fills + rest.fills, rest.state)
        text = "its fills, or its state, after a stop are not those without it"
        if case := _compared(subject, market, whole, joined, text, ("in one go", "stopped and resumed")):
            return case
    return None


PROCESS: Final = "process"
TESTS: Final[dict[str, Callable[[OrderSubject, Market, Rng, OrderRun], Counterexample | None]]] = {
    "repeat": repeated,
    "inputs": inputs,
    "columns": columns,
    "threads": threads,
    "future-cut": future_cut,
    "future-altered": future_altered,
    "lookback": lookback,
    "resume": resumed,
}
