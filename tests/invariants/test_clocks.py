"""Wall clocks step. Every place that reads one is listed here with its use, and a correction wins after any step."""

import ast
import re
from collections import Counter
from pathlib import Path

import candlemill
import pytest
from candlemill.backtests.tiers import Tier, TierTable
from candlemill.config import bundled
from candlemill.engine.candles import DAY_MS
from candlemill.pipeline.rows import Notes
from candlemill.store import candles, notes
from candlemill.store.clickhouse import ClickHouseStore

CORE = Path(candlemill.__file__).parent
FUNCTIONS = CORE.parents[1] / "functions"
READS = {"time.time", "time.time_ns", "clock_ms", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
READS |= {"time.gmtime", "time.localtime", "time.ctime", "time.clock_gettime", "time.clock_gettime_ns"}

# Reads of a wall clock by module. docs/operations.md ("Clocks") has what each decides and what a step does there.
# `checks/` moves clocks to try strategies; it decides nothing of a store or a job.
WALL = {
    "units": 1,  # `clock_ms` itself
    "pipeline/context": 1,  # the field in which a function has its clock
    # what a job's attempt and state are: at least one more than what is known
    "gateway/job_service": 1,
    "gateway/standalone": 2,
    "local/runner": 1,
    "local/worker_pool": 1,
    "local/workflows": 1,
    "studies/study": 2,
    "transport/http": 1,
    # versions of rows: at least one more than what is stored
    "store/candles": 2,
    "store/feed": 1,
    "store/notes": 1,
    # from a start on monotonic: bans and candles of the future
    "feed/rest_client": 1,
    # what is requested: `--days`, `--from` without `--to`; the minute from which a new paper run trades, and its lag
    "cli/candles": 1,
    "paper/service": 3,
    # what is shown: durations, traces, the times of states
    "local/job_stores": 1,
    "store/jobs": 1,
    "telemetry/logs": 1,
    "telemetry/tracing": 1,
    # a store in memory, for one process: tests and the simulation
    "store/memory": 2,
}
# Versions of rows of which one counts: what they are.
VERSIONS = {
    "backtest_jobs": "updated_at",  # of one attempt and state, either row is right
    "archive_files": "stored_at",  # the last stored and one more at least
    "candle_outages": "found_at",  # rows of one key are equal but for the time
    "candle_writers": "version",  # see store.candle_writer
    "candle_audits": "until_ms",  # a time of candles, not of a clock
    "coverage_days": "version",  # the last stored and one more at least
    "job_notes": "updated_at",  # the same
    "margin_tiers": "inserted_at",  # the same
    "paper_runs": "begun_at",  # rows of one run are equal but for the time
    "paper_marks": "value",  # how far, and the highest claim: counts, not times
}


def reads(path: Path) -> int:
    """How often the code of a module names a function that reads a wall clock, imports aside."""
    found = 0
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            found += ast.unparse(node) in READS
        elif isinstance(node, ast.Name):
            found += node.id in READS
    return found


def test_every_read_of_a_wall_clock_is_listed() -> None:
    found = {}
    for path in sorted(CORE.rglob("*.py")):
        name = str(path.relative_to(CORE).with_suffix(""))
        if not name.startswith("checks/") and (count := reads(path)):
            found[name] = count
    assert found == WALL
    assert sum(map(reads, FUNCTIONS.rglob("*.py"))) == 0


@pytest.mark.parametrize("call", ["time.time()", "datetime.now(UTC)", "clock_ms()", "f(time.time_ns)", "date.today()"])
def test_a_new_read_is_seen(call: str, tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text(f"import time\nfrom candlemill.units import clock_ms\nx = {call}\n")
    assert reads(tmp_path / "new.py") == 1


def test_no_module_renames_a_clock() -> None:
    """An import under another name would not be seen above."""
    for path in CORE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime", "candlemill.units"):
                names = {alias.name for alias in node.names if node.module == "time" or alias.asname}
                assert not names & {"time", "time_ns", "clock_ms", "datetime", "date"}, path


def test_every_version_of_rows_is_listed() -> None:
    text = "\n".join(path.read_text() for path in sorted(bundled("schema").glob("*.sql")))
    tables = re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)\n.*?ENGINE = (\w+)\(([^)]*)\)", text, re.DOTALL)
    assert len(tables) == Counter(text.split())["CREATE"]
    assert {table: version for table, _, version in tables if version} == VERSIONS


def test_the_last_row_counts_after_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_700_000_000_000
    steps = {"days back": -72 * 3_600_000, "a minute back": -60_000, "none": 0, "an hour on": 3_600_000}
    with ClickHouseStore(f"chdb://{tmp_path / 'db'}") as store:
        for k in range(3):
            for name, step in steps.items():
                for module in (candles, notes):
                    monkeypatch.setattr(module, "clock_ms", lambda step=step, k=k: now + k * step)
                store.put_margin_tiers(name, [TierTable(day * DAY_MS, [Tier(0, 4_000 + k, 0)]) for day in (0, 1)])
                store.put_notes(Notes(name, f"label {k}", "", [f"tag{k}"]))
                if k == 1:  # and where parts are merged
                    for table in ("margin_tiers", "job_notes"):
                        store._command(f"OPTIMIZE TABLE {table} FINAL", {})
                assert [table.tiers[0].rate for table in store.margin_tiers(name)] == [4_000 + k] * 2, name
                assert store.notes([name])[name] == Notes(name, f"label {k}", "", [f"tag{k}"])
            assert store.tags() == [(f"tag{k}", len(steps))]
