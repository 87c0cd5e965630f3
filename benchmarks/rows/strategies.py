"""How many bars a second every indicator and every built-in strategy of -1, 0 and 1 decides, on one core.

    python benchmarks/strategies.py [NAME …]

A year of minutes on candles that exist, with the parameters' defaults: the best of some rounds, and the middle one. Two
strategies written as users write them stand beside: NumPy on all candles, and a Python loop over bars.
"""

import sys
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np
from candlemill.backtests.spec_rules import COLUMNS, places_orders, sees_panel
from candlemill.engine.candles import Bars, CandleColumns, minute_bars
from candlemill.engine.deviations import Deviations
from candlemill.engine.indicators import Buffer, exponential, moves, smooth, smooth_gap, smooth_two, true_range, wilder
from candlemill.engine.trends import Bands, Trail, supertrend, trailing
from candlemill.strategies import REGISTERED, Bar, Stateful, Strategy, Windowed, build
from candlemill.strategies.builtin.common import TILE
from data.market import Market, one_year
from lab import Lab
from measure import Row, timed
from tabulate import tabulate

ROUNDS = 25
STEP_BARS = 50_000  # a Python loop would take long over a year


class NumpyPlugin(Windowed, frozen=True):
    """The skeleton of `candlemill new-strategy`."""

    length: int = 50

    def lookback(self) -> int:
        return self.length

    def positions(self, bars: Bars) -> Any:
        sums = np.concatenate(([0], np.cumsum(bars.close)))
        out = np.zeros(bars.n, dtype=np.bool_)
        before = sums[self.length : -1] - sums[: -self.length - 1]
        out[self.length :] = bars.close[self.length :] * self.length > before
        return out


class StepPlugin(Stateful, frozen=True):
    """One bar at a time."""

    def start(self) -> tuple[int, float]:
        return 0, 0.0

    def step(self, state: tuple[int, float], bar: Bar) -> tuple[int, tuple[int, float]]:
        count, mean = state
        return int(bar.close > mean), (count + 1, mean + 0.1 * (bar.close - mean))


def rows_strategies(lab: Lab) -> Iterator[Row]:
    """Every indicator and every built-in strategy over a year, in million bars a second."""
    yield from rows(lab.year, lab.rounds(ROUNDS), [])


def rows(market: Market, rounds: int, names: list[str]) -> Iterator[Row]:
    columns = market.columns
    works: dict[str, tuple[Callable[[], object], int, str]] = {}
    for name, work in indicators(columns).items():
        works[f"indicator {name}"] = (work, market.n, ">= 100 M/s")
    for name in sorted(one for one in REGISTERED if not places_orders(one) and not sees_panel(one)):
        works[name] = (deciding(build(name, {}), columns, market.n), market.n, ">= 100 M/s")
    works["a NumPy plugin"] = (deciding(NumpyPlugin(), columns, market.n), market.n, ">= 30 M/s")
    works["a plugin's step()"] = (deciding(StepPlugin(), columns, STEP_BARS), STEP_BARS, ">= 4 M/s")
    for what, (work, bars, reach) in works.items():
        if names and what.split()[-1] not in names:
            continue
        times = [timed(work)() for _ in range(rounds)]
        yield Row(what, rate(bars, min(times)), f"middle {rate(bars, median(times))}", None, reach, "", {"ns": times})


def deciding(strategy: Strategy, columns: dict[str, Any], n: int) -> Callable[[], object]:
    """All decisions, on bars of the columns that a job would read, whose sums and ticks nobody has made yet."""
    names = {"t", "open", "close"} | strategy.needs()
    candles = CandleColumns(*([columns[name]] if name in names else [] for name in COLUMNS))
    return lambda: strategy.decide(minute_bars(candles), 0, n, b"")


def rate(bars: int, ns: float) -> str:
    return f"{bars / ns * 1000:,.0f} M/s"


def indicators(columns: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """Each over all bars in stretches, as the strategies use them."""
    high, low, close = columns["high"], columns["low"], columns["close"]
    first, second, third = Buffer(TILE), Buffer(TILE), Buffer(TILE)
    apart = Deviations(20, TILE)

    def over(work: Callable[[int, int], object]) -> Callable[[], None]:
        def run() -> None:
            for a in range(20, len(close), TILE):
                work(a, min(a + TILE, len(close)))

        return run

    def closes(buffer: Buffer, a: int, b: int) -> int:
        buffer.array[: b - a] = close[a:b]
        return b - a

    def ranges(a: int, b: int) -> None:
        true_range(high[a - 1 : b], low[a - 1 : b], close[a - 1 : b], first)

    def rsi(a: int, b: int) -> None:
        moves(close[a - 1 : b], first, second)
        smooth_two(first, second, b - a, *strengths)

    def atr(a: int, b: int) -> None:
        ranges(a, b)
        smooth(first, b - a, means[2])

    def bands(a: int, b: int) -> None:
        ranges(a, b)
        closes(third, a, b)
        supertrend(third, third, first, b - a, means[2], 3.0, turning)

    def stop(a: int, b: int) -> None:
        ranges(a, b)
        trailing(third, first, closes(third, a, b), means[2], 3.0, trail)

    means, strengths = [exponential(12), exponential(26), wilder(14)], [wilder(14), wilder(14)]
    turning, trail = Bands(0.0, 0.0, 0.0, 0), Trail(0.0, 0)
    return {
        "exponential mean": over(lambda a, b: smooth(first, closes(first, a, b), means[0])),
        "MACD line": over(lambda a, b: smooth_gap(first, closes(first, a, b), means[0], means[1])),
        "RSI": over(rsi),
        "true range": over(ranges),
        "average true range": over(atr),
        "supertrend": over(bands),
        "trailing stop": over(stop),
        "deviations": over(lambda a, b: apart.look(close[a - 19 : b])),
    }


if __name__ == "__main__":
    found = [row.cells()[:5] for row in rows(one_year(), ROUNDS, sys.argv[1:])]
    print(tabulate(found, headers=("what", "best", "", "", "reach"), disable_numparse=True))
