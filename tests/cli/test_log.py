"""`candlemill log`: each result once, with exact figures, in a file or in MLflow."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import candlemill as cm
import pytest
from conftest import Cli, said

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def jobs() -> list[Any]:
    run = cm.backtest("AAAUSDT", "sma_cross", fast=5, slow=20, progress=False)
    sweep = cm.sweep("AAAUSDT", "sma_cross", fast=[5, 10], slow=20, progress=False)
    cm.label(run.job_id, "first", tags=["x"])
    return [run, sweep]


def test_lines_of_json(run: Cli, jobs: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    single, sweep = jobs
    assert said(run("log", single.job_id[:9], "--to", path, "--json")) == {"logged": 1}
    assert said(run("log", "--last", 2, "--to", path, "--json")) == {"logged": 2}  # the sets of the sweep
    assert said(run("log", "--last", 2, "--to", path, "--json")) == {"logged": 0}
    lines = [json.loads(line, parse_float=Decimal) for line in path.read_text().splitlines()]
    first = lines[0]
    assert (first["job_id"], first["label"], first["tags"]) == (single.job_id, "first", ["x"])
    assert first["figures"]["total_pnl"] == Decimal(single.result["total_pnl"]).scaleb(-8)
    assert first["figures"]["trades"] == single.result["trades"] and first["params"] == single.params
    assert {line["of"] for line in lines[1:]} == {sweep.job_id}
    path.write_text("something else\n")
    status, _, err = run("log", "--last", 1, "--to", path)
    assert status == 2 and "has a line that is no result" in err and path.read_text() == "something else\n"


def test_runs_of_mlflow(run: Cli, jobs: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database would need another library
    uri = f"file://{tmp_path / 'runs'}"
    assert said(run("log", "--last", 2, "--mlflow", uri, "--json")) == {"logged": 2}  # one set is the run
    assert said(run("log", "--last", 2, "--mlflow", uri, "--json")) == {"logged": 0}
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("candlemill").experiment_id
    (found,) = client.search_runs([experiment], f"tags.`candlemill.job_id` = '{jobs[0].job_id}'")
    assert found.data.metrics["trades"] == jobs[0].result["trades"]
    assert (found.data.params["param.fast"], found.data.params["fee"]) == ("5", "1000")


def test_bad_requests_are_one_line(run: Cli, jobs: list[Any], tmp_path: Path) -> None:
    for arguments, text in (
        (("--last", 1), "either --to FILE.jsonl or --mlflow URI"),
        (("--to", tmp_path / "a"), "give either ids of jobs or --last N"),
        (("--last", 1, "--to", tmp_path / "no" / "a"), "in a folder that exists"),
    ):
        status, out, err = run("log", *arguments)
        assert (status, out, err.count("\n")) == (2, "", 1) and text in err
