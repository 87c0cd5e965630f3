"""Crosses of averages."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from candlemill.engine.signals import Bits, Desired, average_cross, average_crosses
from candlemill.engine.tape import Bars
from candlemill.strategies.base import Length, Strategy, padded


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
