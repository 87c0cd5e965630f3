"""The account `cash` once more, minute by minute and with fractions: slow and obvious. SEMANTICS-2, section 12.

Amounts are scaled by 10^8 and exact; nothing here is shared with the engine.
"""

from fractions import Fraction
from math import ceil, floor

SCALE = 10**8
MILLION = 10**6
DAY = 86_400_000


class CashAccount:
    """One account while its minutes go by.

    `closes` are, by symbol, minute -> close; `fills` by symbol the rows of a fill tape as dictionaries; `funding` by
    symbol instant -> rate (times 10^8). Lots are (step, min_quantity, min_notional) by symbol.
    """

    def __init__(self, closes, fills, lots, *, capital, size, quantity, notional, leverage, borrow=0, funding=None):
        self.closes, self.fills, self.lots, self.funding = closes, fills, lots, funding or {}
        self.size, self.quantity_given, self.notional = size, quantity, notional
        self.leverage, self.borrow = leverage, borrow
        self.cash = capital
        self.held = dict.fromkeys(closes, 0)
        self.last = dict.fromkeys(closes, 0)  # close
        self.latest = {}  # raw price of the latest fill in this minute
        self.made = {}  # (minute) -> equity
        self.made_price = {}  # (symbol, minute) -> close
        self.stretch = {}  # symbol -> [cash, ever held]
        self.equity, self.cut, self.rejected, self.profits = {}, 0, 0, []
        self.fees = self.funded = self.borrowed = self.turnover = self.traded = self.exposure = 0
        self.ruin = None

    def run(self):
        minutes = sorted(set().union(*self.closes.values()))
        for minute in minutes:
            if self.ruin is None:
                self.flows(minute)
                self.latest = {}
                self.stage(minute, 0)
                self.stage(minute, 1)
            for symbol, closes in self.closes.items():
                self.last[symbol] = closes.get(minute, self.last[symbol])
                self.made_price[symbol, minute] = self.last[symbol]
            self.made[minute] = self.value(self.last)
            self.latest = {}
            if self.ruin is None:
                self.stage(minute, 2)
            self.equity[minute] = self.value(self.last)
            self.exposure += any(self.held.values())
            if self.ruin is None and self.equity[minute] <= 0:
                self.end(minute)
        return self

    def value(self, prices):
        return self.cash + sum(Fraction(held * prices[symbol], SCALE) for symbol, held in self.held.items())

    def flows(self, minute):
        """Funding, and borrow at midnights, since the symbol's last candle, when its next one opens."""
        for symbol, closes in self.closes.items():
            earlier = max((t for t in closes if t < minute), default=None)
            held, close = self.held[symbol], self.last[symbol]
            if minute not in closes or earlier is None or not held:
                continue
            rates = [rate for at, rate in self.funding.get(symbol, {}).items() if earlier < at <= minute]
            funding = ceil(Fraction(held * close * sum(rates), SCALE * SCALE))
            midnights = minute // DAY - earlier // DAY
            borrow = ceil(Fraction(max(0, -held) * close * self.borrow * midnights, SCALE * MILLION))
            self.pay(symbol, -funding - borrow)
            self.funded += funding
            self.borrowed += borrow

    def pay(self, symbol, flow):
        self.cash += flow
        self.stretch[symbol][0] += flow

    def stage(self, minute, stage):
        waiting = {
            symbol: [row for row in rows if row["minute"] == minute and row["stage"] == stage]
            for symbol, rows in self.fills.items()
        }
        while any(waiting.values()):
            turn = {symbol: rows.pop(0) for symbol, rows in waiting.items() if rows}
            for symbol, row in turn.items():
                self.latest[symbol] = row["raw"]
                if row["before"] == 0:
                    self.stretch[symbol] = [0, False]
            adding = {s: row for s, row in turn.items() if abs(row["after"]) > abs(row["before"])}
            for symbol, row in turn.items():
                if symbol not in adding:
                    self.reduce(symbol, row)
            self.add(adding, minute, stage)

    def to_steps(self, symbol, quantity):
        step = self.lots[symbol][0]
        return floor(quantity) // step * step

    def quantity(self, symbol, row, exposure):
        equity, price = self.made[row["made"]], max(1, self.made_price[symbol, row["made"]])
        if equity <= 0:
            return 0
        if self.size == "units":
            return self.to_steps(symbol, Fraction(exposure * self.quantity_given, MILLION))
        amount = equity if self.size == "equity" else self.notional
        return self.to_steps(symbol, Fraction(exposure) * amount * SCALE / (MILLION * price))

    def reduce(self, symbol, row):
        held, exposure = self.held[symbol], abs(row["after"])
        if row["after"] == 0 or row["what"] > 1:
            less = abs(held)
        elif row["part"]:
            less = self.to_steps(symbol, Fraction(abs(held) * row["part"], MILLION))
        elif row["what"] == 0:
            less = max(0, abs(held) - self.quantity(symbol, row, exposure))
        else:
            less = min(abs(held), self.quantity(symbol, row, abs(row["before"]) - exposure))
        self.trade(symbol, row, -less if held > 0 else less)
        if row["after"] == 0:
            self.end_stretch(symbol)

    def end_stretch(self, symbol):
        profit, ever = self.stretch.pop(symbol)
        if ever:
            self.profits.append(profit)

    def trade(self, symbol, row, quantity):
        if quantity == 0:
            return
        exact = Fraction(abs(quantity) * row["price"], SCALE)
        value = ceil(exact) if quantity > 0 else floor(exact)
        fee = ceil(Fraction(value * row["rate"], MILLION))
        self.pay(symbol, (-value if quantity > 0 else value) - fee)
        self.held[symbol] += quantity
        self.stretch[symbol][1] = True
        self.fees += fee
        self.turnover += exact
        self.traded += 1

    def add(self, rows, minute, stage):
        added = {}
        for symbol, row in rows.items():
            _, least, least_notional = self.lots[symbol]
            if row["what"] == 0:
                quantity = self.quantity(symbol, row, abs(row["after"]))
                quantity -= abs(self.held[symbol])
                if quantity < 0:
                    continue
            else:
                quantity = self.quantity(symbol, row, abs(row["after"] - row["before"]))
            price = self.made_price[symbol, row["made"]]
            if quantity == 0 or quantity < least or Fraction(quantity * price, SCALE) < least_notional:
                self.rejected += 1
                continue
            added[symbol] = quantity
        need = 0
        for symbol, quantity in added.items():
            exact = Fraction(quantity * rows[symbol]["price"], SCALE)
            value = ceil(exact) if rows[symbol]["after"] > 0 else floor(exact)
            need += value + ceil(Fraction(value * rows[symbol]["rate"], MILLION))
        prices = dict(self.last)
        if stage == 2:
            prices = {s: closes.get(minute, self.last[s]) for s, closes in self.closes.items()}
        prices |= self.latest
        gross = sum(Fraction(abs(held) * prices[symbol], SCALE) for symbol, held in self.held.items())
        room = max(0, floor(self.leverage * self.value(prices) / MILLION - gross))
        for symbol, quantity in added.items():
            left = quantity
            if need > room:
                left = self.to_steps(symbol, Fraction(quantity * room, need))
                self.cut += (quantity - left) * 100 > quantity
                self.rejected += left == 0
            self.trade(symbol, rows[symbol], left if rows[symbol]["after"] > 0 else -left)

    def end(self, minute):
        self.ruin = minute
        for symbol, held in self.held.items():
            if held:
                self.pay(symbol, floor(Fraction(held * self.last[symbol], SCALE)))
                self.held[symbol] = 0
        for symbol in list(self.stretch):
            self.end_stretch(symbol)
        self.equity[minute] = Fraction(self.cash)
