"""What a finished job has to show is what its report and its trace say."""

import csv
import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import candlemill as cm
import jsonschema
import pytest
from candlemill.report.series import holding
from candlemill.units import SCALE

from gateway.conftest import Gateway

RUN = {"symbol": "AAAUSDT", "strategy": "sma_cross", "params": {"fast": 10, "slow": 50}, "quantity": "0.5"}
GRID = {"symbol": "AAAUSDT", "strategy": "sma_cross", "grid": {"fast": [5, 10, 20], "slow": [50, 100]}}


@pytest.fixture(scope="module")
def job(gateway: Gateway) -> str:
    return str(gateway.finish(**RUN)["job_id"])


def test_equity_keeps_every_extreme(gateway: Gateway, job: str, database: Path):
    run = cm.backtest("AAAUSDT", "sma_cross", fast=10, slow=50, quantity="0.5", store=f"chdb://{database}")
    marks = run.trace.equity
    found = gateway.get(f"/api/v1/backtest/{job}/equity?points=100")
    assert len(found["t"]) <= 204
    assert found["t"] == sorted(found["t"])
    assert max(found["drawdown"]) == 0
    assert (max(found["equity"]), min(found["equity"])) == (int(marks.max()), int(marks.min()))
    hold = holding(run.trace)
    assert (max(found["benchmark"]), min(found["benchmark"])) == (int(hold.max()), int(hold.min()))
    first, last = found["t"][10], found["t"][20]
    part = gateway.get(f"/api/v1/backtest/{job}/equity?points=20000&from={first}&to={last}")
    assert (part["t"][0], part["t"][-1]) == (first, last)
    assert set(zip(found["t"][10:21], found["equity"][10:21], strict=True)) <= set(
        zip(part["t"], part["equity"], strict=True)
    )
    whole = gateway.get(f"/api/v1/backtest/{job}/equity?points=20000")  # every bar: lines end where minutes are missing
    missing = [k for k in range(1, len(whole["t"])) if whole["t"][k] - whole["t"][k - 1] > 60_000]
    assert missing and whole["breaks"] == missing


def test_trades_add_up(gateway: Gateway, job: str):
    result = gateway.get(f"/api/v1/backtest/{job}")["result"]
    items: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = gateway.get(f"/api/v1/backtest/{job}/trades?limit=37&cursor={cursor}")
        items, cursor = items + page["items"], page["next"]
    assert len(items) == page["total"] == result["trades"]
    assert sum(one["pnl"] > 0 for one in items) == result["wins"]
    assert [one["exit_ms"] for one in items] == sorted(one["exit_ms"] for one in items)
    middle = items[len(items) // 2]
    inside = gateway.get(f"/api/v1/backtest/{job}/trades?from={middle['entry_ms']}&to={middle['entry_ms']}")
    assert middle in inside["items"]
    worst = gateway.get(f"/api/v1/backtest/{job}/trades?sort=pnl&limit=1")["items"][0]
    assert worst["pnl"] == min(one["pnl"] for one in items)


def test_orders_are_shown_where_they_stood(gateway: Gateway, job: str):
    assert gateway.get(f"/api/v1/backtest/{job}/orders?from=0") == {"lines": [], "fills": [], "ambiguous": []}
    output = gateway.finish(symbol="AAAUSDT", strategy="grid", params={"spacing": 1500}, path="both")
    result = output["result"]
    assert result["interval"]["best"]["total_pnl"] == result["best_path_pnl"]
    base = f"/api/v1/backtest/{output['job_id']}"
    trade = gateway.get(f"{base}/trades?limit=1")["items"][0]
    shown = gateway.get(f"{base}/orders?from={trade['entry_ms']}&to={trade['exit_ms']}")
    fills = [(fill["what"], fill["t"], fill["price"]) for fill in shown["fills"]]
    assert fills[0][1:] == (trade["entry_ms"], trade["entry_price"])
    assert fills[-1][0] in ("out", "buy1", "buy2", "buy3", "buy4")
    ended = {(line["key"], line["end_ms"] - 60_000) for line in shown["lines"] if line["ended"] == "filled"}
    assert {(what, t) for what, t, _ in fills} <= ended


def test_months_add_up(gateway: Gateway, job: str):
    result = gateway.get(f"/api/v1/backtest/{job}")["result"]
    months = gateway.get(f"/api/v1/backtest/{job}/monthly")["months"]
    assert sum(month["pnl"] for month in months) == result["total_pnl"]
    assert [(month["year"], month["month"]) for month in months] == [(2024, 1), (2024, 2)]
    assert months[0]["return"] == round(months[0]["pnl"] * 10**8 / result["capital"])


def test_a_sweeps_rows_and_heat_map_agree(gateway: Gateway):
    sweep = gateway.finish(**GRID)["job_id"]
    rows = gateway.get(f"/api/v1/backtest/{sweep}/results?sort=total_pnl")
    assert rows["total"] == len(rows["items"]) == 6
    profits = {(row["params"]["fast"], row["params"]["slow"]): row for row in rows["items"]}
    assert [row["total_pnl"] for row in rows["items"]] == sorted(
        (row["total_pnl"] for row in rows["items"]), reverse=True
    )
    found = gateway.get(f"/api/v1/backtest/{sweep}/heatmap?metric=total_pnl&x=slow&y=fast")
    assert (found["x"], found["y"]["values"]) == ({"name": "slow", "values": ["50", "100"]}, ["5", "10", "20"])
    for j, fast in enumerate(found["y"]["values"]):
        for k, slow in enumerate(found["x"]["values"]):
            row = profits[int(fast), int(slow)]
            assert (found["z"][j][k], found["job_ids"][j][k]) == (row["total_pnl"], row["job_id"])
    worst = gateway.get(f"/api/v1/backtest/{sweep}/results?sort=total_pnl&order=worst&limit=1")["items"][0]
    assert worst == rows["items"][-1]
    nested = gateway.get(f"/api/v1/backtest/{sweep}/results?sort=cagr&limit=1")["items"][0]
    assert nested["metrics"]["cagr"] == max(row["metrics"]["cagr"] for row in rows["items"])


def test_reports_are_pages_that_ask_nobody(gateway: Gateway, job: str):
    for one in (job, gateway.finish(**GRID)["job_id"]):
        status, headers, page = gateway.ask("GET", f"/api/v1/backtest/{one}/report?download=true")
        assert (status, page[:15].lower()) == (200, "<!doctype html>")
        assert "sandbox" in headers["content-security-policy"]
        assert one[:12] in headers["content-disposition"]


def test_what_a_job_does_not_have(gateway: Gateway, job: str):
    sweep = gateway.finish(**GRID)["job_id"]
    for path in (f"{sweep}/equity", f"{job}/results", f"{job}/heatmap"):
        assert gateway.ask("GET", f"/api/v1/backtest/{path}")[0] == 422
    assert gateway.ask("GET", f"/api/v1/backtest/{'0' * 32}/equity")[0] == 404
    assert gateway.ask("GET", f"/api/v1/backtest/{sweep}/heatmap?metric=nonsense")[0] == 422


def test_candles_keep_their_extremes(gateway: Gateway):
    symbol = next(one for one in gateway.get("/api/v1/symbols")["symbols"] if one["symbol"] == "AAAUSDT")
    every = gateway.get("/api/v1/symbols/AAAUSDT/candles?points=20000")
    few = gateway.get("/api/v1/symbols/AAAUSDT/candles?points=50")
    assert (every["minutes"], len(every["t"])) == (1, symbol["bars"])
    assert 10 < len(few["t"]) <= 51
    assert (max(few["high"]), min(few["low"])) == (max(every["high"]), min(every["low"]))
    assert sum(few["volume"]) == sum(every["volume"])
    days = gateway.get("/api/v1/symbols/AAAUSDT")["calendar"]
    assert sum(day["rows"] for day in days) == symbol["bars"]
    assert sum(day["missing"] for day in days) == symbol["missing_minutes"] == 90
    assert gateway.ask("GET", "/api/v1/symbols/NOUSDT")[0] == 404


def test_strategies_come_with_their_schemas(gateway: Gateway):
    found = {one["name"]: one for one in gateway.get("/api/v1/strategies")["strategies"]}
    fast = found["sma_cross"]["schema"]["properties"]["fast"]
    assert (fast["type"], fast["minimum"]) == ("integer", 1)
    assert found["sma_cross"]["summary"].startswith("Long while")


def test_decimal_texts_in_place_of_scaled_integers(gateway: Gateway) -> None:
    job = gateway.finish(symbol="AAAUSDT", strategy="sma_cross", fee="10bp", stop_loss="2%")
    assert (job["spec"]["fee"], job["spec"]["stop_loss"]) == (1_000, 20_000)
    base, result = f"/api/v1/backtest/{job['job_id']}", job["result"]
    texts = gateway.get(f"{base}?as=decimal")["result"]
    for key in ("total_pnl", "fees", "capital", "sharpe_ratio", "max_drawdown"):
        assert Decimal(texts[key]) * SCALE == result[key]
    assert Decimal(texts["metrics"]["return"]) * SCALE == result["metrics"]["return"]
    assert (texts["trades"], texts["params"], texts["days"]) == (result["trades"], result["params"], result["days"])
    for part, column in (("equity", "equity"), ("monthly", "months"), ("trades", "items")):
        assert len(gateway.get(f"{base}/{part}?as=decimal")[column]) == len(gateway.get(f"{base}/{part}")[column])
    trade, same = (gateway.get(f"{base}/trades?limit=1{form}")["items"][0] for form in ("", "&as=decimal"))
    assert Decimal(same["entry_price"]) * SCALE == trade["entry_price"] and same["entry_ms"] == trade["entry_ms"]
    assert gateway.ask("GET", f"{base}?as=float")[0] == 400


def test_decimal_texts_are_as_the_schema_describes_them(gateway: Gateway) -> None:
    job = gateway.finish(symbol="AAAUSDT", strategy="sma_cross", stop_loss="2%")
    base, found = f"/api/v1/backtest/{job['job_id']}", gateway.get("/openapi.json")
    routes = {
        f"{base}/equity": "/api/v1/backtest/{job_id}/equity",
        f"{base}/monthly": "/api/v1/backtest/{job_id}/monthly",
        f"{base}/trades": "/api/v1/backtest/{job_id}/trades",
        "/api/v1/symbols/AAAUSDT/candles": "/api/v1/symbols/{symbol}/candles",
    }
    for path, route in routes.items():
        answer = found["paths"][route]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        for form in ("scaled", "decimal"):
            jsonschema.validate(gateway.get(f"{path}?as={form}"), answer | {"components": found["components"]})


def test_the_schema_has_each_fields_unit_and_scale(gateway: Gateway) -> None:
    found = gateway.get("/openapi.json")["components"]["schemas"]
    trade, equity = found["TradeRow"]["properties"], found["Equity"]["properties"]
    assert (trade["pnl"]["x-unit"], trade["pnl"]["x-scale"]) == ("money", SCALE)
    assert trade["entry_price"]["x-unit"] == "price" and trade["entry_ms"]["x-unit"] == "ms"
    assert equity["drawdown"]["x-scale"] == SCALE
    assert found["MonthRow"]["properties"]["return"]["x-unit"] == "share"


def test_whole_tables_come_as_files_by_what_is_accepted(gateway: Gateway, job: str):
    pytest.importorskip("pyarrow")
    path = f"/api/v1/backtest/{job}"
    result = gateway.get(path)["result"]
    status, headers, text = gateway.ask("GET", f"{path}/tables/daily", Accept="text/csv")
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/csv")
    assert headers["content-disposition"] == f'attachment; filename="daily-{job[:12]}.csv"'
    rows = list(csv.DictReader(io.StringIO(text)))
    assert sum(Decimal(row["profit"]) for row in rows) == Decimal(result["total_pnl"]).scaleb(-8)
    status, _, text = gateway.ask("GET", f"{path}/tables/trades?format=csv")
    assert (status, len(text.splitlines())) == (200, result["trades"] + 1)
    for accept, form, start in (
        ("application/vnd.apache.parquet", "parquet", b"PAR1"),
        ("application/vnd.apache.arrow.file;q=0.9, text/csv;q=0.1", "arrow.file", b"ARROW1"),
    ):
        status, headers, content = gateway.ask("GET", f"{path}/tables/equity", Accept=accept)
        assert (status, content[: len(start)]) == (200, start) and form in headers["content-type"]
    status, _, problem = gateway.ask("GET", f"{path}/tables/daily", Accept="image/png")
    assert (status, problem["title"]) == (406, "Not acceptable") and "text/csv" in problem["detail"]
    assert gateway.ask("GET", f"{path}/tables/sets?format=csv")[0] == 422
    assert gateway.ask("GET", f"{path}/tables/nothing")[0] == 400
    assert gateway.ask("GET", f"/api/v1/backtest/{'0' * 32}/tables/daily")[0] == 404
