"""What a strategy is, and the two kinds that are meant to be written: *windowed* and *stateful*.

A windowed strategy looks at a fixed number of bars before each decision and nothing else; a stateful one also carries
values of its own from bar to bar. Both are exact under any cut, because both say how far back they look. Parameters
are the fields of the class: typed, bounded, described.
"""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isnan
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
from msgspec import Meta

from candlemill.engine.signals import Bits, Desired
from candlemill.engine.tape import Bars, Column
from candlemill.errors import BadStrategy, CandlemillError, one_line

LOOKBACK_LIMIT = 1_000_000  # decision bars
RATE_LIMIT = 100_000_000  # ppm
MEMORY_LIMIT = 4_096  # bytes: a state travels in events

Length = Annotated[int, Meta(ge=1, le=LOOKBACK_LIMIT)]
DeviationLength = Annotated[int, Meta(ge=2, le=LOOKBACK_LIMIT)]
RecursiveLength = Annotated[int, Meta(ge=1, le=100_000)]  # of means that depend on every bar before
Multiple = Annotated[int, Meta(ge=0, le=100_000)]  # hundredths
State = tuple[int | float | bool, ...] | msgspec.Struct


class Strategy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the engine asks of every strategy; its subclasses' fields are their parameters."""

    reads: ClassVar[frozenset[str]] = frozenset()  # of "high", "low", "volume"; `t`, `open`, `close` are always there
    stateful: ClassVar[bool] = False  # whether it carries a memory; a windowed strategy needs only its lookback

    def needs(self) -> frozenset[str]:
        return self.reads

    def lookback(self) -> int:
        """How many decision bars before a bar its decision depends on, beside its memory."""
        raise TypeError(f"{type(self).__name__} does not say its lookback")

    def warm_up(self) -> int:
        """How many decision bars it takes until a memory that began empty is nearly always the true one.

        Only the cost depends on it: a wrong guess is noticed and repaired.
        """
        return 0

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Desired, bytes]:
        """Desired positions in {-1, 0, 1} for bars `lo` to `hi - 1`, and the memory after the last of them.

        `bars` begins at the job's first bar or at least `lookback()` bars before `lo`. `memory` is what the call
        for the bars before `lo` returned, empty at the job's start and where a guess begins.
        """
        raise TypeError(f"{type(self).__name__} does not decide")

    @classmethod
    def decide_together(cls, sets: Sequence["Strategy"], bars: Bars, lo: int, hi: int) -> tuple[Bits, Bits] | None:
        """What `decide` says for several sets of a windowed strategy at once, where that is faster: bit `j` of row
        `k` of the first array is whether set `k` wants +1 at bar `lo + j`, of the second (none: no rows) -1."""
        return None


class Windowed(Strategy, frozen=True):
    """A strategy that needs nothing but its `lookback()`: write that and `positions`."""

    def positions(self, bars: Bars) -> Any:
        """What to hold, one of -1, 0 and 1 for each of the `bars.n` bars, as an array of whole numbers or booleans.

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


class Bar(msgspec.Struct, frozen=True, gc=False):
    """One decision bar: its open time in UTC ms, prices and volume times 10^8; 0 for what is not read."""

    t: int
    open: int
    high: int
    low: int
    close: int
    volume: int


class Stateful(Strategy, frozen=True):
    """A strategy that carries values from bar to bar: write `start` and either `step` or `advance`.

    A state is a tuple or a msgspec Struct of ints, floats and booleans, of the same types as `start()` has. It is kept
    as text, floats by their exact bits, so equal states have equal bytes (and all NaN are the same).
    """

    stateful: ClassVar[bool] = True

    def lookback(self) -> int:
        return 0

    def start(self) -> Any:
        """The state before the first bar."""
        return ()

    def step(self, state: Any, bar: Bar) -> tuple[int, Any]:
        """The position to hold after `bar`, and the state: one bar at a time, so nothing later can be seen."""
        raise TypeError(f"{type(self).__name__} has neither step() nor advance()")

    def advance(self, state: Any, bars: Bars, first: int) -> tuple[Any, Any]:
        """The positions to hold after bars `first` to `bars.n - 1`, and the state after the last of them.

        There are `lookback()` bars before `first`. Write this instead of `step` where one bar at a time is too slow.
        """
        columns = (bars.t, bars.open, bars.high, bars.low, bars.close, bars.volume)
        n = bars.n - first
        rows = zip(*(column[first:].tolist() if len(column) else [0] * n for column in columns), strict=True)
        out = []
        for row in rows:
            position, state = self.step(state, Bar(*row))
            out.append(position)
        return out, state

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


@contextmanager
def blamed(strategy: Strategy) -> Iterator[None]:
    """Whatever goes wrong inside becomes a BadStrategy in one line; an overflow stays one (TooLarge for the user)."""
    try:
        yield
    except (CandlemillError, OverflowError):
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}"
        raise BadStrategy(one_line(f"{_name(strategy)}: {type(error).__name__}: {error} ({place})")) from error


def checked(strategy: Strategy, given: Any, n: int) -> Desired:
    """`given` as positions of `n` bars. Raises BadStrategy for another shape, type or value."""
    array = np.asarray(given)
    if array.shape != (n,):
        raise BadStrategy(f"{_name(strategy)}: positions of shape {array.shape}, expected ({n},): one for each bar")
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
    """Bars `a` to `b - 1`, whose columns nobody can write to. `top` stays that of all bars, a bound and no more."""
    columns = (bars.t, bars.open, bars.high, bars.low, bars.close, bars.volume)
    t, open, high, low, close, volume = (_locked(column[a:b]) for column in columns)
    return Bars(None, t, open, high, low, close, volume, bars.top)


def _locked(column: Column) -> Column:
    column.flags.writeable = False
    return column


def padded(desired: Desired, valid_from: int, lo: int, hi: int) -> Desired:
    """Bars `lo` to `hi - 1` of decisions whose first element is bar `valid_from`; 0 before it."""
    if lo >= valid_from:
        return desired[lo - valid_from : hi - valid_from]
    out = np.zeros(hi - lo, dtype=np.int8)
    if hi > valid_from:
        out[valid_from - lo :] = desired[: hi - valid_from]
    return out


# -- states as bytes -----------------------------------------------------------------------------------------------


def encoded(strategy: Strategy, start: State, state: Any) -> bytes:
    """The state's canonical bytes. Raises BadStrategy where it is not made like `start`."""
    kinds = [type(value) for value in _values(start)]
    if type(state) is not type(start) or [type(value) for value in _values(state)] != kinds:
        raise BadStrategy(
            one_line(
                f"{_name(strategy)}: state {state!r:.200} has not the types of start(), {start!r:.200}: "
                "use int(), float(), bool() on NumPy's numbers"
            )
        )
    if not set(kinds) <= {int, float, bool}:
        raise BadStrategy(one_line(f"{_name(strategy)}: start() {start!r:.200} holds more than ints, floats, booleans"))
    memory = ",".join(map(_text, _values(state))).encode()
    if len(memory) > MEMORY_LIMIT:
        raise BadStrategy(
            f"{_name(strategy)}: a state of {len(memory):,} bytes, the limit is {MEMORY_LIMIT:,}: "
            "look back at bars instead of keeping them"
        )
    return memory


def decoded(strategy: Strategy, start: State, memory: bytes) -> Any:
    """The state that `memory` holds; `start` where it is empty. Raises BadStrategy for what is no such state."""
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


def _name(strategy: Strategy) -> str:
    return type(strategy).__name__
