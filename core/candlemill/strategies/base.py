"""The base class of strategies, and the two kinds to subclass: *windowed* and *stateful*.

A windowed strategy uses only a fixed number of bars before each decision; a stateful one also keeps a state from bar to
bar. Both are exact under any slicing, because both declare their lookback. Parameters are the fields of the class, with
types, bounds and descriptions.
"""

import operator
import signal
import threading
import traceback
from collections.abc import Mapping, Sequence
from math import isnan
from types import FunctionType, MappingProxyType
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
from msgspec import Meta

from candlemill.engine.candles import Bars, Column, minutes_of
from candlemill.engine.signals import Bits, Desired
from candlemill.engine.strategy_steps import run_steps
from candlemill.errors import BadStrategy, TooLarge, one_line

LOOKBACK_LIMIT = 1_000_000  # decision bars
BARS_LIMIT = 100 * LOOKBACK_LIMIT  # of counts that a strategy computes from its parameters
TEXT_LIMIT = 500  # characters of the text of a strategy's error
RATE_LIMIT = 100_000_000  # ppm
MEMORY_LIMIT = 4_096  # bytes: events contain the state

Length = Annotated[int, Meta(ge=1, le=LOOKBACK_LIMIT)]
DeviationLength = Annotated[int, Meta(ge=2, le=LOOKBACK_LIMIT)]
RecursiveLength = Annotated[int, Meta(ge=1, le=100_000)]  # of means that depend on all earlier bars
Multiple = Annotated[int, Meta(ge=0, le=100_000)]  # hundredths
State = tuple[int | float | bool, ...] | msgspec.Struct


class Strategy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The interface between the engine and strategies; the fields of a subclass are its parameters."""

    reads: ClassVar[frozenset[str]] = frozenset()  # of "high", "low", "volume"; `t`, `open`, `close` always exist
    stateful: ClassVar[bool] = False  # whether it has a memory; a windowed strategy needs only its lookback

    def needs(self) -> frozenset[str]:
        return self.reads

    def lookback(self) -> int:
        """Return how many decision bars before a bar its decision depends on, in addition to the memory."""
        raise TypeError(f"{type(self).__name__} does not say its lookback")

    def warm_up(self) -> int:
        """Return the number of decision bars after which a memory that began empty nearly always equals the true one.

        It affects only the cost: a wrong guess is detected and repaired.
        """
        return 0

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Desired, bytes]:
        """Return desired positions in {-1, 0, 1} for bars `lo` to `hi - 1`, and the memory after the last of them.

        `bars` begins at the job's first bar or at least `lookback()` bars before `lo`. `memory` is what the call
        for the bars before `lo` returned, empty at the job's start and where a guess begins.
        """
        raise TypeError(f"{type(self).__name__} does not decide")

    @classmethod
    def decide_together(cls, sets: Sequence["Strategy"], bars: Bars, lo: int, hi: int) -> tuple[Bits, Bits] | None:
        """Return the decisions of several sets of a windowed strategy at once as bits; None if this is not faster.

        Bit `j` of row `k` is set in the first array if the position of set `k` at bar `lo + j` is +1, in the second if
        it is -1. The second array has no rows if no set is ever short.
        """
        return None


class Windowed(Strategy, frozen=True):
    """A strategy that depends only on the last `lookback()` bars: implement `lookback` and `positions`."""

    def positions(self, bars: Bars) -> Any:
        """Return the position to hold, -1, 0 or 1, at each of the `bars.n` bars: an array of integers or booleans.

        Element `j` may depend on bars `j - lookback()` to `j` only. The first `lookback()` elements are not used.
        """
        raise TypeError(f"{type(self).__name__} has no positions()")

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Desired, bytes]:
        back = self.lookback()
        out = np.zeros(hi - lo, dtype=np.int8)
        first = max(lo, back)  # before bar `back` there are too few bars
        if first < hi:
            seen = between(bars, first - back, hi)
            with blamed(self):
                out[first - lo :] = checked(self, self.positions(seen), seen.n)[back:]
        return out, b""


NONE_CLOSED: Mapping[str, Any] = MappingProxyType({})  # the same one for every bar: a new dict would cost a tenth of it


class Bar(msgspec.Struct, frozen=True, gc=False):
    """One decision bar: its open time in UTC ms, prices and volume times 10^8; 0 for columns not in `reads`."""

    t: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    closed: Mapping[str, "Bar | None"] = NONE_CLOSED

    def at(self, timeframe: str) -> "Bar | None":
        """Return the last bar of a longer timeframe that has closed by now; None before there is one.

        The timeframe must be one of the strategy's `timeframes`. Raises ValueError.
        """
        if timeframe not in self.closed:
            raise ValueError(f"bar.at({timeframe!r}) needs timeframes = ({timeframe!r},) in the strategy's class")
        return self.closed[timeframe]


class ClosedReader:
    """Closed bars of longer timeframes beside decision bars that are read one after the other, from `first` on."""

    def __init__(self, bars: Bars, timeframes: Sequence[str], first: int) -> None:
        self._next = first
        self._frames = []
        for name in timeframes:
            closed = bars.at(name)
            columns = (closed.t, closed.open, closed.high, closed.low, closed.close, closed.volume)
            whole = [column if len(column) else np.zeros(closed.n, dtype=np.int64) for column in columns]
            self._frames.append((name, closed.number, whole))
        self._known: dict[str, tuple[int, Bar | None]] = dict.fromkeys(timeframes, (-1, None))

    def bar(self, t: int, open: int, high: int, low: int, close: int, volume: int) -> Bar:
        """Return the next decision bar, with the bars that have closed by its close."""
        for name, number, columns in self._frames:
            k = int(number[self._next])
            if k != self._known[name][0]:
                t_, open_, high_, low_, close_, volume_ = (int(column[k]) for column in columns)
                self._known[name] = k, Bar(t_, open_, high_, low_, close_, volume_)
        self._next += 1
        return Bar(t, open, high, low, close, volume, {name: bar for name, (_, bar) in self._known.items()})


def bars_of(timeframes: Sequence[str]) -> int:
    """Return how many bars hold the last closed bar of each timeframe and the open one, whatever decision bars are."""
    return 2 * max(map(minutes_of, timeframes), default=0)


class Stateful(Strategy, frozen=True):
    """A strategy that keeps a state from bar to bar: implement `start` and either `step` or `advance`.

    A state is a tuple or a msgspec Struct of ints, floats and booleans, of the same types as in `start()`. It is stored
    as text, floats by their exact bits, so equal states have equal bytes (and all NaN are equal). `timeframes` are
    those that `bar.at` gives in `step`; they make `lookback()` long enough, unless it is overridden.
    """

    stateful: ClassVar[bool] = True
    timeframes: ClassVar[tuple[str, ...]] = ()

    def lookback(self) -> int:
        return bars_of(self.timeframes)

    def start(self) -> Any:
        """The state before the first bar."""
        return ()

    def step(self, state: Any, bar: Bar) -> tuple[int, Any]:
        """Return the position to hold after `bar`, and the new state. One bar at a time excludes look-ahead."""
        raise TypeError(f"{type(self).__name__} has neither step() nor advance()")

    def advance(self, state: Any, bars: Bars, first: int) -> tuple[Any, Any]:
        """Return the positions to hold after bars `first` to `bars.n - 1`, and the state after the last of them.

        There are `lookback()` bars before `first`. Implement this instead of `step` if `step` is too slow.
        """
        make = ClosedReader(bars, self.timeframes, first).bar if self.timeframes else Bar
        return run_steps(self.step, make, state, bars, first)

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Desired, bytes]:
        out = np.zeros(hi - lo, dtype=np.int8)
        if lo >= hi:
            return out, memory
        back = self.lookback()
        first = max(lo, back)
        with blamed(self):
            start = self.start()
            state = decoded(self, start, memory)
            if first < hi:
                seen = between(bars, first - back, hi)
                given, state = self.advance(state, seen, back)
                out[first - lo :] = checked(self, given, hi - first)
            return out, encoded(self, start, state)


# -- what users return ---------------------------------------------------------------------------------------------


class blamed:
    """Convert every error of a strategy, also SystemExit, to a BadStrategy with a text of one line.

    OverflowError (TooLarge for the user) and the user's Ctrl-C are not converted.
    """

    __slots__ = ("_strategy",)

    def __init__(self, strategy: Strategy | type[Strategy]) -> None:
        self._strategy = strategy

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, BadStrategy | TooLarge | OverflowError):
            return
        if isinstance(error, KeyboardInterrupt) and can_be_interrupted():
            return
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"({frame.filename.rsplit('/', 1)[-1]}:{frame.lineno})"
        cause = f"{_name(self._strategy)}: {type(error).__name__}"
        text = f"{cause}: {text_of(error)} {place}{unread_hint(self._strategy)}"
        raise BadStrategy(one_line(text), one_line(f"{cause} {place}")) from error


def can_be_interrupted() -> bool:
    """Return whether Ctrl-C raises KeyboardInterrupt here; if not, a KeyboardInterrupt comes from the strategy."""
    return (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        and signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    )


def text_of(error: BaseException) -> str:
    """Return the text of an error, also if its `__str__` fails."""
    try:
        return str(error)[:TEXT_LIMIT]
    except BaseException:
        return "its text cannot be had"


def lookback_of(strategy: Strategy) -> int:
    """Return `lookback()`, validated. Raises BadStrategy."""
    with blamed(strategy):
        return _count(strategy, "lookback()", strategy.lookback())


def warm_up_of(strategy: Strategy) -> int:
    """Return `warm_up()`, validated. Raises BadStrategy."""
    with blamed(strategy):
        return _count(strategy, "warm_up()", strategy.warm_up())


def needs_of(strategy: Strategy) -> frozenset[str]:
    """Return `needs()`, validated. Raises BadStrategy."""
    with blamed(strategy):
        return frozenset(map(str, strategy.needs()))


def _count(strategy: Strategy, what: str, given: Any) -> int:
    found = operator.index(given)
    if not 0 <= found <= BARS_LIMIT:
        raise BadStrategy(f"{_name(strategy)}: {what} is outside 0 to {BARS_LIMIT:,} decision bars")
    return found


def decided(strategy: Strategy, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Desired, bytes]:
    """Return the result of `decide()`, validated. Raises BadStrategy."""
    with blamed(strategy):
        desired, after = strategy.decide(bars, lo, hi, memory)
        if not isinstance(after, bytes) or len(after) > MEMORY_LIMIT:
            raise BadStrategy(f"{_name(strategy)}: a memory that is not bytes, at most {MEMORY_LIMIT:,}")
        return checked(strategy, desired, hi - lo), after


def unread_hint(strategy: Strategy | type[Strategy]) -> str:
    """Return a hint if the strategy's own code uses a column that is missing in its `reads`; otherwise empty."""
    if isinstance(strategy, type):
        return ""
    try:
        needs = frozenset(map(str, strategy.needs()))
    except BaseException:  # the strategy's own code: what it raised first is what counts
        return ""
    codes = [value.__code__ for value in vars(type(strategy)).values() if isinstance(value, FunctionType)]
    used = {name for code in codes for name in code.co_names} & {"high", "low", "volume"}
    missing = sorted(used - needs)
    if not missing:
        return ""
    wanted = ", ".join(f'"{name}"' for name in sorted(used | needs))
    columns = " and ".join(f"bars.{name}" for name in missing)
    return f"; {columns} {'is' if len(missing) == 1 else 'are'} empty without reads = frozenset({{{wanted}}})"


def checked(strategy: Strategy, given: Any, n: int) -> Desired:
    """Return `given` as positions of `n` bars. Raises BadStrategy for a wrong shape, type or value."""
    array = np.asarray(given)
    if array.shape != (n,):
        text = f"{_name(strategy)}: positions of shape {array.shape}, expected ({n},): one for each bar"
        raise BadStrategy(text + unread_hint(strategy))
    if n and array.dtype.kind not in "biu":
        raise BadStrategy(
            f"{_name(strategy)}: positions of type {array.dtype}, expected whole numbers or booleans: "
            "compare, or use .astype(np.int8)"
        )
    if n and array.dtype.kind != "b" and (array.min() < -1 or array.max() > 1):
        odd = array[(array < -1) | (array > 1)][0]
        raise BadStrategy(f"{_name(strategy)}: position {odd}, expected -1, 0 or 1")
    found: Desired = array.astype(np.int8, copy=False)
    return found


def between(bars: Bars, a: int, b: int) -> Bars:
    """Return bars `a` to `b - 1` with read-only columns. `top` stays that of all bars, as an upper bound."""
    columns = (bars.t, bars.open, bars.high, bars.low, bars.close, bars.volume)
    t, open, high, low, close, volume = (_locked(column[a:b]) for column in columns)
    return Bars(None, t, open, high, low, close, volume, bars.top, bars.minutes, bars.cold and a == 0)


def _locked(column: Column) -> Column:
    column.flags.writeable = False
    return column


def padded(desired: Desired, valid_from: int, lo: int, hi: int) -> Desired:
    """Return bars `lo` to `hi - 1` of decisions whose first element is bar `valid_from`; 0 before it."""
    if lo >= valid_from:
        return desired[lo - valid_from : hi - valid_from]
    out = np.zeros(hi - lo, dtype=np.int8)
    if hi > valid_from:
        out[valid_from - lo :] = desired[: hi - valid_from]
    return out


# -- states as bytes -----------------------------------------------------------------------------------------------


def encoded(strategy: Strategy, start: State, state: Any) -> bytes:
    """Return the state's canonical bytes. Raises BadStrategy if its types differ from those of `start`."""
    kinds = [type(value) for value in _values(start)]
    if type(state) is not type(start) or [type(value) for value in _values(state)] != kinds:
        raise BadStrategy(
            one_line(
                f"{_name(strategy)}: state {state!r:.200} has not the types of start(), {start!r:.200}: "
                "use int(), float(), bool() on NumPy's numbers"
            ),
            f"{_name(strategy)}: a state has not the types of start()",
        )
    if not set(kinds) <= {int, float, bool}:
        text = f"{_name(strategy)}: start() {start!r:.200} holds more than ints, floats, booleans"
        raise BadStrategy(one_line(text), f"{_name(strategy)}: start() holds more than ints, floats, booleans")
    memory = ",".join(map(_text, _values(state))).encode()
    if len(memory) > MEMORY_LIMIT:
        raise BadStrategy(
            f"{_name(strategy)}: a state of {len(memory):,} bytes, the limit is {MEMORY_LIMIT:,}: "
            "look back at bars instead of keeping them"
        )
    return memory


def decoded(strategy: Strategy, start: State, memory: bytes) -> Any:
    """Return the state in `memory`; `start` if it is empty. Raises BadStrategy for invalid bytes."""
    if not memory:
        return start
    texts, values = memory.split(b","), _values(start)
    try:
        found = [_value(type(value), text.decode()) for value, text in zip(values, texts, strict=True)]
    except ValueError:
        raise BadStrategy(f"{_name(strategy)}: {memory[:80]!r} is not one of its states") from None
    return type(start)(*found) if isinstance(start, msgspec.Struct) else tuple(found)


def _values(state: Any) -> tuple[Any, ...]:
    return msgspec.structs.astuple(state) if isinstance(state, msgspec.Struct) else tuple(state)


def _text(value: int | float | bool) -> str:
    if isinstance(value, float):
        return "nan" if isnan(value) else value.hex()
    return str(int(value))


def _value(kind: type, text: str) -> int | float | bool:
    if kind is float:
        return float.fromhex(text)
    return bool(int(text)) if kind is bool else int(text)


def _name(strategy: Strategy | type[Strategy]) -> str:
    return (strategy if isinstance(strategy, type) else type(strategy)).__name__
