"""Many parameter sets beside each other: the same results as alone."""

from typing import Any

import msgspec
import numpy as np
import pytest
from candlemill.backtests import slice as slices
from candlemill.backtests.grid import grid_points
from candlemill.backtests.spec import Spec
from candlemill.engine.candles import CandleColumns
from slow_engine import MINUTE
from world import FIRST_DAY

DAYS = 12


def closes() -> Any:
    steps = np.random.default_rng(7).integers(-3, 4, DAYS * 1440)
    return (10_000 + np.cumsum(steps)) * 10**6


def sweep(fast: range, slow: range, **options: Any) -> Spec:
    span = {"start": FIRST_DAY, "end": FIRST_DAY + DAYS * 1440 * MINUTE}
    grid: dict[str, Any] = {"fast": list(fast), "slow": list(slow)}
    return msgspec.convert(
        {"symbol": "OWN", "strategy": "sma_cross", "params": {}, "grid": grid, **span, **options}, Spec
    )


@pytest.mark.parametrize("account", ["units", "cash"])
def test_sets_in_groups_are_as_sets_alone(account: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcomes of a slice within a job, in the order of the sets, however many are decided at once."""
    spec = sweep(range(2, 7), range(8, 40, 3), account=account, **({"capital": 10**12} if account == "cash" else {}))
    close = closes()
    t = FIRST_DAY + np.arange(len(close)) * MINUTE
    candles = CandleColumns([t], [close], [close], [close], [close], [])
    window = slices.SliceWindow(candles, 1440, len(close) - 1440, True)
    sets = [(point, strategy) for point, _, strategy in grid_points(spec, 0, spec.combinations)]
    expected = [slices.run_slice(spec, window, [one]).outcomes[0] for one in sets]
    for together in (4, 7, 54, 128):
        monkeypatch.setattr(slices, "TOGETHER_SETS", together)
        found = slices.run_slice(spec, window, sets).outcomes
        assert [one.point for one in found] == [point for point, _ in sets]
        assert [(one.end, one.summary, one.daily) for one in found] == [
            (one.end, one.summary, one.daily) for one in expected
        ]
