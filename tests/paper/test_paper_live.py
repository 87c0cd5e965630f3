"""Paper runs on a feed of the simulated exchange, with all its faults: what they come to is a backtest's result."""

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from candlemill.backtests.spec import Spec
from candlemill.feed.live import LiveFeed
from candlemill.local.runner import JobRunner, Options, run_one
from candlemill.paper.decision import Decision
from candlemill.paper.order import Order
from candlemill.paper.service import Paper, hand_over
from candlemill.store.clickhouse import ClickHouseStore

from loadtests.exchange_simulator.faults import Menu
from loadtests.exchange_simulator.market import MINUTE_MS, synthetic
from loadtests.exchange_simulator.paper import (
    AWAITED_SECONDS,
    DAY_MS,
    MINUTES,
    START_MS,
    SYMBOLS,
    exchange_of,
    late_data,
    specs_of,
)
from loadtests.exchange_simulator.run import FAST, Stage, audited, with_feed


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ClickHouseStore]:
    with ClickHouseStore(f"chdb://{tmp_path / 'db'}") as opened:
        yield opened


def backtest(store: ClickHouseStore, spec: Spec, end: int) -> dict[str, Any]:
    runner = JobRunner(store)
    row = run_one(runner, msgspec.structs.replace(spec, end=end), Options(), lambda done, known: None)
    found: dict[str, Any] = json.loads(row.result)
    return found


@pytest.mark.parametrize("seed", [2, 1])  # a panel, perpetuals
def test_the_result_is_the_backtests_through_all_faults(store: ClickHouseStore, seed: int) -> None:
    market = synthetic(seed, SYMBOLS, START_MS, MINUTES)
    market.corrections = []
    said: list[Any] = []

    async def run() -> list[dict[str, Any]]:
        async with Stage(market, START_MS + 3 * DAY_MS + 18 * 3_600_000, 5400, seed, Menu()) as stage:
            exchange = exchange_of(seed, stage.ports)
            feed = LiveFeed(exchange, SYMBOLS, store, FAST, stage.ours, random.Random(seed))
            with ClickHouseStore(store.dsn) as own:
                now = stage.clock.now_ms() // MINUTE_MS * MINUTE_MS
                late = late_data(store.dsn, seed, stage.clock, now)
                late.start()
                order = Order(specs_of(seed, now), now)
                paper = Paper(own, order, False, said.extend, now, 1.0, awaited_seconds=AWAITED_SECONDS)
                feed.on_candle = hand_over(feed, paper.loop)
                paper.loop.start()

                async def body() -> int:
                    await stage.clock.sleep(9 * 3600)
                    return await audited(stage, feed)

                try:
                    await with_feed(feed, body)
                finally:
                    late.stop()
                    assert paper.loop.stop()
                assert (paper.loop.error, paper.loop.failed) == (None, {})
                for symbol in list(paper.desk.runs):
                    paper.desk.check_store(symbol)
                said.extend(paper.desk.commit())
                assert all(run.waiting is None for run in paper.desk.runs.values())
                return [run.result() for run in paper.desk.runs.values()]

    results = asyncio.run(run())
    for result in results:
        spec = msgspec.convert({**result["spec"], "tiers": {}, "marks": ""}, Spec)
        expected = backtest(store, spec, result["end"])
        assert result["result_digest"] == expected["result_digest"]
        assert result["bars"] > 300
    decisions = [msgspec.json.decode(row.data, type=Decision) for row in said if row.event.endswith("decision.v1")]
    assert len({(one.run, one.minute, one.attempt) for one in decisions}) == len(decisions)
    assert len(decisions) > 300
