"""Many parameter sets beside each other: the same results as alone, in memory that does not grow with their number."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from candlemill.api.candles import Candles
from candlemill.backtests import plan
from candlemill.backtests import slice as slices
from candlemill.backtests.grid import grid_points
from candlemill.backtests.spec import Spec
from candlemill.engine.candles import CandleColumns
from candlemill.local.runner import JobRunner
from slow_engine import MINUTE
from world import FIRST_DAY

DAYS = 8


def closes() -> Any:
    steps = np.random.default_rng(7).integers(-3, 4, DAYS * 1440)
    return (10_000 + np.cumsum(steps)) * 10**6


def sweep(fast: range, slow: range, **options: Any) -> Spec:
    span = {"start": FIRST_DAY, "end": FIRST_DAY + DAYS * 1440 * MINUTE}
    grid: dict[str, Any] = {"fast": list(fast), "slow": list(slow)}
    return msgspec.convert(
        {"symbol": "OWN", "strategy": "sma_cross", "params": {}, "grid": grid, **span, **options}, Spec
    )


def window_of(close: Any) -> slices.SliceWindow:
    t = FIRST_DAY + np.arange(len(close)) * MINUTE
    candles = CandleColumns([t], [close], [close], [close], [close], [])
    return slices.SliceWindow(candles, 1440, len(close) - 1440, True)


def sets_of(spec: Spec) -> list[tuple[int, Any]]:
    return [(point, strategy) for point, _, strategy in grid_points(spec, 0, spec.combinations)]


def most_allocated(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("account", ["units", "cash"])
def test_sets_in_groups_are_as_sets_alone(account: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcomes of a slice within a job, in the order of the sets, however many are decided at once."""
    spec = sweep(range(2, 7), range(8, 40, 3), account=account, **({"capital": 10**12} if account == "cash" else {}))
    window = window_of(closes())
    sets = sets_of(spec)
    expected = [slices.run_slice(spec, window, [one]).outcomes[0] for one in sets]
    for together in (4, 7, 54, 128):
        monkeypatch.setattr(slices, "TOGETHER_SETS", together)
        found = slices.run_slice(spec, window, sets).outcomes
        assert [one.point for one in found] == [point for point, _ in sets]
        assert [(one.end, one.summary, one.daily) for one in found] == [
            (one.end, one.summary, one.daily) for one in expected
        ]


def test_decisions_of_a_batch_take_no_more_memory_than_those_of_a_group() -> None:
    """Of 4 times 30 sets, and of 5 times 100."""
    window = window_of(closes())

    def peak(spec: Spec) -> int:
        sets = sets_of(spec)
        return most_allocated(lambda: slices.run_slice(spec, window, sets))

    few, many = peak(sweep(range(2, 6), range(50, 110, 2))), peak(sweep(range(2, 7), range(50, 250, 2)))
    assert many < 1.5 * few, f"{few / 1e6:.1f} MB of 120 sets, {many / 1e6:.1f} MB of 500"


def test_memory_of_a_sweep_does_not_grow_with_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep whose results are not kept, of three batches and of nine."""
    monkeypatch.setattr(plan, "BATCH_SETS", 100)
    t, close = FIRST_DAY + np.arange(DAYS * 1440) * MINUTE, closes()
    own = Candles("OWN", {"t": t} | dict.fromkeys(("open", "high", "low", "close"), close))

    def peak(spec: Spec) -> int:
        runner = JobRunner(own.store())
        job = runner.prepare(spec, None)
        return most_allocated(lambda: runner.verify(job, job.job_id, lambda done, known: None))

    few, many = peak(sweep(range(2, 5), range(50, 250, 2))), peak(sweep(range(2, 11), range(50, 250, 2)))
    assert many < 1.25 * few, f"{few / 1e6:.1f} MB of 300 sets, {many / 1e6:.1f} MB of 900"
