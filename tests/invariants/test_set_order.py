"""A sweep's sets come in one order everywhere: undefined figures last in both directions, ties by the set's number."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import candlemill as cm
import pytest
from candlemill.backtests.grid import grid_points
from candlemill.backtests.metric_table import is_descending
from candlemill.config import DSN_VARIABLE
from candlemill.ingest.candles import ingest
from candlemill.store.clickhouse import ClickHouseStore
from conftest import Cli, said
from gateway.conftest import serving

SPOT = Path(__file__).parents[3] / "shared/data/spot"
GRID = {"fast": list(range(5, 51, 5)), "slow": [20, 60, 120, 240]}
OPTIONS: dict[str, Any] = {"range": "2021-05", "sizing": "fixed", "quantity": "1"}
SORTS = ("calmar_ratio", "skew", "longest_drawdown_days", "ambiguous_bars")  # of the last all sets have 0

pytestmark = pytest.mark.skipif(not SPOT.is_dir(), reason=f"no real candles at {SPOT}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("order") / "db"
    with ClickHouseStore(f"chdb://{folder}") as store:
        ingest(store, [SPOT / "BTCUSDT-1m-2021-05.zip"])
    yield folder


@pytest.fixture(scope="module")
def swept(folder: Path) -> Any:
    return cm.sweep("BTCUSDT", "sma_cross", **GRID, **OPTIONS, store=f"chdb://{folder}", progress=False)


def expected(swept: Any, sort: str, best: bool) -> list[dict[str, Any]]:
    """The parameters in the order of figure and number, from the numbers of the grid's points."""
    numbers = {json.dumps(params): number for number, params, _ in grid_points(swept.spec, 0, 40)}
    rows = [(row["metrics"].get(sort, row.get(sort)), numbers[json.dumps(row["params"])], row) for row in swept.results]
    sign = -1 if is_descending(sort, best) else 1
    rows.sort(key=lambda row: (row[0] is None, sign * (row[0] or 0), row[1]))
    return [row["params"] for _, _, row in rows]


def test_ruined_accounts_are_undefined(swept: Any) -> None:
    undefined = [row for row in swept.results if row["metrics"]["calmar_ratio"] is None]
    assert 4 <= len(undefined) < len(swept)
    assert swept.best("calmar_ratio").result["metrics"]["calmar_ratio"] is not None


@pytest.mark.parametrize("sort", SORTS)
def test_python_and_the_command_line(
    swept: Any, folder: Path, run: Cli, monkeypatch: pytest.MonkeyPatch, sort: str
) -> None:
    monkeypatch.setenv(DSN_VARIABLE, f"chdb://{folder}")
    job = ("sweep", "--symbol", "BTCUSDT", "--strategy", "sma_cross", "--range", "2021-05", "--sizing", "fixed")
    job += ("--grid", "fast=5:50:5", "--grid", "slow=20,60,120,240", "--sort", sort)
    for order in ("best", "worst"):
        found = said(run(*job, "--order", order, "--json"))["results"]
        assert [row["params"] for row in found] == expected(swept, sort, order == "best")
    again = cm.sweep(
        "BTCUSDT", "sma_cross", metric=sort, **GRID, **OPTIONS, store=f"chdb://{folder}", progress=False
    ).sets
    own = cm.candles("BTCUSDT", "2021-05", store=f"chdb://{folder}")
    in_memory = cm.sweep(own, "sma_cross", metric=sort, **GRID, **OPTIONS, progress=False).sets
    wanted = [(params["fast"], params["slow"]) for params in expected(swept, sort, True)]
    for table in (again, in_memory):
        assert list(zip(table["fast"].tolist(), table["slow"].tolist(), strict=True)) == wanted


def test_rest(swept: Any, folder: Path) -> None:
    expecting = {(sort, order): expected(swept, sort, order == "best") for sort in SORTS for order in ("best", "worst")}
    with serving(folder) as gateway:
        for (sort, order), wanted in expecting.items():
            found, cursor = [], ""
            while cursor is not None:
                query = f"sort={sort}&order={order}&limit=15&cursor={cursor}"
                page = gateway.get(f"/api/v1/backtest/{swept.job_id}/results?{query}")
                found += [row["params"] for row in page["items"]]
                cursor = page["next"]
            assert found == wanted, (sort, order)
        rows = {row["key"]: row for row in gateway.get("/api/v1/metrics")["metrics"]}
        assert (rows["turnover"]["unit"], rows["turnover"]["scale"], rows["turnover"]["better"]) == (
            "money", 100_000_000, "low",
        )  # fmt: skip
