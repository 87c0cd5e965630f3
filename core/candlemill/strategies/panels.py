"""Strategies that use many symbols at once and return a weight for each. SEMANTICS-2 sections 9, 13 and 14."""

from functools import cmp_to_key
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from candlemill.engine.candles import Bars, Column
from candlemill.engine.panel_targets import KEEP
from candlemill.engine.signals import Desired
from candlemill.errors import BadInput, BadStrategy
from candlemill.strategies.base import Length, Strategy, blamed

MILLION: Final = 1_000_000
TARGET_LIMIT: Final = 100_000_000  # ppm
EXACT_FLOAT: Final = 1 << 53


class Panel(msgspec.Struct, frozen=True):
    """Decision bars of K symbols, aligned on UTC bars of `k` minutes: T of them have a candle of any symbol.

    `names` are in alphabetical order. `t` [T] are the bars' open times in ms; the other columns are [T, K], prices and
    volumes times 10^8, 0 where a symbol is absent; `present` is True where it is not absent. `member` is True where the
    job's universe has the symbol (without one, everywhere): targets of other symbols count as 0.
    """

    names: tuple[str, ...]
    k: int
    t: Column
    open: Column
    high: Column
    low: Column
    close: Column
    volume: Column
    present: NDArray[np.bool_]
    member: NDArray[np.bool_]

    @property
    def numbers(self) -> Column:
        """Return the bars' numbers since 1970; the first week begins on the first Monday."""
        return self.t // (self.k * 60_000)

    def ago(self, column: Column, bars: int) -> Column:
        """Return a column shifted by `bars` bars of each symbol; 0 for too few bars or an absent symbol."""
        out = np.zeros_like(column)
        if self.present.all():
            out[bars:] = column[: max(0, len(column) - bars)]
            return out
        for k in range(len(self.names)):
            rows = np.flatnonzero(self.present[:, k])
            out[rows[bars:], k] = column[rows[: max(0, len(rows) - bars)], k]
        return out


class PanelStrategy(Strategy, frozen=True):
    """A strategy that uses all symbols of a job: implement `positions`."""

    def lookback(self) -> int:
        return 0

    def positions(self, panel: Panel) -> Any:
        """Return the targets [T, K]: integers in ppm of exposure or KEEP (no trade), or floats.

        With floats 1.0 is all of the equity and NaN means KEEP; they are rounded once, half to even. Row `j` may depend
        on rows up to `j` only. Targets of absent symbols are ignored.
        """
        raise TypeError(f"{type(self).__name__} has no positions()")

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Desired, bytes]:
        raise BadInput(f"{type(self).__name__} sees many symbols: give several, and --account cash")

    def targets(self, panel: Panel) -> Column:
        """Return the result of `positions`, validated, as integers in ppm. Raises BadStrategy."""
        with blamed(self):
            given = np.asarray(self.positions(panel))
        name, shape = type(self).__name__, panel.present.shape
        if given.shape != shape:
            raise BadStrategy(f"{name}: positions of shape {given.shape}, expected {shape}: bars times symbols")
        if given.dtype.kind == "f":
            if np.isinf(given).any():
                raise BadStrategy(f"{name}: a position is infinite")
            found = np.rint(np.nan_to_num(given, nan=0.0) * MILLION)
            given = np.where(np.isnan(given), KEEP, np.clip(found, -(2.0**60), 2.0**60).astype(np.int64))
        elif given.dtype.kind == "b":
            given = given * np.int64(MILLION)
        elif given.dtype.kind not in "iu":
            raise BadStrategy(f"{name}: positions of type {given.dtype}, expected whole numbers (ppm) or floats")
        given = np.where(panel.member | (given == KEEP), given, 0).astype(np.int64)
        wrong = panel.present & (given != KEEP) & (np.abs(given) > TARGET_LIMIT)
        if wrong.any():
            raise BadStrategy(f"{name}: a target of {given[wrong][0]} ppm, the limit is {TARGET_LIMIT:,}")
        return given


class XsMomentum(PanelStrategy, frozen=True):
    """Long the `top` symbols that rose most over `lookback` bars, chosen anew every `every` bars.

    N. Jegadeesh, S. Titman, "Returns to Buying Winners and Selling Losers" (1993), its long side. Ratios are compared
    exactly; of equal ones the name that comes first in the alphabet is taken.
    """

    lookback_bars: Annotated[Length, Meta(description="bars of its own that a symbol's rise is of")] = msgspec.field(
        default=1440, name="lookback"
    )
    top: Annotated[int, Meta(ge=1, le=MILLION, description="how many symbols are held")] = 3
    every: Annotated[Length, Meta(description="bars between two choices, counted from 1970")] = 1440

    def lookback(self) -> int:
        return self.lookback_bars

    def positions(self, panel: Panel) -> Column:
        rows = np.flatnonzero(panel.numbers % self.every == 0)
        before = np.where(panel.member, panel.ago(panel.close, self.lookback_bars), 0)[rows]
        now = panel.close[rows]
        out = np.full(panel.close.shape, KEEP, dtype=np.int64)
        out[rows] = self._targets(now, before)
        return out

    def _targets(self, now: Column, before: Column) -> Column:
        """Return the targets of rows of prices; 0 means no price."""
        out = np.zeros_like(now)
        rising = (before > 0) & (now > before)
        ratios = np.where(rising, now / np.maximum(before, 1), 0.0)
        order = np.argsort(-ratios, axis=1)
        ranked = np.take_along_axis(ratios, order, axis=1)
        best = np.where(ranked[:, : self.top] > 0, MILLION // self.top, 0)
        np.put_along_axis(out, order[:, : self.top], best, axis=1)
        # A quotient of whole numbers below 2^53 is rounded correctly, so only equal ones are compared exactly.
        equal = ((ranked[:, 1:] == ranked[:, :-1]) & (ranked[:, 1:] > 0)).any(axis=1)
        for row in np.flatnonzero(equal | (now * rising >= EXACT_FLOAT).any(axis=1)).tolist():
            out[row] = 0
            out[row, self._chosen(now[row], before[row], rising[row])] = MILLION // self.top
        return out

    def _chosen(self, now: Column, before: Column, rising: NDArray[np.bool_]) -> list[int]:
        """Return the symbols with the highest ratios among those `rising`, at most `top`, by cross-multiplication."""
        a, b = now.tolist(), before.tolist()

        def higher_first(x: int, y: int) -> int:
            return a[y] * b[x] - a[x] * b[y] or x - y

        return sorted(np.flatnonzero(rising).tolist(), key=cmp_to_key(higher_first))[: self.top]
