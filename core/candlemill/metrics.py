"""The figures people expect of a backtest, from its daily profits and the sums of its result.

The account is worth `capital` at the start and `capital` plus the profits so far at the end of each day that has bars.
A day's return is its profit over the account's value before it. A year has 365 days; annual figures of returns take
each day with bars as one period, the growth rate takes calendar days.

Values of the account are exact integers. Returns are IEEE doubles, one correctly rounded division each, added from the
first day to the last, and nothing but + - * / and square roots follows: every machine and every cut of the job gives
the same bits. Figures are integers scaled by 10^8, rounded half to even; counts and days are not scaled. None means
undefined: nothing to divide by, an account at or below zero, or more than 64 bits.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import sqrt
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.engine.tape import DAY_MS
from candlemill.rounding import Doubles, divide, ordered_sum, ratio, scaled

DAYS_PER_YEAR = 365
TAIL = 20  # value at risk: the worst one day in 20, 95 %
INT64 = 2**63

Column = NDArray[np.int64]
Figures = dict[str, int | None]


class Month(msgspec.Struct, frozen=True):
    """A calendar month (UTC) with bars: its profit in money, and over the account's value at its start."""

    year: int
    month: int
    profit: int
    gain: int | None


class Drawdown(msgspec.Struct, frozen=True):
    """A fall of the account and its recovery, at daily marks.

    `start` is the day of the peak (the day before the first one for the starting capital), `trough` that of the lowest
    value, `end` the first day that is back at the peak, or None. `depth` is a share of the peak, `loss` in money.
    """

    start: int
    trough: int
    end: int | None
    depth: int
    loss: int


def metrics(days: Column, profits: Column | Sequence[int], capital: int, result: Mapping[str, Any]) -> Figures:
    """All figures by name; docs/metrics.md says what each one is.

    `days` are the UTC midnights in ms of the days with bars, ascending; `profits` their profits and `capital` (> 0) in
    money scaled by 10^8; `result` has the keys of reduce.result_of.
    """
    values = _values(profits, capital)
    figures = _trade_figures(result, capital)
    if len(days):
        figures |= _return_figures(values)
        figures |= _path_figures(days, values, capital)
    else:
        figures |= dict.fromkeys(DAILY)
    return {name: None if x is None or not -INT64 <= x < INT64 else x for name, x in figures.items()}


def monthly(days: Column, profits: Column | Sequence[int], capital: int) -> list[Month]:
    """The months with bars, in order."""
    values = [int(v) for v in _values(profits, capital)]
    names = [(day.year, day.month) for day in (datetime.fromtimestamp(t // 1000, UTC) for t in days.tolist())]
    out = []
    first = 0
    for k, name in enumerate(names):
        if k + 1 == len(names) or names[k + 1] != name:
            profit = values[k + 1] - values[first]
            out.append(Month(*name, profit, ratio(profit, values[first]) if values[first] > 0 else None))
            first = k + 1
    return out


def drawdowns(days: Column, profits: Column | Sequence[int], capital: int, top: int) -> list[Drawdown]:
    """The `top` deepest drawdowns, deepest first; of equal ones the earlier first."""
    values = [int(v) for v in _values(profits, capital)]
    times = _mark_days(days).tolist()
    found = []
    peak = low = 0  # marks of the last peak and of the lowest value since
    for k in range(1, len(values)):
        if values[k] >= values[peak]:
            if low > peak:
                found.append(_drawdown(values, times, peak, low, k))
            peak = low = k
        elif values[k] < values[low]:
            low = k
    if low > peak:
        found.append(_drawdown(values, times, peak, low, None))
    return sorted(found, key=lambda d: -d.depth)[:top]


def _drawdown(values: list[int], times: list[int], peak: int, low: int, end: int | None) -> Drawdown:
    loss = values[peak] - values[low]
    depth = ratio(loss, values[peak])
    assert depth is not None  # a peak is at least the capital
    return Drawdown(times[peak], times[low], None if end is None else times[end], depth, loss)


def _values(profits: Column | Sequence[int], capital: int) -> NDArray[Any]:
    """The account's value at the start and after each day: int64 where that is certain to fit, else Python ints."""
    column: NDArray[Any]
    try:
        column = np.array(profits, dtype=np.int64)
    except OverflowError:
        column = np.array(profits, dtype=object)
    most = max(int(column.max()), -int(column.min())) if len(column) else 0
    fits = capital + most * len(column) < INT64
    out = np.empty(len(column) + 1, dtype=np.int64 if fits else object)
    out[0] = capital
    out[1:] = column
    return np.add.accumulate(out, out=out)


def _mark_days(days: Column) -> Column:
    """The days of the marks of `_values`: the capital's is the day before the first."""
    return np.concatenate((days[:1] - DAY_MS, days))


def _trade_figures(result: Mapping[str, Any], capital: int) -> Figures:
    """Figures that need no days."""
    trades, wins = result["trades"], result["wins"]
    won, lost = result["gross_profit"], result["gross_loss"]
    average_win, average_loss = divide(won, wins), divide(lost, trades - wins)
    return {
        "win_rate": ratio(wins, trades),
        "profit_factor": ratio(won, lost),
        "average_trade": divide(won - lost, trades),
        "average_win": average_win,
        "average_loss": average_loss,
        "payoff_ratio": ratio(won * (trades - wins), lost * wins),
        "expectancy_ratio": ratio((won - lost) * (trades - wins), lost * trades),
        "exposure": ratio(result["exposure_bars"], result["bars"]),
        "turnover_ratio": ratio(result["turnover"], capital),
        "buy_and_hold": ratio(result["last_close"] - result["first_open"], result["first_open"]),
    }


# What needs at least one day.
DAILY = (
    "return",
    "cagr",
    "volatility",
    "calmar_ratio",
    "omega_ratio",
    "value_at_risk",
    "expected_shortfall",
    "best_day",
    "worst_day",
    "positive_days",
    "skew",
    "kurtosis",
    "max_drawdown_share",
    "longest_drawdown_days",
    "recovery_factor",
)


def _path_figures(days: Column, values: NDArray[Any], capital: int) -> Figures:
    """Figures of the account's values."""
    last = int(values[-1])
    peaks = np.maximum.accumulate(values)
    falls = peaks - values
    shares = falls.astype(np.float64) / peaks.astype(np.float64)
    deepest = int(shares.argmax())
    span = (int(days[-1]) - int(days[0])) // DAY_MS + 1
    growth = _growth(last, capital, span) if values.min() > 0 else None
    return {
        "return": ratio(last - capital, capital),
        "cagr": None if growth is None else scaled(growth),
        "calmar_ratio": None if growth is None or not shares[deepest] else scaled(growth / float(shares[deepest])),
        "positive_days": ratio(int(np.count_nonzero(values[1:] > values[:-1])), len(days)),
        "max_drawdown_share": ratio(int(falls[deepest]), int(peaks[deepest])),
        "longest_drawdown_days": _longest(days, falls),
        "recovery_factor": ratio(last - capital, int(falls.max())),
    }


def _longest(days: Column, falls: NDArray[Any]) -> int:
    """Calendar days of the longest time from a peak to the day that is back at it, or to the last day."""
    times = _mark_days(days)
    at_peak = np.flatnonzero(falls == 0)
    waits = times[at_peak[1:]] - times[at_peak[:-1]]
    recovered = waits[at_peak[1:] - at_peak[:-1] > 1]
    longest = int(recovered.max()) if len(recovered) else 0
    return max(longest, int(times[-1] - times[at_peak[-1]])) // DAY_MS


def _growth(last: int, first: int, days: int) -> float | None:
    """(last / first) ^ (365 / days) - 1, by squares and square roots: 13 digits that are the same on every machine.

    None where the power leaves 64 bits.
    """
    step = last / first
    whole, rest = divmod(DAYS_PER_YEAR, days)
    power = 1.0
    for bit in f"{whole:b}":
        power *= power * (step if bit == "1" else 1.0)
        if power > INT64:
            return None
    root = step
    for _ in range(60):  # the 60th root of a double is 1
        if not rest:
            break
        root = sqrt(root)
        rest *= 2
        if rest >= days:
            rest -= days
            power *= root
    return power - 1


def _return_figures(values: NDArray[Any]) -> Figures:
    """Figures of the daily returns. Each sum runs from the first day to the last, which `accumulate` promises."""
    out: Figures = dict.fromkeys(
        (
            "volatility",
            "omega_ratio",
            "value_at_risk",
            "expected_shortfall",
            "best_day",
            "worst_day",
            "skew",
            "kurtosis",
        )
    )
    if values.min() <= 0:
        return out
    before = values[:-1]
    returns: Doubles = (values[1:] - before).astype(np.float64) / before.astype(np.float64)
    n = len(returns)
    away = returns - ordered_sum(returns) / n
    squares = away * away
    second = ordered_sum(squares)
    if n > 1:
        out["volatility"] = scaled(sqrt(second / (n - 1)) * sqrt(DAYS_PER_YEAR))
    if second > 0:
        out["skew"] = scaled(ordered_sum(squares * away) / n / (second / n * sqrt(second / n)))
        out["kurtosis"] = scaled(ordered_sum(squares * squares) / n / (second / n * (second / n)) - 3)
    losses = -ordered_sum(np.minimum(returns, 0.0))
    if losses > 0:
        out["omega_ratio"] = scaled(ordered_sum(np.maximum(returns, 0.0)) / losses)
    ranked = np.sort(returns)
    k, part = divmod(n - 1, TAIL)
    at_risk = float(ranked[k])
    if part:
        at_risk += (float(ranked[k + 1]) - at_risk) * part / TAIL
    out["value_at_risk"] = scaled(at_risk)
    out["expected_shortfall"] = scaled(ordered_sum(ranked[: k + 1]) / (k + 1))
    out["worst_day"], out["best_day"] = scaled(float(ranked[0])), scaled(float(ranked[-1]))
    return out
