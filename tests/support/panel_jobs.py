"""Random candles of many symbols, and a strategy of a panel that states anything, in the product's words and the
reference's."""

import random
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from candlemill.strategies import KEEP, REGISTERED, Panel, PanelStrategy
from reference.books import KEEP as KEEPS
from reference.books import Book, View
from reference.candles import MINUTE, Bar

NAMES = ("AAA", "BBB", "CCC", "DDD", "EEE")
TARGETS = (KEEP, 0, 250_000, -250_000, 1_000_000, -1_000_000, 333_333, -1_500_000)
GAPS = (1, 1, 1, 1, 1, 1, 2, 3, 70, 400, 1_440)
FIRST_DAY = 1_609_459_200_000  # 2021-01-01
Candles = dict[str, list[Bar]]


def random_candles(rng: random.Random, count: int, length: int) -> Candles:
    """Symbols on one clock of `length` minutes with gaps; each lacks some, and some begin late, end or come back."""
    minutes = [1_400]
    while len(minutes) < length:
        minutes.append(minutes[-1] + rng.choice(GAPS))
    found = {}
    for name in NAMES[:count]:
        tick, wild, share = 10 ** rng.randint(0, 9), rng.choice((2, 8, 30)), rng.choice((1.0, 1.0, 0.7))
        absent = range(*sorted(rng.choices(range(-40, 130), k=2)))  # of the clock's minutes
        price, bars = rng.randint(5, 100), []
        for number, minute in enumerate(minutes):
            if number and (number in absent or rng.random() > share):
                continue
            opened = max(1, price + (rng.randint(-wild, wild) if rng.random() < 0.3 else 0))
            price = min(300, max(1, opened + rng.randint(-wild, wild)))
            high, low = max(opened, price) + rng.choice((0, wild)), max(1, min(opened, price) - rng.choice((0, wild)))
            prices = (one * tick for one in (opened, high, low, price))
            bars.append(Bar(FIRST_DAY + minute * MINUTE, *prices, rng.randint(0, 10**9)))
        found[name] = bars
    return found


def stated(seed: int, number: int, close: int) -> int:
    """A target for a symbol in a k-bar; each is stated for about three bars."""
    return TARGETS[zlib.crc32(f"{seed} {number // 3} {close}".encode()) % len(TARGETS)]


class Anything(PanelStrategy, frozen=True):
    """Targets that follow from the close alone, so that names do not matter."""

    seed: int = 0

    def lookback(self) -> int:
        return 0

    def positions(self, panel: Panel) -> Any:
        rows = zip(panel.numbers.tolist(), panel.close.tolist(), strict=True)
        return [[stated(self.seed, number, close) for close in closes] for number, closes in rows]


class SlowAnything:
    """The same as the reference takes it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.universe: set[str] | None = None

    def decide_all(self, number: int, views: Mapping[str, View]) -> dict[str, Book]:
        found = {name: stated(self.seed, number, view.bars[-1].close) for name, view in views.items()}
        return {name: KEEPS if target == KEEP else Book(target) for name, target in found.items()}


@contextmanager
def known() -> Iterator[None]:
    """Have the strategy registered."""
    REGISTERED["anything"] = Anything
    try:
        yield
    finally:
        del REGISTERED["anything"]
