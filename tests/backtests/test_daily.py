"""Daily profits as text."""

import hypothesis.strategies as st
import pytest
from candlemill.backtests.daily import pack, unpack
from candlemill.engine.candles import DAY_MS
from candlemill.errors import TooLarge
from hypothesis import given

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(st.dictionaries(st.integers(0, 60) | st.integers(0, 100_000), INT64))
def test_what_is_packed_unpacks(profits: dict[int, int]) -> None:
    days = sorted(profits)
    starts, found = unpack(pack(days, [profits[day] for day in days]))
    assert starts.tolist() == [day * DAY_MS for day in days]
    assert found.tolist() == [profits[day] for day in days]


def test_runs_of_days_are_written_once() -> None:
    assert pack([19_358, 19_359, 19_360, 19_730], [1, 0, -1, 2]).split(";")[0] == "19358:3,19730:1"
    assert pack([], []) == ";"


def test_a_profit_beyond_64_bits_is_refused() -> None:
    with pytest.raises(TooLarge, match="smaller quantity"):
        pack([1], [2**63])
