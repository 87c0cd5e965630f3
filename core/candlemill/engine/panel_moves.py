"""Changes of the quantities that an account of several symbols holds, symbol by symbol, and what follows from them."""

from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.account_events import ENDING, zeros
from candlemill.engine.candles import MINUTE_MS, CandleColumns, Column, native, view
from candlemill.engine.mark import PanelMarks
from candlemill.engine.quotes import Quotes
from candlemill.engine.signals import first_at_least


class PanelMoves:
    """Settled events of a slice that change a quantity. `held` are the quantities of all symbols before them.

    The columns are those of the events in order: `at` is the number of an event's minute among the slice's minutes.
    Those of symbol `k` are `edge[k]` to `edge[k + 1] - 1`.
    """

    def __init__(self, symbol: Column, what: Column, minute: Column, moved: Column, at: Column, held: Column) -> None:
        symbols, changes = native(symbol), native(moved)
        n: i64 = len(changes)
        self.held: vec[i64] = native(held)
        self.edge: vec[i64] = zeros(len(held) + 1)
        place: vec[i64] = zeros(n)
        i: i64 = 0
        while i < n:
            if changes[i] != 0:
                self.edge[symbols[i] + 1] += 1
            i += 1
        next: vec[i64] = zeros(len(held))
        k: i64 = 0
        while k < len(held):
            next[k] = self.edge[k]
            self.edge[k + 1] += self.edge[k]
            k += 1
        i = 0
        while i < n:
            if changes[i] != 0:
                k = symbols[i]
                place[next[k]] = i
                next[k] += 1
            i += 1
        chosen = view(place)[: int(self.edge[len(held)])]
        self.moved: vec[i64] = native(moved[chosen])
        self.minute: vec[i64] = native(minute[chosen])
        self.at: vec[i64] = native(at[chosen])
        self.is_ending: vec[i64] = native(what[chosen] == ENDING)

    def mark(self, panel: PanelMarks, quotes: list[Quotes]) -> None:
        """Add all symbols to the marks of the slice; each has its quotes."""
        bars: vec[i64] = zeros(len(self.moved) + 1)
        units: vec[i64] = zeros(len(self.moved) + 1)
        for k, one in enumerate(quotes):
            held: i64 = self.held[k]
            e: i64 = self.edge[k]
            end: i64 = self.edge[k + 1]
            if held == 0 and e == end:
                continue
            last: i64 = 0
            bars[0], units[0] = 0, held
            while e < end:
                held += self.moved[e]
                if self.at[e] != bars[last]:
                    last += 1
                    bars[last] = self.at[e]
                units[last] = held
                e += 1
            panel.hold(one, bars, units, last + 1)

    def minutes_held(self, minutes: i64) -> Column:
        """Return in how many of the slice's `minutes` each symbol is held; what a mark ends is held at that mark."""
        out: vec[i64] = zeros(len(self.held))
        k: i64 = 0
        while k < len(self.held):
            held: i64 = self.held[k]
            since: i64 = 0
            e: i64 = self.edge[k]
            while e < self.edge[k + 1]:
                at: i64 = self.at[e] + self.is_ending[e]
                if held != 0:
                    out[k] += at - since
                held += self.moved[e]
                since = at
                e += 1
            if held != 0:
                out[k] += minutes - since
            k += 1
        return view(out)

    def gap_profit(self, k: i64, candles: CandleColumns, lo: i64, hi: i64, time: i64, close: i64) -> int:
        """Return a symbol's profit over gaps before bars `lo` to `hi - 1`, in 10^-16.

        `time` (-1: none) and `close` are those of its last candle before the slice, for candles that begin with it.
        """
        gaps, t = candles.gaps, candles.t
        total = 0
        held: i64 = self.held[k]
        e: i64 = self.edge[k]
        if lo == 0 and hi != 0 and time >= 0 and t[0] - time > MINUTE_MS:
            e, held = self.held_before(k, e, held, t[0])
            total += int(held) * int(candles.open[0] - close)
        g: i64 = first_at_least(gaps, max(lo, 1))
        while g < len(gaps) and gaps[g] < hi:
            bar: i64 = gaps[g]
            e, held = self.held_before(k, e, held, t[bar])
            total += int(held) * int(candles.open[bar] - candles.close[bar - 1])
            g += 1
        return total

    def held_before(self, k: i64, e: i64, held: i64, minute: i64) -> tuple[i64, i64]:
        """Go on from move `e` to the first one of `minute` (ms) or later; return its number and the quantity then."""
        while e < self.edge[k + 1] and self.minute[e] < minute:
            held += self.moved[e]
            e += 1
        return e, held
