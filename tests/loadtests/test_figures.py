"""The arithmetic of a load test's report, and that the page has it."""

import pytest

pytest.importorskip("psutil", reason="psutil is not installed: pip install '.[test]'")

import re
import statistics

from hypothesis import given
from hypothesis import strategies as st

from loadtests.load.figures import by_second, cost_seconds, kinds_of, percentile, stage_of
from loadtests.load.orders import Heard, Sample
from loadtests.load.report import BACKTEST, page
from loadtests.load.run import Found

VALUES = st.lists(st.floats(0, 1e6), min_size=1, max_size=60).map(sorted)


@given(VALUES, st.floats(0.01, 1.0))
def test_a_percentile_is_the_least_value_that_covers_its_share(ms: list[float], share: float) -> None:
    found = percentile(ms, share)
    assert found in ms
    assert sum(one <= found for one in ms) >= share * len(ms) - 1e-9
    assert sum(one < found for one in ms) < share * len(ms)
    assert percentile(ms, 0.5) == statistics.median_low(ms)


def heard() -> Heard:
    """Ten seconds: 100 answers, of which two are wrong; 20 backtests that end, and one that does not."""
    requests = [Sample(k / 10, "result" if k % 2 else "jobs", float(k + 1), k not in (3, 5)) for k in range(100)]
    journeys = [Sample(k / 2.1, BACKTEST, 500.0, k != 20, True) for k in range(21)]
    return Heard(10.0, [*requests, *journeys], ["result: 500 instead of 200"], {"serve": 0.9, "swarm": 0.2})


def test_a_stage_adds_up() -> None:
    stage = stage_of("all", "about", heard(), 7, ["serve"], 0.1, 0.5)
    assert (stage.requests, stage.errors, stage.per_second) == (100, 3, 10.0)
    assert sum(stage.by_second) == 100
    assert stage.budget_used == pytest.approx(3 / (0.001 * 100))
    by_name = {kind.name: kind for kind in stage.kinds}
    assert (by_name["result"].count, by_name["result"].errors, by_name["result"].p50) == (50, 2, 50.0)
    assert by_name["result"].most == 100.0
    assert by_name[BACKTEST].is_journey
    # 0.8 cores for 10 seconds are 8 CPU seconds: 80 ms for each of 100 requests, 0.4 s for each of 20 backtests.
    assert stage.served_cpu_ms == pytest.approx(80.0)
    assert cost_seconds(stage, BACKTEST) == pytest.approx(0.4)


def test_seconds_and_kinds_of_nothing() -> None:
    assert by_second([], 3.5) == [0, 0, 0]
    assert kinds_of([], 3.5) == []
    assert percentile([], 0.5) == 0.0


def test_the_page_carries_all_it_needs() -> None:
    about = {"load": [0.1], "commit": "c" * 40, "cpu": "<b>", "cores": 2, "python": "3", "engine_compiled": True}
    stages = [stage_of(name, "about", heard(), 7, ["serve"], 0.1, 0.5) for name in ("all", "Backtester")]
    text = page(Found("now", about, stages))
    assert "&lt;b&gt;" in text
    assert "result: 500 instead of 200" in text
    assert "400.0 ms" in text
    assert not re.search(r"""(src|href)=|url\(|@import|<script""", text)
