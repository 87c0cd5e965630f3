"""The tape: one-minute candles as flat native columns, and the decision bars built from them."""

from typing import Any, Final

import numpy as np
from librt.vecs import append, extend, vec
from mypy_extensions import i64, mypyc_attr
from numpy.typing import NDArray

MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000
BLOCK: Final = 32  # bars
PRICE_LIMIT: Final = 1 << 58  # scaled; above it even one round trip could leave 64 bits

Column = NDArray[np.int64]


def native(column: NDArray[Any]) -> vec[i64]:
    """A flat copy of `column`, at memory speed."""
    return vec[i64](np.ascontiguousarray(column, dtype=np.int64))


def joined(parts: list[Column]) -> vec[i64]:
    """The parts one after the other as one native column, each copied once."""
    total: i64 = 0
    for part in parts:
        total += len(part)
    out = vec[i64](capacity=total)
    for part in parts:
        if len(part):
            out = extend(out, np.ascontiguousarray(part, dtype=np.int64))
    return out


def view(column: vec[i64]) -> Column:
    """`column` as an array, without copying. An empty vec has no buffer to look at."""
    if len(column) == 0:
        return np.empty(0, dtype=np.int64)
    return np.frombuffer(memoryview(column), dtype=np.int64)


@mypyc_attr(allow_interpreted_subclasses=False)
class Tape:
    """Minute bars in time order: `t` in UTC milliseconds, prices times 10^8.

    `high`, `low` and `volume` may be empty where nothing looks at them. Indices into a tape are bar
    numbers; `gaps` lists every bar that does not follow its predecessor by one minute, `day_ends` the last
    bar of each UTC day.
    """

    def __init__(
        self,
        t: list[Column],
        open: list[Column],
        high: list[Column],
        low: list[Column],
        close: list[Column],
        volume: list[Column],
    ) -> None:
        """Each column comes as consecutive parts. Raises OverflowError for a price above the engine's limit, and for a
        volume that does not fit an int64."""
        self.t: vec[i64] = joined(t)
        self.open: vec[i64] = joined(open)
        self.high: vec[i64] = joined(high)
        self.low: vec[i64] = joined(low)
        self.close: vec[i64] = joined(close)
        self.volume: vec[i64] = joined(volume)
        self.n: i64 = len(self.t)
        top = 0
        for column in (view(self.open), view(self.high), view(self.close)):
            if len(column):
                top = max(top, int(column.max()))
        self.top: i64 = top
        if top > PRICE_LIMIT:
            raise OverflowError(f"price {top} (scaled) is above the engine's limit of 2^58")
        volumes = view(self.volume)
        if len(volumes) and int(volumes.min()) < 0:
            raise OverflowError("a minute's volume (scaled) is above the engine's limit of 2^63")
        self.gaps: vec[i64] = gaps_of(self.t)
        self.day_ends: vec[i64] = day_ends_of(self.t)
        self.funding_bars: vec[i64] = vec[i64]()
        self.funding_rates: vec[i64] = vec[i64]()
        self.block_top: vec[i64] = vec[i64]()
        self.block_bottom: vec[i64] = vec[i64]()

    def columns(self) -> dict[str, Column]:
        """All columns as arrays, without copying. Interpreted code comes here instead of calling `view`: a vec that it
        hands to a compiled function is never freed (librt 0.16)."""
        return {
            "t": view(self.t),
            "open": view(self.open),
            "high": view(self.high),
            "low": view(self.low),
            "close": view(self.close),
            "volume": view(self.volume),
            "gaps": view(self.gaps),
            "day_ends": view(self.day_ends),
            "funding_bars": view(self.funding_bars),
            "funding_rates": view(self.funding_rates),
        }

    def days_ending(self, lo: int, hi: int) -> list[int]:
        """The UTC days, counted from 1970, whose last bar is one of bars `lo` to `hi - 1`."""
        ends = view(self.day_ends)
        inside = ends[(ends >= lo) & (ends < hi)]
        found: list[int] = (view(self.t)[inside] // DAY_MS).tolist()
        return found

    def add_funding(self, t: Column, rate: Column) -> None:
        """Funding rates (times 10^8) and their instants in ms, ascending. An instant belongs to the first bar that
        opens at it or later; the rates of those that share a bar add up."""
        times = view(self.t)
        bars = np.searchsorted(times, t)
        inside = (bars > 0) & (bars < len(times))  # before bar 0 nothing is held
        bars, rate = bars[inside], rate[inside]
        first = np.flatnonzero(np.diff(bars, prepend=-1))
        self.funding_bars = native(bars[first])
        self.funding_rates = native(np.add.reduceat(rate, first) if len(first) else rate)

    def add_blocks(self) -> None:
        """The highest and lowest close of each block of bars: pays where many sets are marked on this tape."""
        whole = len(self.close) // BLOCK * BLOCK
        blocks = view(self.close)[:whole].reshape(-1, BLOCK)
        self.block_top = native(blocks.max(axis=1))
        self.block_bottom = native(blocks.min(axis=1))


def gaps_of(t: vec[i64]) -> vec[i64]:
    """Every index `i` whose bar is more than a minute after bar `i - 1`.

    Times are different minutes in order: a stretch with as many bars as minutes has no gap, the others are halved.
    """
    found = vec[i64]()
    if len(t) == 0:
        return found
    stretches: list[tuple[i64, i64]] = [(0, len(t) - 1)]
    while stretches:
        a, b = stretches.pop()
        if t[b] - t[a] == (b - a) * MINUTE_MS:
            continue
        if b == a + 1:
            found = append(found, b)
        else:
            middle: i64 = (a + b) >> 1
            stretches.append((middle, b))
            stretches.append((a, middle))
    return found


def day_ends_of(t: vec[i64]) -> vec[i64]:
    """The index of the last bar of each UTC day that has one."""
    times = view(t)
    if len(times) == 0:
        return vec[i64]()
    midnights = np.arange(times[0] // DAY_MS + 1, times[-1] // DAY_MS + 2) * DAY_MS
    return native(np.unique(np.searchsorted(times, midnights) - 1))


class Bars:
    """Decision bars: the tape itself, or bars of `k` minutes aligned to UTC. `t[j]` is the open time of bar `j` in ms.

    `last[j]` is the index, in the tape, of the last minute of bar `j`: the bar is decided at that minute's
    close. The prefix sums are made when the first decision needs them.
    """

    def __init__(
        self,
        last: Column | None,
        t: Column,
        open: Column,
        high: Column,
        low: Column,
        close: Column,
        volume: Column,
        top: int,
    ) -> None:
        self.last = last
        self.t = t
        self.open = open
        self.high = high
        self.low = low
        self.close = close
        self.volume = volume
        self.n = len(close)
        self.top = top
        self.sums: Column | None = None
        self.tick = 0  # not looked for yet
        self.tick_sums: NDArray[np.float64] | None = None


def minute_bars(tape: Tape) -> Bars:
    t, open, high, low = view(tape.t), view(tape.open), view(tape.high), view(tape.low)
    return Bars(None, t, open, high, low, view(tape.close), view(tape.volume), int(tape.top))


def k_minute_bars(tape: Tape, k: int, skip_first: bool) -> Bars:
    """Bars of `k` minutes: open first, high max, low min, close last, volume summed; without a minute there is none.

    `skip_first` drops the first bar, for a tape that may begin inside one.
    """
    if k == 1:
        return minute_bars(tape)
    t = view(tape.t)
    ids = t // (k * MINUTE_MS)
    first = np.flatnonzero(np.concatenate((np.ones(1, dtype=np.bool_), ids[1:] != ids[:-1]))) if len(t) else t
    last = np.append(first[1:] - 1, len(t) - 1) if len(t) else t
    cut = 1 if skip_first and len(first) else 0
    return Bars(
        last[cut:],
        ids[first][cut:] * (k * MINUTE_MS),
        view(tape.open)[first][cut:],
        _each(np.maximum, view(tape.high), first)[cut:],
        _each(np.minimum, view(tape.low), first)[cut:],
        view(tape.close)[last][cut:],
        _each(np.add, _summable(view(tape.volume), k), first)[cut:],
        int(tape.top),
    )


def _each(pick: Any, column: Column, first: Column) -> Column:
    """`pick` over the bars from each `first` to the next; nothing of a column that is not there."""
    found: Column = pick.reduceat(column, first) if len(column) else column
    return found


def _summable(volume: Column, k: int) -> Column:
    if len(volume) and int(volume.max()) > ((1 << 63) - 1) // k:
        raise OverflowError(f"the volume (scaled) of {k} minutes does not fit 64 bits")
    return volume
