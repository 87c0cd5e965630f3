"""The two kinds that users write: what they are given, what they may answer, and that no cut shows."""

import math
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest
from candlemill.engine.candles import Bars, CandleColumns, minute_bars
from candlemill.errors import BadStrategy
from candlemill.strategies import Bar, Stateful, Strategy, Windowed
from candlemill.strategies.base import MEMORY_LIMIT, decoded, encoded
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta
from world import FIRST_DAY

EMPTY: list[Any] = []


def minutes(closes: list[int]) -> Bars:
    t = FIRST_DAY + 60_000 * np.arange(len(closes), dtype=np.int64)
    close = np.array(closes, dtype=np.int64)
    return minute_bars(CandleColumns([t], [close], EMPTY, EMPTY, [close], EMPTY))


class AboveBefore(Windowed, frozen=True):
    back: Annotated[int, Meta(ge=1)] = 2

    def lookback(self) -> int:
        return self.back

    def positions(self, bars: Bars) -> Any:
        return bars.close > np.concatenate((np.zeros(self.back, dtype=np.int64), bars.close[: -self.back]))


class Streak(Stateful, frozen=True):
    """Long after three closes above the one before, short after three below."""

    def start(self) -> tuple[int, int, float]:
        return 0, 0, 0.0

    def step(self, state: tuple[int, int, float], bar: Bar) -> tuple[int, Any]:
        before, run, mean = state
        move = (bar.close > before) - (bar.close < before)
        run = run + move if run * move > 0 else move
        return (run >= 3) - (run <= -3), (bar.close, run, 0.9 * mean + 0.1 * bar.close)


class Answer(Windowed, frozen=True, dict=True):
    """Says what a test puts into its attribute."""

    def lookback(self) -> int:
        return 0

    def positions(self, bars: Bars) -> Any:
        answer = self.__dict__["answer"]
        return answer(bars) if callable(answer) else answer


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(0, 40), st.sampled_from([AboveBefore, Streak])
)
def test_any_cut_gives_the_uncut_decisions(closes: list[int], cut: int, kind: type[Strategy]) -> None:
    strategy = kind()
    bars, cut = minutes(closes), min(cut, len(closes))
    whole, end = strategy.decide(bars, 0, bars.n, b"")
    before, memory = strategy.decide(minutes(closes[:cut]) if cut else bars, 0, cut, b"")
    begin = max(0, cut - strategy.lookback())  # the second slice sees no more than it must
    after, last = strategy.decide(minutes(closes[begin:]), cut - begin, len(closes) - begin, memory)
    if begin == 0 or cut == len(closes):
        after, last = strategy.decide(bars, cut, bars.n, memory)
    assert [*before.tolist(), *after.tolist()] == whole.tolist()
    assert last == end


def test_a_windowed_strategy_waits_until_it_has_enough_bars() -> None:
    found, memory = AboveBefore(back=2).decide(minutes([1, 2, 3, 4]), 0, 4, b"")
    assert found.tolist() == [0, 0, 1, 1]
    assert (found.dtype, memory) == (np.int8, b"")


def test_a_step_sees_one_bar() -> None:
    found, memory = Streak().decide(minutes([5, 6, 7, 8, 3, 2, 1]), 0, 7, b"")
    assert found.tolist() == [0, 0, 1, 1, 0, 0, -1]
    assert memory.split(b",")[:2] == [b"1", b"-3"]


def test_nobody_writes_to_the_candles() -> None:
    bars = minutes([3, 4])

    def overwrite(seen: Bars) -> Any:
        seen.close[0] = 9
        return seen.close

    with pytest.raises(BadStrategy, match=r"Answer: ValueError: .*read-only .*test_strategies_api.py:"):
        answering(overwrite).decide(bars, 0, 2, b"")
    assert bars.close.tolist() == [3, 4]


def answering(answer: Any) -> Answer:
    strategy = Answer()
    strategy.__dict__["answer"] = answer
    return strategy


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([0, 1], r"Answer: positions of shape \(2,\), expected \(3,\): one for each bar"),
        (np.zeros((3, 1), dtype=np.int8), r"shape \(3, 1\)"),
        ([0.0, 1.0, 0.0], "positions of type float64, expected whole numbers or booleans"),
        ([0, 2, 0], "position 2, expected -1, 0 or 1"),
        (np.array([0, 1, 255], dtype=np.uint8), "position 255"),
        (None, r"shape \(\)"),
        (lambda bars: bars.close[10], r"Answer: IndexError: .*\(test_strategies_api.py:\d+\)"),
    ],
)
def test_wrong_answers_are_named(answer: Any, message: str) -> None:
    with pytest.raises(BadStrategy, match=message) as error:
        answering(answer).decide(minutes([1, 2, 3]), 0, 3, b"")
    assert "\n" not in str(error.value)


# -- states --------------------------------------------------------------------------------------------------------


class Kept(msgspec.Struct):
    count: int
    mean: float
    on: bool


VALUES = st.tuples(st.integers(), st.floats(), st.booleans())


@given(VALUES)
def test_states_survive_bit_by_bit(values: tuple[int, float, bool]) -> None:
    for start, state in (((0, 0.0, False), values), (Kept(0, 0.0, False), Kept(*values))):
        memory = encoded(Streak(), start, state)
        found = decoded(Streak(), start, memory)
        assert type(found) is type(start)
        assert encoded(Streak(), start, found) == memory
        if not math.isnan(values[1]):
            assert found == state
    assert b"-nan" not in memory


@pytest.mark.parametrize("state", [(1, 2), (1.0, 2.0), (1, np.float64(2.0)), [1, 2.0], (True, 2.0), Kept(1, 2.0, True)])
def test_states_keep_the_types_they_start_with(state: Any) -> None:
    with pytest.raises(BadStrategy, match="has not the types of start"):
        encoded(Streak(), (0, 0.0), state)


def test_states_are_small_and_flat() -> None:
    with pytest.raises(BadStrategy, match=f"the limit is {MEMORY_LIMIT:,}"):
        encoded(Streak(), (0,) * 3000, (0,) * 3000)
    with pytest.raises(BadStrategy, match="holds more than ints, floats, booleans"):
        encoded(Streak(), ("a",), ("a",))  # type: ignore[arg-type]


@pytest.mark.parametrize("memory", [b"x", b"1", b"1,2,3,4", b"1,2,0x", b"\xff,0,0"])
def test_what_is_no_state_is_refused(memory: bytes) -> None:
    with pytest.raises(BadStrategy, match="is not one of its states"):
        Streak().decide(minutes([1]), 0, 1, memory)
