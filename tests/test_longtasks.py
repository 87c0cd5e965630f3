"""Which tasks are marked as long: those of strategies that are asked bar by bar, and many of them at once."""

from collections.abc import Iterator
from typing import Any

import pytest
from candlemill import events
from candlemill.engine.tape import DAY_MS
from candlemill.longtasks import LONG, LONG_TASK_SECONDS, sized, task_seconds
from candlemill.model import resolve
from candlemill.reduce import Repair
from candlemill.strategies.base import Bar, Stateful
from candlemill.strategies.registry import REGISTERED

YEAR = 365 * DAY_MS
START = 1_609_459_200_000


class Slow(Stateful, frozen=True):
    """Asked bar by bar."""

    def step(self, state: Any, bar: Bar) -> tuple[int, Any]:
        return 0, state


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(REGISTERED, "slow", Slow)
    yield


def task(
    strategy: str, count: int, cuts: list[int], repairs: list[Repair], timeframe: int = 1
) -> events.SliceRequested:
    spec = resolve(symbol="BTCUSDT", strategy=strategy, span=(START, START + 5 * YEAR), params={}, timeframe=timeframe)
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


def test_the_mark_is_all_that_changes() -> None:
    for count, work in ((1, ""), (int(LONG_TASK_SECONDS / 0.5256) + 1, LONG)):
        asked = task("slow", count, [START, START + YEAR], [])
        plain = events.make("split", events.SLICE_REQUESTED, asked.job_id, asked)
        marked = sized(plain, asked)
        assert marked.work == work
        assert (marked.id, marked.data) == (plain.id, plain.data)
