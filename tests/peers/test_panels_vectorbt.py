"""Target weights over five symbols with shared cash beside vectorbt: the same fills and the same equity."""

import cases
import numpy as np
import pytest
from panel_runs import AGAINST, CASES, Tally, compare, run_of, tally  # noqa: F401

pytest.importorskip("vectorbt", reason="vectorbt is not installed: pip install '.[peers]'")
from with_vectorbt_panels import against, simulated

pytestmark = cases.real_candles
PEER = "vectorbt panels"


@pytest.mark.parametrize("name", CASES)
def test_the_same_weights_make_the_same_fills(name: str, tally: Tally) -> None:  # noqa: F811
    """As users have it, and without the orders that candlemill's rule of targets leaves."""
    run = run_of(*CASES[name], leverage=2)
    theirs = simulated(run, run.weights)
    left = against(run, theirs, run.weights)
    found = tally[name] = compare(run, theirs, dict.fromkeys(left, AGAINST))
    assert not found.reasons["none"]
    if left:
        filled = np.vstack((run.ours.bought[1:], np.zeros((1, run.opens.shape[1]))))
        skipped = ~np.isnan(run.weights) & (run.weights != 0) & (filled == 0)
        theirs = simulated(run, np.where(skipped, np.nan, run.weights))
        rule = against(run, theirs, run.weights)  # of its own positions and values
        assert sorted(rule) == [(row + 1, k) for row, k in np.argwhere(skipped[:-1]).tolist()]
        found = tally[f"{name}, with candlemill's rule"] = compare(run, theirs)
    assert not found.reasons and found.equity < 0.1
