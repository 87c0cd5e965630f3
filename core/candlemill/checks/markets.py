"""Small synthetic markets drawn from a seed, and changes of their future candles.

Only integers are used, so a seed gives the same candles on every machine.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from candlemill.engine.candles import DAY_MS, MINUTE_MS, Bars, CandleColumns, Column, k_minute_bars, minute_bars

Rng = np.random.Generator

COLUMNS: Final = ("t", "open", "high", "low", "close", "volume")
PRICES: Final = ("open", "high", "low", "close")
BEGIN: Final = 1_577_836_800_000  # 2020-01-01
STYLES: Final = ("walk", "ties", "jumps", "calm", "sparse")
TICK: Final = 1_000_000  # 0.01
ODD_TICK: Final = 2_345_678_901_237  # its sums exceed a float's 53 bits, and its eighths are not exact as floats
OCTAVE: Final = (65_536, 71_468, 77_936, 84_990, 92_682, 101_070, 110_218, 120_194)  # 2^16 times 2^(k/8)


class Market(msgspec.Struct, frozen=True):
    """Minute candles in time order: `t` in UTC ms, prices and volumes times 10^8. `label` names the source."""

    label: str
    t: Column
    open: Column
    high: Column
    low: Column
    close: Column
    volume: Column

    def __len__(self) -> int:
        return len(self.t)

    def crop(self, a: int, b: int) -> "Market":
        """Return candles `a` to `b - 1`."""
        return Market(self.label, *(getattr(self, name)[a:b] for name in COLUMNS))

    def take(self, rows: Column) -> "Market":
        return Market(self.label, *(getattr(self, name)[rows] for name in COLUMNS))

    def candles(self, reads: Sequence[str]) -> CandleColumns:
        """Return new candles with `t`, `open`, `close` and the columns in `reads`."""
        return CandleColumns(
            *([getattr(self, name)] if name in {"t", "open", "close", *reads} else [] for name in COLUMNS)
        )

    def bars(self, k: int, reads: Sequence[str], skip_first: bool = False) -> Bars:
        return k_minute_bars(self.candles(reads), k, skip_first)

    def scaled(self, bits: int, volume_bits: int = 0) -> "Market":
        """Multiply all prices by 2^bits, with at least 1, and all volumes by 2^volume_bits; rounded down."""
        prices = {name: np.maximum(_shifted(getattr(self, name), bits), 1) for name in PRICES}
        return msgspec.structs.replace(self, volume=_shifted(self.volume, volume_bits), **prices)


def _shifted(column: Column, bits: int) -> Column:
    return column << bits if bits >= 0 else column >> -bits


def market_of(candles: CandleColumns, label: str) -> Market:
    """Return the market of candles that have all columns."""
    bars = minute_bars(candles)
    return Market(label, *(getattr(bars, name) for name in COLUMNS))


def draw(rng: Rng, style: str, n: int, k: int = 1) -> Market:
    """Draw `n` candles, sparse enough that a few form one decision bar of `k` minutes.

    `walk`: a random walk with ticks; `ties`: few price levels, so that averages tie; `jumps`: prices halve and
    double; `calm`: long stretches of one price without volume; `sparse`: missing minutes and days everywhere.
    """
    t = _times(rng, style, n, k)
    close = _closes(rng, style, n)
    before = np.concatenate((close[:1], close[:-1]))
    reach = 1 + np.abs(close - before) // 2
    calm = style == "calm"
    top = np.maximum(before, close) + (0 if calm else rng.integers(0, reach))
    bottom = np.maximum(np.minimum(before, close) - (0 if calm else rng.integers(0, reach)), 1)
    volume = rng.integers(0, 1 << 30, n) * rng.integers(0, 1 << 8, n) * (rng.random(n) < (0.3 if calm else 0.95))
    return Market(style, t, before, top, bottom, close, volume)


def _times(rng: Rng, style: str, n: int, k: int) -> Column:
    mean = max(1, k // 3)
    steps = rng.integers(1, 2 * mean, n) if mean > 1 else np.ones(n, dtype=np.int64)
    holes = rng.integers(0, n, max(4, n // 400))
    steps[holes] += rng.integers(1, 90 * mean, len(holes))
    if style == "sparse":
        steps += rng.integers(0, 4, n) * rng.integers(0, 3, n) * mean
        nights = rng.integers(0, n, 1 + n // 200)
        steps[nights] += rng.integers(1, 3 * 1440, len(nights))
    first = BEGIN + int(rng.integers(0, 730)) * DAY_MS // MINUTE_MS * MINUTE_MS + int(rng.integers(0, 1440)) * MINUTE_MS
    return first + np.cumsum(steps) * MINUTE_MS


def _closes(rng: Rng, style: str, n: int) -> Column:
    if style in ("ties", "calm"):
        steps = rng.integers(-1, 2, n)
        if style == "calm":
            steps *= rng.random(n) < 0.04
        return (1 + _folded(np.cumsum(steps), 12)) * ODD_TICK
    if style == "jumps":
        eighths = _folded(48 + np.cumsum(rng.integers(-3, 4, n)), 96)
        return np.array(OCTAVE, dtype=np.int64)[eighths % 8] * TICK << (eighths // 8)
    size = (3, 30, 300, 3000)[int(rng.integers(0, 4))]  # of about 3 million ticks
    steps = rng.integers(-size, size + 1, n) * (rng.random(n) < 0.9)
    return (100 + np.abs(3_000_000 + np.cumsum(steps))) * TICK


def _folded(walk: Column, levels: int) -> Column:
    """Return the walk reflected at 0 and at `levels - 1`."""
    inside: Column = np.abs((walk + levels - 1) % (2 * levels - 2) - (levels - 1))
    return inside


# -- other futures -------------------------------------------------------------------------------------------------

FUTURES: Final = ("huge", "tiny", "mirrored", "reversed", "redrawn", "one candle", "volume", "gap", "constant")
HUGE: Final = 1 << 52  # scaled; the engine's limit is 2^58


def other_future(rng: Rng, market: Market, i: int, kind: str) -> Market:
    """Return the market with other candles after candle `i`, equal up to `i`; `kind` is one of `FUTURES`."""
    n = len(market)
    after = np.arange(i + 1, n)
    if kind == "gap":  # the following candles are later and fewer
        later = market.take(np.delete(np.arange(n), after[: int(rng.integers(1, len(after) + 1))]))
        t = later.t.copy()
        t[i + 1 :] += int(rng.integers(1, 4 * 1440)) * MINUTE_MS
        return msgspec.structs.replace(later, label=f"{market.label}, then a gap", t=t)
    columns = {name: getattr(market, name).copy() for name in COLUMNS}
    here = int(market.close[i])
    if kind == "volume":
        columns["volume"][after] = rng.integers(0, 1 << 50, len(after))
    elif kind == "reversed":
        for name in (*PRICES, "volume"):
            columns[name][after] = columns[name][after[::-1]]
    elif kind == "constant":
        for name in PRICES:
            columns[name][after] = here
    elif kind == "mirrored":
        low, high = 2 * here - columns["high"], 2 * here - columns["low"]
        columns |= {name: np.maximum(2 * here - columns[name], 1) for name in ("open", "close")}
        columns |= {"low": np.maximum(low, 1), "high": np.maximum(high, 1)}
        for name in PRICES:
            columns[name][: i + 1] = getattr(market, name)[: i + 1]
    else:
        if kind == "one candle":
            after = after[rng.integers(0, min(len(after), 64), 1)]
        _rewrite(rng, columns, after, here, kind)
    return Market(f"{market.label}, then {kind}", *columns.values())


def _rewrite(rng: Rng, columns: dict[str, Column], rows: Column, here: int, kind: str) -> None:
    if kind == "tiny" or (kind == "one candle" and rng.random() < 0.5):
        close = np.ones(len(rows), dtype=np.int64)
    elif kind == "redrawn":
        close = rng.integers(max(1, here // 2), here * 2, len(rows))
    else:
        close = np.full(len(rows), max(here, min(here * 1000, HUGE)))
    opened = np.concatenate(([here], close[:-1]))
    columns["open"][rows], columns["close"][rows] = opened, close
    columns["high"][rows], columns["low"][rows] = np.maximum(opened, close), np.minimum(opened, close)
    columns["volume"][rows] = rng.integers(0, 1 << 40, len(rows))
