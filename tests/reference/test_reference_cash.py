"""The reference of the account `cash` and of panels against examples computed by hand (SEMANTICS-2 §12, §13)."""

import random
from collections.abc import Mapping
from typing import Any

import pytest

from reference.books import KEEP, Book, Order, View
from reference.candles import DAY, MINUTE, PPM, SCALE, Bar
from reference.cash import Account, run_cash
from reference.options import Options
from reference.panel import Universe, ends_of_panel_bars

T0 = 19_000 * DAY
ONE = PPM


def flats(*prices: int | None, start: int = T0, every: int = MINUTE) -> list[Bar]:
    """Candles at one price each, times 10^8; None is a missing minute."""
    out = []
    for i, price in enumerate(prices):
        if price is not None:
            p = price * SCALE
            out.append(Bar(start + i * every, p, p, p, p, SCALE))
    return out


def traded(result: dict[str, Any]) -> list[tuple[str, str, int]]:
    """(symbol, key, quantity) of what was traded."""
    return [(event.symbol, event.fill.key, event.traded) for event in result["events"] if event.traded]


class ByName:
    """A panel that states listed books by symbol, and `keep` after their end."""

    def __init__(self, books: Mapping[str, list[Book]]) -> None:
        self.books = books

    def decide_all(self, number: int, views: Mapping[str, View]) -> dict[str, Book]:
        return {s: self.books[s][view.i] if view.i < len(self.books[s]) else KEEP for s, view in views.items()}


def panel(**books: list[Book]) -> Any:
    return lambda: ByName(books)


class TestFlows:
    def test_every_flow_is_rounded_against_the_account(self) -> None:
        """3 · 10^-8 of quantity at 0.5: 1.5 · 10^-8. A buy costs 2, a sale brings 1, a fee of any rate is 1."""
        assert Account.flows(3, SCALE // 2, 1) == (-2, 1)
        assert Account.flows(-3, SCALE // 2, 1) == (1, 1)
        assert Account.flows(3, SCALE // 2, 0) == (-2, 0)
        # A rebate of 25 % on 2 is 0.5: nothing.
        assert Account.flows(3, SCALE // 2, -250_000) == (-2, 0)
        assert Account.flows(-8 * SCALE, SCALE, -250_000) == (8 * SCALE, -2 * SCALE)

    def test_all_of_the_equity_is_cut_to_the_room(self) -> None:
        """100 units at 100 need 10,010 with the fee of 10; room is 10,000: 99.90009990 units, a cut below 1 %."""
        result = run_cash({"A": flats(100, 100)}, "buy_and_hold")
        assert result["positions"] == {"A": 9_990_009_990}
        assert result["fees"] == 999_000_999
        assert result["cash"] == 10_000 * SCALE - 999_000_999_000 - 999_000_999
        assert (result["cut_orders"], result["rejected_orders"]) == (0, 0)
        assert result["total_pnl"] == -999_000_999
        assert result["turnover"] == 999_000_999_000

    def test_steps_and_minimums(self) -> None:
        candles = {"A": flats(100, 100)}
        assert run_cash(candles, "buy_and_hold", {"step": 7 * SCALE})["positions"] == {"A": 98 * SCALE}
        for rules in (
            {"min_quantity": 100 * SCALE + 1},
            {"min_notional": 10_000 * SCALE + 1},
            {"step": 101 * SCALE},
        ):
            result = run_cash(candles, "buy_and_hold", rules)
            assert (result["fills"], result["rejected_orders"], result["cut_orders"]) == (0, 1, 0)
        assert run_cash(candles, "buy_and_hold", {"min_notional": 10_000 * SCALE})["fills"] == 1

    def test_minimum_is_of_the_order_as_made_not_of_what_a_cut_leaves(self) -> None:
        result = run_cash({"A": flats(100, 100)}, "buy_and_hold", {"min_quantity": 100 * SCALE})
        assert result["fills"] == 1

    def test_cut_to_nothing_counts_in_both(self) -> None:
        result = run_cash({"A": flats(100, 100)}, "buy_and_hold", {"step": 100 * SCALE})
        assert (result["fills"], result["rejected_orders"], result["cut_orders"]) == (0, 1, 1)
        assert result["trades"] == 0

    def test_sizes(self) -> None:
        candles = {"A": flats(100, 100)}
        half = [Book(ONE // 2), Book(ONE // 2)]
        assert run_cash(candles, half)["positions"] == {"A": 50 * SCALE}
        assert run_cash(candles, half, {"size": "units", "quantity": 3 * SCALE})["positions"] == {"A": 3 * SCALE // 2}
        notional = {"size": "notional", "notional": 500 * SCALE}
        assert run_cash(candles, half, notional)["positions"] == {"A": 5 * SCALE // 2}

    def test_leverage(self) -> None:
        result = run_cash({"A": flats(100, 100)}, [Book(3 * ONE)] * 2, {"leverage": 2 * ONE, "fee": 0})
        assert result["positions"] == {"A": 200 * SCALE}
        assert result["cut_orders"] == 1

    def test_a_trade_takes_in_all_its_cash(self) -> None:
        """Ten units bought at 100, sold at 110, a fee of 1 %: 100 − 10 − 11 = 79."""
        rules = {"size": "units", "quantity": 10 * SCALE, "fee": 10_000}
        result = run_cash({"A": flats(100, 100, 110)}, [1, 0, 0], rules)
        assert (result["trades"], result["wins"], result["gross_profit"]) == (1, 1, 79 * SCALE)
        assert result["total_pnl"] == 79 * SCALE


class TestTargets:
    def test_a_target_that_raises_only_adds(self) -> None:
        """The price doubles, so half of the equity is less than what is held: nothing is traded or counted."""
        books = [Book(ONE // 2), Book(ONE // 2 + 1)]
        result = run_cash({"A": flats(100, 100, 200, 200)}, lambda: _Listed([books[0], KEEP, books[1]]), {"fee": 0})
        assert traded(result) == [("A", "target", 50 * SCALE)]
        assert result["rejected_orders"] == 0

    def test_a_target_that_lowers_only_reduces(self) -> None:
        books = [Book(ONE), Book(ONE // 2)]
        result = run_cash({"A": flats(100, 100, 100)}, lambda: _Listed(books), {"fee": 0})
        assert traded(result) == [("A", "target", 100 * SCALE), ("A", "target", -50 * SCALE)]

    def test_a_part_is_of_what_is_held(self) -> None:
        part = Book(None, (Order("half", -1, "limit", 105 * SCALE, part=ONE // 2),))
        result = run_cash(
            {"A": flats(100, 100, 110)}, lambda: _Listed([Book(ONE), part]), {"fee": 0, "step": 30 * SCALE}
        )
        assert traded(result) == [("A", "target", 90 * SCALE), ("A", "half", -30 * SCALE)]

    def test_a_rejected_entry_changes_no_decision(self) -> None:
        """The entry is rejected: its exit is no fill, and what was never held is no trade."""
        result = run_cash({"A": flats(100, 100, 100)}, [1, 0, 0], {"min_notional": 10**20})
        assert [event.fill.after for event in result["events"]] == [ONE, 0]
        assert (result["fills"], result["trades"], result["rejected_orders"]) == (0, 0, 1)


class _Listed:
    def __init__(self, books: list[Book]) -> None:
        self.books = books

    def decide(self, view: View) -> Book:
        return self.books[view.i] if view.i < len(self.books) else KEEP


class TestSharedCash:
    def test_additions_of_a_round_are_cut_alike(self) -> None:
        result = run_cash({"A": flats(100, 100), "B": flats(50, 50)}, "buy_and_hold", {"fee": 0})
        assert result["positions"] == {"A": 50 * SCALE, "B": 100 * SCALE}
        assert result["cut_orders"] == 2

    def test_reductions_come_first(self) -> None:
        """A is sold and B is bought at the same open: the room is that after the sale."""
        books = panel(A=[Book(ONE), Book(0)], B=[Book(0), Book(ONE)])
        result = run_cash({"A": flats(100, 100, 100), "B": flats(50, 50, 50)}, books, {"fee": 0})
        assert result["positions"] == {"B": 200 * SCALE}
        assert result["cut_orders"] == 0

    def test_reversal_opens_in_the_second_round(self) -> None:
        """Round 1: A is closed, and B takes all of the room. Round 2: none is left for A's short."""
        books = panel(A=[Book(ONE), Book(-ONE)], B=[Book(0), Book(ONE)])
        result = run_cash({"A": flats(100, 100, 100), "B": flats(50, 50, 50)}, books, {"fee": 0})
        assert result["positions"] == {"B": 200 * SCALE}
        assert (result["cut_orders"], result["rejected_orders"]) == (1, 1)

    def test_names_do_not_matter(self) -> None:
        """The same candles under names in another order give the same money."""
        first, second = flats(100, 101, 99, 105, 95), flats(50, 49, 52, 48, 53)
        values = [1, -1, 1, -1, 1]
        one = run_cash({"A": first, "B": second}, values)
        two = run_cash({"B": first, "A": second}, values)
        assert one["equity"] == two["equity"]
        assert one["positions"] == {"A": two["positions"]["B"], "B": two["positions"]["A"]}

    def test_equity_of_the_decision_takes_in_all_symbols(self) -> None:
        """A has gained 50 % on half of the money: half of 12,500 at 50 is 125 units of B."""
        books = panel(A=[Book(ONE // 2)], B=[Book(0), Book(0), Book(ONE // 2)])
        result = run_cash(
            {"A": flats(100, 100, 150, 150), "B": flats(50, 50, 50, 50)}, books, {"fee": 0, "leverage": 2 * ONE}
        )
        assert result["positions"] == {"A": 50 * SCALE, "B": 125 * SCALE}


class TestHolding:
    def test_ruin(self) -> None:
        """Short 100 at 100: at 200 the equity is 0. Closed there, and nothing is traded after."""
        result = run_cash({"A": flats(100, 100, 150, 200, 100, 100)}, [-1, -1, -1, 1, -1, 1], {"fee": 0})
        assert result["ruined"] == T0 + 3 * MINUTE
        assert result["total_pnl"] == -10_000 * SCALE
        assert result["max_drawdown"] == 10_000 * SCALE
        assert (result["trades"], result["wins"], result["gross_loss"]) == (1, 0, 10_000 * SCALE)
        assert traded(result) == [("A", "target", -100 * SCALE)]
        assert result["open_position"] == 0

    def test_funding_is_rounded_against_the_account(self) -> None:
        """One unit at 9.99 · 10^-6 and a rate of 0.005 is 4.995 · 10^-8: a long pays 5, a short receives 4."""
        candles = {"A": [Bar(T0 + i * MINUTE, 999, 999, 999, 999) for i in range(3)]}
        for value, paid in ((1, 5), (-1, -4)):
            rules = {"size": "units", "fee": 0, "funding": {"A": [(T0 + 2 * MINUTE, 500_000)]}}
            result = run_cash(candles, [value] * 3, rules)
            assert result["funding"] == paid
            assert result["total_pnl"] == -paid

    def test_borrow_at_each_midnight_that_a_short_is_held_over(self) -> None:
        """Ten units short over two midnights, at 100 and 90: 0.1 % of 1,000 and of 900."""
        start = T0 + DAY - 2 * MINUTE
        candles = [*flats(100, 100, 90, start=start), *flats(90, start=T0 + 2 * DAY)]
        rules = {"size": "units", "quantity": 10 * SCALE, "fee": 0, "borrow": 1000}
        assert run_cash({"A": candles}, [-1] * 4, rules)["borrow"] == SCALE + 9 * SCALE // 10
        assert run_cash({"A": candles}, [1] * 4, rules)["borrow"] == 0

    def test_marks_at_every_minute_of_any_symbol(self) -> None:
        candles = {"A": flats(100, 100, None, 120), "B": flats(50, 50, 50, 50)}
        result = run_cash(candles, panel(A=[Book(ONE)], B=[]), {"fee": 0})
        assert [profit // SCALE // SCALE for _, profit in result["equity"]] == [0, 0, 0, 2000]
        assert (result["bars"], result["exposure_bars"]) == (4, 3)


class TestPanel:
    def test_ends_are_the_last_minute_of_any_symbol(self) -> None:
        minutes = [T0 + m * MINUTE for m in (0, 3, 4, 5, 17)]
        assert ends_of_panel_bars(minutes, 5) == {T0 + m * MINUTE for m in (4, 5, 17)}

    def test_a_symbol_without_a_candle_gets_no_decision(self) -> None:
        seen: list[dict[str, int]] = []

        class Watch:
            def decide_all(self, number: int, views: Mapping[str, View]) -> dict[str, Book]:
                seen.append({s: len(view.bars) for s, view in views.items()})
                return {}

        run_cash({"A": flats(1, None, 1, 1), "B": flats(1, 1, None, 1)}, Watch, {"timeframe": 2})
        # Bars 0-1 and 2-3; T0 is even.
        assert seen == [{"A": 1, "B": 1}, {"A": 2, "B": 2}]
        seen.clear()
        run_cash({"A": flats(1, None, 1, 1), "B": flats(1, 1, None, 1)}, Watch)
        assert seen == [{"A": 1, "B": 1}, {"B": 2}, {"A": 2}, {"A": 3, "B": 3}]

    def test_orders_wait_for_the_symbols_own_next_bar(self) -> None:
        books = panel(A=[Book(ONE)], B=[])
        result = run_cash(
            {"A": flats(100, None, None, 110), "B": flats(1, 1, 1, 1)}, books, {"fee": 0, "leverage": 2 * ONE}
        )
        event = next(event for event in result["events"] if event.traded)
        assert (event.fill.t, event.fill.raw, event.traded) == (T0 + 3 * MINUTE, 110 * SCALE, 100 * SCALE)

    def test_a_symbol_that_has_ended_is_closed(self) -> None:
        candles = {"A": flats(100, 100), "B": flats(1, 1, every=DAY)}
        books = panel(A=[Book(ONE)], B=[])
        result = run_cash(candles, books, {"fee": 0, "delist_after": DAY - MINUTE})
        assert traded(result) == [("A", "target", 100 * SCALE), ("A", "delisted", -100 * SCALE)]

    def test_universe(self) -> None:
        def days(price: int, *numbers: int) -> list[Bar]:
            return [Bar(T0 + n * DAY, price, price, price, price, 1) for n in numbers]

        candles = {"A": days(5, 0, 1, 2), "B": days(9, 0), "C": days(5, 0, 1, 2), "D": days(7, 2), "E": days(99, 3)}
        universe = Universe(candles, {"top": 3, "over": 30, "every": 1})
        assert universe.chosen(T0 + 3 * DAY) == ["A", "C", "D"]  # B had no candle in the last day, E none before
        assert universe.chosen(T0 + DAY) == ["B", "A", "C"]
        assert universe.members(T0 + DAY + MINUTE) == {"A", "B", "C"}


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown options: fees"):
        Options.of({"fees": 1})


class Anything:
    """States random books around the price, half of the time the last one again."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.book = rng, KEEP

    def price(self, close: int) -> int:
        return max(1, close + self.rng.randint(-close // 25 - 2, close // 25 + 2))

    def order(self, key: str, close: int) -> Order:
        rng = self.rng
        part = rng.choice((ONE, ONE // 2, 1)) if rng.random() < 0.4 else 0
        size = 0 if part else rng.choice((ONE, ONE // 4, 3 * ONE, 333_333))
        stop, take = (rng.choice((0, self.price(close))) for _ in range(2))
        kind = rng.choice(("limit", "stop"))
        return Order(key, rng.choice((-1, 1)), kind, self.price(close), size, part, rng.choice((None, 1)), stop, take)

    def decide(self, view: View) -> Book:
        rng, close = self.rng, view.bars[-1].close
        if rng.random() < 0.5:
            orders = tuple(self.order(key, close) for key in "abcde"[: rng.randint(0, 5)])
            target = rng.choice((None, 0, ONE, -ONE, ONE // 2))
            self.book = Book(target, orders, rng.choice((0, self.price(close))), 0)
        return self.book


def random_candles(rng: random.Random) -> list[Bar]:
    base = rng.choice((5, 90, 10**4, 10**10))
    price, t, out = base, T0, []
    for _ in range(rng.randint(1, 60)):
        opened = max(1, price + rng.choice((0, 1, -base // 200)))
        close = max(1, opened + rng.randint(-base // 50 - 1, base // 50 + 1))
        high = max(opened, close) + rng.randint(0, base // 40 + 1)
        low = max(1, min(opened, close) - rng.randint(0, base // 40 + 1))
        out.append(Bar(t, opened, high, low, close, 1))
        price, t = close, t + MINUTE * rng.choice((1, 1, 1, 3, 400))
    return out


@pytest.mark.parametrize("seed", range(100))
def test_what_must_add_up(seed: int) -> None:
    """Exposures and quantities are chained and have one sign, reductions only reduce, all cash is accounted for."""
    rng = random.Random(seed)
    candles = {s: random_candles(rng) for s in "ABC"[: rng.randint(1, 3)]}
    options = {
        "slippage": rng.choice((0, 3000)),
        "stop_loss": rng.choice((0, 20_000)),
        "trailing_stop": rng.choice((0, 20_000)),
        "fill": rng.choice(("next_open", "close")),
        "timeframe": rng.choice((1, 5)),
        "size": rng.choice(("equity", "units", "notional")),
        "step": rng.choice((1, 10**6)),
        "leverage": rng.choice((ONE, 3 * ONE)),
        "borrow": 500,
        "funding": {"A": [(T0 + rng.randint(0, 2000) * MINUTE, rng.randint(-(10**5), 10**5)) for _ in range(5)]},
    }
    result = run_cash(candles, lambda: Anything(random.Random(seed)), options)
    exposure, held, cash = dict.fromkeys(candles, 0), dict.fromkeys(candles, 0), 10_000 * SCALE
    for event in result["events"]:
        fill = event.fill
        assert fill.before == exposure[event.symbol]
        assert fill.before * fill.after >= 0
        if abs(fill.after) <= abs(fill.before):
            assert event.traded * fill.before <= 0
        exposure[event.symbol] = fill.after
        held[event.symbol] += event.traded
        assert held[event.symbol] * fill.after > 0 or held[event.symbol] == 0
        cash += event.cash
    if result["ruined"] is None:
        assert result["positions"] == {s: quantity for s, quantity in held.items() if quantity}
        assert result["cash"] == cash - result["funding"] - result["borrow"]
