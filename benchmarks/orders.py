"""What orders cost, in processor time over a year of minutes.

    python benchmarks/orders.py [--backtesting-python PATH]

The fills alone (`decide`), a run with its figures in account `units`, a `step` in Python that sees its position, and
1,000 sets of `pullback_limit`; beside these, where an interpreter has it, backtesting.py with one set on a month.
"""

import argparse
import itertools
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from candlemill.backtests.slice import SliceWindow, run_slice, summary_of
from candlemill.backtests.spec import Spec
from candlemill.engine.candles import CandleColumns, k_minute_bars
from candlemill.engine.position import ExecutionRules
from candlemill.engine.ranges import ranges_of
from candlemill.strategies import Book, Order, OrderStrategy, build
from candlemill.strategies.orders import decide_fills
from candlemill.units import SCALE
from data import synthetic

RULES = ExecutionRules(1000)
NAMES = ("breakout_stop", "grid", "pullback_limit", "atr_bracket", "break_even", "dca")


class Dip(OrderStrategy, frozen=True):
    """The example of docs/orders.md: states a limit order at every bar, sees its position."""

    def start(self) -> Any:
        return (0,)

    def step(self, state: Any, bar: Any, position: Any) -> Any:
        top = bar.close if position.side else max(state[0], bar.close)
        if position.side:
            target = 0 if position.held >= 60 else None
            return Book(target, stop=position.entry * 99 // 100, take=position.entry * 101 // 100), (top,)
        price = top * 99 // 100
        order = Order("dip", 1, "limit", price, size=1_000_000, stop=price * 99 // 100, take=price * 101 // 100)
        return Book(None, [order]), (top,)


class Watch(OrderStrategy, frozen=True):
    """The least: a book without orders, whose target follows the position that is seen."""

    def start(self) -> Any:
        return (0,)

    def step(self, state: Any, bar: Any, position: Any) -> Any:
        return (KEEP if position.side or bar.close < state[0] else ENTER), (bar.close,)


KEEP, ENTER = Book(), Book(1_000_000)


def seconds(work: Callable[[], Any], times: int = 5) -> float:
    """The median of some tries."""
    found = []
    for _ in range(times):
        begin = time.process_time()
        work()
        found.append(time.process_time() - begin)
    return sorted(found)[times // 2]


def candle_columns(candles: dict[str, Any]) -> CandleColumns:
    names = ("t", "open", "high", "low", "close", "volume")
    return CandleColumns(*([np.asarray(candles[name], dtype=np.int64)] for name in names))


def bars_a_second(n: int, took: float) -> str:
    return f"{n / took / 1e6:.1f} M bars/s ({took * 1e3:.2f} ms)"


def runs(candles: CandleColumns, spec: Spec) -> None:
    n, window = int(candles.n), SliceWindow(candles, 0, int(candles.n), True)
    for name in NAMES:
        strategy, of = build(name, {}), msgspec.structs.replace(spec, strategy=name)
        ranges, bars = ranges_of(candles), k_minute_bars(candles, 1, False)
        ranges.prepare()

        def fills(strategy: Any = strategy, ranges: Any = ranges, bars: Any = bars) -> Any:
            return decide_fills(candles, 1, strategy, RULES, b"", 0, n, ranges=ranges, bars=bars)

        def whole(strategy: Any = strategy, of: Spec = of) -> Any:
            return run_slice(of, window, [(0, strategy)], {0: COLD})

        trades = summary_of(whole().outcomes[0]).trades
        print(f"{name}: fills {bars_a_second(n, seconds(fills, 15))}, run {bars_a_second(n, seconds(whole, 15))}, "
              f"{trades:,} trades")  # fmt: skip


def steps(candles: CandleColumns) -> None:
    n = int(candles.n)
    for kind in (Watch, Dip):
        took = seconds(lambda kind=kind: decide_fills(candles, 1, kind(), RULES, b"", 0, n), 5)
        print(f"step in Python, {kind.__name__}: {bars_a_second(n, took)}")


def sets(candles: CandleColumns, spec: Spec) -> float:
    axes = itertools.product(range(60, 560, 50), range(1000, 6000, 500), range(5000, 15_000, 1000))
    many = [
        (k, build("pullback_limit", {"lookback": back, "depth": depth, "take": take}))
        for k, (back, depth, take) in enumerate(axes)
    ]
    window = SliceWindow(candles, 0, int(candles.n), True)
    of = msgspec.structs.replace(spec, strategy="pullback_limit")
    took = seconds(lambda: run_slice(of, window, many, dict.fromkeys(range(len(many)), COLD)), 1)
    print(f"{len(many):,} sets of pullback_limit: {took:.2f} s")
    return took / len(many)


def beside(candles: dict[str, Any], spec: Spec, python: Path, of_one: float) -> None:
    """One set of `pullback_limit` on the first month in backtesting.py, and how long a year of it would take."""
    month = {name: column[:MONTH] for name, column in candles.items()}
    columns, strategy = candle_columns(month), build("pullback_limit", {})
    window = SliceWindow(columns, 0, MONTH, True)
    ours = run_slice(msgspec.structs.replace(spec, strategy="pullback_limit"), window, [(0, strategy)], {0: COLD})
    with tempfile.TemporaryDirectory() as folder:
        prices = Path(folder, "prices.npy")
        np.save(prices, np.array([month[name] for name in ("open", "high", "low", "close")]) / SCALE)
        command = [python, PEER, prices, *(str(getattr(strategy, name)) for name in PARAMETERS)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    found = json.loads(done.stdout)
    year = found["seconds"] * len(candles["t"]) / MONTH
    trades = f"{found['trades']:,} trades, candlemill {summary_of(ours.outcomes[0]).trades:,}"
    print(f"backtesting.py, one set on a month: {found['seconds']:.2f} s, {trades}; by year {year / of_one:,.0f} x")


COLD = b"0,0,0,0,0,0|"
MONTH = 31 * 1440
PARAMETERS = ("lookback_bars", "depth", "stop", "take", "hold")
PEER = Path(__file__).with_name("twins") / "peer_backtesting.py"

if __name__ == "__main__":
    ask = argparse.ArgumentParser(description="What orders cost, in processor time over a year of minutes.")
    ask.add_argument("--backtesting-python", type=Path, metavar="PATH", help="an interpreter that has backtesting.py")
    python = ask.parse_args().backtesting_python
    candles = synthetic.year(1, 2024, 30_000.0)
    minutes = candle_columns(candles)
    start, end = int(candles["t"][0]), int(candles["t"][-1]) + 60_000
    job = Spec(symbol="X", strategy="grid", params={}, start=start, end=end, account="units")
    runs(minutes, job)
    steps(minutes)
    of_one = sets(minutes, job)
    if python is None:
        print("backtesting.py not installed: --backtesting-python")
    else:
        beside(candles, job, python, of_one)
