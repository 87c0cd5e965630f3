"""Strategies with order books and with weights, and the fills of any strategy. SEMANTICS-2 sections 9 and 10."""

from typing import Any, ClassVar

import numpy as np

from candlemill.engine.book import Book
from candlemill.engine.book_trace import BookTrace
from candlemill.engine.books import EXPOSURE_LIMIT, WHOLE, PositionView
from candlemill.engine.candles import Bars, CandleColumns, Column, k_minute_bars
from candlemill.engine.decide import BookSource, StepSource, TargetSource, decide
from candlemill.engine.fill_tape import FillTape
from candlemill.engine.margin import MarginAccount
from candlemill.engine.position import ExecutionRules
from candlemill.engine.ranges import Ranges, ranges_of
from candlemill.engine.signals import Desired, changes_of
from candlemill.errors import BadStrategy
from candlemill.strategies.base import Bar, ClosedReader, Strategy, bars_of, between, blamed, decoded, encoded

SEPARATOR = b"\t"  # between the engine's state and the strategy's own; keys are printable


class OrderStrategy(Strategy, frozen=True):
    """A strategy that returns a book of orders at the close of each decision bar: implement `start` and `step`.

    States and `timeframes` are as in `Stateful`. `step` gets one bar at a time, so no look-ahead is possible.
    """

    stateful: ClassVar[bool] = True
    timeframes: ClassVar[tuple[str, ...]] = ()

    def needs(self) -> frozenset[str]:
        return self.reads | {"high", "low"}  # orders are filled against these

    def lookback(self) -> int:
        return bars_of(self.timeframes)

    def start(self) -> Any:
        """The state before the first bar."""
        return ()

    def step(self, state: Any, bar: Bar, position: PositionView) -> tuple[Book, Any]:
        """Return the book of resting orders after `bar`, and the new state."""
        raise TypeError(f"{type(self).__name__} has no step()")

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Desired, bytes]:
        raise BadStrategy(f"{type(self).__name__} states orders, which the account of -1, 0 and 1 does not know")

    def remembered(self, memory: bytes) -> Any:
        """Return the state in `memory`; that before the first bar if it is empty."""
        return decoded(self, self.start(), memory)

    def memory_of(self, state: Any) -> bytes:
        """Return a state's canonical bytes."""
        return encoded(self, self.start(), state)

    def books(self, candles: CandleColumns, ranges: Ranges, bars: Bars, first: int, state: Any) -> BookSource:
        """Return the source of the books from decision bar `first` on; `state` is the state before it.

        `bars` are the decision bars of `candles`, `ranges` their highs and lows.
        """
        make_bar = ClosedReader(bars, self.timeframes, first).bar if self.timeframes else Bar
        return StepSource(self.step, make_bar, state, candles, bars, first)

    def state_after(self, source: Any) -> Any:
        """Return the state after the last bar of a `source` from `books`."""
        return source.carried


class Weighted(Strategy, frozen=True):
    """A windowed strategy with positions of any size: implement `lookback` and `weights`."""

    def weights(self, bars: Bars) -> Any:
        """Return the exposure to hold at each of the `bars.n` bars: floats, where 1.0 is 100 %, or integers in ppm.

        Floats are rounded to whole ppm once, half to even. Element `j` may depend on bars `j - lookback()` to `j` only;
        the first `lookback()` elements are not used.
        """
        raise TypeError(f"{type(self).__name__} has no weights()")

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Desired, bytes]:
        raise BadStrategy(f"{type(self).__name__} states weights, which the account of -1, 0 and 1 does not know")

    def targets(self, bars: Bars, lo: int, hi: int) -> Column:
        """Return the exposure in ppm at bars `lo` to `hi - 1`; 0 before there are enough bars."""
        back = self.lookback()
        out = np.zeros(hi - lo, dtype=np.int64)
        first = max(lo, back)
        if first < hi:
            seen = between(bars, first - back, hi)
            with blamed(self):
                out[first - lo :] = _exposures(self, self.weights(seen), seen.n)[back:]
        return out


def _exposures(strategy: Strategy, given: Any, n: int) -> Column:
    """Return `given` as exposures of `n` bars in ppm. Raises BadStrategy for a wrong shape, type or value."""
    name, array = type(strategy).__name__, np.asarray(given)
    if array.shape != (n,):
        raise BadStrategy(f"{name}: weights of shape {array.shape}, expected ({n},): one for each bar")
    if n and array.dtype.kind not in "iuf":
        raise BadStrategy(f"{name}: weights of type {array.dtype}, expected floats, or whole numbers in ppm")
    ppm = np.rint(array * float(WHOLE)) if array.dtype.kind == "f" else array
    wrong = ~((ppm >= -EXPOSURE_LIMIT) & (ppm <= EXPOSURE_LIMIT))
    if wrong.any():
        raise BadStrategy(f"{name}: weight {array[wrong][0]}, expected at most 100 (100,000,000 ppm) either way")
    found: Column = ppm.astype(np.int64)
    return found


def decide_fills(
    candles: CandleColumns,
    timeframe: int,
    strategy: Strategy,
    rules: ExecutionRules,
    start: bytes,
    lo: int,
    hi: int,
    cold: bool = True,
    ranges: Ranges | None = None,
    bars: Bars | None = None,
    trace: BookTrace | None = None,
    account: MarginAccount | None = None,
) -> tuple[FillTape, bytes]:
    """Return the fills of minute bars `lo` to `hi - 1` and the state after them.

    `start` is the state before `lo` (empty: the job's first bar). `candles` begin with the job's first bar (`cold`), or
    far enough before `lo` for the strategy's lookback. `ranges` and `bars` of the candles can be given if many sets
    share them. `trace` records the orders and levels after each bar; `account` is that of `decide`. Raises BadStrategy
    for errors of the strategy, and OverflowError for values that do not fit 64 bits.
    """
    ranges = ranges or ranges_of(candles)
    bars = bars or k_minute_bars(candles, timeframe, skip_first=not cold)
    first = lo if bars.last is None else int(np.searchsorted(bars.last, lo))
    state, _, memory = start.partition(SEPARATOR)
    if not isinstance(strategy, OrderStrategy):
        end = hi if bars.last is None else int(np.searchsorted(bars.last, hi))
        unit = 1 if isinstance(strategy, Weighted) else WHOLE
        if isinstance(strategy, Weighted):
            targets: Any = strategy.targets(bars, first, end)
        else:
            targets, memory = strategy.decide(bars, first, end, memory)
        changes = changes_of(targets, _last_target(state) // unit, first, bars.last)
        fills, after = decide(candles, TargetSource(changes, unit), rules, ranges, state, lo, hi, trace, account)
        return fills, after + SEPARATOR + memory
    with blamed(strategy):
        source = strategy.books(candles, ranges, bars, first, strategy.remembered(memory))
        fills, after = decide(candles, source, rules, ranges, state, lo, hi, trace, account)
        return fills, after + SEPARATOR + strategy.memory_of(strategy.state_after(source))


def exposure_of(state: bytes) -> int:
    """Return the exposure (ppm) in a state of `decide_fills`."""
    return int(state.split(b",", 1)[0]) if state else 0


def waiting_since(state: bytes) -> int:
    """Return the time (ms) at which the orders that wait in a state of `decide_fills` were stated, 0 without any."""
    return int(state.split(b"\n", 1)[0].split(b",")[6]) if state else 0


def _last_target(state: bytes) -> int:
    """Return the last target in a state of targets; 0 before the first."""
    if not state:
        return 0
    target = state.split(b"\n", 1)[0].split(b",")[9]
    return 0 if target == b"-" else int(target)
