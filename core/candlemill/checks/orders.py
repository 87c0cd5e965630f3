"""Tests of strategies that place orders or state weights, by the orders that fill and the state after them."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final
from zlib import crc32

import msgspec
import numpy as np

from candlemill.checks.lookahead import POSITIONS, positions
from candlemill.checks.markets import FUTURES, STYLES, Market, Rng, draw, other_future
from candlemill.checks.report import Counterexample, Finding, Progress, Report, report_of, rows
from candlemill.checks.subject import ORDINARY_PRICE, Broken, Params, Refused, one_line_of, params_of, varied
from candlemill.engine.candles import MINUTE_MS, end_of_bar, k_minute_bars
from candlemill.engine.fill_tape import NO_KEY, STOP, TAKE, TARGET
from candlemill.engine.position import ExecutionRules
from candlemill.strategies import Strategy
from candlemill.strategies.orders import decide_fills

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
        end = (len(market) if hi is None else hi) - begin
        try:
            with np.errstate(all="ignore"):
                fills, state = decide_fills(
                    candles, self.k, self.strategy, RULES[self.rules], start, lo - begin, end, begin == 0, bars=bars
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


def check_orders(
    strategy: Strategy,
    data: Market | None = None,
    *,
    timeframes: Sequence[int],
    seed: int = 1,
    pinned: Iterable[str] = (),
    only: Iterable[str] = (),
    seconds: float = 5.0,
    progress: Progress | None = None,
) -> Report:
    """Check a strategy of orders or weights on synthetic markets, or on parts of `data`."""
    trials = _Trials(strategy, data, list(timeframes), seed, frozenset(pinned), seconds)
    chosen = [test for test in TESTS if not only or test in set(only)]
    label = "synthetic markets" if data is None else f"{len(data):,} candles"
    return report_of(strategy, timeframes, label, seed, chosen, trials.finding, progress)


class _Trials:
    """Inputs of one check."""

    def __init__(
        self,
        strategy: Strategy,
        data: Market | None,
        timeframes: list[int],
        seed: int,
        pinned: frozenset[str],
        seconds: float,
    ) -> None:
        self._strategy, self._data, self._timeframes = strategy, data, timeframes
        self._seed, self._pinned, self._seconds = seed, pinned, seconds
        self._faults: dict[str, str] = {}  # text -> the test that found it first

    def finding(self, test: str, tests: int) -> Finding:
        """Return the finding of one test."""
        end, runs, fills = time.monotonic() + self._seconds / tests, 0, 0
        while runs < TRIALS and (runs < 3 or time.monotonic() < end):
            rng = np.random.default_rng([self._seed, crc32(test.encode()), runs])
            strategy = varied(self._strategy, self._pinned, rng) if runs % 2 else self._strategy
            timeframe = self._timeframes[runs // 2 % len(self._timeframes)]
            subject = OrderSubject(strategy, params_of(strategy), timeframe, runs % len(RULES))
            runs += 1
            case, text = None, ""
            try:
                market = self._market(rng, subject)
                fills += len(subject.run(market).fills)
                case = TESTS[test](subject, market, rng)
                text = case.text if case else ""
            except Broken as error:
                text = str(error)
            except Refused:
                continue
            if text and text in self._faults:
                return Finding(test, "skipped", f"see {self._faults[text]}: {text}", runs)
            if text:
                self._faults[text] = test
                return Finding(test, "fault", text, runs, case)
        if not fills and test == "repeat":
            return Finding(test, "warning", "no order has filled in any trial: little was tried", runs)
        return Finding(test, "ok", f"{runs:,} trials, {fills:,} fills", runs)

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
    subject: OrderSubject, market: Market, left: OrderRun, right: OrderRun, text: str, said: tuple[str, str],
    states: bool = True,
) -> Counterexample | None:  # fmt: skip
    """Return the case if the fills differ, or the states after them."""
    found = _differs(left.fills, right.fills)
    if found is None and states and left.state != right.state:
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


def repeated(subject: OrderSubject, market: Market, rng: Rng) -> Counterexample | None:
    """Test that the same candles give the same fills twice."""
    said = ("at first", "again")
    return _compared(
        subject, market, subject.run(market), subject.run(market), "its fills are not the same twice", said
    )


def future_cut(subject: OrderSubject, market: Market, rng: Rng) -> Counterexample | None:
    """Test that fills up to a minute are the same where the candles end there."""
    if len(market) < 2:
        return None
    whole = subject.run(market)
    for i in positions(rng, market, POSITIONS):
        ended = subject.run(market.crop(0, i + 1))
        before = OrderRun([fill for fill in whole.fills if fill.t <= int(market.t[i])], b"")
        if subject.k > 1:  # a decision bar that the end cuts decides early
            limit = end_of_bar(int(market.t[i]) + MINUTE_MS, subject.k) - subject.k * MINUTE_MS
            before = OrderRun([fill for fill in before.fills if fill.t < limit], b"")
            ended = OrderRun([fill for fill in ended.fills if fill.t < limit], b"")
        text = "what its orders fill changes when the candles after it are cut off"
        said = ("with the candles after it", "ending there")
        if case := _compared(subject, market, before, ended, text, said, states=False):
            return case
    return None


def future_altered(subject: OrderSubject, market: Market, rng: Rng) -> Counterexample | None:
    """Test that fills up to a minute do not depend on later candles."""
    if len(market) < 3:
        return None
    whole = subject.run(market)
    for i in positions(rng, market, POSITIONS):
        if i >= len(market) - 1:
            continue
        kind = str(rng.choice(FUTURES))
        limit = int(market.t[i])
        if subject.k > 1:
            limit = end_of_bar(limit + MINUTE_MS, subject.k) - subject.k * MINUTE_MS - 1
        left = OrderRun([fill for fill in whole.fills if fill.t <= limit], b"")
        other = subject.run(other_future(rng, market, i, kind))
        right = OrderRun([fill for fill in other.fills if fill.t <= limit], b"")
        text, said = (
            "what its orders fill changes with candles after it",
            ("as they are", f"with other candles: {kind}"),
        )
        if case := _compared(subject, market, left, right, text, said, states=False):
            return case
    return None


def lookback(subject: OrderSubject, market: Market, rng: Rng) -> Counterexample | None:
    """Test that the state and `lookback()` bars before a minute are all that later fills depend on, as in a slice."""
    back = subject.lookback()
    if len(market) < 3:
        return None
    context = ((back + 1) * subject.k if subject.k > 1 else back) + 1
    for lo in positions(rng, market, POSITIONS):
        if lo < 1:
            continue
        state = subject.run(market, hi=lo).state
        whole = subject.run(market, lo, state)
        part = subject.run(market, lo, state, max(0, lo - context))
        text = f"its fills depend on more than its state and the {back:,} bars before it that lookback() tells"
        said = ("with all bars before", f"with {back:,} bars before")
        if case := _compared(subject, market, whole, part, text, said):
            return case
    return None


def resumed(subject: OrderSubject, market: Market, rng: Rng) -> Counterexample | None:
    """Test that stopping at a minute and going on from the state gives what the uninterrupted run gives."""
    whole = subject.run(market)
    for lo in (0, *positions(rng, market, POSITIONS)) if len(market) > 1 else (0,):
        first = subject.run(market, hi=lo)
        rest = subject.run(market, lo, first.state)
        joined = OrderRun(first.fills + rest.fills, rest.state)
        text = "its fills, or its state, after a stop are not those without it"
        if case := _compared(subject, market, whole, joined, text, ("in one go", "stopped and resumed")):
            return case
    return None


TESTS: Final[dict[str, Callable[[OrderSubject, Market, Rng], Counterexample | None]]] = {
    "repeat": repeated,
    "future-cut": future_cut,
    "future-altered": future_altered,
    "lookback": lookback,
    "resume": resumed,
}
