"""The built-in strategies beyond the four of the semantics page, written a second time: slow, plain, one bar at a time.

Like `reference.py` it shares no code with the engine. Windows are summed anew in Python's integers and fractions. Means
that depend on all bars before are doubles, in the order of operations that docs/strategies.md states:
`keep * mean + gain * x`, from the plain mean of the first values on.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from math import isqrt

from slow_engine import DAY, MINUTE, STRATEGIES, Bar


def mean_of(values: Sequence[float | None], length: int, gain: float, keep: float, skip: int = 0) -> list[float | None]:
    """The recursive mean after each value, None before there is one. `skip` values, and all None, are passed over."""
    out: list[float | None] = []
    seen: list[float] = []
    mean = None
    for value in values:
        if value is None:
            out.append(None)
            continue
        if mean is not None:
            mean = keep * mean + gain * value
        elif skip:
            skip -= 1
        else:
            seen.append(value)
            if len(seen) == length:
                total = 0.0
                for one in seen:
                    total += one
                mean = total / length
        out.append(mean)
    return out


def ema(values: Sequence[float | None], length: int, skip: int = 0) -> list[float | None]:
    gain = 2 / (length + 1)
    return mean_of(values, length, gain, 1 - gain, skip)


def rma(values: Sequence[float | None], length: int) -> list[float | None]:
    return mean_of(values, length, 1 / length, (length - 1) / length)


def atr(bars: list[Bar], length: int) -> list[float | None]:
    ranges: list[float | None] = [None]
    for before, bar in pairwise(bars):
        ranges.append(float(max(bar.high - bar.low, abs(bar.high - before.close), abs(bar.low - before.close))))
    return rma(ranges[: len(bars)], length)


def closes(bars: list[Bar]) -> list[float | None]:
    return [float(bar.close) for bar in bars]


def sign(value: float, short: bool) -> int:
    return 1 if value > 0 else -1 if short and value < 0 else 0


def held(signals: Iterator[tuple[bool, bool, bool, bool]]) -> list[int]:
    """Positions from what, at each bar, enters a long, leaves it, enters a short, leaves it."""
    out, position = [], 0
    for long_in, long_out, short_in, short_out in signals:
        if (position == 1 and long_out) or (position == -1 and short_out):
            position = 0
        if position == 0:
            position = 1 if long_in else -1 if short_in else 0
        out.append(position)
    return out


def ema_cross(bars: list[Bar], fast: int, slow: int, allow_short: bool) -> list[int]:
    pairs = zip(ema(closes(bars), fast), ema(closes(bars), slow), strict=True)
    return [0 if f is None or s is None else sign(f - s, allow_short) for f, s in pairs]


def macd(bars: list[Bar], fast: int, slow: int, signal: int, allow_short: bool) -> list[int]:
    pairs = zip(ema(closes(bars), fast, slow - fast), ema(closes(bars), slow), strict=True)
    line = [None if f is None or s is None else f - s for f, s in pairs]
    both = zip(line, ema(line, signal), strict=True)
    return [0 if x is None or s is None else sign(x - s, allow_short) for x, s in both]


def rsi_reversion(bars: list[Bar], length: int, low: int, exit: int, high: int, allow_short: bool) -> list[int]:
    changes = [b.close - a.close for a, b in pairwise(bars)]
    up = rma([None, *(float(max(0, change)) for change in changes)], length)
    down = rma([None, *(float(max(0, -change)) for change in changes)], length)

    def signals() -> Iterator[tuple[bool, bool, bool, bool]]:
        for gain, loss in zip(up, down, strict=True):
            if gain is None or loss is None:
                yield False, False, False, False
                continue
            part, whole = gain * 100, loss + gain
            over, under = part > whole * exit, part < whole * exit
            yield part < whole * low, over, allow_short and part > whole * high, under

    return held(signals())


def scores(bars: list[Bar], length: int) -> Iterator[Fraction | None]:
    """Squared distance from the mean over the variance, with the distance's sign; None where there is neither."""
    for i in range(len(bars)):
        window = [bar.close for bar in bars[max(0, i + 1 - length) : i + 1]]
        mean = Fraction(sum(window), len(window))
        variance = sum((close - mean) ** 2 for close in window) / len(window)
        apart = bars[i].close - mean
        yield apart * abs(apart) / variance if len(window) == length and variance else None


def square(hundredths: int) -> Fraction:
    return Fraction(hundredths * abs(hundredths), 10_000)


def bollinger(bars: list[Bar], length: int, width: int, allow_short: bool) -> list[int]:
    return held(
        (False, False, False, False)
        if z is None
        else (z > square(width), z < 0, allow_short and z < -square(width), z > 0)
        for z in scores(bars, length)
    )


def zscore_reversion(bars: list[Bar], length: int, entry: int, exit: int, allow_short: bool) -> list[int]:
    return held(
        (False, False, False, False)
        if z is None
        else (z < -square(entry), z > -square(exit), allow_short and z > square(entry), z < square(exit))
        for z in scores(bars, length)
    )


def keltner(bars: list[Bar], length: int, range_length: int, width: int, allow_short: bool) -> list[int]:
    def signals() -> Iterator[tuple[bool, bool, bool, bool]]:
        for bar, middle, reach in zip(bars, ema(closes(bars), length), atr(bars, range_length), strict=True):
            apart = None if middle is None else float(bar.close) - middle
            edge = None if reach is None else reach * (width / 100)
            inside = apart is None or edge is None
            yield (
                not inside and apart > edge,
                apart is not None and apart < 0,
                allow_short and not inside and apart < -edge,
                apart is not None and apart > 0,
            )

    return held(signals())


def supertrend(bars: list[Bar], length: int, multiple: int, allow_short: bool) -> list[int]:
    out = []
    upper = lower = 0.0
    side = 0
    for i, (bar, mean) in enumerate(zip(bars, atr(bars, length), strict=True)):
        if mean is not None:
            middle, reach = (bar.high + bar.low) / 2, mean * (multiple / 100)
            before = bars[i - 1].close
            first = side == 0
            upper = middle + reach if first or middle + reach < upper or before > upper else upper
            lower = middle - reach if first or middle - reach > lower or before < lower else lower
            if first:
                side = -1
            elif side == -1:
                side = 1 if bar.close > upper else -1
            else:
                side = -1 if bar.close < lower else 1
        out.append(sign(side, allow_short))
    return out


def atr_stop(bars: list[Bar], length: int, multiple: int, allow_short: bool) -> list[int]:
    out = []
    best = side = 0
    for bar, mean in zip(bars, atr(bars, length), strict=True):
        if mean is not None and side == 0:
            side, best = -1, bar.close
        elif mean is not None:
            reach = mean * (multiple / 100)
            beyond = bar.close < float(best) - reach if side == 1 else bar.close > float(best) + reach
            if (bar.close - best) * side > 0:
                best = bar.close
            elif beyond:
                side, best = -side, bar.close
        out.append(sign(side, allow_short))
    return out


def dual_momentum(bars: list[Bar], fast: int, slow: int) -> list[int]:
    out = []
    for i, bar in enumerate(bars):
        longer = bar.close - bars[i - slow].close if i >= slow else 0
        recent = bar.close - bars[i - fast].close if i >= slow else 0
        out.append(int(longer > 0 and Fraction(recent, fast) > Fraction(longer, slow)))
    return out


def time_of_day(bars: list[Bar], start: int, end: int) -> list[int]:
    minutes = [bar.t % DAY // MINUTE for bar in bars]
    return [int(start <= m < end if start < end else m >= start or m < end) for m in minutes]


STRATEGIES.update(
    {
        "ema_cross": ema_cross,
        "macd": macd,
        "rsi_reversion": rsi_reversion,
        "bollinger": bollinger,
        "zscore_reversion": zscore_reversion,
        "keltner": keltner,
        "supertrend": supertrend,
        "atr_stop": atr_stop,
        "dual_momentum": dual_momentum,
        "time_of_day": time_of_day,
    }
)


# -- panels: rows of closes by symbol, None where one is absent; targets (ppm) of the last row, None for no trade -----

Row = dict[str, int | None]


def pair_reversion(rows: Sequence[Row], length: int, entry: int, exit: int) -> list[int | None]:
    one, other = sorted(rows[-1])
    last = rows[-length:]
    pairs = [(row[one], row[other]) for row in last]
    ratios = [a * 10**9 // b for a, b in pairs if a is not None and b is not None]
    if len(rows) < length or None in rows[-1].values():
        return [None, None]
    mean = Fraction(sum(ratios), len(ratios))
    variance = sum((ratio - mean) ** 2 for ratio in ratios) / len(ratios)
    distance = ratios[-1] - mean
    if variance and distance**2 >= Fraction(entry, 100) ** 2 * variance:
        return [-500_000, 500_000] if distance > 0 else [500_000, -500_000]
    return [0, 0] if distance**2 <= Fraction(exit, 100) ** 2 * variance else [None, None]


def inverse_volatility(rows: Sequence[Row], number: int, length: int, every: int, gross: int) -> list[int | None]:
    if number % every:
        return [None] * len(rows[-1])
    inverses = []
    for name in sorted(rows[-1]):
        own = [row[name] for row in rows if row[name] is not None]
        if rows[-1][name] is None or len(own) <= length:
            inverses.append(0)
            continue
        returns = [(b - a) * 10**6 // a for a, b in pairwise(own[-length - 1 :])]
        mean = Fraction(sum(returns), length)
        # the deviation times the length in 10^-6 ppm, rounded down
        deviation = isqrt(int(sum((one - mean) ** 2 for one in returns) * length) * 10**12)
        inverses.append(10**30 // deviation if deviation else 0)
    return [gross * one // sum(inverses) if one else 0 for one in inverses]
