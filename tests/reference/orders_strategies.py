"""Reference strategies with books (SEMANTICS-2 §14), and one symbol decided alone.

A strategy of one symbol has `decide(view) -> Book`; one of a panel has `decide_all(number, views) -> {symbol: Book}`,
`number` being that of the k-bar (`candles.k_bar_number`). An object lives through one run of one symbol (or panel).
"""

from typing import Any

from .books import KEEP, Book, Order, View
from .candles import PPM, Bar, k_bars
from .desired import STRATEGIES, desired
from .minute import Symbol
from .options import Options
from .panel_strategies import InverseVolatility, PairReversion, XsMomentum
from .units import Decided


def d(x: int, rate: int) -> int:
    """`x · rate // 10^6`."""
    return x * rate // PPM


def limit(key: str, side: int, price: int, **rest: int) -> tuple[Order, ...]:
    """A limit order as a tuple; none where the price is not above 0."""
    return (Order(key, side, "limit", price, **rest),) if price > 0 else ()


class Listed:
    """Books from a list, one for each decision bar; `keep` without orders after its end."""

    def __init__(self, books: list[Book]) -> None:
        self.books = books

    def decide(self, view: View) -> Book:
        return self.books[view.i] if view.i < len(self.books) else KEEP


class PullbackLimit:
    """In an uptrend buy `depth` below the close; leave at the bracket or after `hold` minutes."""

    def __init__(
        self, lookback: int = 240, depth: int = 3000, stop: int = 10_000, take: int = 10_000, hold: int = 1440
    ) -> None:
        self.lookback, self.depth, self.stop, self.take, self.hold = lookback, depth, stop, take, hold

    def decide(self, view: View) -> Book:
        if view.side:
            entry = view.entry
            target = 0 if view.held >= self.hold else None
            return Book(target, (), entry - d(entry, self.stop), entry + d(entry, self.take))
        i, close = view.i, view.bars[-1].close
        if i < self.lookback or view.filled or close <= view.bars[i - self.lookback].close:
            return KEEP
        price = close - d(close, self.depth)
        stop, take = price - d(price, self.stop), price + d(price, self.take)
        return Book(None, limit("entry", 1, price, size=PPM, stop=stop, take=take))


class BreakoutStop:
    """A stop order above and one below the range of the last `entry` bars; the first filled cancels the other."""

    def __init__(self, entry: int = 480, risk: int = 10_000) -> None:
        self.entry, self.risk = entry, risk

    def decide(self, view: View) -> Book:
        if view.side:
            entry, away = view.entry, d(view.entry, self.risk)
            return Book(None, (), entry - view.side * away, entry + view.side * 2 * away)
        if view.i < self.entry:
            return KEEP
        last = view.bars[-self.entry :]
        high, low = max(bar.high for bar in last), min(bar.low for bar in last)
        up, down = d(high, self.risk), d(low, self.risk)
        return Book(
            None,
            (
                Order("up", 1, "stop", high, size=PPM, oco=1, stop=high - up, take=high + 2 * up),
                Order("down", -1, "stop", low, size=PPM, oco=1, stop=low + down, take=low - 2 * down),
            ),
        )


class Grid:
    """Limit buys in steps below the close, one limit sell of all a step above the entry."""

    def __init__(self, levels: int = 4, spacing: int = 5000, size: int = 250_000) -> None:
        self.levels, self.spacing, self.size = levels, spacing, size
        self.open: dict[str, int] = {}  # of the last flat decision, not filled since

    def decide(self, view: View) -> Book:
        close = view.bars[-1].close
        if view.side:
            for key, _ in view.filled:
                self.open.pop(key, None)
            out = limit("out", -1, view.entry + d(view.entry, self.spacing), part=PPM)
        else:
            self.open = {f"buy{j}": close - d(close, self.spacing * j) for j in range(1, self.levels + 1)}
            out = ()
        buys = [order for key, price in self.open.items() for order in limit(key, 1, price, size=self.size)]
        return Book(None, (*buys, *out))


NAMED: dict[str, Any] = {
    "pullback_limit": PullbackLimit,
    "breakout_stop": BreakoutStop,
    "grid": Grid,
    "xs_momentum": XsMomentum,
    "pair_reversion": PairReversion,
    "inverse_volatility": InverseVolatility,
}


def make(strategy: Any, bars: list[Bar]) -> Any:
    """A fresh strategy object for one run over decision bars.

    From a name, (name, parameters), a list of books or of desired positions, or a function without arguments that
    makes one. A desired position is a book with `target = desired · 10^6` and nothing else (§9).
    """
    name, params = strategy if isinstance(strategy, tuple) else (strategy, {})
    if callable(name):
        return name(**params)
    if hasattr(name, "decide"):
        return name
    if isinstance(name, list):
        return Listed([item if isinstance(item, Book) else Book(item * PPM) for item in name])
    if name in STRATEGIES or name == "schedule":
        return Listed([Book(value * PPM) for value in desired(bars, name, params)])
    return NAMED[name](**params)


def decide_alone(bars: list[Bar], strategy: Any, options: Options) -> Decided:
    """Fills of one symbol's strategy with books, from prices only."""
    groups = k_bars(bars, options.timeframe)
    ending = {group.last: group.bar for group in groups}
    actor = make(strategy, [group.bar for group in groups])
    symbol, seen, fills = Symbol(options), [], []
    for i, bar in enumerate(bars):
        now = symbol.at_open(bar) + symbol.in_range(bar)
        if i in ending:
            seen.append(ending[i])
            now += symbol.state_book(actor.decide(symbol.view(seen)), None, bar.close)
        fills.append(now)
    return Decided(fills, symbol.ambiguous)
