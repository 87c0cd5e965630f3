"""Lost candles and other faults of a store: found, rejected and repaired."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from candlemill.engine.candles import DAY_MS
from candlemill.feed.backfill import missing_intervals
from candlemill.store import shared_memory
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.store.maintenance import MaintenanceStore
from conftest import Cli, environment, said

FEBRUARY = 1_706_745_600_000  # 2024-02-01, the first of five days in this month's part
JOB = ("--symbol", "AAAUSDT", "--strategy", "sma_cross", "--range", "2024-01-29..2024-02-05")
TIMES = ("execution_time_ms",)


def parts_of(database: Path, table: str, name: str) -> list[Path]:
    with ClickHouseStore(f"chdb://{database}") as store:
        sql = """
            SELECT path FROM system.parts
            WHERE active AND table = {table:String} AND startsWith(name, {name:String}) ORDER BY rows DESC
        """
        rows = store._rows(sql, {"table": table, "name": name})
    return [Path(row[0]) for row in rows]


def part_of(database: Path, table: str, name: str) -> Path:
    return parts_of(database, table, name)[0]


def lose(database: Path, how: str) -> None:
    """Remove the part of February 2024 of AAAUSDT, as a power loss or a disk error does."""
    part = part_of(database, "market_data_1m", "202402")
    data = part / "data.bin"
    if how == "deleted":
        shutil.rmtree(part)
    elif how == "emptied":
        data.write_bytes(b"")
    else:
        data.write_bytes(data.read_bytes()[:1000])


def kinds(answer: tuple[int, str, str]) -> list[str]:
    """Kinds of findings; shared memory that other processes of this machine left behind is not this test's."""
    found = [one["kind"] for one in json.loads(answer[1])["findings"]]
    return [kind for kind in found if kind != "shared_memory"]


def figures(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in TIMES}


@pytest.mark.parametrize("how", ["deleted", "emptied", "truncated"])
def test_jobs_fail_until_lost_candles_are_ingested_again(run: Cli, database: Path, market: Path, how: str) -> None:
    job = said(run("plan", *JOB, "--json"))["job_id"]
    lose(database, how)
    for command in (("backtest", *JOB), ("backtest", *JOB, "--max-gap", 100), ("sweep", *JOB, "--grid", "fast=5,9")):
        status, out, err = run(*command)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert "AAAUSDT are not those of its index on 5 days, 2024-02-01 (0 of 1,440 rows)" in err
        assert "candlemill doctor" in err
    assert said(run("results", "--json")) == {"results": [], "sweeps": []}

    status, out, _ = run("coverage", "AAAUSDT", "--check", "--json")
    damaged = json.loads(out)["symbols"]["AAAUSDT"]["damaged"]
    assert status == 1 and [one["start"] for one in damaged] == [FEBRUARY + k * DAY_MS for k in range(5)]
    assert {(one["indexed_rows"], one["stored_rows"]) for one in damaged} == {(1440, 0)}

    lost_part = ["detached_part"] * (how != "deleted")
    found = run("doctor", "--json")
    assert found[0] == 1 and kinds(found) == [*lost_part, "candles"]
    assert run("backtest", *JOB)[0] == 1, "an examination changes nothing"
    assert run("doctor", "--repair", "--json")[0] == 1, "the candles are still to be fetched"
    gone = said(run("backtest", *JOB, "--json"))
    assert gone["job_id"] != job and gone["bars"] == said(run("plan", *JOB, "--json"))["bars"] == 3 * 1440 - 90

    assert run("ingest", market)[0] == 0
    assert kinds(run("doctor", "--json")) == lost_part and run("doctor")[0] == 0
    result = said(run("backtest", *JOB, "--json"))
    assert (result["job_id"], result["bars"]) == (job, 8 * 1440 - 90)
    assert said(run("verify", job, "--json"))["same"] is True


def test_a_download_fetches_lost_candles(run: Cli, database: Path) -> None:
    """A download trusts the index, and skips stored files, so `doctor` must correct both."""
    files = {"AAAUSDT-1m-2024-02.zip": "a" * 64, "BBBUSDT-1m-2024-02.zip": "b" * 64}
    with ClickHouseStore(f"chdb://{database}") as store:
        store.put_archive_files(files)
        assert missing_intervals(store, "AAAUSDT", FEBRUARY, FEBRUARY + DAY_MS) == []
    lose(database, "deleted")
    run("doctor", "--repair")
    with ClickHouseStore(f"chdb://{database}") as store:
        assert list(store.archive_files(list(files))) == ["BBBUSDT-1m-2024-02.zip"]
        assert missing_intervals(store, "AAAUSDT", FEBRUARY, FEBRUARY + DAY_MS) == [(FEBRUARY, FEBRUARY + DAY_MS)]


def test_ingesting_again_repairs_lost_candles(run: Cli, database: Path, market: Path) -> None:
    job = said(run("plan", *JOB, "--json"))["job_id"]
    lose(database, "deleted")
    assert run("ingest", market)[0] == 0
    assert said(run("backtest", *JOB, "--json"))["job_id"] == job


def test_jobs_fail_while_a_part_of_the_index_is_lost(run: Cli, database: Path) -> None:
    """Its candles are there, and a job would run without them."""
    for job in (JOB, JOB[:4]):
        right = said(run("plan", *job, "--json"))["job_id"]
        for part in parts_of(database, "coverage_days", "all"):
            shutil.rmtree(part)
        for command in ("backtest", "plan"):
            status, _, err = run(command, *job)
            assert status == 1 and "days that its index does not have, 2024-0" in err and err.count("\n") == 1
        run("doctor", "--repair")
        assert said(run("backtest", *job, "--json"))["job_id"] == right


def test_verify_counts_the_candles_again(run: Cli, database: Path) -> None:
    """Also days with the right row count but other content."""
    job = said(run("backtest", *JOB, "--json"))["job_id"]
    with ClickHouseStore(f"chdb://{database}") as store:
        columns = store.read_columns("AAAUSDT", FEBRUARY, FEBRUARY + 60_000, ("open", "high", "low", "close", "volume"))
        store.insert_rows([("AAAUSDT", columns | {"volume": columns["volume"] + 1})])  # without the index
    status, _, err = run("verify", job)
    assert status == 1 and "on 1 days, 2024-02-01 (other content)" in err
    assert run("coverage", "--check")[0] == 1


def test_a_result_computed_without_some_candles_is_found_and_removed(run: Cli, database: Path) -> None:
    """As an earlier release stored it, which did not compare candles with the index."""
    right = said(run("backtest", *JOB, "--json"))
    with MaintenanceStore(f"chdb://{database}") as store:
        (row,) = store.results([right["job_id"]])
        store.delete_results([row.job_id])
        wrong = {**json.loads(row.result), "bars": 4000, "total_pnl": 1}
        store.put_results([msgspec.structs.replace(row, total_pnl=1, result=json.dumps(wrong))])
        outcomes = "SELECT count() FROM slice_outcomes"
        assert store._rows(outcomes, {})[0][0] == 1
    status, out, err = run("results", right["job_id"], "--json")
    assert status == 0 and "has 4,000 bars" in json.loads(out)["suspicion"] and "has 4,000 bars" in err
    status, _, err = run("backtest", *JOB)
    assert status == 1 and "its candles have 11,430" in err
    assert kinds(run("doctor", "--json")) == ["wrong_result"]
    assert run("doctor", "--repair")[0] == 0 and kinds(run("doctor", "--json")) == []
    with MaintenanceStore(f"chdb://{database}") as store:
        job = store.job(right["job_id"])
        assert job is not None and (job.state, "while candles were missing" in job.reason) == ("failed", True)
        assert store._rows(outcomes, {})[0][0] == 0
    assert figures(said(run("backtest", *JOB, "--json"))) == figures(right)


def test_outcomes_computed_without_some_candles_are_not_used(run: Cli, database: Path) -> None:
    """As an earlier release cached them, under the keys of all candles."""
    right = said(run("backtest", *JOB, "--json"))
    with MaintenanceStore(f"chdb://{database}") as store:
        store.delete_job(right["job_id"])
        sql = "SELECT * EXCEPT (summary, created_at), summary FROM slice_outcomes"
        (*keys, summary) = store._rows(sql, {})[0]
        names = [c[0] for c in store._rows("DESCRIBE slice_outcomes", {}) if c[0] not in ("summary", "created_at")]
        fewer = json.loads(summary)
        numbers = fewer["summary"]
        assert numbers.count(11_430) == 1
        numbers[numbers.index(11_430)] = 4_000
        store._insert("slice_outcomes", [dict(zip(names, keys, strict=True)) | {"summary": json.dumps(fewer)}])
        store._command("OPTIMIZE TABLE slice_outcomes FINAL", {})
    status, _, err = run("backtest", *JOB)
    assert status == 1 and "has 4,000 bars, the index 11,430" in err
    run("doctor", "--repair")
    assert figures(said(run("backtest", *JOB, "--no-cache", "--json"))) == figures(right)


def test_jobs_and_results_without_each_other(run: Cli, database: Path) -> None:
    one = said(run("backtest", *JOB, "--json"))
    swept = said(run("sweep", *JOB, "--grid", "fast=5,9", "--json"))["job_id"]
    other = said(run("backtest", *JOB, "--fee", "0", "--json"))
    with MaintenanceStore(f"chdb://{database}") as store:
        ids = [row.job_id for row in store.results([one["job_id"]])]
        sets = [row[0] for row in store._rows("SELECT job_id FROM backtest_results WHERE sweep_id != ''", {})]
        store.delete_results([*ids, sets[0]])
        store._command("DELETE FROM backtest_jobs WHERE job_id = {job:String}", {"job": other["job_id"]})
    found = json.loads(run("doctor", "--json")[1])["findings"]
    assert [f["kind"] for f in found] == ["job_without_result", "job_without_result", "result_without_job"]
    assert any("with 1 of 2 results" in f["text"] for f in found)
    assert run("doctor", "--repair")[0] == 0 and run("doctor")[:2] == (0, "nothing is wrong\n")
    assert figures(said(run("backtest", *JOB, "--json"))) == figures(one)
    assert said(run("sweep", *JOB, "--grid", "fast=5,9", "--json"))["job_id"] == swept
    assert kinds(run("doctor", "--json")) == []


def test_a_broken_part_is_detached(run: Cli, database: Path) -> None:
    data = part_of(database, "market_data_1m", "202402") / "data.bin"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    found = run("doctor", "--json")
    assert found[0] == 1 and kinds(found)[0] == "part" and "Checksum" in json.loads(found[1])["findings"][0]["text"]
    status, _, err = run("coverage", "--check")
    assert status == 1 and "Checksum" in err and "candlemill doctor" in err
    run("doctor", "--repair")
    assert "detached_part" in kinds(run("doctor", "--json")) and run("backtest", *JOB)[0] == 0


def test_inserts_into_tables_of_an_earlier_release_become_synced(run: Cli, database: Path) -> None:
    with ClickHouseStore(f"chdb://{database}") as store:
        store._command("ALTER TABLE market_data_1m RESET SETTING fsync_after_insert, fsync_part_directory", {})
    assert kinds(run("doctor", "--json")) == ["durability"]
    assert run("doctor", "--repair")[0] == 0 and run("doctor")[0] == 0


def test_shared_memory_of_killed_processes_is_found(run: Cli, database: Path) -> None:
    code = """
import os
from multiprocessing import resource_tracker, shared_memory
from candlemill.store.shared_memory import new_name
resource_tracker.register = lambda *_: None  # as if the whole process group were killed
print(shared_memory.SharedMemory(new_name(), create=True, size=1 << 20).name, flush=True)
os._exit(9)
"""
    for _ in range(10):  # a process of another test that starts meanwhile sweeps it
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=300, check=False
        )
        name = done.stdout.strip()
        findings = json.loads(run("doctor", "--json")[1])["findings"]
        found = [finding["kind"] for finding in findings if name in finding["text"]]
        if found:
            break
    assert found == ["shared_memory"]
    run("doctor", "--repair")
    assert name not in dict(shared_memory.orphans())
