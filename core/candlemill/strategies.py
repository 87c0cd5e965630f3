"""Strategies decide, the engine's loop trades.

A strategy maps decision bars to desired positions. A *windowed* one looks at a fixed number of bars before each
decision and nothing else; a *stateful* one also carries bytes of its own from bar to bar. Both are exact under any
cut, because both say how far back they look. Parameters are the fields of the class: typed, bounded, described.
"""

from collections.abc import Sequence
from functools import cache
from typing import Annotated, ClassVar

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from candlemill.engine.signals import (
    Bits,
    Desired,
    average_cross,
    average_crosses,
    latch,
    parts_per_million,
    rolling_max,
    rolling_min,
)
from candlemill.engine.tape import Bars
from candlemill.errors import BadInput, UnknownName

LOOKBACK_LIMIT = 1_000_000  # decision bars
RATE_LIMIT = 100_000_000  # ppm

Length = Annotated[int, Meta(ge=1, le=LOOKBACK_LIMIT)]


class Strategy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of all strategies; its subclasses' fields are their parameters."""

    reads: ClassVar[frozenset[str]] = frozenset()  # of "high", "low", "volume"; `t`, `open`, `close` are always there
    stateful: ClassVar[bool] = False  # whether it carries a memory; a windowed strategy needs only its lookback

    def lookback(self) -> int:
        """How many decision bars before a bar its decision depends on."""
        raise TypeError(f"{type(self).__name__} does not say its lookback")

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Desired, bytes]:
        """Desired positions in {-1, 0, 1} for bars `lo` to `hi - 1`, and the memory after the last of them.

        `bars` begins at the job's first bar or at least `lookback()` bars before `lo`. `memory` is what the call
        for the bars before `lo` returned, empty at the job's start.
        """
        raise TypeError(f"{type(self).__name__} does not decide")

    @classmethod
    def decide_together(cls, sets: Sequence["Strategy"], bars: Bars, lo: int, hi: int) -> tuple[Bits, Bits] | None:
        """What `decide` says for several sets of a windowed strategy at once, where that is faster: bit `j` of row
        `k` of the first array is whether set `k` wants +1 at bar `lo + j`, of the second (none: no rows) -1."""
        return None


class SmaCross(Strategy, frozen=True):
    """Long while the fast simple moving average of closes is above the slow one; optionally short while below."""

    fast: Annotated[Length, Meta(description="bars of the fast average")] = 10
    slow: Annotated[Length, Meta(description="bars of the slow average")] = 50
    allow_short: Annotated[bool, Meta(description="hold a short while the fast average is below")] = False

    def __post_init__(self) -> None:
        if self.fast >= self.slow:
            raise ValueError(f"fast={self.fast} must be less than slow={self.slow}")

    def lookback(self) -> int:
        return self.slow

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Desired, bytes]:
        cross = average_cross(bars, self.fast, self.slow, self.allow_short)
        return padded(cross, self.slow - 1, lo, hi), b""

    @classmethod
    def decide_together(cls, sets: Sequence["Strategy"], bars: Bars, lo: int, hi: int) -> tuple[Bits, Bits] | None:
        crosses = [one for one in sets if isinstance(one, SmaCross)]
        short = any(one.allow_short for one in crosses)
        found = average_crosses(bars, [(one.fast, one.slow) for one in crosses], lo, hi, short)
        if found is not None and short:
            found[1][[not one.allow_short for one in crosses]] = 0
        return found


class Momentum(Strategy, frozen=True):
    """Long while the close is above the close `lookback` bars ago by more than the threshold."""

    lookback_bars: Annotated[Length, Meta(description="bars to look back")] = msgspec.field(
        default=1440, name="lookback"
    )
    threshold: Annotated[int, Meta(ge=0, le=RATE_LIMIT, description="least move, in ppm of the earlier close")] = 0
    allow_short: Annotated[bool, Meta(description="hold a short after a fall of more than the threshold")] = False

    def lookback(self) -> int:
        return self.lookback_bars

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Desired, bytes]:
        back = self.lookback_bars
        before = bars.close[:-back]
        move = bars.close[back:] - before
        if (bars.top // 1_000_000 + 1) * self.threshold >= 1 << 62:
            raise OverflowError(f"threshold={self.threshold} ppm of prices up to {bars.top} does not fit 64 bits")
        least: NDArray[np.int64] | int = parts_per_million(before, self.threshold) if self.threshold else 0
        desired = (move > least).view(np.int8)
        if self.allow_short:
            desired = desired - (-move > least).view(np.int8)
        return padded(desired, back, lo, hi), b""


class Donchian(Strategy, frozen=True):
    """Long from a close above the highest high of `entry` bars until one below the lowest low of `exit` bars."""

    reads: ClassVar[frozenset[str]] = frozenset({"high", "low"})
    stateful: ClassVar[bool] = True

    entry: Annotated[Length, Meta(description="bars of the channel that is broken upwards")] = 480
    exit: Annotated[Length, Meta(description="bars of the channel that is broken downwards")] = 240

    def lookback(self) -> int:
        return max(self.entry, self.exit)

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Desired, bytes]:
        first = self.lookback()
        n = bars.n
        enter, leave = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
        if n > first:
            close = bars.close[first:]
            enter[first:] = close > rolling_max(bars.high[:-1], self.entry)[first - self.entry :]
            leave[first:] = close < rolling_min(bars.low[:-1], self.exit)[first - self.exit :]
        desired = latch(enter[lo:hi], leave[lo:hi], memory == b"1")
        if lo >= hi:
            return desired, memory
        return desired, b"1" if desired[-1] else b""


class BuyAndHold(Strategy, frozen=True):
    """Long from the first bar on."""

    def lookback(self) -> int:
        return 0

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Desired, bytes]:
        return np.ones(hi - lo, dtype=np.int8), b""


def padded(desired: Desired, valid_from: int, lo: int, hi: int) -> Desired:
    """Bars `lo` to `hi - 1` of decisions whose first element is bar `valid_from`; 0 before it."""
    if lo >= valid_from:
        return desired[lo - valid_from : hi - valid_from]
    out = np.zeros(hi - lo, dtype=np.int8)
    if hi > valid_from:
        out[valid_from - lo :] = desired[: hi - valid_from]
    return out


REGISTERED: dict[str, type[Strategy]] = {
    "sma_cross": SmaCross,
    "momentum_v1": Momentum,
    "donchian": Donchian,
    "buy_and_hold": BuyAndHold,
}


@cache
def parameter_fields(kind: type[Strategy]) -> dict[str, str]:
    """The parameters' public names, each with its attribute's name."""
    return {field.encode_name: field.name for field in msgspec.structs.fields(kind)}


def build(name: str, params: dict[str, object]) -> Strategy:
    """The strategy `name` with `params` checked. Texts are read as numbers or booleans.

    Raises UnknownName and BadInput.
    """
    if name not in REGISTERED:
        raise UnknownName("strategy", name, sorted(REGISTERED), f"known are {', '.join(sorted(REGISTERED))}")
    fields = list(parameter_fields(REGISTERED[name]))
    for key in params:
        if key not in fields:
            takes = ", ".join(fields) or "no parameters"
            raise UnknownName(f"parameter of {name}", key, fields, f"it takes {takes}")
    try:
        return msgspec.convert(params, REGISTERED[name], strict=False)
    except msgspec.ValidationError as error:
        raise BadInput(f"{name}: {error}") from None
