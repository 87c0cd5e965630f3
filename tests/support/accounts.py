"""Random panels of candles and fills for tests of accounts, and what the engine and the reference make of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import hypothesis.strategies as st
import numpy as np
from candlemill.backtests.account import AccountRules, AccountState, Lot, Quotation, opened
from candlemill.backtests.marks import Accounted, account_of
from candlemill.engine.fill_tape import FillTape
from candlemill.engine.summary import Summary
from hypothesis import reject
from slow_cash import CashAccount

MINUTE = 60_000
DAY = 86_400_000
SCALE = 10**8
NAMES = ("AAA", "BBB", "CCC")
ROW = ("minute", "stage", "made", "what", "key", "before", "after", "size", "part", "price", "raw", "rate", "entry")

Row = dict[str, int]
Closes = dict[int, int]


class Panel:
    """Candles and fills of some symbols and the rules of their account."""

    def __init__(
        self, closes: dict[str, Closes], fills: dict[str, list[Row]], rules: AccountRules, funding: dict[str, Closes]
    ) -> None:
        self.closes, self.fills, self.rules, self.funding = closes, fills, rules, funding

    def reference(self) -> CashAccount:
        rules = self.rules
        lots = {name: (lot.step, lot.min_quantity, lot.min_notional) for name, lot in rules.lots.items()}
        account = CashAccount(
            self.closes,
            self.fills,
            lots,
            capital=rules.capital,
            size=rules.size,
            quantity=rules.quantity,
            notional=rules.notional,
            leverage=rules.leverage,
            borrow=rules.borrow,
            funding=self.funding,
        )
        return account.run()

    def whole(self, order: Sequence[str] = NAMES) -> Accounted:
        """All of it at once. A panel whose amounts leave 2^60 is refused, so none that a test is about."""
        names = [name for name in order if name in self.closes]
        try:
            return self.slice(0, 1 << 62, opened(self.rules, names), names)
        except OverflowError:
            reject()

    def cut(self, cuts: Sequence[int]) -> tuple[Summary, list[int], AccountState, list[Accounted]]:
        """The same in slices that end at each of `cuts`: the merged sums, the daily profits, the last state."""
        state, parts = opened(self.rules, list(self.closes)), []
        for start, end in zip([0, *cuts], [*cuts, 1 << 62], strict=True):
            parts.append(self.slice(start, end, AccountState.from_bytes(state.to_bytes())))
            state = parts[-1].end
        total = Summary()
        for part in parts:
            total = total.merge(part.summary)
        return total, [profit for part in parts for profit in part.daily], state, parts

    def slice(self, start: int, end: int, state: AccountState, order: Sequence[str] = ()) -> Accounted:
        names = list(order) or list(self.closes)
        fills, quotes = {}, {}
        for name in names:
            t = [m for m in sorted(self.closes[name]) if start <= m < end]
            instants = [x for x in sorted(self.funding.get(name, {})) if x < end]
            fills[name] = fill_tape([row for row in self.fills[name] if start <= row["minute"] < end])
            quotes[name] = Quotation(
                column(t),
                column([self.closes[name][m] for m in t]),
                t[-1] if t else -1,
                column(instants),
                column([self.funding[name][x] for x in instants]),
            )
        return account_of(fills, quotes, self.rules, state)


def column(values: Sequence[int]) -> Any:
    return np.array(values, dtype=np.int64)


def fill_tape(rows: Sequence[Mapping[str, int]]) -> FillTape:
    fills = FillTape()
    for row in rows:
        fills.add(*(row[name] for name in ROW))
    return fills


@st.composite
def panels(draw: Any, symbols: int = 3, days: int = 3) -> Panel:
    """Some candles a day, so that midnights and gaps come often; fills of every kind between them."""
    scale = draw(st.sampled_from([10**3, 10**8, 10**12]))
    closes, fills, funding, lots = {}, {}, {}, {}
    grid = sorted(draw(st.sets(st.integers(0, 40), min_size=1, max_size=25)))
    for name in NAMES[: draw(st.integers(1, symbols))]:
        t = [k * days * DAY // 41 // MINUTE * MINUTE for k in grid if draw(st.integers(0, 3))]
        closes[name] = {m: draw(st.integers(scale // 2 + 1, scale * 2)) for m in t}
        fills[name] = draw(rows_of(closes[name]))
        funding[name] = {k * DAY // 3: draw(st.integers(-(10**6), 10**6)) for k in range(3 * days)}
        lots[name] = Lot(
            draw(st.sampled_from([1, 10**4, 10**8])),
            draw(st.sampled_from([0, 10**6])),
            draw(st.sampled_from([0, 10**9])),
        )
    rules = AccountRules(
        capital=draw(st.sampled_from([10**4, 10**10, 10**12, 123_456_789_012])),
        size=draw(st.sampled_from(["equity", "equity", "notional", "units"])),
        quantity=draw(st.integers(1, 10**9)),
        notional=draw(st.integers(1, 10**11)),
        leverage=draw(st.sampled_from([10**6, 500_000, 3 * 10**6, 125 * 10**6])),
        borrow=draw(st.sampled_from([0, 300, 100_000])),
        lots=lots,
    )
    return Panel(closes, fills, rules, funding)


@st.composite
def rows_of(draw: Any, closes: Closes) -> list[Row]:
    """Fills of one symbol: each minute may have some at its open, in its range, at its close."""
    rows: list[Row] = []
    exposure, before = 0, None
    for minute in sorted(closes):
        for stage in (0, 1, 2):
            made = before if stage < 2 else minute
            if made is None or draw(st.integers(0, 2)):
                continue
            for _ in range(draw(st.integers(1, 2))):
                what = draw(st.integers(0, 4)) if exposure else draw(st.integers(0, 1))
                after = draw(st.sampled_from([0, 250_000, 333_333, 10**6, 1_700_000, -500_000, -(10**6), 5 * 10**6]))
                part = 0
                if what > 1:
                    after = 0
                elif what == 1 and exposure and draw(st.booleans()):
                    part = draw(st.integers(1, 10**6))
                    after = exposure - abs(exposure) * part // 10**6 * (1 if exposure > 0 else -1)
                raw = max(1, closes[minute] + draw(st.integers(-closes[minute] // 3, closes[minute] // 3)))
                steps = [(exposure, after)] if exposure * after >= 0 else [(exposure, 0), (0, after)]
                for old, new in steps:
                    if old != new:
                        price = max(1, raw + draw(st.sampled_from([0, 0, raw // 1000, -raw // 1000])))
                        row = (minute, stage, made if what < 2 else -1, what, -1, old, new, 0, part, price, raw)
                        rate = draw(st.sampled_from([0, 1000, 1000, -100, 100_000]))
                        rows.append(dict(zip(ROW, (*row, rate, int(old == 0)), strict=True)))
                exposure = after
        before = minute
    return rows
