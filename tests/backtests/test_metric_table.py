"""One table of metrics: everything that shows, ranks or describes figures follows it."""

import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from candlemill.api import stats
from candlemill.backtests import metric_table
from candlemill.backtests.metric_table import METRICS, RANKED, Metric, order_of, path_of, shown, value_of
from candlemill.backtests.metrics import metrics
from candlemill.cli import tables
from candlemill.errors import UnknownName
from candlemill.formatting import Unit
from candlemill.guards.daily_sums import SCORES
from candlemill.report import tables as report_tables
from candlemill.units import SCALE
from hypothesis import given

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "core/candlemill"
WORDS = {"high": "higher", "low": "lower", None: ""}
RESULT: dict[str, Any] = {
    **{row.key: 0 for row in METRICS if row.place == "result"},
    "start": 1_700_000_000_000,
    "end": 1_700_086_400_000,
    "spec": {"sizing": "fixed"},
    "metrics": dict.fromkeys((row.key for row in METRICS if row.place == "metrics"), SCALE),
}


def test_every_figure_has_one_row() -> None:
    assert len({row.key for row in METRICS}) == len(METRICS)
    computed = metrics(np.empty(0, dtype=np.int64), [], 1, defaultdict(int))
    assert computed.keys() == {row.key for row in METRICS if row.place == "metrics"}
    assert {score for score in SCORES if metric_table.BY_KEY[score].better != "high"} == set()


def test_the_documentation_has_every_row() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    rows = [row for row in METRICS if row.place != "guards"]
    lines = [f"| `{row.key}` | {row.label} | {row.unit} | {WORDS[row.better]} | {row.definition} |" for row in rows]
    assert re.findall(r"^\| `.*", text, re.MULTILINE) == lines


@pytest.mark.parametrize("key", ["recovery_factor", "payoff_ratio", "best_day", "positive_days"])
def test_a_metric_lives_in_two_files(key: str) -> None:
    """Its function and its row: nothing else in the package knows it by name."""
    sources = [path for kind in ("*.py", "*.js") for path in PACKAGE.rglob(kind) if "vendor" not in path.parts]
    found = {path.relative_to(PACKAGE).as_posix() for path in sources if re.search(rf"\b{key}\b", path.read_text())}
    assert found == {"backtests/metrics.py", "backtests/metric_table.py"}


def test_a_new_row_is_shown_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Metric("ulcer_index", "ulcer index", Unit.SHARE, "low", "root of the mean squared fall", "metrics")
    monkeypatch.setitem(metric_table.BY_KEY, row.key, row)
    monkeypatch.setattr(stats, "METRICS", (*METRICS, row))
    result = {**RESULT, "params": {"fast": 5}, "metrics": {**RESULT["metrics"], row.key: 12_344_500}}
    assert stats.stats_of(result)["Ulcer Index [%]"] == 12.3445
    assert stats.stats_of(result).texts["Ulcer Index [%]"] == "12.34"
    assert ("ulcer index", "12.34%") in report_tables.metric_rows(result)
    assert tables.sweep([result], ["fast"], row.key, 1).splitlines()[-2].split()[-1] == "12.34%"
    assert metric_table.path_of(row.key) == ("metrics", "ulcer_index")
    assert not metric_table.is_descending(row.key) and metric_table.is_descending(row.key, best=False)


def test_figures_are_found_and_unknown_ones_named() -> None:
    assert path_of("fees") == ("fees",) and path_of("return") == ("metrics", "return")
    assert value_of({"metrics": {"return": None}}, "return") is None and value_of({}, "return") is None
    for key in ("deflated_sharpe", "retrun"):
        with pytest.raises(UnknownName, match="figure"):
            path_of(key)
    assert "turnover" in RANKED and "plateau" not in RANKED


@given(st.lists(st.none() | st.integers(-(2**80), 2**80)), st.booleans())
def test_undefined_figures_come_last_in_both_directions(values: list[int | None], descending: bool) -> None:
    order = order_of(values, descending)
    assert sorted(order) == list(range(len(values)))
    found = [values[k] for k in order]
    known = [value for value in found if value is not None]
    assert found == known + [None] * (len(found) - len(known))
    assert known == sorted(known, reverse=descending)
    assert all(a < b for a, b in pairwise(order) if values[a] == values[b]), "ties by number"


def test_figures_in_their_own_units() -> None:
    assert shown("turnover", 991_571_000_000) == "9,915.71"
    assert shown("positive_days", 49_976_852) == "49.98%"
    assert shown("longest_losing_streak", 21) == "21"
    assert shown("longest_drawdown_days", 1) == "1 day" and shown("longest_drawdown_days", 59) == "59 days"
    assert shown("break_even_fee", -50) == "-0.005%" and shown("level", 950_000) == "95%"
    assert [shown("open_position", side) for side in (1, -1, 0)] == ["long", "short", "none"]
    assert shown("max_drawdown", SCALE // 4, "compound") == "25.00%"


def test_a_portfolio_with_one_short_position_is_not_long() -> None:
    one = {**RESULT, "open_position": 1}
    assert stats.stats_of(one)["Open Position"] == "long"
    assert stats.stats_of({**one, "parts": []})["# Open Position"] == 1
    assert stats.stats_of({**one, "open_position": -1})["Open Position"] == "short"
