"""A sink that does not take a request: the job is written down then, and is to be sent when it is requested again."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from candlemill.errors import SinkDown
from candlemill.gateway.job_service import JobService
from candlemill.pipeline.events import Event, Requested, read
from candlemill.pipeline.request import Request
from candlemill.store.clickhouse import ClickHouseStore

WANTED = Request(symbol="BBBUSDT", strategy="sma_cross")


def test_what_was_not_sent_is_sent_with_the_next_asking(database: Path) -> None:
    sent: list[Event] = []
    down = True

    def publish(events: Sequence[Event]) -> None:
        if down:
            raise SinkDown("nobody there")
        sent.extend(events)

    with ClickHouseStore(f"chdb://{database}") as store:
        world = JobService(store, publish)
        ready = asyncio.run(world.prepare(WANTED))
        for _ in range(2):
            with pytest.raises(SinkDown):
                asyncio.run(world.ask(ready))
        assert store.job(ready.job_id) is not None
        down = False
        for _ in range(2):
            assert asyncio.run(world.ask(ready)).state == "accepted"
        (event,) = sent
        row = store.job(ready.job_id)
    assert row is not None
    assert event.partitionkey == ready.job_id
    assert read(event, Requested).attempt == row.attempt
