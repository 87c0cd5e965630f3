"""Candles of a job, and its k-minute bars (SEMANTICS §1, §2)."""

import csv
import io
import zipfile
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

SCALE = 10**8
PPM = 10**6
MINUTE = 60_000
DAY = 86_400_000


class Bar(NamedTuple):
    """One candle: open time in UTC ms, prices and volume times 10^8."""

    t: int
    open: int
    high: int
    low: int
    close: int
    volume: int = 0


class KBar(NamedTuple):
    """A decision bar of k minutes, and the index of its last minute."""

    bar: Bar
    last: int


def scaled(text: str) -> int:
    """Decimal text times 10^8. More than eight decimals: ValueError (§1)."""
    value = Decimal(text) * SCALE
    whole = int(value)
    if whole != value:
        raise ValueError(f"{text} has more than 8 decimals")
    return whole


def cut_candles(bars: Iterable[Bar], start: int | None = None, end: int | None = None) -> list[Bar]:
    """Bars with `start <= t < end` in time order; of duplicates the last one counts (§2)."""
    latest = {bar.t: Bar(*bar) for bar in bars}
    return [latest[t] for t in sorted(latest) if (start is None or start <= t) and (end is None or t < end)]


def k_bar_origin(k: int) -> int:
    """Weeks begin on Mondays, and 1970-01-05 was one; Binance counts three days from 2017-08-17, a whole number of them
    after 1970-01-02; all other bars are counted from 1970."""
    return {7 * 24 * 60: 4 * DAY, 3 * 24 * 60: DAY}.get(k, 0)


def k_bar_number(t: int, k: int) -> int:
    return (t - k_bar_origin(k)) // (k * MINUTE)


def is_over(t: int, k: int) -> bool:
    """Whether the minute that opens at `t` is the last one that its k-bar can have: only then is the k-bar known to be
    over at that minute's close."""
    return k_bar_number(t, k) != k_bar_number(t + MINUTE, k)


def k_bars(bars: list[Bar], k: int) -> list[KBar]:
    """UTC-aligned bars of k minutes made of the minutes that are there (§2)."""
    result: list[KBar] = []
    for index, bar in enumerate(bars):
        begin = k_bar_number(bar.t, k) * k * MINUTE + k_bar_origin(k)
        if result and result[-1].bar.t == begin:
            old = result[-1].bar
            merged = Bar(
                old.t, old.open, max(old.high, bar.high), min(old.low, bar.low), bar.close, old.volume + bar.volume
            )
            result[-1] = KBar(merged, index)
        else:
            result.append(KBar(bar._replace(t=begin), index))
    return result


def settled_in(bars: list[Bar], instants: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Sum of the rates per open time of the bar that they belong to: the first that opens at the instant or later."""
    sums: dict[int, int] = {}
    times = [bar.t for bar in bars]
    for instant, rate in instants:
        following = [t for t in times if t >= instant]
        if following:
            sums[following[0]] = sums.get(following[0], 0) + rate
    return sums


def read(path: Path) -> list[Bar]:
    """Bars of a Binance kline CSV, or of a zip with one; microseconds become milliseconds, a header is skipped."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            text = archive.read(archive.namelist()[0]).decode()
    else:
        text = path.read_text()
    bars = []
    for row in csv.reader(io.StringIO(text)):
        if not row or not row[0].isdigit():
            continue
        t = int(row[0])
        if t >= 10**14:
            t //= 1000
        bars.append(Bar(t, *(scaled(value) for value in row[1:6])))
    return cut_candles(bars)
