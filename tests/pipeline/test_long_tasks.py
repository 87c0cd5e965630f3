"""Which tasks are marked as long: those of strategies that are requested bar by bar, and many of them at once."""

from collections.abc import Iterator
from typing import Any

import pytest
from candlemill.backtests.merge import Repair
from candlemill.backtests.resolve import resolve
from candlemill.engine.candles import DAY_MS
from candlemill.pipeline import events
from candlemill.pipeline.tasks import LONG, LONG_TASK_SECONDS, sized, task_seconds
from candlemill.strategies.base import Bar, Stateful
from candlemill.strategies.registry import REGISTERED

YEAR = 365 * DAY_MS
START = 1_609_459_200_000


class Slow(Stateful, frozen=True):
    """Suggestion bar by bar."""

    def step(self, state: Any, bar: Bar) -> tuple[int, Any]:
        return 0, state


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(REGISTERED, "slow", Slow)
    yield


def task(
    strategy: str, count: int, cuts: list[int], repairs: list[Repair], timeframe: int = 1
) -> events.SliceRequested:
    spec = resolve(
        symbol="BTCUSDT",
        strategy=strategy,
        span=(START, START + 5 * YEAR),
        params={},
        timeframe=timeframe,
        account="units",
    )
    return events.SliceRequested("a" * 32, "d", spec, 0, 0, count, 3, cuts, repairs)


def test_only_what_may_outlive_a_request_is_long() -> None:
    whole = [START, START + YEAR]
    assert task_seconds(task("sma_cross", 512, whole, [])) == 0
    one = task_seconds(task("slow", 1, whole, []))
    assert one == pytest.approx(0.5256)
    assert task_seconds(task("slow", 512, whole, [])) == pytest.approx(512 * one)
    assert task_seconds(task("slow", 512, whole, [], timeframe=60)) == pytest.approx(512 * one / 60)


def test_repairs_count_for_the_slices_that_they_run() -> None:
    cuts = [START + k * YEAR for k in range(4)]
    repairs = [Repair(0, 3, 3, ""), Repair(1, 5, 1, "")]
    assert task_seconds(task("slow", 2, cuts, repairs)) == pytest.approx(4 * 0.5256)


def test_a_long_task_has_a_mark_and_a_name_of_its_attempt() -> None:
    """No Job starts under the name of one that failed: what is requested again has another name."""
    for count, work, ending in ((1, "", ""), (int(LONG_TASK_SECONDS / 0.5256) + 1, LONG, "-700-2")):
        data = task("slow", count, [START, START + YEAR], [])
        plain = events.make("split", events.SLICE_REQUESTED, data.job_id, data)
        marked = sized(plain, data, events.Requested(data.spec, attempt=700, retry=2))
        assert (marked.id, marked.work, marked.data) == (plain.id + ending, work, plain.data)
