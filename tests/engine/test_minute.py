"""One minute of SEMANTICS-2 section 10, case by case. Rows are (open, high, low, close); the first bar only decides."""

import pytest
from candlemill.engine.book import Book, Order
from candlemill.engine.candles import MINUTE_MS
from candlemill.engine.position import ExecutionRules
from order_candles import FULL, Prices, fills_of, run_books, short_fills

START: Prices = (100, 100, 100, 100)
HALF = FULL // 2


def order(key: str, side: int, kind: str, price: int, size: int = FULL, **more: int) -> Order:
    return Order(key, side, kind, price, 0 if "part" in more else size, **more)


def buy_limit(price: int, key: str = "a", **more: int) -> Order:
    return order(key, 1, "limit", price, **more)


def buy_stop(price: int, key: str = "a", **more: int) -> Order:
    return order(key, 1, "stop", price, **more)


def sell_limit(price: int, key: str = "b", **more: int) -> Order:
    return order(key, -1, "limit", price, **more)


def sell_stop(price: int, key: str = "b", **more: int) -> Order:
    return order(key, -1, "stop", price, **more)


def rules(**costs: int | bool) -> ExecutionRules:
    return ExecutionRules(**{"fee": 0, "maker_fee": 0, **costs})  # type: ignore[arg-type]


def filled(rows: list[Prices], *books: Book, **costs: int | bool) -> list[tuple[object, ...]]:
    """(stage, key or what, before, after, price) of each fill; `books` are stated after the bars, one after each."""
    fills, _ = run_books(rows, list(books), rules(**costs))
    return [row[1:] for row in short_fills(fills)]


def ambiguous(rows: list[Prices], *books: Book, **costs: int | bool) -> list[int]:
    fills, _ = run_books(rows, list(books), rules(**costs))
    return [t // MINUTE_MS for t in fills.ambiguous()["minute"].tolist()]


# -- the target ----------------------------------------------------------------------------------------------------


def test_a_target_trades_at_the_next_open_and_a_reversal_is_two_fills() -> None:
    rows = [START, (101, 103, 99, 102), (104, 104, 104, 104), START]
    assert filled(rows, Book(FULL), Book(-HALF), Book(-HALF)) == [
        ("open", "target", 0, FULL, 101),
        ("open", "target", FULL, 0, 104),
        ("open", "target", 0, -HALF, 104),
    ]


def test_under_fill_close_a_target_trades_at_the_close_of_its_decision() -> None:
    rows = [START, (101, 103, 99, 102)]
    assert filled(rows, Book(FULL), Book(0), at_close=True) == [
        ("close", "target", 0, FULL, 100),
        ("close", "target", FULL, 0, 102),
    ]


def test_a_target_is_one_order_that_a_stop_does_not_repeat() -> None:
    rows = [START, (100, 100, 95, 96), (96, 99, 96, 99), (99, 99, 99, 99), (98, 98, 98, 98)]
    again = filled(rows, Book(FULL, (), 97), Book(FULL), Book(FULL))
    assert again == [("open", "target", 0, FULL, 100), ("range", "stop", FULL, 0, 97)]
    after_keep = filled(rows, Book(FULL, (), 97), Book(), Book(FULL))
    assert after_keep == [*again, ("open", "target", 0, FULL, 99)]
    after_another = filled(rows, Book(FULL, (), 97), Book(HALF))
    assert after_another == [*again, ("open", "target", 0, HALF, 96)]


def test_an_increase_leaves_the_entry_as_it_is() -> None:
    _, seen = run_books([START, (110, 110, 110, 110), (120, 121, 119, 120)], [Book(HALF), Book(FULL)])
    assert [(view.exposure, view.entry, view.held, view.best) for view in seen] == [
        (0, 0, 0, 0),
        (HALF, 110, 1, 110),
        (FULL, 110, 2, 121),
    ]


# -- the open ------------------------------------------------------------------------------------------------------


def test_a_limit_that_rests_fills_at_its_price_where_the_open_is_beyond() -> None:
    rows = [START, START, (90, 91, 89, 90)]
    book = Book(None, [buy_limit(95)])
    fills, _ = run_books(rows, [book, book], rules(fee=1000, maker_fee=300))
    assert fills_of(fills) == [(2 * MINUTE_MS, 0, MINUTE_MS, 1, "a", 0, FULL, FULL, 0, 95, 95, 300, 1)]


@pytest.mark.parametrize("other", [[buy_limit(95, "other")], [buy_limit(94)], [sell_limit(95, "a")], []])
def test_a_limit_that_has_not_stood_through_a_bar_takes_at_the_open(other: list[Order]) -> None:
    rows = [START, START, (90, 91, 89, 90)]
    fills, _ = run_books(
        rows, [Book(None, other), Book(None, [buy_limit(95)])], rules(fee=1000, maker_fee=300, slippage=100_000)
    )
    row = fills_of(fills)[-1]
    assert (row[4], row[9], row[10], row[11]) == ("a", 90, 90, 1000)  # no slippage


def test_a_limit_needs_the_open_beyond_its_price_a_stop_order_at_it() -> None:
    assert filled([START, START], Book(None, [buy_limit(100)])) == []
    assert filled([START, START], Book(None, [buy_stop(100)])) == [("open", "a", 0, FULL, 100)]


def test_a_stop_order_fills_at_the_open_beyond_it_and_slips() -> None:
    rows = [START, (105, 105, 105, 105)]
    fills, _ = run_books(rows, [Book(None, [buy_stop(102)])], rules(fee=1000, slippage=1))
    row = fills_of(fills)[-1]
    assert (row[1], row[9], row[10], row[11]) == (0, 106, 105, 1000)  # a rate above 0 is never nothing


def test_the_target_comes_first_then_protection_then_orders_in_the_books_order() -> None:
    rows = [START, (90, 90, 90, 90), (90, 90, 90, 90)]
    book = Book(FULL, [buy_stop(80, "late"), sell_stop(95, "first", size=HALF)], stop=92)
    assert filled(rows, book) == [
        ("open", "target", 0, FULL, 90),
        ("open", "stop", FULL, 0, 90),  # begins to protect where the price is beyond it already
        ("open", "late", 0, FULL, 90),
        ("open", "first", FULL, HALF, 90),
    ]


def test_an_open_beyond_the_target_exits_at_the_open_whatever_the_low_does_later() -> None:
    rows = [START, START, (107, 107, 90, 90)]
    assert filled(rows, Book(FULL, (), 95, 105), Book(FULL, (), 95, 105))[-1] == ("open", "take", FULL, 0, 107)
    assert ambiguous(rows, Book(FULL, (), 95, 105), Book(FULL, (), 95, 105)) == []


def test_the_jobs_own_stop_on_the_bar_of_a_targets_entry_exits_at_its_level() -> None:
    rows = [START, (1000, 1000, 1000, 1000)]  # bought at 1100, the stop at 1089 is above the open
    own = filled(rows, Book(FULL), slippage=100_000, stop_loss=10_000)
    assert own == [("open", "target", 0, FULL, 1100), ("open", "stop", FULL, 0, 1089 - 109)]
    by_order = filled(rows, Book(None, [buy_stop(900)]), slippage=100_000, stop_loss=10_000)
    assert by_order == [("open", "a", 0, FULL, 1100), ("open", "stop", FULL, 0, 900)]


def test_a_level_and_a_price_after_slippage_are_at_least_1() -> None:
    rows: list[Prices] = [(3, 3, 3, 3), (3, 3, 2, 2), (1, 1, 1, 1)]
    assert filled(rows, Book(FULL), Book(FULL), stop_loss=999_999) == [
        ("open", "target", 0, FULL, 3),
        ("open", "stop", FULL, 0, 1),
    ]
    assert filled(rows, Book(-FULL), slippage=1_000_000)[0] == ("open", "target", 0, -FULL, 1)


# -- the range -----------------------------------------------------------------------------------------------------


def test_a_stop_is_reached_a_limit_must_be_passed() -> None:
    assert filled([START, (100, 100, 95, 96)], Book(None, [buy_limit(95)])) == []
    assert filled([START, (100, 100, 94, 96)], Book(None, [buy_limit(95)])) == [("range", "a", 0, FULL, 95)]
    assert filled([START, (100, 105, 100, 100)], Book(None, [sell_limit(105)])) == []
    assert filled([START, (100, 105, 100, 100)], Book(None, [buy_stop(105)])) == [("range", "a", 0, FULL, 105)]
    assert filled([START, (100, 100, 95, 96)], Book(None, [sell_stop(95)])) == [("range", "b", 0, -FULL, 95)]


def test_orders_fill_in_the_order_in_which_the_leg_meets_them() -> None:
    book = Book(None, [buy_limit(94, "deep", size=HALF), buy_limit(97, "near", size=HALF)])
    assert filled([START, (100, 100, 90, 92)], book) == [
        ("range", "near", 0, HALF, 97),
        ("range", "deep", HALF, FULL, 94),
    ]


def test_at_equal_prices_the_stop_comes_first_then_the_books_order() -> None:
    book = Book(FULL, [buy_limit(95, "x", size=HALF), buy_limit(95, "y", size=HALF)], stop=95)
    assert filled([START, (100, 100, 90, 92)], book)[1:] == [
        ("range", "stop", FULL, 0, 95),
        ("range", "x", 0, HALF, 95),
        ("range", "y", HALF, FULL, 95),
    ]


def test_equal_prices_at_the_end_of_a_leg_fill_both() -> None:
    book = Book(FULL, [sell_stop(95, "short")], stop=95)
    assert filled([START, (100, 100, 95, 95)], book)[1:] == [
        ("range", "stop", FULL, 0, 95),
        ("range", "short", 0, -FULL, 95),
    ]


def test_the_first_fill_of_a_group_cancels_the_groups_other_orders_until_the_next_book() -> None:
    pair = [buy_stop(105, "up", oco=1), sell_stop(95, "down", oco=1), sell_stop(94, "free", oco=2)]
    rows = [START, (100, 106, 100, 101), (101, 101, 93, 93)]
    assert filled(rows, Book(None, pair)) == [("range", "up", 0, FULL, 105)]
    fills, _ = run_books(rows, [Book(None, pair)], rules(), timeframe=3)
    assert fills.n == 0  # the first book is stated at the end of the third minute
    long_rows = [START] * 3 + [(100, 106, 100, 101), (101, 101, 93, 93), START]
    fills, _ = run_books(long_rows, [Book(None, pair)], rules(), timeframe=3)
    assert [row[2] for row in short_fills(fills)] == ["up", "free"]


def test_a_bracket_protects_what_its_order_opens_from_there_on() -> None:
    book = Book(None, [buy_limit(95, stop=92, take=98)])
    assert filled([START, (100, 100, 94, 94), (94, 99, 94, 99)], book) == [("range", "a", 0, FULL, 95)]  # until then
    long_rows = [START] * 2 + [(100, 100, 94, 94), (94, 99, 94, 99)]
    fills, _ = run_books(long_rows, [book, Book()], rules(), timeframe=2)
    assert [row[1:] for row in short_fills(fills)] == [("range", "a", 0, FULL, 95), ("range", "take", FULL, 0, 98)]
    same_bar = filled([START, (100, 100, 91, 91)], book)
    assert same_bar == [("range", "a", 0, FULL, 95), ("range", "stop", FULL, 0, 92)]


def test_the_books_levels_do_not_protect_what_an_order_opens() -> None:
    book = Book(None, [buy_limit(95)], stop=92, take=96)
    assert filled([START, (100, 100, 90, 97)], book) == [("range", "a", 0, FULL, 95)]


def test_a_bracket_beyond_the_price_exits_at_once_at_that_price() -> None:
    book = Book(None, [buy_limit(95, stop=96)])
    assert filled([START, (100, 100, 94, 94)], book) == [("range", "a", 0, FULL, 95), ("range", "stop", FULL, 0, 95)]


def test_a_bracket_after_a_fill_at_the_open_meets_the_open() -> None:
    book = Book(None, [buy_limit(95, stop=93)])
    rows = [START, START, (90, 90, 90, 90)]
    assert filled(rows, book, book) == [("open", "a", 0, FULL, 95), ("open", "stop", FULL, 0, 90)]


def test_an_order_through_flat_is_a_close_and_an_opening_with_its_own_entry() -> None:
    fills, seen = run_books(
        [START, (100, 106, 100, 103), START], [Book(FULL, [sell_stop(95), sell_limit(105, "x", size=3 * HALF)])]
    )
    assert [row[2:] for row in short_fills(fills)[1:]] == [("x", FULL, 0, 105), ("x", 0, -HALF, 105)]
    assert [row[-1] for row in fills_of(fills)] == [1, 0, 1]  # which rows open from flat
    assert (seen[1].side, seen[1].entry, seen[1].held, seen[1].best) == (-1, 105, 1, 100)
    assert seen[1].fills == (("target", 100), ("x", 105), ("x", 105))


def test_of_several_levels_the_nearest_counts_and_targets_pay_the_makers_fee() -> None:
    rows = [START, (100, 100, 90, 90)]
    assert filled(rows, Book(FULL, (), 94), stop_loss=50_000)[-1] == ("range", "stop", FULL, 0, 95)
    assert filled(rows, Book(FULL, (), 96), stop_loss=50_000)[-1] == ("range", "stop", FULL, 0, 96)
    fills, _ = run_books([START, (100, 110, 100, 100)], [Book(FULL)], rules(fee=9, maker_fee=4, take_profit=50_000))
    assert fills_of(fills)[-1][3:] == (3, None, FULL, 0, 0, 0, 105, 105, 4, 0)


def test_a_trailing_stop_moves_at_the_end_of_the_minute() -> None:
    rows = [START, (100, 120, 100, 119), (119, 119, 109, 110), (110, 110, 107, 107)]
    assert filled(rows, Book(FULL), Book(FULL), trailing_stop=100_000)[-1] == ("range", "stop", FULL, 0, 108)


def test_a_short_is_the_mirror_image() -> None:
    rows = [START, (100, 100, 80, 81), (81, 89, 81, 89)]
    assert filled(rows, Book(-FULL), Book(-FULL), trailing_stop=100_000)[-1] == ("range", "stop", -FULL, 0, 88)
    assert filled(rows, Book(-FULL, (), 0, 85))[-1] == ("range", "take", -FULL, 0, 85)


# -- parts ---------------------------------------------------------------------------------------------------------


def test_a_part_reduces_what_is_held_and_waits_while_flat() -> None:
    out = sell_limit(103, "out", part=HALF)
    rows = [START, (100, 104, 100, 104), (100, 104, 100, 104)]
    assert filled(rows, Book(None, [out]), Book(None, [out])) == []
    assert filled(rows, Book(FULL, [out]), Book(FULL, [out]))[1:] == [
        ("range", "out", FULL, HALF, 103),
        ("range", "out", HALF, HALF // 2, 103),
    ]
    assert filled(rows, Book(FULL, [buy_stop(103, part=HALF)])) == [("open", "target", 0, FULL, 100)]


def test_a_part_that_the_price_is_beyond_when_a_position_opens_waits_for_the_next_open() -> None:
    book = Book(None, [buy_limit(98), sell_stop(99, "out", part=FULL)])
    rows = [START] * 3 + [(100, 100, 97, 97), (97, 98, 97, 98), START]
    fills, _ = run_books(rows, [book], rules(), timeframe=3)
    assert [row[:3] for row in short_fills(fills)] == [(3, "range", "a"), (4, "open", "out")]


@pytest.mark.parametrize("book", [Book(FULL, [sell_limit(99, "out", part=FULL)])])
def test_a_part_that_the_open_is_beyond_waits_also_where_the_target_opens(book: Book) -> None:
    assert filled([START, (100, 103, 95, 100)], book) == [("open", "target", 0, FULL, 100)]


def test_what_makes_the_symbol_flat_cancels_its_parts() -> None:
    parts = [sell_limit(103, "out", part=HALF), buy_limit(96, "again"), sell_limit(110, "other")]
    rows = [START] * 3 + [(100, 100, 95, 95), (95, 104, 95, 104), (104, 111, 104, 104)]
    fills, _ = run_books(rows, [Book(FULL, parts, stop=97)], rules(), timeframe=3)
    assert [row[2] for row in short_fills(fills)] == ["target", "stop", "again", "other"]


# -- the two walks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("best", "what", "price"), [(False, "stop", 95), (True, "take", 105)])
def test_a_bar_that_touches_stop_and_target_loses_on_the_worst_path(best: bool, what: str, price: int) -> None:
    rows = [START, (100, 106, 94, 100)]
    book = Book(FULL, (), 95, 105)
    assert filled(rows, book, best_path=best)[-1] == ("range", what, FULL, 0, price)
    assert ambiguous(rows, book, best_path=best) == [1]


@pytest.mark.parametrize(("close", "worst"), [(104, "down"), (96, "up")])
def test_the_value_takes_in_what_is_held_at_the_close(close: int, worst: str) -> None:
    pair = [buy_stop(105, "up", oco=1), sell_stop(95, "down", oco=1)]
    rows = [START, (100, 106, 94, close)]
    assert filled(rows, Book(None, pair))[0][1] == worst
    assert filled(rows, Book(None, pair), best_path=True)[0][1] != worst


def test_equal_values_take_the_walk_that_goes_low_first() -> None:
    pair = [buy_stop(105, "up", oco=1), sell_stop(95, "down", oco=1)]
    for best in (False, True):
        rows = [START, (100, 106, 94, 100)]
        assert filled(rows, Book(None, pair), best_path=best) == [("range", "down", 0, -FULL, 95)]
        assert ambiguous(rows, Book(None, pair), best_path=best) == [1]


def test_costs_decide_between_walks_of_otherwise_equal_value() -> None:
    book = Book(None, [buy_stop(105, "up", oco=1), sell_limit(104, "down", oco=1), sell_stop(95, "low", oco=1)])
    rows = [START, (100, 106, 94, 100)]  # short from 95 or from 104: the stop order pays more and sells lower
    assert filled(rows, book)[0][1] == "low"
    assert filled(rows, book, best_path=True)[0][1] == "down"


def test_the_same_fills_in_both_walks_are_one_outcome() -> None:
    book = Book(None, [buy_limit(95, stop=80, take=120)])
    assert ambiguous([START, (100, 110, 90, 100)], book) == []


def test_the_rows_of_an_ambiguous_minute_are_named() -> None:
    fills, _ = run_books([START, (100, 106, 94, 100)], [Book(FULL, (), 95, 105)])
    columns = {name: column.tolist() for name, column in fills.ambiguous().items()}
    assert columns == {"minute": [MINUTE_MS], "first": [1], "end": [2]}


# -- what is seen --------------------------------------------------------------------------------------------------


def test_the_bar_of_an_entry_at_the_close_is_not_held() -> None:
    rows = [START, (100, 105, 99, 101), (101, 103, 98, 100)]
    _, seen = run_books(rows, [Book(FULL)], rules(at_close=True))
    assert [(view.held, view.best, view.fills) for view in seen] == [
        (0, 0, ()),
        (1, 105, (("target", 100),)),  # the fill at the close counts as after its decision
        (2, 105, ()),
    ]


def test_a_row_says_when_its_order_was_stated_last() -> None:
    book = Book(FULL, [sell_limit(103, "out", part=FULL)], stop=90)
    rows = [START, START, (100, 104, 100, 100), (100, 104, 89, 100)]
    fills, _ = run_books(rows, [book, book, Book(HALF, (), 90)])
    columns = fills.columns()
    assert (columns["made"] // MINUTE_MS).tolist() == [0, 1, 2, -1]
    assert columns["size"].tolist() == [FULL, 0, HALF, 0]
    assert columns["part"].tolist() == [0, FULL, 0, 0]
