"""Parameter sets of one task share what they find in the candles; each has the outcome that it has alone."""

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import hypothesis.strategies as st
import pytest
from candlemill.backtests import slice
from candlemill.backtests.slice import SliceWindow, run_slice
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import COLUMNS
from candlemill.backtests.states import COLD
from candlemill.errors import CandlemillError
from candlemill.strategies import build
from hypothesis import event, given, settings
from order_jobs import PARAMS, cash_order_jobs, known, order_jobs
from world import Market


@pytest.fixture(autouse=True, scope="module")
def strategies() -> Iterator[None]:
    with known():
        yield


@st.composite
def sweeps(draw: Any) -> tuple[Market, Spec, list[Any]]:
    market, spec = draw(st.one_of(order_jobs(), cash_order_jobs()))
    params = [dict(spec.params)] * 4
    if spec.strategy in PARAMS:
        params = draw(st.lists(PARAMS[spec.strategy], min_size=4, max_size=7))
    return market, spec, [(k, build(spec.strategy, each)) for k, each in enumerate(params)]


@given(sweeps(), st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_sets_together_are_as_each_alone(sweep: tuple[Market, Spec, list[Any]], thirds: int) -> None:
    """From given states and from guesses, on all of the candles or on a part of them."""
    market, spec, sets = sweep
    world = market.world()

    def outcomes(some: list[Any], guess: bool) -> Any:
        found = world.runtime.candles.window(spec, spec.start, spec.end, 0, COLUMNS)
        window = SliceWindow(found.candles, thirds * found.hi // 3 if guess else 0, found.hi, True)
        try:
            return run_slice(spec, window, some, None if guess else {k: COLD for k, _ in some}).outcomes
        except CandlemillError:
            return None

    for guess in (False, True):
        together = outcomes(sets, guess)
        with patch.object(slice, "SHARED_SETS", 10**9):
            alone = outcomes(sets, guess)
            single = [outcomes([one], guess) for one in sets]
        event(f"{spec.strategy}, {'refused' if alone is None else 'run'}")
        assert together == alone
        assert alone is None or alone == [one for (one,) in single]
