"""Universes as they were: rules as text, exact turnovers, members at each instant."""

from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from candlemill.backtests.universe import Universe, members_of, parse_universe, turnover_of_days
from candlemill.errors import BadInput
from hypothesis import given

DAY, MINUTE = 86_400_000, 60_000


@given(st.integers(1, 2_000), st.integers(1, 3_650), st.integers(1, 366))
def test_a_rule_is_read_as_it_is_written(top: int, over: int, every: int) -> None:
    universe = Universe((), top, over, every)
    assert parse_universe(str(universe)) == universe


def test_rules_and_their_short_forms() -> None:
    assert str(parse_universe("top:50")) == "top:50:by=turnover:over=30d:every=7d"
    assert str(parse_universe("top:5:every=1d")) == "top:5:by=turnover:over=30d:every=1d"
    assert str(parse_universe("ETHUSDT,BTCUSDT,ETHUSDT")) == "BTCUSDT,ETHUSDT"
    assert str(parse_universe("BINANCE-UM:BTCUSDT")) == "BINANCE-UM:BTCUSDT"


@pytest.mark.parametrize(
    "text",
    ["top:0", "top:2001", "top:5:over=0d", "top:5:over=30", "top:5:by=price", "top:5:over=1d:over=2d", "top:x",
     "top:5:size=3", "BTC USDT", "BTCUSDT,", "*USDT", "top:5:every=367d"],
)  # fmt: skip
def test_what_is_no_universe_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="universe"):
        parse_universe(text)


CANDLES = st.dictionaries(
    st.integers(0, 5 * 1440), st.tuples(st.integers(1, 2**58), st.integers(0, 2**63 - 1)), max_size=60
)


@given(CANDLES)
def test_turnovers_are_exact(candles: dict[int, tuple[int, int]]) -> None:
    wanted: dict[int, int] = {}
    for minute, (close, volume) in candles.items():
        day = minute // 1440 * DAY
        wanted[day] = wanted.get(day, 0) + close * volume
    rows = [(minute * MINUTE, *candles[minute]) for minute in sorted(candles)]
    columns = [np.array([row[k] for row in rows], dtype=np.int64) for k in range(3)]
    assert turnover_of_days(*columns) == wanted


TURNOVERS = st.dictionaries(
    st.sampled_from(["A", "B", "C", "D"]),
    st.tuples(
        st.dictionaries(st.integers(0, 9).map(lambda day: day * DAY), st.integers(0, 3)), st.sampled_from([1, 2])
    ),
    min_size=1,
)


@given(TURNOVERS, st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(0, 12 * DAY))
def test_members_are_the_largest_of_those_that_still_trade(
    turnovers: Any, top: int, over: int, every: int, t: int
) -> None:
    universe = Universe((), top, over, every)
    found = members_of(universe, turnovers, t, 12 * DAY + 1).at(np.array([t]))[0].tolist()
    day = t // DAY // every * every
    ranked = sorted(
        (-Fraction(sum(days.get(d * DAY, 0) for d in range(day - over, day)), scale), name)
        for name, (days, scale) in turnovers.items()
        if (day - 1) * DAY in days
    )
    chosen = {name for _, name in ranked[:top]}
    assert found == [name in chosen for name in sorted(turnovers)]


def test_a_fixed_list_never_changes() -> None:
    found = members_of(Universe(("B",)), {"A": ({}, 1), "B": ({}, 1)}, 0, DAY).at(np.array([0, DAY]))
    assert found.tolist() == [[False, True], [False, True]]
