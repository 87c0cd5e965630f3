"""The account `cash`: real money, shared by all symbols of a job (SEMANTICS-2 §12). Panels of §13 run here too.

One pass through time does it all: per minute the opens of all symbols, their ranges, the decisions and fills at the
close, the mark. Every flow of cash is a whole number of 10^-8, rounded against the account; equity is exact, in 10^-16.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .books import Book
from .candles import DAY, MINUTE, PPM, SCALE, Bar, cut_candles, k_bar_number, k_bars, settled_in
from .costs import ceil_div
from .figures import Curve
from .minute import Symbol, sign
from .options import Options
from .orders_strategies import make
from .panel import Universe, ends_of_panel_bars
from .units import Fill

SUMS = ("fees", "funding", "borrow", "gross_profit", "gross_loss")
COUNTS = (
    "trades",
    "wins",
    "fills",
    "exposure_bars",
    "cut_orders",
    "rejected_orders",
    "liquidations",
)


@dataclass
class Event:
    """A fill as settled: quantity traded (signed), the flow of cash, and what was cut or rejected."""

    symbol: str
    fill: Fill
    traded: int = 0
    cash: int = 0
    fee: int = 0
    cut: bool = False
    rejected: bool = False


@dataclass
class Stretch:
    """A symbol's time from flat to flat, as decided."""

    cash: int = 0
    ever: bool = False  # its quantity was ever not 0


@dataclass
class OfSymbol:
    """What one symbol made of the account."""

    trades: int = 0
    wins: int = 0
    fees: int = 0
    exposure_bars: int = 0
    cash: int = 0  # all that flowed


@dataclass
class Account:
    """Money and quantities. `price` is what each symbol is valued at now."""

    options: Options
    cash: int
    held: dict[str, int] = field(default_factory=dict)
    price: dict[str, int] = field(default_factory=dict)
    stretch: dict[str, Stretch] = field(default_factory=dict)
    sums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SUMS, 0))
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    turnover: int = 0  # 10^-16
    events: list[Event] = field(default_factory=list)
    of: dict[str, OfSymbol] = field(default_factory=lambda: defaultdict(OfSymbol))

    def equity(self) -> int:
        """Cash and positions at the present prices, exact, in 10^-16."""
        return self.cash * SCALE + sum(q * self.price[symbol] for symbol, q in self.held.items())

    def gross(self) -> int:
        """Sum of |quantity · price|, in 10^-16."""
        return sum(abs(q) * self.price[symbol] for symbol, q in self.held.items())

    def room(self) -> int:
        """What additions may cost, in 10^-8, at least 0."""
        exact = self.options.leverage * self.equity() - PPM * self.gross()
        return max(0, exact // (PPM * SCALE))

    # From exposure to quantity

    def steps(self, symbol: str, numerator: int, denominator: int) -> int:
        """A fraction of at least 0, rounded down to whole steps of the symbol."""
        step: int = self.options.for_symbol("step", symbol)
        return numerator // (denominator * step) * step

    def quantity(self, symbol: str, w: int, basis: tuple[int, int]) -> int:
        """Quantity of an exposure `w >= 0`, from the equity (10^-16) and the price at the decision."""
        equity, price = basis
        options = self.options
        if equity <= 0:
            return 0
        if options.size == "units":
            return self.steps(symbol, w * options.quantity, PPM)
        if options.size == "notional":
            money = options.capital if options.notional is None else options.notional
            return self.steps(symbol, w * money * SCALE, PPM * price)
        return self.steps(symbol, w * equity, PPM * price)

    def reduction(self, symbol: str, fill: Fill) -> int:
        """How much of the position a reducing fill ends."""
        held = abs(self.held.get(symbol, 0))
        if fill.after == 0:
            return held
        if fill.part:
            return self.steps(symbol, held * fill.part, PPM)
        if fill.kind == "target":
            return max(0, held - self.quantity(symbol, abs(fill.after), fill.basis))
        return min(held, self.quantity(symbol, abs(fill.before) - abs(fill.after), fill.basis))

    def addition(self, symbol: str, event: Event) -> int:
        """How much an adding fill asks for, before any cut; counts what a minimum or the rounding rejects."""
        fill, held = event.fill, abs(self.held.get(symbol, 0))
        if fill.kind == "target":
            added = self.quantity(symbol, abs(fill.after), fill.basis) - held
            if added < 0:
                return 0  # the quantities say otherwise: nothing is traded or counted
        else:
            added = self.quantity(symbol, abs(fill.after) - abs(fill.before), fill.basis)
        if fill.rest:
            return added
        least = self.options.for_symbol("min_quantity", symbol)
        least_notional = self.options.for_symbol("min_notional", symbol)
        if added == 0 or added < least or added * fill.basis[1] < least_notional * SCALE:
            self.reject(event)
            return 0
        return added

    def reject(self, event: Event) -> None:
        event.rejected = True
        self.counts["rejected_orders"] += 1

    # Flows of cash

    @staticmethod
    def flows(traded: int, price: int, rate: int) -> tuple[int, int]:
        """(value paid or received as a flow of cash, fee) of a trade, each rounded against the account."""
        flow = -(traded * price) // SCALE  # minus the cost rounded up, or the proceeds rounded down
        return flow, ceil_div(abs(flow) * rate, PPM)

    def pay(self, symbol: str, amount: int) -> None:
        self.cash += amount
        self.of[symbol].cash += amount
        self.stretch[symbol].cash += amount

    def trade(self, event: Event, traded: int) -> None:
        """Settle a quantity (signed) of a fill."""
        symbol, fill = event.symbol, event.fill
        if traded == 0:
            return
        flow, fee = self.flows(traded, fill.price, fill.rate)
        event.traded, event.cash, event.fee = traded, flow - fee, fee
        self.pay(symbol, flow - fee)
        self.held[symbol] = self.held.get(symbol, 0) + traded
        self.stretch[symbol].ever = True
        self.sums["fees"] += fee
        self.of[symbol].fees += fee
        self.counts["fills"] += 1
        self.turnover += abs(traded) * fill.price

    def end_stretch(self, symbol: str) -> None:
        """Count a trade that has come to its end."""
        stretch = self.stretch.pop(symbol)
        if stretch.ever:
            self.counts["trades"] += 1
            self.counts["wins"] += stretch.cash > 0
            self.of[symbol].trades += 1
            self.of[symbol].wins += stretch.cash > 0
            self.sums["gross_profit" if stretch.cash > 0 else "gross_loss"] += abs(stretch.cash)

    def charge(self, symbol: str, name: str, close: int, rate: int) -> None:
        """Funding or borrow at a rate times 10^8 on the last close: the side that pays pays it rounded up."""
        held = self.held.get(symbol, 0)
        if held:
            amount = ceil_div((held if name == "funding" else abs(held)) * close * rate, SCALE * SCALE)
            self.sums[name] += amount
            self.pay(symbol, -amount)

    # One stage of one minute

    def settle(self, by_symbol: dict[str, list[Fill]]) -> None:
        """The fills of one stage in rounds: in each what reduces, then what adds, within the room (shared cash)."""
        rounds = max((len(fills) for fills in by_symbol.values()), default=0)
        for number in range(rounds):
            events = [Event(s, fills[number]) for s, fills in sorted(by_symbol.items()) if number < len(fills)]
            self.events += events
            for event in events:
                self.price[event.symbol] = event.fill.raw
            adding = [event for event in events if abs(event.fill.after) > abs(event.fill.before)]
            for event in events:
                if event not in adding:
                    self.trade(event, -sign(event.fill.before) * self.reduction(event.symbol, event.fill))
                    if event.fill.after == 0:
                        self.end_stretch(event.symbol)
            self.add(adding)

    def add(self, events: list[Event]) -> None:
        """Additions of one round, cut together to the room that there is."""
        requested = []
        for event in events:
            if event.fill.before == 0:
                self.stretch[event.symbol] = Stretch()
            added = self.addition(event.symbol, event)
            if added:
                requested.append((event, added))
        need = 0
        for event, added in requested:
            flow, fee = self.flows(sign(event.fill.after) * added, event.fill.price, event.fill.rate)
            need += abs(flow) + fee
        room = self.room()
        for event, added in requested:
            given = added
            if need > room:
                given = self.steps(event.symbol, added * room // need, 1)
                if (added - given) * 100 > added:
                    event.cut = True
                    self.counts["cut_orders"] += 1
                if given == 0:
                    self.reject(event)
            self.trade(event, sign(event.fill.after) * given)


class Run:
    """One backtest of several symbols on one account, minute by minute."""

    def __init__(self, candles: Mapping[str, list[Bar]], strategy: Any, options: Options) -> None:
        self.options = options
        self.names = sorted(candles)
        self.candles = {s: cut_candles(candles[s], options.start, options.end) for s in self.names}
        self.minutes = sorted({bar.t for bars in self.candles.values() for bar in bars})
        self.at = {s: {bar.t: bar for bar in bars} for s, bars in self.candles.items()}
        self.account = Account(options, options.capital)
        self.symbols = {s: Symbol(options) for s in self.names}
        groups = {s: k_bars(self.candles[s], options.timeframe) for s in self.names}
        #: k-bars by the open time of their last minute
        self.ending = {s: {self.candles[s][g.last].t: g.bar for g in groups[s]} for s in self.names}
        self.panel_ends = ends_of_panel_bars(self.minutes, options.timeframe)
        self.panel = make(strategy, []) if is_panel(strategy) else None
        self.actors = {} if self.panel else {s: make(strategy, [g.bar for g in groups[s]]) for s in self.names}
        self.seen: dict[str, list[Bar]] = {s: [] for s in self.names}
        self.closed: dict[str, Bar] = {}  # k-bars that have closed since the last instant of the panel
        self.last: dict[str, Bar] = {}  # each symbol's last bar
        self.funding = {s: settled_in(self.candles[s], options.for_symbol("funding", s)) for s in self.names}
        self.borrow = {s: settled_in(self.candles[s], self.borrow_instants(s)) for s in self.names}
        self.universe = Universe(self.candles, options.universe) if options.universe else None
        self.curve = Curve()
        self.ruined: int | None = None

    def borrow_instants(self, symbol: str) -> list[tuple[int, int]]:
        """(instant, rate times 10^8): each UTC midnight at the daily rate, or the table's own instants."""
        if isinstance(self.options.borrow, Mapping):
            return list(self.options.borrow.get(symbol, ()))
        if not self.options.borrow or not self.candles[symbol]:
            return []
        first, last = self.candles[symbol][0].t, self.candles[symbol][-1].t
        return [(day * DAY, self.options.borrow * (SCALE // PPM)) for day in range(first // DAY + 1, last // DAY + 1)]

    def minute(self, t: int) -> None:
        """One minute of all symbols that have a candle in it."""
        account = self.account
        present = {s: self.at[s][t] for s in self.names if t in self.at[s]}
        if self.ruined is None:
            for s in present:
                self.charge(s, t)
            self.stage({s: self.ended(s, t) for s in self.names if s not in present})
            self.stage({s: self.symbols[s].at_open(bar) for s, bar in present.items()})
            self.stage({s: self.symbols[s].in_range(bar) for s, bar in present.items()})
        for s, bar in present.items():
            self.last[s] = bar
        for s, bar in self.last.items():
            account.price[s] = bar.close
        if self.ruined is None:
            self.stage(self.decide(t, present))
        self.mark(t)

    def stage(self, fills: dict[str, list[Fill]]) -> None:
        self.account.settle({s: some for s, some in fills.items() if some})

    def charge(self, symbol: str, t: int) -> None:
        """Funding and borrow of a bar, on the close before it, before its open."""
        held = self.account.held.get(symbol, 0)
        if held and t in self.funding[symbol]:
            self.account.charge(symbol, "funding", self.last[symbol].close, self.funding[symbol][t])
        if held < 0 and t in self.borrow[symbol]:
            self.account.charge(symbol, "borrow", self.last[symbol].close, self.borrow[symbol][t])

    def ended(self, symbol: str, t: int) -> list[Fill]:
        """The close, at its last close, of a position in a symbol without a candle for `delist_after` (§13)."""
        after = self.options.delist_after
        if after is None or symbol not in self.last or t - self.last[symbol].t < after:
            return []
        self.symbols[symbol].now = t
        return self.symbols[symbol].end("open", "delisted", self.last[symbol].close)

    def decide(self, t: int, present: dict[str, Bar]) -> dict[str, list[Fill]]:
        """Books stated at the close of this minute; under `fill = close` their fills."""
        for s in present:
            if t in self.ending[s]:
                self.seen[s].append(self.ending[s][t])
                self.closed[s] = self.ending[s][t]
        if self.panel is None:
            deciding = [s for s in present if t in self.ending[s]]
            books = {s: self.actors[s].decide(self.symbols[s].view(self.seen[s])) for s in deciding}
        elif t in self.panel_ends:
            views = {s: self.symbols[s].view(self.seen[s]) for s in sorted(self.closed)}
            if self.universe:
                self.panel.universe = self.universe.members(t + MINUTE)
            books = self.panel.decide_all(k_bar_number(t, self.options.timeframe), views)
            books = {s: self.allowed(s, book) for s, book in books.items()}
            self.closed = {}
        else:
            return {}
        equity = self.account.equity()
        fills = {}
        for s, book in books.items():
            self.symbols[s].now = t
            fills[s] = self.symbols[s].state_book(book, (equity, self.last[s].close), self.last[s].close)
        return fills

    def allowed(self, symbol: str, book: Book) -> Book:
        """A book as the universe allows it: outside of it each target is 0 (§13)."""
        if self.universe and symbol not in self.panel.universe and book.target is not None:
            return replace(book, target=0)
        return book

    def mark(self, t: int) -> None:
        """Equity at the close; an account at 0 or less is ruined: closed at these closes, without costs."""
        account = self.account
        account.counts["exposure_bars"] += any(account.held.values())
        for s, held in account.held.items():
            account.of[s].exposure_bars += held != 0
        if self.ruined is None and account.equity() <= 0:
            self.ruined = t
            for s in self.names:
                held = account.held.get(s, 0)
                if held:
                    account.pay(s, account.flows(-held, self.last[s].close, 0)[0])
                    account.held[s] = 0
                if s in account.stretch:
                    account.end_stretch(s)
        self.curve.mark(t, account.equity() - self.options.capital * SCALE)

    def range_minutes(self) -> int:
        """Minutes of the range; without a start or end, from the first to the last with a candle."""
        if not self.minutes:
            return 0
        start = self.minutes[0] if self.options.start is None else self.options.start
        end = self.minutes[-1] + MINUTE if self.options.end is None else self.options.end
        return (end - start) // MINUTE

    def by_symbol(self) -> dict[str, dict[str, int]]:
        """Counts of each symbol, and its profit: all cash that flowed and what is held at its last close."""
        found = {}
        for s in self.names:
            own = asdict(self.account.of[s])
            mark = self.account.held.get(s, 0) * self.account.price.get(s, 0)
            own["profit"] = (own.pop("cash") * SCALE + mark) // SCALE
            found[s] = own
        return found

    def result(self) -> dict[str, Any]:
        account = self.account
        open_symbols = {s: q for s, q in account.held.items() if q}
        alone = len(self.names) == 1 and self.panel is None
        open_position = sign(sum(open_symbols.values())) if alone else len(open_symbols)
        return {
            "symbols": self.names,
            "by_symbol": self.by_symbol(),
            "bars": len(self.minutes),
            "missing_minutes": self.range_minutes() - len(self.minutes),
            **self.curve.figures(SCALE),
            **account.counts,
            **account.sums,
            "turnover": account.turnover // SCALE,
            "open_position": open_position,
            "ambiguous_minutes": sum(len(symbol.ambiguous) for symbol in self.symbols.values()),
            "ruined": self.ruined,
            "cash": account.cash,
            "positions": open_symbols,
            "events": account.events,
            "ambiguous": {s: symbol.ambiguous for s, symbol in self.symbols.items()},
            "equity": self.curve.marks,  # (open time, equity less the capital, in 10^-16)
        }


def is_panel(strategy: Any) -> bool:
    """Whether a strategy sees all symbols at once."""
    return hasattr(make(strategy, []), "decide_all")


def run_cash(
    candles: Mapping[str, list[Bar]], strategy: Any, options: Mapping[str, Any] | Options | None = None
) -> dict[str, Any]:
    """Figures of symbols that share one account of cash; `events` and `equity` show every step.

    `strategy` is a name, (name, parameters), a list of books or desired positions (the same for each symbol), or a
    function without arguments that makes a strategy object.
    """
    run = Run(candles, strategy, Options.of(options))
    for t in run.minutes:
        run.minute(t)
    return run.result()
