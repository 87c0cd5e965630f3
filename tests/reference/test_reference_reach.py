"""What the random books and candles, on which engine and reference are compared, reach: each rule changes outcomes.

A rule that no comparison needs would be compared in name only. So each is taken away, on the same candles, and the
reference's fills must become others. README.md lists which test compares what.
"""

import dataclasses
import itertools
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from order_candles import RandomBooks, random_rows
from order_jobs import ordered

from reference.books import Book, Order, View
from reference.candles import MINUTE, SCALE, Bar
from reference.units import run_units

SEEDS, BARS, FEWEST = 12, 80, 4
COSTS = {"fee": 1000, "maker_fee": -200, "slippage": 5000}


def orders(change: Callable[[Order], Order]) -> Callable[[Book], Book]:
    return lambda book: dataclasses.replace(book, orders=tuple(map(change, book.orders)))


def swapped(order: Order) -> Order:
    return dataclasses.replace(order, kind="stop" if order.kind == "limit" else "limit")


RULES: dict[str, Callable[[Book], Book]] = {
    "oco": orders(lambda order: dataclasses.replace(order, oco=None)),
    "reduce-only parts": orders(lambda order: dataclasses.replace(order, size=order.size or 10**6, part=0)),
    "brackets": orders(lambda order: dataclasses.replace(order, stop=0, take=0)),
    "limit or stop": orders(swapped),
    "protective levels": lambda book: dataclasses.replace(book, stop=0, take=0),
    "targets": lambda book: dataclasses.replace(book, target=None),
    "the order of the book": lambda book: dataclasses.replace(book, orders=book.orders[::-1]),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "both paths": {"path": "best"},
    "fill": {"fill": "close"},
    "limit_through": {"limit_through": 2 * SCALE},
    "costs": {"maker_fee": 0},
    "stop_loss": {"stop_loss": 30_000},
    "take_profit": {"take_profit": 30_000},
    "trailing_stop": {"trailing_stop": 30_000},
    "timeframe": {"timeframe": 3},
}


class Stated:
    """States listed books, one after each decision bar."""

    def __init__(self, books: list[Book]) -> None:
        self.books = iter(books)

    def decide(self, view: View) -> Book:
        return next(self.books)


def outcome(seed: int, rule: Callable[[Book], Book] = lambda book: book, **options: Any) -> dict[str, Any]:
    chance = random.Random(seed)
    rows, minutes = random_rows(chance, BARS, shrink=SCALE)
    bars = [Bar(minute * MINUTE, *prices, 0) for minute, prices in zip(minutes, rows, strict=True)]
    books = [ordered(RandomBooks(shrink=SCALE).book(chance, bar.close)) for bar in bars]
    books = [rule(books[k - k % 3]) for k in range(BARS)]  # each for three bars, so that orders rest
    return run_units(bars, lambda: Stated(books), COSTS | {"quantity": 10**8} | options)


@cache
def plain(seed: int) -> dict[str, Any]:
    return outcome(seed)


def test_orders_rest() -> None:
    """With other keys in each book none does, and limits that the open is beyond take there."""
    number = itertools.count()

    def renamed(book: Book) -> Book:
        return dataclasses.replace(
            book, orders=tuple(dataclasses.replace(order, key=str(next(number))) for order in book.orders)
        )

    changed = [plain(seed)["total_pnl"] != outcome(seed, renamed)["total_pnl"] for seed in range(SEEDS)]
    assert sum(changed) >= FEWEST


@pytest.mark.parametrize("name", [*RULES, *OPTIONS])
def test_each_rule_decides_some_outcomes(name: str) -> None:
    changed = 0
    for seed in range(SEEDS):
        other = outcome(seed, *([RULES[name]] if name in RULES else []), **OPTIONS.get(name, {}))
        changed += any(plain(seed)[figure] != other[figure] for figure in ("total_pnl", "fills"))
    assert changed >= FEWEST


def test_ambiguous_minutes_are_reached() -> None:
    assert sum(plain(seed)["ambiguous_bars"] > 0 for seed in range(SEEDS)) >= FEWEST
