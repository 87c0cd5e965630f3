"""What was earned over gaps of real candles is said."""

import json
from pathlib import Path

import pytest
from candlemill.backtests.resolve import resolve
from candlemill.errors import NoData
from candlemill.guards.gaps import data_cautions
from candlemill.ingest.candles import ingest
from candlemill.local.runner import JobRunner, Options, run_one
from candlemill.pipeline.gap_limit import gap_limit
from candlemill.store.clickhouse import ClickHouseStore

SPOT = Path(__file__).parents[3] / "shared/data/spot"

if not SPOT.is_dir():
    pytest.skip(f"no real candles at {SPOT}", allow_module_level=True)


def test_what_nobody_could_have_earned_is_said(tmp_path: Path) -> None:
    """The files of BTCUSDT have gaps of 523 and 1,622 days: positions over gaps made more than the whole profit."""
    with ClickHouseStore(f"chdb://{tmp_path / 'all'}") as store:
        ingest(store, sorted(SPOT.glob("BTCUSDT-1m-*.zip")))
        runner = JobRunner(store)
        spec = resolve(
            symbol="BTCUSDT",
            strategy="sma_cross",
            span=runner.full_span("BTCUSDT"),
            params={},
            account="units",
            sizing="notional",
        )
        with pytest.raises(NoData, match="max_gap allows 1,440"):
            run_one(runner, spec, Options(limit=gap_limit(None, "2019..2026")), lambda done, known: None)
        result = json.loads(run_one(runner, spec, Options(), lambda done, known: None).result)
    cents = {name: round(result[name] / 10**6) for name in ("total_pnl", "gap_profit", "fees")}
    assert cents == {"total_pnl": 4_004_858, "gap_profit": 6_895_474, "fees": 2_832_838}
    assert (result["trades_over_gaps"], result["trades"]) == (5, 1_413)
    assert "68,954.74 of a total of 40,048.58 was earned across gaps in the candles" in str(data_cautions(result))
