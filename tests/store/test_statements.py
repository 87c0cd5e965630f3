"""How many statements a task costs the database, and that a completion costs the same in a job of any size."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from candlemill.backtests.plan import Plan
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import Spec
from candlemill.config import bundled
from candlemill.pipeline import aggregate, events, execute, reuse, split
from candlemill.pipeline.context import HandlerContext, Waves
from candlemill.pipeline.events import Event
from candlemill.pipeline.rows import DONE, GUESS, MERGED_BATCH, BatchState, JobRow, TaskRecord
from candlemill.pipeline.tasks import guess_ending, task_name
from candlemill.store import candle_writer
from candlemill.store.candle_reader import CandleReader
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.store.day_index import RequestIndex
from candlemill.transport.dedup import PublishDeduplicator

DAY_MS, MINUTE_MS, DAYS = 86_400_000, 60_000, 9
START = (
    1_611_446_400_000  # of the last days of a month and the first of the next: what ends before it is merged and kept
)
GRANULE = 8_192  # rows that ClickHouse reads at least
SPLIT_STATEMENTS, EXECUTE_STATEMENTS, AGGREGATE_STATEMENTS = 4, 3, 2
SINGLE_STATEMENTS = 5  # of the completion of a job of one slice: job, records, outcomes; result, job
LAST_STATEMENTS = 10  # of the last completion, which merges the batch and ends the job
COLD_STATEMENTS = 3  # more, where nothing is known: the days, the candles, the days once more

HANDLERS = {events.REQUESTED: split.split, events.SLICE_REQUESTED: execute.execute}
SINGLE = (events.REQUESTED, events.SLICE_REQUESTED, events.SLICE_COMPLETED)


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


def _context(store: ClickHouseStore) -> tuple[HandlerContext, RequestIndex]:
    index = RequestIndex(store)
    candles = CandleReader(index.days, store)
    waves = Waves(2, 0)
    return HandlerContext(
        store, index, candles, lambda: 1, recall=index.recall, renew=index.renew, waves=waves
    ), index  # fmt: skip


def _statements(store: ClickHouseStore, sent: list[str], spec: Spec, slices: int) -> dict[str, list[list[str]]]:
    """Run a job; return the statements of each event that is no repair, by its type."""
    runtime, index = _context(store)
    queue = [events.make("test", events.REQUESTED, "", events.Requested(spec, slices))]
    counts: dict[str, list[list[str]]] = {}
    published = PublishDeduplicator()
    while queue:
        event: Event = queue.pop(0)
        index.renew()
        sent.clear()
        with published.new(HANDLERS.get(event.type, aggregate.aggregate)(event, runtime)) as answer:
            queue += answer
        if event.type != events.SLICE_REQUESTED or b'"repairs":[]' in event.data:
            counts.setdefault(event.type, []).append(list(sent))
    assert len(counts[events.COMPLETED]) == 1
    return counts


def _spec(sets: int) -> Spec:
    span = (START, START + DAYS * DAY_MS)
    grid = {"fast": list(range(2, 2 + sets)), "slow": [60]}
    return resolve(symbol="X", strategy="sma_cross", span=span, params={}, grid=grid, account="units")


def test_a_task_costs_few_statements(store: ClickHouseStore, sent: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Known outcomes are looked up, since another job may have computed them meanwhile, but not those of a job so large
    that they are not looked for."""
    for sets, outcomes_kept, looked_up in ((10, reuse.OUTCOMES_KEPT, 1), (12, 0, 0)):
        monkeypatch.setattr(reuse, "OUTCOMES_KEPT", outcomes_kept)
        counts = _statements(store, sent, _spec(sets), DAYS)
        executed, completed = counts[events.SLICE_REQUESTED], counts[events.SLICE_COMPLETED]
        assert len(executed) == DAYS <= len(completed)
        assert [len(one) for one in counts[events.REQUESTED]] == [SPLIT_STATEMENTS - (not outcomes_kept)], counts
        assert len(executed[0]) <= EXECUTE_STATEMENTS + COLD_STATEMENTS, executed[0]
        warm = sorted(map(len, executed[1:]))[:-1]  # one is the first of its month
        assert set(warm) == {EXECUTE_STATEMENTS - (not looked_up)}, executed[1:]
        assert {len(one) for one in completed[: DAYS - 2]} == {AGGREGATE_STATEMENTS}, completed[0]
        assert max(len(one) for one in completed) <= LAST_STATEMENTS, completed
        assert len(counts[events.COMPLETED][0]) == 1
        assert _inserted(counts[events.REQUESTED]) <= _granted("planner")
        assert _inserted(executed) == _granted("executor")
        assert _inserted(completed) == _granted("planner") - ({"slice_outcomes"} if not outcomes_kept else set())


def _inserted(events_sent: list[list[str]]) -> set[str]:
    """Return the tables of inserts, which are recorded by their tables' names."""
    return {one for sent in events_sent for one in sent if " " not in one}


def _granted(role: str) -> set[str]:
    text = (bundled("schema") / "roles/roles.sql").read_text()
    return set(re.findall(rf"GRANT INSERT ON (\w+) TO candlemill_{role};", text))


def test_a_job_of_one_slice_costs_few_statements(store: ClickHouseStore, sent: list[str]) -> None:
    spec = msgspec.structs.replace(_spec(1), params={"fast": 3, "slow": 70}, grid={})
    counts = _statements(store, sent, spec, 1)
    split_up, (executed,), (completed,) = (counts[kind] for kind in SINGLE)
    assert len(split_up[0]) == SPLIT_STATEMENTS + 1  # its result may be there from a sweep
    assert len(executed) <= EXECUTE_STATEMENTS + COLD_STATEMENTS
    assert len(completed) == SINGLE_STATEMENTS, completed


def test_a_completion_costs_the_same_in_a_job_of_any_size(store: ClickHouseStore, sent: list[str]) -> None:
    """The same statements at 10 tasks and at 1,000; the last but one of a batch, of which all others are done."""
    runtime, _ = _context(store)
    spec, found = _spec(1), {}
    for job, tasks in (("c" * 32, 10), ("d" * 32, 1_000)):
        plan = Plan([START + k * MINUTE_MS for k in range(tasks + 1)], 1, 1, 1, lanes=2, todo=[(0, tasks)])
        texts = spec.to_json().decode(), msgspec.json.encode(plan).decode()
        store.put_job(JobRow(job, "planned", *texts, "", 0, kind="sweep"))
        names = (task_name(plan.cuts, k, k + 1, guess_ending(0, 1, 0)) for k in range(tasks - 1))
        store.put_task_records([TaskRecord(job, 0, GUESS, k, name) for k, name in enumerate(names)])
        sent.clear()
        done = events.SliceCompleted(job, 0, tasks - 4, "", tasks - 4)
        (following,) = aggregate.aggregate(events.make("test", events.SLICE_COMPLETED, job, done), runtime)
        assert events.read(following, events.SliceRequested).place == tasks - 2
        found[tasks] = list(sent)
    assert found[10] == found[1_000] and len(found[10]) == AGGREGATE_STATEMENTS


def test_a_completion_reads_no_records_of_other_tasks(store: ClickHouseStore) -> None:
    """By what ClickHouse estimates from the index: as many rows at 100,000 tasks as at 10, up to whole granules."""
    rows = {}
    for job, batches, slices in (("a" * 32, 2, 5), ("b" * 32, 2_500, 40)):
        tasks = [TaskRecord(job, b, GUESS, k, f"{k}-{k + 1}/{b}+1") for b in range(batches) for k in range(slices)]
        store.put_task_records([*tasks, *(TaskRecord(job, MERGED_BATCH, DONE, b, "/x") for b in range(batches - 1))])
        store._command("OPTIMIZE TABLE backtest_slices FINAL", {})
        assert store.batch_state(job, 1, "/1+1", "/x", 100) == BatchState(slices, batches > 2, batches - 1)
        last = store.batch_state(job, batches - 1, f"/{batches - 1}+1", "/x", 100)
        assert last == BatchState(slices, False, batches - 1)
        sql = f"""EXPLAIN ESTIMATE SELECT count() FROM backtest_slices
            WHERE job_id = '{job}' AND batch IN ({batches // 2}, {MERGED_BATCH})"""  # noqa: S608
        rows[batches] = sum(int(row[3]) for row in store._rows(sql, {}))
    total = int(store._rows("SELECT count() FROM backtest_slices", {})[0][0])
    assert total > 100_000 and max(rows.values()) <= 4 * GRANULE, rows
