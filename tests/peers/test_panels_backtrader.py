"""Target weights over five symbols with shared cash beside backtrader: the same fills and the same equity."""

import cases
import pytest
from panel_runs import AGAINST, CASES, Tally, compare, run_of, tally  # noqa: F401

pytest.importorskip("backtrader", reason="backtrader is not installed: pip install backtrader")
from with_backtrader import simulated

pytestmark = cases.real_candles
PEER = "backtrader panels"


@pytest.mark.parametrize("name", CASES)
def test_the_same_weights_make_the_same_fills(name: str, tally: Tally) -> None:  # noqa: F811
    """As users have it, and without the orders that candlemill's rule of targets leaves."""
    run = run_of(*CASES[name], leverage=2)
    theirs, left, margin = simulated(run, raise_only_adds=False)
    found = tally[name] = compare(run, theirs, dict.fromkeys(left, AGAINST))
    assert not found.reasons["none"] and not margin
    if left:
        theirs, _, _ = simulated(run, raise_only_adds=True)
        found = tally[f"{name}, with candlemill's rule"] = compare(run, theirs)
    assert not found.reasons and found.equity < 0.1
