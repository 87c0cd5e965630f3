"""Rows of a panel: the decision bars of all its symbols, aligned on UTC bars. SEMANTICS-2, section 13."""

from typing import Any, Final

import numpy as np
from librt.vecs import extend, vec
from mypy_extensions import i64, u8
from numpy.typing import NDArray

from candlemill.engine.candles import MINUTE_MS, CandleColumns, Column, bar_origin, native, period_ends, view
from candlemill.engine.signals import first_at_least

NO_TIME: Final = -1
FAR_AWAY: Final = 1 << 61  # later than every time


class SymbolBars:
    """Bars of one symbol of a panel: `lo` to `hi - 1` of its candles are the slice. `cold` says that they begin with
    the job's first bar.

    Each of its decision bars has its row of the panel in `rows`, and the number of its last minute bar in `last`.
    """

    def __init__(self, candles: CandleColumns, lo: i64, hi: i64, cold: bool) -> None:
        self.candles: CandleColumns = candles
        self.lo: i64 = lo
        self.hi: i64 = hi
        self.cold: bool = cold
        self.rows: vec[i64] = vec[i64]()
        self.last: vec[i64] = vec[i64]()
        self.begin: i64 = 0  # the first minute bar of the first decision bar

    def find_bars(self, k: i64) -> None:
        """Find the decision bars of `k` minutes; the first one is left out where it may begin inside a bar."""
        n: i64 = self.candles.n
        if k == 1:
            self.last = native(np.arange(int(n)))
            return
        last = period_ends(self.candles.t, k * MINUTE_MS, bar_origin(int(k)))
        if not self.cold and len(last) != 0:
            self.begin = last[0] + 1
            last = last[1:]
        self.last = last


class PanelRows:
    """Aligned bars of `k` minutes of all symbols: one row for each in which any of them has a candle.

    `t` are the rows' times, `instants` the open times of the minutes at whose closes they are decided; the slice is
    `start <= t < end` (ms), its rows are `first` to `stop - 1`. `minutes` are those of the slice in which any symbol
    has a candle. The columns of prices have a number for each row and symbol, 0 where it is absent.
    """

    def __init__(self, symbols: list[SymbolBars], k: i64, start: i64, end: i64) -> None:
        """Raises OverflowError for a volume of `k` minutes that does not fit 64 bits."""
        self.symbols: list[SymbolBars] = symbols
        self.k: i64 = k
        self.t: vec[i64] = vec[i64]()
        self.instants: vec[i64] = vec[i64]()
        self.minutes: vec[i64] = union_of_minutes(symbols)
        self.find_rows()
        self.first: i64 = first_at_least(self.instants, start)
        self.stop: i64 = first_at_least(self.instants, end)
        cells: i64 = len(self.t) * len(symbols)
        self.open: vec[i64] = zeros(cells)
        self.high: vec[i64] = zeros(cells)
        self.low: vec[i64] = zeros(cells)
        self.close: vec[i64] = zeros(cells)
        self.volume: vec[i64] = zeros(cells)
        self.present: vec[u8] = vec[u8](np.zeros(int(cells), dtype=np.uint8))
        for number, one in enumerate(symbols):
            self.fill(one, number)

    def find_rows(self) -> None:
        origin: i64 = bar_origin(int(self.k))
        width: i64 = self.k * MINUTE_MS
        low: i64 = FAR_AWAY
        high: i64 = -FAR_AWAY
        for one in self.symbols:
            one.find_bars(self.k)
            n: i64 = len(one.last)
            if n != 0:
                low = min(low, (one.candles.t[one.last[0]] - origin) // width)
                high = max(high, (one.candles.t[one.last[n - 1]] - origin) // width)
        if high < low:
            return
        latest: vec[i64] = native(np.full(int(high - low + 1), NO_TIME, dtype=np.int64))
        for one in self.symbols:
            t, last = one.candles.t, one.last
            one.rows = zeros(len(last))
            rows = one.rows
            n = len(last)
            j: i64 = 0
            while j < n:
                time: i64 = t[last[j]]
                number: i64 = (time - origin) // width - low
                rows[j] = number
                if time > latest[number]:
                    latest[number] = time
                j += 1
        self.number_rows(latest, low * width + origin, width)

    def number_rows(self, latest: vec[i64], begin: i64, width: i64) -> None:
        """Leave out the bars without a candle of any symbol; `latest` has the last minute of each."""
        n: i64 = len(latest)
        rows: vec[i64] = zeros(n)
        count: i64 = 0
        i: i64 = 0
        while i < n:
            rows[i] = count
            if latest[i] != NO_TIME:
                count += 1
            i += 1
        self.t, self.instants = zeros(count), zeros(count)
        times, instants = self.t, self.instants
        i = 0
        while i < n:
            if latest[i] != NO_TIME:
                times[rows[i]] = begin + i * width
                instants[rows[i]] = latest[i]
            i += 1
        if count == n:
            return
        for one in self.symbols:
            own = one.rows
            j: i64 = 0
            while j < len(own):
                own[j] = rows[own[j]]
                j += 1

    def fill(self, one: SymbolBars, number: i64) -> None:
        """Write the bars of one symbol into the columns."""
        candles, rows, last = one.candles, one.rows, one.last
        width: i64 = len(self.symbols)
        begin: i64 = one.begin
        has_more: bool = len(candles.high) + len(candles.low) + len(candles.volume) != 0
        if len(candles.volume) != 0:
            check_volume(candles, int(self.k))
        opens, closes, present = self.open, self.close, self.present
        flag: u8 = 1
        j: i64 = 0
        while j < len(last):
            cell: i64 = rows[j] * width + number
            opens[cell] = candles.open[begin]
            closes[cell] = candles.close[last[j]]
            present[cell] = flag
            if has_more:
                self.high[cell], self.low[cell], self.volume[cell] = extremes_of(candles, begin, last[j] + 1)
            begin = last[j] + 1
            j += 1

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns by row and symbol, without copying; see `CandleColumns.columns`."""
        shape = (len(self.t), len(self.symbols))
        present = (
            np.frombuffer(memoryview(self.present), dtype=np.bool_) if len(self.present) else np.empty(0, np.bool_)
        )
        return {
            "open": view(self.open).reshape(shape),
            "high": view(self.high).reshape(shape),
            "low": view(self.low).reshape(shape),
            "close": view(self.close).reshape(shape),
            "volume": view(self.volume).reshape(shape),
            "present": present.reshape(shape),
        }

    def times(self) -> dict[str, Column]:
        return {"t": view(self.t), "instants": view(self.instants), "minutes": view(self.minutes)}

    def before(self) -> tuple[Column, Column]:
        """Return the time and the close of each symbol's last candle before the slice; NO_TIME where none is known."""
        times, closes = native(np.full(len(self.symbols), NO_TIME, dtype=np.int64)), zeros(len(self.symbols))
        for number, one in enumerate(self.symbols):
            if one.lo != 0:
                times[number], closes[number] = one.candles.t[one.lo - 1], one.candles.close[one.lo - 1]
        return view(times), view(closes)


def extremes_of(candles: CandleColumns, begin: i64, end: i64) -> tuple[i64, i64, i64]:
    """Return highest high, lowest low and the sum of volumes of bars; 0 for what the candles do not have."""
    highs, lows, volumes = candles.high, candles.low, candles.volume
    has_high: bool = len(highs) != 0
    has_low: bool = len(lows) != 0
    has_volume: bool = len(volumes) != 0
    high: i64 = highs[begin] if has_high else 0
    low: i64 = lows[begin] if has_low else 0
    total: i64 = 0
    i: i64 = begin
    while i < end:
        if has_high and highs[i] > high:
            high = highs[i]
        if has_low and lows[i] < low:
            low = lows[i]
        if has_volume:
            total += volumes[i]
        i += 1
    return high, low, total


def zeros(n: i64) -> vec[i64]:
    return native(np.zeros(int(n), dtype=np.int64))


def check_volume(candles: CandleColumns, k: int) -> None:
    if k > 1 and int(view(candles.volume).max()) > ((1 << 63) - 1) // k:
        raise OverflowError(f"the volume (scaled) of {k} minutes does not fit 64 bits")


def union_of_minutes(symbols: list[SymbolBars]) -> vec[i64]:
    """Return the minutes of the slice in which any symbol has a candle.

    What is missing of all of them is what is missing of each: stretches are compared, not minutes.
    """
    low: i64 = FAR_AWAY
    high: i64 = -FAR_AWAY
    for one in symbols:
        if one.lo < one.hi:
            low = min(low, one.candles.t[one.lo])
            high = max(high, one.candles.t[one.hi - 1] + MINUTE_MS)
    if high < low:
        return vec[i64]()
    missing = vec[i64]([low, high])  # begin and end of each stretch
    for one in symbols:
        if one.lo < one.hi and len(missing) != 0:
            missing = missing_too(missing, one)
    out: vec[i64] = vec[i64](capacity=int((high - low) // MINUTE_MS))
    time: i64 = low
    m: i64 = 0
    while time < high:
        until: i64 = missing[m] if m < len(missing) else high
        if time < until:
            out = extend(out, np.arange(int(time), int(until), MINUTE_MS))
        time = high
        if m < len(missing):
            time = missing[m + 1]
        m += 2
    return out


def missing_too(missing: vec[i64], one: SymbolBars) -> vec[i64]:
    """Return those parts of the stretches `missing` in which a symbol has no candle either."""
    t, gaps = one.candles.t, one.candles.gaps
    first: i64 = first_at_least(gaps, one.lo + 1)
    last: i64 = first_at_least(gaps, one.hi)
    out: vec[i64] = zeros(len(missing) + 2 * (last - first) + 4)
    count: i64 = 0
    m: i64 = 0
    g: i64 = first
    begin: i64 = -FAR_AWAY  # of the symbol's stretch without candles
    end: i64 = t[one.lo]
    while m < len(missing):
        a: i64 = max(begin, missing[m])
        b: i64 = min(end, missing[m + 1])
        if a < b:
            out[count], out[count + 1] = a, b
            count += 2
        if end >= missing[m + 1]:
            m += 2
        elif g < last:
            begin, end = t[gaps[g] - 1] + MINUTE_MS, t[gaps[g]]
            g += 1
        else:
            begin, end = t[one.hi - 1] + MINUTE_MS, FAR_AWAY
    return out[:count]
