"""How many statements a task costs the database, and that a completion costs the same in a job of any size."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candlemill.backtests.resolve import resolve
from candlemill.pipeline import aggregate, events, execute, reuse, split
from candlemill.pipeline.context import HandlerContext, Waves
from candlemill.pipeline.events import Event
from candlemill.pipeline.rows import DONE, GUESS, MERGED_BATCH, BatchState, TaskRecord
from candlemill.store import candle_writer
from candlemill.store.candle_reader import CandleReader
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.store.day_index import RequestIndex
from candlemill.transport.dedup import PublishDeduplicator

DAY_MS, MINUTE_MS, DAYS = 86_400_000, 60_000, 8
START = 1_609_459_200_000
GRANULE = 8_192  # rows that ClickHouse reads at least
AGGREGATE_STATEMENTS, EXECUTE_STATEMENTS = 2, 3
LAST_STATEMENTS = 11  # of the last completion, which merges the batch and ends the job
COLD_STATEMENTS = 3  # more, where nothing is known: the days, the candles, the days once more


class RecordingClient:
    """Passes statements on to a client, and keeps their beginnings."""

    def __init__(self, client: Any, sent: list[str]) -> None:
        self._client, self._sent = client, sent

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        if name not in ("query", "query_column_block_stream", "command", "raw_insert"):
            return call

        def recorded(statement: str, *rest: Any, **named: Any) -> Any:
            self._sent.append(" ".join(statement.split())[:60])
            return call(statement, *rest, **named)

        return recorded


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStore]:
    folder: Path = tmp_path_factory.mktemp("statements")
    with ClickHouseStore(f"chdb://{folder}") as opened:
        t = START + np.arange(DAYS * 1440) * MINUTE_MS
        price = 10**10 + np.random.default_rng(7).integers(-(10**7), 10**7, len(t)).cumsum()
        columns = dict.fromkeys(("open", "high", "low", "close"), price)
        candle_writer.write(opened, {"X": {"t": t, **columns, "volume": np.ones(len(t), dtype=np.uint64)}})
        candle_writer.recount(opened, {"X": [START + k * DAY_MS for k in range(DAYS)]})
        yield opened


@pytest.fixture
def sent(store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    statements: list[str] = []
    monkeypatch.setattr(store, "_client", RecordingClient(store._client, statements))
    return statements


@pytest.mark.parametrize("looked_up", [True, False])
def test_a_task_costs_few_statements(
    store: ClickHouseStore, sent: list[str], looked_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large job known outcomes are not looked up, which saves a statement."""
    if not looked_up:
        monkeypatch.setattr(reuse, "OUTCOMES_KEPT", 0)
    index = RequestIndex(store)
    runtime = HandlerContext(
        store,
        index,
        CandleReader(index.days, store),
        lambda: 1,
        recall=index.recall,
        renew=index.renew,
        waves=Waves(2, 0),
    )
    grid = {"fast": list(range(2, 12)), "slow": [60]}
    span = (START, START + DAYS * DAY_MS)
    fee = 1_000 + looked_up  # another job
    spec = resolve(symbol="X", strategy="sma_cross", span=span, params={}, grid=grid, account="units", fee=fee)
    queue = [events.make("test", events.REQUESTED, "", events.Requested(spec, DAYS))]
    handlers = {events.REQUESTED: split.split, events.SLICE_REQUESTED: execute.execute}
    counts: dict[str, list[list[str]]] = {}
    published, ended = PublishDeduplicator(), []
    while queue:
        event: Event = queue.pop(0)
        if event.type == events.COMPLETED:
            ended.append(event)
            continue
        index.renew()
        sent.clear()
        with published.new(handlers.get(event.type, aggregate.aggregate)(event, runtime)) as answer:
            queue += answer
        if event.type != events.SLICE_REQUESTED or b'"repairs":[]' in event.data:
            counts.setdefault(event.type, []).append(list(sent))
    assert len(ended) == 1
    executed, completed = counts[events.SLICE_REQUESTED], counts[events.SLICE_COMPLETED]
    assert len(executed) == DAYS <= len(completed)
    assert len(executed[0]) <= EXECUTE_STATEMENTS + COLD_STATEMENTS, executed[0]
    assert {len(one) for one in executed[1:]} == {EXECUTE_STATEMENTS - (not looked_up)}, executed[1]
    assert {len(one) for one in completed[: DAYS - 2]} == {AGGREGATE_STATEMENTS}, completed[0]
    assert max(len(one) for one in completed) <= LAST_STATEMENTS, completed


def test_a_completion_reads_no_records_of_other_tasks(store: ClickHouseStore) -> None:
    """By what ClickHouse estimates from the index: as many rows at 100,000 tasks as at 10, up to whole granules."""
    rows = {}
    for job, batches, slices in (("a" * 32, 2, 5), ("b" * 32, 2_500, 40)):
        tasks = [TaskRecord(job, b, GUESS, k, f"{k}-{k + 1}/{b}+1") for b in range(batches) for k in range(slices)]
        store.put_task_records([*tasks, *(TaskRecord(job, MERGED_BATCH, DONE, b, "/x") for b in range(batches - 1))])
        store._command("OPTIMIZE TABLE backtest_slices FINAL", {})
        assert store.batch_state(job, 1, "/1+1", "/x") == BatchState(slices, batches > 2, batches - 1)
        assert store.batch_state(job, batches - 1, f"/{batches - 1}+1", "/x") == BatchState(slices, False, batches - 1)
        sql = f"""EXPLAIN ESTIMATE SELECT count() FROM backtest_slices
            WHERE job_id = '{job}' AND batch IN ({batches // 2}, {MERGED_BATCH})"""  # noqa: S608
        rows[batches] = sum(int(row[3]) for row in store._rows(sql, {}))
    total = int(store._rows("SELECT count() FROM backtest_slices", {})[0][0])
    assert total > 100_000 and max(rows.values()) <= 4 * GRANULE, rows
