"""The reference of orders against minutes worked out by hand (SEMANTICS-2 §9, §10, §11, §14)."""

import random
from typing import Any

import pytest

from reference.books import KEEP, Book, Order, View
from reference.candles import DAY, MINUTE, PPM, Bar, k_bars
from reference.options import Options
from reference.orders_strategies import BreakoutStop, Grid, PullbackLimit, XsMomentum, decide_alone
from reference.units import decisions_to_fills, run_units

T0 = 19_000 * DAY
ONE = PPM
Row = tuple[int, int, int, int]


def flat(price: int) -> Row:
    return (price, price, price, price)


def bars(rows: list[Row]) -> list[Bar]:
    """Candles of consecutive minutes: (open, high, low, close)."""
    return [Bar(T0 + i * MINUTE, *row, 10**10) for i, row in enumerate(rows)]


def played(rows: list[Row], books: list[Book], **options: Any) -> list[tuple[str, str, str, int, int]]:
    """Fills as (stage, key, kind, exposure after in units, raw price); the last book is stated again and again."""
    stated = books + [books[-1]] * (len(rows) - len(books))
    decided = decide_alone(bars(rows), stated, Options.of(options))
    return [(f.stage, f.key, f.kind, f.after * 100 // ONE, f.raw) for fills in decided.fills for f in fills]


def ambiguous(rows: list[Row], books: list[Book], **options: Any) -> int:
    stated = books + [books[-1]] * (len(rows) - len(books))
    return len(decide_alone(bars(rows), stated, Options.of(options)).ambiguous)


def buy(price: int, key: str = "b", kind: str = "limit", size: int = ONE, **rest: int) -> Order:
    return Order(key, 1, kind, price, size=size, **rest)


def sell(price: int, key: str = "s", kind: str = "limit", size: int = ONE, **rest: int) -> Order:
    return Order(key, -1, kind, price, size=size, **rest)


def part(side: int, price: int, share: int = ONE, kind: str = "limit") -> Order:
    return Order("out", side, kind, price, part=share)


class TestOrders:
    def test_limit_fills_only_when_the_price_goes_beyond(self) -> None:
        book = Book(orders=(buy(990),))
        assert played([flat(1000), (1000, 1000, 990, 1000)], [book]) == []
        assert played([flat(1000), (1000, 1000, 989, 1000)], [book]) == [("range", "b", "limit", 100, 990)]

    def test_stop_order_fills_when_the_price_reaches_it(self) -> None:
        book = Book(orders=(buy(1010, kind="stop"),))
        assert played([flat(1000), (1000, 1010, 1000, 1000)], [book]) == [("range", "b", "stop_order", 100, 1010)]
        assert played([flat(1000), flat(1015)], [book]) == [("open", "b", "stop_order", 100, 1015)]

    def test_limit_that_the_open_is_beyond(self) -> None:
        """New: a taker at the open. Resting through a whole minute: at its own price, as a maker."""
        book = Book(orders=(buy(990),))
        assert played([flat(1000), flat(980)], [book]) == [("open", "b", "taker", 100, 980)]
        assert played([flat(1000), flat(1000), flat(980)], [book])[0] == ("open", "b", "limit", 100, 990)
        moved = [book, Book(orders=(buy(991),))]
        assert played([flat(1000), flat(1000), flat(980)], moved)[0] == ("open", "b", "taker", 100, 980)

    def test_costs_of_orders(self) -> None:
        """Limits pay the maker's fee and do not slip; takers at the open pay the fee and do not slip; stops do both."""
        rates = {"fee": 5, "maker_fee": 3, "slippage": 100_000}
        for rows, book, expected in (
            ([flat(1000), (1000, 1000, 900, 1000)], Book(orders=(buy(990),)), (990, 3)),
            ([flat(1000), flat(980)], Book(orders=(buy(990),)), (980, 5)),
            ([flat(1000), (1000, 1010, 1000, 1000)], Book(orders=(buy(1010, kind="stop"),)), (1111, 5)),
        ):
            fill = decide_alone(bars(rows), [book], Options.of(rates)).fills[1][0]
            assert (fill.price, fill.rate) == expected

    def test_first_of_a_group_cancels_the_others(self) -> None:
        """Both are touched. Short from 990 or long from 1010, at a close of 1000: equal without costs, low first."""
        book = Book(orders=(buy(1010, "up", "stop", oco=1), sell(990, "down", "stop", oco=1)))
        rows = [flat(1000), (1000, 1015, 985, 1000)]
        assert played(rows, [book], fee=0) == [("range", "down", "stop_order", -100, 990)]
        assert ambiguous(rows, [book], fee=0) == 1
        # With a fee the long one costs more.
        assert played(rows, [book], fee=1000) == [("range", "up", "stop_order", 100, 1010)]
        assert played(rows, [book], fee=1000, path="best") == [("range", "down", "stop_order", -100, 990)]

    def test_bracket_protects_from_the_fill_on(self) -> None:
        """Bought at 990 on the way down to 980; the stop of 985 is met on the same leg, the target never."""
        book = Book(orders=(buy(990, stop=985, take=1005),))
        rows = [flat(1000), (1000, 1000, 980, 1000)]
        assert played(rows, [book]) == [("range", "b", "limit", 100, 990), ("range", "stop", "stop", 0, 985)]
        assert ambiguous(rows, [book]) == 0

    def test_tie_at_the_end_of_a_leg(self) -> None:
        """Stop and order at the low, 95: the leg that ends there meets both, on either walk; not ambiguous."""
        book = Book(ONE, (sell(95, kind="stop"),), stop=95)
        rows = [flat(100), (100, 100, 95, 95)]
        assert played(rows, [book]) == [
            ("open", "target", "target", 100, 100),
            ("range", "stop", "stop", 0, 95),
            ("range", "s", "stop_order", -100, 95),
        ]
        assert ambiguous(rows, [book]) == 0

    def test_bracket_that_the_price_is_beyond_exits_there(self) -> None:
        book = Book(orders=(buy(990, stop=995),))
        rows = [flat(1000), (1000, 1000, 980, 1000)]
        assert played(rows, [book]) == [("range", "b", "limit", 100, 990), ("range", "stop", "stop", 0, 990)]

    def test_bracket_at_a_resting_limit_filled_at_the_open_exits_at_the_open(self) -> None:
        book = Book(orders=(buy(990, stop=985),))
        rows = [flat(1000), flat(1000), flat(980)]
        assert played(rows, [book])[:2] == [("open", "b", "limit", 100, 990), ("open", "stop", "stop", 0, 980)]

    def test_bracket_ends_with_the_next_book(self) -> None:
        books = [Book(orders=(buy(990, stop=900),)), KEEP]
        rows = [flat(1000), (1000, 1000, 980, 1000), (1000, 1000, 800, 1000)]
        assert played(rows, books) == [("range", "b", "limit", 100, 990)]

    def test_through_flat_is_two_fills(self) -> None:
        book = Book(ONE, (sell(990, kind="stop", size=3 * ONE),))
        rows = [flat(1000), (1000, 1000, 985, 1000)]
        assert played(rows, [book]) == [
            ("open", "target", "target", 100, 1000),
            ("range", "s", "stop_order", 0, 990),
            ("range", "s", "stop_order", -200, 990),
        ]

    def test_increase_keeps_the_entry(self) -> None:
        """Entry 1000: its stop of 1 % stays at 990 though more was bought at 995."""
        book = Book(ONE, (buy(995),))
        rows = [flat(1000), (1000, 1000, 991, 1000), (1000, 1000, 990, 1000)]
        fills = played(rows, [book, book, book], stop_loss=10_000)
        assert fills[1:3] == [("range", "b", "limit", 200, 995), ("range", "b", "limit", 300, 995)]
        assert fills[3] == ("range", "stop", "stop", 0, 990)

    def test_equal_prices_protective_stop_first(self) -> None:
        book = Book(ONE, (sell(990, kind="stop"),), stop=990)
        rows = [flat(1000), (1000, 1000, 990, 990)]
        assert [fill[1] for fill in played(rows, [book])] == ["target", "stop", "s"]


class TestParts:
    def test_part_waits_for_a_position_and_ends_with_it(self) -> None:
        book = Book(orders=(buy(990), part(-1, 1010, ONE // 2)))
        rows = [flat(1000), (1000, 1005, 989, 1000), (1000, 1011, 1000, 1000)]
        assert played(rows, [book, Book(orders=(part(-1, 1010, ONE // 2),))]) == [
            ("range", "b", "limit", 100, 990),
            ("range", "out", "limit", 50, 1010),
        ]

    def test_part_that_the_price_is_beyond_waits_for_the_next_open(self) -> None:
        """Opened at 1060, beyond the sell at 1050: not in this minute, though it falls to 1040 and rises to 1070."""
        book = Book(ONE, (part(-1, 1050),))
        rows = [flat(1000), (1060, 1070, 1040, 1060), (1055, 1055, 1055, 1055)]
        assert played(rows, [book]) == [
            ("open", "target", "target", 100, 1060),
            ("open", "out", "limit", 0, 1050),
        ]

    def test_flat_cancels_parts_until_the_next_book(self) -> None:
        """The stop ends the position; the bought one that follows in the same book has no `out`."""
        book = Book(ONE, (part(-1, 1010), buy(970)), stop=980)
        rows = [flat(1000), (1000, 1020, 960, 1005), (1005, 1020, 1005, 1005)]
        fills = played(rows, [book, book, book], timeframe=1)
        assert fills[:3] == [
            ("open", "target", "target", 100, 1000),
            ("range", "stop", "stop", 0, 980),
            ("range", "b", "limit", 100, 970),
        ]
        # Stated anew at the close of that minute it works again.
        assert fills[3] == ("range", "out", "limit", 0, 1010)

    def test_part_on_the_side_of_the_position_does_nothing(self) -> None:
        rows = [flat(1000), (1000, 1000, 900, 1000)]
        assert len(played(rows, [Book(ONE, (part(1, 950),))])) == 1


class TestTargets:
    def test_stopped_target_is_not_entered_again(self) -> None:
        rows = [flat(1000), (1000, 1000, 900, 1000), flat(1000), flat(1000)]
        book = Book(ONE, stop=950)
        assert [fill[1] for fill in played(rows, [book])] == ["target", "stop"]

    def test_keep_forgets_the_target(self) -> None:
        rows = [flat(1000), (1000, 1000, 900, 1000), flat(1000), flat(1000)]
        book = Book(ONE, stop=950)
        assert [fill[1] for fill in played(rows, [book, KEEP, book])] == ["target", "stop", "target"]

    def test_books_stop_that_the_open_is_beyond_exits_at_the_open(self) -> None:
        """On the bar that the target enters too: only the job's own levels exit at the level."""
        assert played([flat(1000), flat(940)], [Book(ONE, stop=950)]) == [
            ("open", "target", "target", 100, 940),
            ("open", "stop", "stop", 0, 940),
        ]

    def test_nearest_of_several_levels(self) -> None:
        rows = [flat(1000), (1000, 1000, 980, 1000)]
        assert played(rows, [Book(ONE, stop=985)], stop_loss=10_000)[1] == ("range", "stop", "stop", 0, 990)
        assert played(rows, [Book(ONE, stop=995)], stop_loss=10_000)[1] == ("range", "stop", "stop", 0, 995)

    def test_held_counts_minute_bars(self) -> None:
        seen: list[int] = []

        class Watch:
            def decide(self, view: View) -> Book:
                seen.append(view.held)
                return Book(ONE)

        run_units(bars([flat(1000)] * 4), Watch())
        assert seen == [0, 1, 2, 3]
        seen.clear()
        run_units(bars([flat(1000)] * 4), Watch(), {"fill": "close"})
        assert seen == [0, 1, 2, 3]

    def test_view_shows_what_was_filled_since_the_last_decision(self) -> None:
        seen: list[list[tuple[str, int]]] = []

        class Watch:
            def decide(self, view: View) -> Book:
                seen.append(view.filled)
                return Book(ONE, stop=990)

        run_units(bars([flat(1000), (1000, 1000, 980, 1000), flat(1000)]), Watch(), {"fill": "close"})
        assert seen == [[], [("target", 1000), ("stop", 990)], []]

    @pytest.mark.parametrize("wrong", [
        Book(10**8 + 1),
        Book(orders=(buy(1, "stop"),)),
        Book(orders=(buy(0),)),
        Book(orders=(buy(1), buy(2))),
        Book(orders=(Order("a", 1, "limit", 5),)),
        Book(orders=(Order("a", 1, "limit", 5, size=1, part=1),)),
        Book(orders=tuple(buy(1, str(i)) for i in range(17))),
    ])  # fmt: skip
    def test_books_that_are_refused(self, wrong: Book) -> None:
        with pytest.raises(ValueError):
            wrong.check()


class TestStrategies:
    def test_pullback_limit(self) -> None:
        actor = PullbackLimit(lookback=1, depth=10_000, stop=10_000, take=20_000, hold=5)
        seen = [Bar(0, *flat(1000)), Bar(1, *flat(2000))]
        order = actor.decide(View(seen)).orders[0]
        assert (order.price, order.stop, order.take, order.size) == (1980, 1961, 2019, ONE)
        assert actor.decide(View(seen, filled=[("stop", 1)])) == KEEP
        assert actor.decide(View(seen[::-1])) == KEEP
        assert actor.decide(View(seen, side=1, entry=1980, held=4)) == Book(None, (), 1961, 2019)
        assert actor.decide(View(seen, side=1, entry=1980, held=5)).target == 0

    def test_breakout_stop(self) -> None:
        actor = BreakoutStop(entry=1, risk=10_000)
        seen = [Bar(0, 1, 9000, 1, 1), Bar(1, 1000, 1200, 900, 1000)]
        up, down = actor.decide(View(seen)).orders
        assert (up.price, up.stop, up.take, up.side) == (1200, 1188, 1224, 1)
        assert (down.price, down.stop, down.take, down.side) == (900, 909, 882, -1)
        assert actor.decide(View(seen, side=-1, entry=900)) == Book(None, (), 909, 882)

    def test_grid(self) -> None:
        actor = Grid(levels=2, spacing=10_000, size=5)
        first = actor.decide(View([Bar(0, *flat(1000))]))
        assert [(o.key, o.price, o.size) for o in first.orders] == [("buy1", 990, 5), ("buy2", 980, 5)]
        held = View([Bar(1, *flat(985))], side=1, entry=990, filled=[("buy1", 990)])
        assert [(o.key, o.price, o.part) for o in actor.decide(held).orders] == [("buy2", 980, 0), ("out", 999, ONE)]

    def test_xs_momentum_ranks_by_ratio_ties_by_name(self) -> None:
        def view(before: int, now: int) -> View:
            return View([Bar(0, *flat(before)), Bar(1, *flat(now))])

        views = {"C": view(10, 20), "A": view(100, 200), "B": view(10, 30), "D": view(10, 9), "E": View([])}
        actor = XsMomentum(lookback=1, top=2, every=2)
        targets = {symbol: book.target for symbol, book in actor.decide_all(4, views).items()}
        assert targets == {"A": ONE // 2, "B": ONE // 2, "C": 0, "D": 0, "E": 0}
        assert set(actor.decide_all(5, views).values()) == {KEEP}


def random_candles(rng: random.Random) -> list[Bar]:
    base = rng.choice((5, 90, 1000, 10**6))
    price, t, out = base, T0, []
    for _ in range(rng.randint(1, 100)):
        opened = max(1, price + rng.choice((0, 1, -2)))
        close = max(1, opened + rng.randint(-base // 50 - 1, base // 50 + 1))
        high = max(opened, close) + rng.randint(0, base // 60 + 1)
        low = max(1, min(opened, close) - rng.randint(0, base // 60 + 1))
        out.append(Bar(t, opened, high, low, close))
        price, t = close, t + MINUTE * rng.choice((1, 1, 1, 3, 50))
    return out


@pytest.mark.parametrize("seed", range(200))
def test_books_without_orders_are_the_bar_of_version_1(seed: int) -> None:
    """§4 (units.py) and §10 (minute.py), written apart, give the same fills for decisions of −1, 0 and +1."""
    rng = random.Random(seed)
    candles = random_candles(rng)
    options = Options.of(
        {
            "fee": 1000,
            "slippage": rng.choice((0, 1, 30_000)),
            "stop_loss": rng.choice((0, 3000, 20_000, 10**6)),
            "take_profit": rng.choice((0, 3000, 30_000, 10**6)),
            "trailing_stop": rng.choice((0, 5000, 40_000)),
            "fill": rng.choice(("next_open", "close")),
            "timeframe": rng.choice((1, 3, 5)),
            "path": rng.choice(("worst", "best")),
        }
    )
    groups = k_bars(candles, options.timeframe)
    values = [rng.choice((-1, 0, 1))]
    for _ in groups[1:]:
        values.append(rng.choice((-1, 0, 1)) if rng.random() < 0.3 else values[-1])
    wanted: list[int | None] = [None] * len(candles)
    for group, value in zip(groups, values, strict=True):
        wanted[group.last] = value
    first, second = decisions_to_fills(candles, wanted, options), decide_alone(candles, values, options)
    assert first.fills == second.fills
    assert first.ambiguous == second.ambiguous
