"""What a book and its orders may say, and how what they may not is refused."""

from typing import Any

import numpy as np
import pytest
from candlemill.engine.book import Book, Order
from candlemill.engine.books import Orders, PositionView
from candlemill.engine.candles import CandleColumns
from candlemill.engine.fill_tape import FillTape
from candlemill.engine.minute import MinuteEngine
from candlemill.engine.position import ExecutionRules
from candlemill.engine.ranges import ranges_of


def order(key: str = "a", side: int = 1, kind: str = "limit", price: Any = 100, **more: Any) -> Order:
    return Order(key, side, kind, price, **{"size": 1, **more})


def state(book: Any) -> MinuteEngine:
    """Return an engine that has taken the book at its only bar."""
    candles = CandleColumns(*([np.full(1, 60_000)] for _ in range(5)), [])
    engine = MinuteEngine(candles, ExecutionRules(), ranges_of(candles), FillTape())
    engine.state_book(book, 0)
    return engine


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"key": ""}, "order key '' is not a printable text of 1 to 32 characters"),
        ({"key": "k" * 33}, "of 1 to 32 characters"),
        ({"key": "a\tb"}, "printable"),
        ({"key": "stop"}, "order key 'stop' is reserved: target, stop, take, liquidation name other fills"),
        ({"side": 0}, "order 'a': side 0, expected 1"),
        ({"kind": "market"}, "order 'a': kind 'market', expected 'limit' or 'stop'"),
        ({"price": 0}, f"order 'a': price 0 is not a whole number from 1 to {2**58}"),
        ({"price": 1.5}, "price 1.5 is not a whole number"),
        ({"price": True}, "price True is not a whole number"),
        ({"size": 0}, "size 0 and part 0, expected one of the two above 0"),
        ({"part": 5}, "size 1 and part 5, expected one of the two above 0"),
        ({"size": 0, "part": 1_000_001}, "part 1000001 is not a whole number from 0 to 1000000"),
        ({"size": 100_000_001}, "size 100000001 is not a whole number from 0 to 100000000"),
        ({"oco": -1}, "oco -1 is not a whole number"),
        ({"stop": -1}, "stop -1 is not a whole number"),
    ],
)
def test_an_order_that_is_none_is_refused_in_one_line(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as caught:
        Orders().put_order(order(**wrong))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_book_takes_sixteen_orders_with_different_keys() -> None:
    state(Book(None, [order(f"k{k}") for k in range(16)]))
    with pytest.raises(ValueError, match="a book of 17 orders, the limit is 16"):
        state(Book(None, [order(f"k{k}") for k in range(17)]))
    with pytest.raises(ValueError, match="order key 'b' is in the book twice"):
        state(Book(None, [order("a"), order("b"), order("b")]))
    with pytest.raises(ValueError, match="'a' in a book is no Order"):
        state(Book(None, ["a"]))  # type: ignore[list-item]


def test_a_key_is_checked_wherever_it_comes_in_a_book() -> None:
    """A key that was in the same place of an earlier book is not checked again."""
    orders = Orders()
    for key, fits in (("a", True), ("stop", False), ("a", True), ("", False), ("order", True)):
        orders.clear()
        if fits:
            orders.put_order(order(key))
        else:
            with pytest.raises(ValueError, match="order key"):
                orders.put_order(order(key))


def test_a_book_without_orders_is_stated_again_as_it_is() -> None:
    """The same object is not read again, unless a book that is not the strategy's came between."""
    book = Book(5, stop=7, take=9)
    engine = state(book)
    for between in (False, True, False):
        if between:
            engine.replace(engine.new_orders(), 0, False, 1, 0, 0)
        engine.state_book(book, 0)
        assert (engine.keep, engine.target, engine.stop, engine.take) == (False, 5, 7, 9)


@pytest.mark.parametrize("target", [100_000_001, -100_000_001, 0.5, "1"])
def test_a_target_is_a_bounded_whole_number(target: Any) -> None:
    with pytest.raises(ValueError, match=r"book: target .* is not a whole number from -100000000 to 100000000"):
        state(Book(target))


def test_numbers_of_numpy_are_whole_numbers() -> None:
    engine = state(Book(np.int32(-5), [order(price=np.int64(7))]))  # type: ignore[arg-type]
    assert (engine.target, engine.now.orders.count) == (-5, 1)


def test_a_book_without_target_keeps_the_position() -> None:
    assert state(Book()).keep
    assert not state(Book(0)).keep


def test_the_side_of_a_position_is_that_of_its_exposure() -> None:
    assert [PositionView(exposure).side for exposure in (-3, 0, 7)] == [-1, 0, 1]
