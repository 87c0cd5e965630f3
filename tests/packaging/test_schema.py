"""The schema on a cluster, and the roles: generated from, and in step with, `schema/*.sql`."""

import re
from pathlib import Path

import pytest
from candlemill.config import bundled
from candlemill.errors import BadInput
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.store.schema import on_cluster, statements

TABLES = statements(path.read_text() for path in sorted(bundled("schema").glob("*.sql")))
ROLES = statements([(bundled("schema") / "roles/roles.sql").read_text()])
CREATED = {found[1] for text in TABLES if (found := re.match(r"CREATE TABLE IF NOT EXISTS (\w+)", text))}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClickHouseStore:
    return ClickHouseStore(f"chdb://{tmp_path_factory.mktemp('schema')}")


def test_what_a_cluster_is_sent_is_clickhouses_sql(store: ClickHouseStore) -> None:
    for statement in TABLES + ROLES:
        text = on_cluster(statement, "{cluster}")
        for sent in (statement, text):
            if not sent.startswith("INSERT"):
                store._client.command(f"EXPLAIN AST {sent}")  # the engine's own parser
        if statement.startswith("INSERT"):
            assert text == statement
            continue
        assert text.count("ON CLUSTER '{cluster}'") == 1
        assert (statement == text.replace(" ON CLUSTER '{cluster}'", "")) == ("ENGINE" not in statement)


def test_every_table_is_replicated_with_its_own_arguments() -> None:
    engines = {}
    for text in TABLES:
        if name := re.match(r"CREATE TABLE IF NOT EXISTS (\w+)", text):
            found = re.search(r"ENGINE = (\w+)\((.*)\)", on_cluster(text, "prod"))
            assert found is not None
            engines[name[1]] = (found[1], found[2])
    path = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"
    assert engines["market_data_1m"] == ("ReplicatedReplacingMergeTree", path)
    assert engines["coverage_days"] == ("ReplicatedReplacingMergeTree", f"{path}, version")
    assert engines["backtest_results"] == ("ReplicatedMergeTree", path)
    assert all(engine.startswith("Replicated") and given.startswith(path) for engine, given in engines.values())
    assert engines.keys() == CREATED


def test_a_clusters_name_is_not_sql() -> None:
    for name in ("", "a'b", "x; DROP TABLE symbols", "a b", "é"):
        with pytest.raises(BadInput, match="is no name"):
            on_cluster(TABLES[0], name)


def granted(role: str, right: str) -> set[str]:
    tables = set()
    for text in ROLES:
        found = re.match(r"GRANT (.*) ON (\S+) TO (\w+)\Z", text)
        if found is not None and found[3] == role and right in found[1].split(", "):
            tables.add(found[2])
    return tables


def test_roles_write_what_they_must_and_no_more() -> None:
    names = ("feed", "executor", "planner", "gateway", "paper")
    feed, executor, planner, gateway, paper = (granted(f"candlemill_{name}", "INSERT") for name in names)
    assert feed | executor | planner | gateway | paper >= CREATED  # every table has its writer
    assert not feed & (executor | planner)
    assert paper == {"coverage_days", "paper_runs", "paper_log", "paper_marks"}
    assert executor == {"backtest_slices", "slice_outcomes"}
    assert planner == {"backtest_jobs", "backtest_slices", "backtest_results", "slice_outcomes"}
    assert gateway <= {"backtest_jobs", "coverage_days", "job_notes"}
    assert granted("candlemill_reader", "INSERT") == set()
    assert granted("candlemill_feed", "SELECT") == feed  # no job
    assert granted("candlemill_gateway", "ALTER DELETE") <= planner | gateway
    assert granted("candlemill_reader", "SELECT") <= CREATED  # not of whatever else is in the database
    rights = {right for text in ROLES if " ON " in text for right in text[6:].partition(" ON ")[0].split(", ")}
    assert rights == {"SELECT", "INSERT", "ALTER DELETE", "SHOW TABLES", "SHOW COLUMNS"}


def test_all_roles_see_all_columns() -> None:
    """Or a store that they open would try to create what it takes for missing."""
    assert granted("candlemill_reader", "SHOW COLUMNS") == granted("candlemill_feed", "SHOW COLUMNS") == {"*"}
    for role in ("gateway", "planner", "executor", "paper"):
        assert f"GRANT candlemill_reader TO candlemill_{role}" in ROLES


def test_roles_are_not_applied_with_the_tables() -> None:
    assert Path(bundled("schema") / "roles/roles.sql") not in set(bundled("schema").glob("*.sql"))
