"""One-minute candles as flat native columns, and the decision bars built from them."""

from typing import Any, Final

import numpy as np
from librt.vecs import append, extend, vec
from mypy_extensions import i64, mypyc_attr
from numpy.typing import NDArray

MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000
BLOCK: Final = 32  # bars
WEEK: Final = 10_080  # minutes
THREE_DAYS: Final = 4_320  # minutes
FIRST_MONDAY_MS: Final = 4 * DAY_MS  # 1970 began on a Thursday
PRICE_LIMIT: Final = 1 << 58  # scaled; above it a single round trip could exceed 64 bits

Column = NDArray[np.int64]


def native(column: NDArray[Any]) -> vec[i64]:
    """Copy `column` into a flat native column."""
    return vec[i64](np.ascontiguousarray(column, dtype=np.int64))


def joined(parts: list[Column]) -> vec[i64]:
    """Join parts into one native column; each part is copied once."""
    total: i64 = 0
    for part in parts:
        total += len(part)
    out = vec[i64](capacity=total)
    for part in parts:
        if len(part):
            out = extend(out, np.ascontiguousarray(part, dtype=np.int64))
    return out


def view(column: vec[i64]) -> Column:
    """Return `column` as an array without copying. An empty vec has no buffer and needs a special case."""
    if len(column) == 0:
        return np.empty(0, dtype=np.int64)
    return np.frombuffer(memoryview(column), dtype=np.int64)


def zeros(count: i64) -> vec[i64]:
    return vec[i64]([0] * count)  # compiled, this makes no list


def doubled(column: vec[i64]) -> vec[i64]:
    """Return a copy with as much room again."""
    out = zeros(2 * len(column))
    n: i64 = len(column)
    k: i64 = 0
    while k < n:
        out[k] = column[k]
        k += 1
    return out


@mypyc_attr(allow_interpreted_subclasses=False)
class CandleColumns:
    """Minute bars in time order: `t` in UTC milliseconds, prices times 10^8.

    `high`, `low` and `volume` may be empty if nothing reads them. Indices into candles are bar numbers. `gaps` lists
    every bar that does not follow its predecessor by one minute, `day_ends` the last bar of each UTC day.
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
        """Join the consecutive parts of each column.

        Raises OverflowError for a price above the engine's limit, and for a volume that does not fit an int64.
        """
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
        self.views: dict[str, Column] | None = None  # what `columns` returns

    def columns(self) -> dict[str, Column]:
        """Return all columns as arrays without copying.

        Interpreted code must use this instead of `view`: a vec that interpreted code passes to a compiled function is
        never freed (librt 0.16).
        """
        if self.views is None:
            self.views = {
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
        return self.views

    def days_ending(self, lo: int, hi: int) -> list[int]:
        """Return the UTC days, counted from 1970, whose last bar is one of bars `lo` to `hi - 1`."""
        ends = view(self.day_ends)
        inside = ends[(ends >= lo) & (ends < hi)]
        found: list[int] = (view(self.t)[inside] // DAY_MS).tolist()
        return found

    def add_funding(self, t: Column, rate: Column) -> None:
        """Add funding rates (times 10^8) at ascending instants in ms.

        An instant belongs to the first bar that opens at it or later; rates of the same bar are added.
        """
        times = view(self.t)
        bars = np.searchsorted(times, t)
        inside = (bars > 0) & (bars < len(times))  # before bar 0 there is no position
        bars, rate = bars[inside], rate[inside]
        first = np.flatnonzero(np.diff(bars, prepend=-1))
        self.funding_bars = native(bars[first])
        self.funding_rates = native(np.add.reduceat(rate, first) if len(first) else rate)
        self.views = None

    def add_blocks(self) -> None:
        """Compute the highest and lowest close of each block of bars. Useful if many sets are marked on them."""
        whole = len(self.close) // BLOCK * BLOCK
        blocks = view(self.close)[:whole].reshape(-1, BLOCK)
        self.block_top = native(blocks.max(axis=1))
        self.block_bottom = native(blocks.min(axis=1))


def gaps_of(t: vec[i64]) -> vec[i64]:
    """Return every index `i` whose bar is more than a minute after bar `i - 1`.

    Times are distinct minutes in order. A stretch with as many bars as minutes has no gap; other stretches are split in
    half.
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
    """Return the index of the last bar of each UTC day that has bars."""
    return period_ends(t, DAY_MS, 0)


def period_ends(t: vec[i64], width: i64, origin: i64) -> vec[i64]:
    """Return the index of the last bar of each period of `width` ms that has bars; one of them begins at `origin`.

    Times are distinct minutes in order, so a period has at most as many bars as minutes.
    """
    n: i64 = len(t)
    found: vec[i64] = native(np.empty(int((t[n - 1] - t[0]) // width + 2) if n != 0 else 0, dtype=np.int64))
    count: i64 = 0
    i: i64 = 0
    while i < n:
        end: i64 = ((t[i] - origin) // width + 1) * width + origin
        low: i64 = i  # a bar of the period; the bars from `high` on are of later ones
        high: i64 = min(n, i + (end - t[i] + MINUTE_MS - 1) // MINUTE_MS)
        if t[high - 1] < end:
            low = high - 1
        while high - low > 1:
            middle: i64 = (low + high) >> 1
            if t[middle] < end:
                low = middle
            else:
                high = middle
        found[count] = low
        count += 1
        i = low + 1
    return found[:count]


class Bars:
    """Decision bars: the candles themselves, or bars of `k` minutes (see `bar_origin`). `t[j]` is the open time of bar
    `j` in ms.

    `last[j]` is the index, in the candles, of the last minute of bar `j`: the decision is made at that minute's close.
    The prefix sums are computed at the first decision that needs them. A bar has `minutes` minutes; `cold` says that
    the first one is the job's first.
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
        minutes: int = 1,
        cold: bool = False,
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
        self.minutes = minutes
        self.cold = cold
        self.sums: Column | None = None
        self.tick = 0  # not computed yet
        self.tick_sums: NDArray[np.float64] | None = None

    def at(self, timeframe: object) -> "ClosedBars":
        """Return the bars of a longer timeframe, such as "1h", as far as they have closed. Raises ValueError."""
        return ClosedBars(self, minutes_of(timeframe))


class ClosedBars:
    """Bars of a longer timeframe, made of decision bars: only those that have closed at the last decision.

    `t`, `open`, `high`, `low`, `close` and `volume` are their columns, `n` is their number. `latest(values)` brings
    values of these bars to the decision bars: at each decision that of the last bar that has closed by then. So nothing
    can be seen too early. The first bar is left out where its beginning may be missing.
    """

    def __init__(self, bars: Bars, minutes: int) -> None:
        if minutes <= bars.minutes or minutes % bars.minutes != 0:
            raise ValueError(
                f"bars of {minutes} minutes are not made of whole bars of {bars.minutes}: "
                f"take a longer timeframe that is a multiple of {bars.minutes}"
            )
        origin, width = bar_origin(minutes), minutes * MINUTE_MS
        t = bars.t
        ids = (t - origin) // width
        first = np.flatnonzero(np.append(np.ones(1, dtype=np.bool_), ids[1:] != ids[:-1])) if len(t) else t
        instants = t + bars.minutes * MINUTE_MS  # of the decisions
        ends = (ids[first] + 1) * width + origin
        cut = 1 if len(t) and not bars.cold and (int(t[0]) - origin) % width != 0 else 0
        closed = int(np.searchsorted(ends, instants[-1:], side="right")[0]) if len(t) else 0
        stop = first[closed] if closed < len(first) else len(t)
        kept = first[cut:closed]

        def whole(pick: Any, column: Column) -> Column:
            return pick.reduceat(column[:stop], kept) if len(column) and len(kept) else column[:0]

        self.t: Column = ids[kept] * width + origin
        self.open: Column = bars.open[kept]
        self.high: Column = whole(np.maximum, bars.high)
        self.low: Column = whole(np.minimum, bars.low)
        self.close: Column = bars.close[np.append(kept[1:], stop) - 1] if len(kept) else bars.close[:0]
        self.volume: Column = whole(np.add, _summable(bars.volume, minutes // bars.minutes))
        self.n = len(kept)
        self.number: Column = np.searchsorted(ends[cut:closed], instants, side="right") - 1

    def latest(self, values: Any, missing: Any = 0) -> NDArray[Any]:
        """Return, for each decision bar, the value of the last closed bar; `missing` before there is one."""
        given = np.asarray(values)
        if given.shape != (self.n,):
            raise ValueError(f"values of shape {given.shape}, expected ({self.n},): one for each closed bar")
        found: NDArray[Any] = np.append(given, np.asarray([missing], dtype=given.dtype))[self.number]
        return found


def minutes_of(timeframe: object) -> int:
    """Return the minutes of a timeframe such as `15m`, `4h`, `1d` or `1w`, or of a whole number. Raises ValueError."""
    if isinstance(timeframe, int):
        return timeframe
    text = str(timeframe)
    unit = {"m": 1, "h": 60, "d": 1440, "w": WEEK}.get(text[-1:], 0)
    number = text[:-1]
    if unit == 0 or not number.isdecimal() or not 1 <= int(number) * unit <= WEEK:
        raise ValueError(f"timeframe {text!r} is not between 1m and 1w: write it like 5m, 4h or 1d")
    return int(number) * unit


def minute_bars(candles: CandleColumns, cold: bool = False) -> Bars:
    t, open, high, low = view(candles.t), view(candles.open), view(candles.high), view(candles.low)
    return Bars(None, t, open, high, low, view(candles.close), view(candles.volume), int(candles.top), 1, cold)


def bar_origin(k: int) -> int:
    """Return a time in ms at which a bar of `k` minutes begins.

    Weeks begin on Mondays. Three days begin where Binance's do, which counts from its first day, 2017-08-17: a bar
    begins on 1970-01-02, too. All others count from 1970.
    """
    if k == THREE_DAYS:
        return DAY_MS
    return FIRST_MONDAY_MS if k == WEEK else 0


def is_cut(t: int, k: int) -> bool:
    """Return whether a bar of `k` minutes whose last minute opens at `t` (ms) was cut short by missing candles.

    At that minute's close nobody knew yet that the bar was over.
    """
    return k > 1 and (t + MINUTE_MS - bar_origin(k)) % (k * MINUTE_MS) != 0


def end_of_bar(t: int, k: int) -> int:
    """Return the first time from `t` on, in ms, at which a bar of `k` minutes ends."""
    origin, width = bar_origin(k), k * MINUTE_MS
    return -(-(t - origin) // width) * width + origin


def k_minute_bars(candles: CandleColumns, k: int, skip_first: bool) -> Bars:
    """Build bars of `k` minutes: first open, highest high, lowest low, last close, sum of volumes.

    Periods without minutes have no bar. `skip_first` drops the first bar, for candles that may begin inside one.
    """
    if k == 1:
        return minute_bars(candles, not skip_first)
    t = view(candles.t)
    origin, width = bar_origin(k), k * MINUTE_MS
    last = view(period_ends(candles.t, width, origin))
    first = np.empty_like(last)
    if len(t):
        first[0] = 0
        first[1:] = last[:-1] + 1
    cut = 1 if skip_first and len(first) else 0
    return Bars(
        last[cut:],
        (t[first][cut:] - origin) // width * width + origin,
        view(candles.open)[first][cut:],
        _each(np.maximum, view(candles.high), first)[cut:],
        _each(np.minimum, view(candles.low), first)[cut:],
        view(candles.close)[last][cut:],
        _each(np.add, _summable(view(candles.volume), k), first)[cut:],
        int(candles.top),
        k,
        not skip_first,
    )


def _each(pick: Any, column: Column, first: Column) -> Column:
    """Apply `pick` to the bars from each `first` to the next; an empty column stays empty."""
    found: Column = pick.reduceat(column, first) if len(column) else column
    return found


def _summable(volume: Column, k: int) -> Column:
    if len(volume) and int(volume.max()) > ((1 << 63) - 1) // k:
        raise OverflowError(f"the volume (scaled) of {k} minutes does not fit 64 bits")
    return volume
