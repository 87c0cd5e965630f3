"""Standard figures of a backtest, from its daily profits and the sums of its result.

The account is worth `capital` at the start and `capital` plus the profits so far at the end of each day that has bars.
A day's return is its profit over the account's value before it. A year has 365 days; annual figures of returns treat
each day with bars as one period, the growth rate uses calendar days.

Values of the account are exact integers. Returns are IEEE doubles, one correctly rounded division each, added from the
first day to the last. Only + - * / and square roots are used after that: every machine and every cut of the job gives
the same bits. Values are integers scaled by 10^8, rounded half to even; counts and days are not scaled. None means
undefined: a division by zero, an account at or below zero, or more than 64 bits.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import sqrt
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.engine.candles import DAY_MS
from candlemill.units import SCALE, Doubles, divide, ratio, scaled

DAYS_PER_YEAR = 365
TAIL = 20  # value at risk: the worst one day in 20, 95 %
INT64 = 2**63
CELLS = 65_536  # days of all sets that are computed at once: fits a core's cache

Column = NDArray[np.int64]
MetricValues = dict[str, int | None]


class Month(msgspec.Struct, frozen=True):
    """A calendar month (UTC) with bars: its profit in money, and over the account's value at its start."""

    year: int
    month: int
    profit: int
    gain: int | None


class Drawdown(msgspec.Struct, frozen=True):
    """Fall of the account from a peak and its recovery, at daily marks.

    `start` is the day of the peak (the day before the first one for the starting capital), `trough` the day of the
    lowest value, `end` the first day that is back at the peak, or None. `depth` is a share of the peak, `loss` in
    money.
    """

    start: int
    trough: int
    end: int | None
    depth: int
    loss: int


def metrics(days: Column, profits: Column | Sequence[int], capital: int, result: Mapping[str, Any]) -> MetricValues:
    """Return all figures by name; docs/metrics.md defines each one.

    `days` are the UTC midnights in ms of the days with bars, ascending; `profits` their profits and `capital` (> 0) in
    money scaled by 10^8; `result` has the keys of result.result_of.
    """
    return metrics_of_sets(days, [profits], [capital], [result])[0]


def metrics_of_sets(
    days: Column,
    profits: Sequence[Column | Sequence[int]],
    capitals: Sequence[int],
    results: Sequence[Mapping[str, Any]],
) -> list[MetricValues]:
    """Do the same as `metrics` for several sets with the same days, in few passes over all of their days."""
    found = [_trade_figures(result, capital) for result, capital in zip(results, capitals, strict=True)]
    if len(days):
        values = list(map(_values, profits, capitals))
        for figures, more in zip(found, _daily_figures(days, values, capitals), strict=True):
            figures |= more
    else:
        for figures in found:
            figures |= dict.fromkeys(DAILY)
    return [
        {name: None if x is None or not -INT64 <= x < INT64 else x for name, x in figures.items()} for figures in found
    ]


def _daily_figures(days: Column, values: Sequence[NDArray[Any]], capitals: Sequence[int]) -> list[MetricValues]:
    """Return the figures of the account's values of each set, one or many at a time."""
    out: list[MetricValues] = []
    first, most = 0, max(1, CELLS // len(days))
    while first < len(values):
        last = first + 1
        while last < min(first + most, len(values)) and values[last].dtype == values[first].dtype:
            last += 1
        together = np.stack(values[first:last])
        of_returns = _return_figures(together)
        for path, returns in zip(_path_figures(days, together, capitals[first:last]), of_returns, strict=True):
            out.append(returns | path)
        first = last
    return out


def monthly(days: Column, profits: Column | Sequence[int], capital: int) -> list[Month]:
    """Return the months with bars, in order."""
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
    """Return the `top` deepest drawdowns, deepest first; equal ones in order of time."""
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
    """Return the account's value at the start and after each day: int64 if that surely fits, else Python integers."""
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
    """Return the days of the marks of `_values`: the mark of the starting capital is on the day before the first."""
    return np.concatenate((days[:1] - DAY_MS, days))


def _trade_figures(result: Mapping[str, Any], capital: int) -> MetricValues:
    """Return the figures that need no days."""
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


# Figures of the daily returns, and all figures that need at least one day.
OF_RETURNS = (
    "volatility", "omega_ratio", "value_at_risk", "expected_shortfall", "best_day", "worst_day", "skew", "kurtosis",
)  # fmt: skip
DAILY = (
    "return", "cagr", "calmar_ratio", "positive_days", "max_drawdown_share", "longest_drawdown_days", "recovery_factor",
    *OF_RETURNS,
)  # fmt: skip


def _path_figures(days: Column, values: NDArray[Any], capitals: Sequence[int]) -> list[MetricValues]:
    """Return the figures of the accounts' values, sets x marks."""
    peaks = np.maximum.accumulate(values, axis=1)
    falls = peaks - values
    shares = falls.astype(np.float64) / peaks.astype(np.float64)
    deepest = shares.argmax(axis=1)
    sets = np.arange(len(values))
    span = (int(days[-1]) - int(days[0])) // DAY_MS + 1
    ends, positive = values[:, -1].tolist(), np.count_nonzero(values[:, 1:] > values[:, :-1], axis=1).tolist()
    growths = _growths(ends, capitals, span, values.min(axis=1) > 0)
    columns = zip(
        capitals, ends, growths, positive, shares[sets, deepest].tolist(), falls[sets, deepest].tolist(),
        peaks[sets, deepest].tolist(), _longest(days, falls).tolist(), falls.max(axis=1).tolist(), strict=True,
    )  # fmt: skip
    return [
        {
            "return": ratio(last - capital, capital),
            "cagr": None if growth is None else scaled(growth),
            "calmar_ratio": None if growth is None or not share else scaled(growth / share),
            "positive_days": ratio(rises, len(days)),
            "max_drawdown_share": ratio(fall, peak),
            "longest_drawdown_days": wait,
            "recovery_factor": ratio(last - capital, largest),
        }
        for capital, last, growth, rises, share, fall, peak, wait, largest in columns
    ]


def _longest(days: Column, falls: NDArray[Any]) -> Column:
    """Return of each set the most calendar days from a peak to the day that is back at it, or to the last day."""
    times = _mark_days(days)
    marks = np.arange(len(times))
    at_peak = falls == 0
    peaks = np.maximum.accumulate(np.where(at_peak, marks, 0), axis=1)  # the last mark at a peak so far
    before = peaks[:, :-1]
    recovered = at_peak[:, 1:] & (marks[1:] - before > 1)
    waits = np.where(recovered, times[1:] - times[before], 0).max(axis=1)
    found: Column = np.maximum(waits, times[-1] - times[peaks[:, -1]]) // DAY_MS
    return found


def _growths(lasts: Sequence[int], firsts: Sequence[int], days: int, defined: NDArray[np.bool_]) -> list[float | None]:
    """Return of each set (last / first) ^ (365 / days) - 1, by squares and square roots: 13 digits, the same on every
    machine.

    None where it is not `defined`, or where the power exceeds 64 bits.
    """
    steps = [last / first if it_is else 1.0 for last, first, it_is in zip(lasts, firsts, defined, strict=True)]
    step: Doubles = np.array(steps)
    whole, rest = divmod(DAYS_PER_YEAR, days)
    power, fits = np.ones(len(step)), np.array(defined)
    with np.errstate(over="ignore"):
        for bit in f"{whole:b}":
            power *= power * step if bit == "1" else power
            fits &= power <= INT64
        root = step.copy()
        for _ in range(60):  # the 60th root of a double is 1
            if not rest:
                break
            root = np.sqrt(root)
            rest *= 2
            if rest >= days:
                rest -= days
                power *= root
    return [growth if one else None for growth, one in zip((power - 1).tolist(), fits.tolist(), strict=True)]


def _return_figures(values: NDArray[Any]) -> list[MetricValues]:
    """Return the figures of the daily returns of each set. `accumulate` guarantees that each sum runs from the first
    day to the last.
    """
    out: list[MetricValues] = [dict.fromkeys(OF_RETURNS) for _ in values]
    kept = np.flatnonzero(values.min(axis=1) > 0)
    if not len(kept):
        return out
    values = values[kept]
    before = values[:, :-1]
    returns: Doubles = (values[:, 1:] - before).astype(np.float64) / before.astype(np.float64)
    n = returns.shape[1]
    away = returns - (_ordered_sums(returns) / n)[:, None]
    squares = away * away
    second = _ordered_sums(squares)
    losses, gains = -_ordered_sums(np.minimum(returns, 0.0)), _ordered_sums(np.maximum(returns, 0.0))
    ranked = np.sort(returns, axis=1)
    k, part = divmod(n - 1, TAIL)
    at_risk = ranked[:, k]
    if part:
        at_risk = at_risk + (ranked[:, k + 1] - at_risk) * part / TAIL
    found: dict[str, tuple[Doubles, NDArray[np.bool_] | bool]] = {
        "value_at_risk": (at_risk, True),
        "expected_shortfall": (_ordered_sums(ranked[:, : k + 1]) / (k + 1), True),
        "worst_day": (ranked[:, 0], True),
        "best_day": (ranked[:, -1], True),
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        if n > 1:
            found["volatility"] = np.sqrt(second / (n - 1)) * sqrt(DAYS_PER_YEAR), True
        spread = second / n
        found["skew"] = _ordered_sums(squares * away) / n / (spread * np.sqrt(spread)), second > 0
        found["kurtosis"] = _ordered_sums(squares * squares) / n / (spread * spread) - 3, second > 0
        found["omega_ratio"] = gains / losses, losses > 0
    for name, (column, defined) in found.items():
        rounded = np.rint(column * SCALE).tolist()
        for at, figure, one in zip(kept.tolist(), rounded, np.broadcast_to(defined, len(kept)).tolist(), strict=True):
            out[at][name] = int(figure) if one else None
    return out


def _ordered_sums(rows: Doubles) -> Doubles:
    """Return the sum of each row in the order of its elements."""
    found: Doubles = np.add.accumulate(rows, axis=1)[:, -1]
    return found
