"""Paper runs on a feed of the simulated exchange, with all its faults: what they come to is a backtest's result."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import Spec
from candlemill.local.runner import JobRunner, Options, run_one
from candlemill.paper.decision import Decision
from candlemill.paper.order import Order
from candlemill.paper.service import Paper, hand_over
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.units import LAST_MS

from loadtests.exchange_simulator.faults import Menu
from loadtests.exchange_simulator.market import MINUTE_MS, synthetic
from loadtests.exchange_simulator.run import Stage, audited, with_feed

START = 1_709_164_800_000  # 2024-02-29
DAY_MS = 86_400_000
SYMBOLS = ["BTCUSDT", "ETHUSDT", "XRPUSDT"]
STRATEGIES: list[dict[str, Any]] = [
    {"strategy": "sma_cross", "params": {"fast": 3, "slow": 10}},
    {"strategy": "grid", "params": {}, "account": "units"},
    {"strategy": "donchian", "params": {"entry": 12, "exit": 6}, "timeframe": 5, "stop_loss": 3_000},
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ClickHouseStore]:
    with ClickHouseStore(f"chdb://{tmp_path / 'db'}") as opened:
        yield opened


def specs_of(begin: int) -> list[Spec]:
    return [
        resolve(symbol=symbol, span=(begin, LAST_MS), **dict(options))
        for symbol, options in zip(SYMBOLS, STRATEGIES, strict=True)
    ]


def backtest(store: ClickHouseStore, spec: Spec, end: int) -> dict[str, Any]:
    runner = JobRunner(store)
    row = run_one(runner, msgspec.structs.replace(spec, end=end), Options(), lambda done, known: None)
    found: dict[str, Any] = json.loads(row.result)
    return found


@pytest.mark.parametrize("seed", [2, 3])
def test_the_result_is_the_backtests_through_all_faults(store: ClickHouseStore, seed: int) -> None:
    market = synthetic(seed, SYMBOLS, START, 15 * 1440)
    market.corrections = []
    said: list[Any] = []

    async def run() -> list[dict[str, Any]]:
        async with Stage(market, START + 3 * DAY_MS + 18 * 3_600_000, 5400, seed, Menu()) as stage:
            feed = stage.feed(store)
            with ClickHouseStore(store.dsn) as own:
                now = stage.clock.now_ms() // MINUTE_MS * MINUTE_MS
                paper = Paper(own, Order(specs_of(now), now), False, said.extend, now, check_seconds=1.0)
                feed.on_candle = hand_over(feed, paper.loop)
                paper.loop.start()

                async def body() -> int:
                    await stage.clock.sleep(9 * 3600)
                    return await audited(stage, feed)

                try:
                    await with_feed(feed, body)
                finally:
                    assert paper.loop.stop()
                assert (paper.loop.error, paper.loop.failed) == (None, {})
                for symbol in SYMBOLS:
                    paper.desk.check_store(symbol)
                said.extend(paper.desk.commit())
                return [paper.desk.runs[symbol].result() for symbol in SYMBOLS]

    results = asyncio.run(run())
    for result in results:
        spec = msgspec.convert(result["spec"], Spec)
        expected = backtest(store, spec, result["end"])
        assert result["result_digest"] == expected["result_digest"]
        assert result["bars"] > 300
    decisions = [msgspec.json.decode(row.data, type=Decision) for row in said if row.event.endswith("decision.v1")]
    assert len({(one.run, one.minute, one.attempt) for one in decisions}) == len(decisions)
    assert len(decisions) > 1000
