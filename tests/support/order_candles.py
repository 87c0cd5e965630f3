"""What tests of orders share: candles from rows of prices, scripted and random books, fills as readable rows."""

import random
from typing import Any

import numpy as np
from candlemill.engine.book import Book, Order
from candlemill.engine.books import PositionView
from candlemill.engine.candles import MINUTE_MS, CandleColumns
from candlemill.engine.fill_tape import FillTape
from candlemill.engine.position import ExecutionRules
from candlemill.strategies import Bar
from candlemill.strategies.orders import OrderStrategy, decide_fills

WHAT = ("target", "order", "stop", "take", "liquidation")
STAGE = ("open", "range", "close")
Prices = tuple[int, int, int, int]  # open, high, low, close
FULL = 1_000_000


def candle_columns(rows: list[Prices], minutes: list[int] | None = None) -> CandleColumns:
    """Candles at `minutes` since 1970, from 0 on without."""
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4)
    t = np.array(minutes if minutes is not None else range(len(rows)), dtype=np.int64) * MINUTE_MS
    return CandleColumns([t], [columns[:, 0]], [columns[:, 1]], [columns[:, 2]], [columns[:, 3]], [])


def fills_of(fills: FillTape, base: int = 0) -> list[tuple[Any, ...]]:
    """All columns of each fill, the key by its name and the minutes since 1970."""
    columns = {name: column.tolist() for name, column in fills.columns().items()}
    columns["key"] = [fills.keys[k] if k >= 0 else None for k in columns["key"]]
    return list(zip(*columns.values(), strict=True))


def short_fills(fills: FillTape) -> list[tuple[Any, ...]]:
    """(bar's minute, stage, key or what, exposure before, after, price) of each fill."""
    c = {name: column.tolist() for name, column in fills.columns().items()}
    return [
        (
            c["minute"][k] // MINUTE_MS,
            STAGE[c["stage"][k]],
            fills.keys[c["key"][k]] if c["key"][k] >= 0 else WHAT[c["what"][k]],
            c["before"][k],
            c["after"][k],
            c["price"][k],
        )
        for k in range(fills.n)
    ]


class Scripted(OrderStrategy, frozen=True, dict=True):
    """States the books of a test's list one after the other, then none; notes what it saw."""

    def start(self) -> Any:
        return (0,)

    def step(self, state: tuple[int], bar: Bar, position: PositionView) -> tuple[Book, Any]:
        books = self.__dict__["script"]
        self.__dict__.setdefault("seen", []).append(position)
        return books[state[0]] if state[0] < len(books) else Book(), (state[0] + 1,)


def run_books(
    rows: list[Prices], books: list[Book], rules: ExecutionRules | None = None, timeframe: int = 1
) -> tuple[FillTape, list[PositionView]]:
    """The fills of `books`, one after each bar, and the positions that were seen."""
    strategy = Scripted()
    strategy.__dict__["script"] = books
    fills, _ = decide_fills(
        candle_columns(rows), timeframe, strategy, rules or ExecutionRules(0, maker_fee=0), b"", 0, len(rows)
    )
    return fills, strategy.__dict__["seen"]


class RandomBooks(OrderStrategy, frozen=True):
    """Books that depend on the seed, the bar's time and close, and the position: near the market, with many ties."""

    seed: int = 0
    shrink: int = 1  # prices are whole numbers about this far apart

    def start(self) -> Any:
        return (0, 0)

    def step(self, state: tuple[int, int], bar: Bar, position: PositionView) -> tuple[Book, Any]:
        count, fills = state[0] + 1, (state[1] + len(position.fills)) % 1000
        chance = random.Random(f"{self.seed} {bar.t} {position.side} {position.held} {fills} {position.best}")
        return self.book(chance, bar.close), (count, fills)

    def book(self, chance: random.Random, close: int) -> Book:
        def near() -> int:
            return max(1, close + chance.randint(-4, 4) * self.shrink)

        def level() -> int:
            return near() if chance.random() < 0.4 else 0

        orders = []
        for k in range(chance.choice([0, 0, 1, 2, 3, 4, 16])):
            amount = {"size": chance.choice([FULL, FULL // 2, 1, 333_333])}
            if chance.random() < 0.3:
                amount = {"part": chance.choice([FULL, FULL // 2, 1, 333_333])}
            orders.append(
                Order(
                    f"k{k}" if chance.random() < 0.9 else f"x{k}",
                    chance.choice([1, -1]),
                    chance.choice(["limit", "stop"]),
                    near(),
                    **amount,
                    oco=chance.choice([0, 0, 1, 2]),
                    stop=level(),
                    take=level(),
                )
            )
        target = chance.choice([None, None, None, 0, FULL, -FULL, FULL // 2, 7])
        return Book(target, orders, level(), level())


def random_rows(chance: random.Random, count: int, start: int = 50, shrink: int = 1) -> tuple[list[Prices], list[int]]:
    """Candles that move by a few steps, and their minutes, some of which are missing."""
    rows, minutes, close, minute = [], [], start * shrink, 0
    for _ in range(count):
        open = max(1, close + chance.choice([0, 0, 0, 1, -1, 3, -3]) * shrink)
        close = max(1, open + chance.randint(-3, 3) * shrink)
        high = max(open, close) + chance.choice([0, 0, 1, 3]) * shrink
        low = max(1, min(open, close) - chance.choice([0, 0, 1, 3]) * shrink)
        rows.append((open, high, low, close))
        minute += chance.choice([1, 1, 1, 1, 1, 7])
        minutes.append(minute)
    return rows, minutes
