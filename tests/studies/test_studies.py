"""Studies: the same trials every time, nothing computed twice, and no best without its luck."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import candlemill as cm
import numpy as np
import pytest
from candlemill.backtests.grid import grid_values
from candlemill.cli.main import main
from candlemill.errors import BadInput
from candlemill.pipeline import execute
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.studies import study as studies
from candlemill.studies.space import space_of
from conftest import environment

pytest.importorskip("optuna", reason="optuna is not installed: pip install 'candlemill[optimize]'")

SPACE: dict[str, Any] = {
    "fast": (2, 20), "slow": range(10, 90, 10), "stop_loss": "0%:3%:1%", "timeframe": ["1m", "5m", "15m"]
}  # fmt: skip


def candles(days: int = 20) -> cm.Candles:
    rng = np.random.default_rng(3)
    n = days * 1440
    price = 100 * np.exp(np.cumsum(rng.normal(0, 0.001, n)))
    time_ms = np.arange(n) * 60_000 + 1_704_067_200_000
    columns = {"time": time_ms, "open": price, "high": price * 1.001, "low": price * 0.999, "close": price}
    return cm.Candles.from_columns(columns, "OWN", decimals=4)


def trials_of(study: Any) -> list[studies.Trial]:
    found: list[studies.Trial] = study._found.trials
    return found


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "grid"])
def test_the_same_seed_has_the_same_trials_and_a_longer_study_goes_on(sampler: str) -> None:
    requested = {"space": SPACE, "sampler": sampler, "seed": 5}
    first = cm.optimize(candles(), "sma_cross", trials=14, **requested)
    other = cm.optimize(candles(), "sma_cross", trials=20, **requested)  # in another store: nothing is known there
    assert trials_of(other)[:14] == trials_of(first) and first.study_id == other.study_id
    assert trials_of(cm.optimize(candles(), "sma_cross", trials=14, **requested | {"seed": 6})) != trials_of(first)
    assert len({json.dumps(trial.point, sort_keys=True) for trial in trials_of(first)}) > 7


def test_a_trial_is_the_job_of_its_point_and_the_best_is_the_best() -> None:
    own = candles()
    study = cm.optimize(own, "sma_cross", space=SPACE, trials=15, fee="10bp")
    done = [trial for trial in trials_of(study) if trial.state == "done"]
    for trial in done[:3]:
        alone = cm.backtest(own, "sma_cross", fee="10bp", **trial.point)
        assert alone.job_id == trial.job_id and alone.result["sharpe_ratio"] == trial.score
    assert study.best().result["sharpe_ratio"] == max(trial.score or 0 for trial in done)
    assert study.params == study._found.trials[study._found.best].point
    assert study.best().warnings == ["the best of 15 trials", *study.warnings]
    assert all(f"warning: {text}" in repr(study.best()) for text in study.best().warnings)
    assert study.trials["sharpe_ratio"][0] == study.best().stats["Sharpe Ratio"]


def test_nothing_is_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    own, made = candles(), []
    real = execute.run_slice
    monkeypatch.setattr(execute, "run_slice", lambda *given: made.append(1) or real(*given))
    cm.optimize(own, "sma_cross", space=SPACE, trials=10)
    before = len(made)
    cm.optimize(own, "sma_cross", space=SPACE, trials=10)
    assert before and len(made) == before
    cm.optimize(own, "sma_cross", space=SPACE, trials=12)
    assert len(made) <= before + 2 * before // 10 + 2


@pytest.mark.parametrize(("days", "kept"), [(20, "memory"), (400, "database")])  # one slice of the calendar; three
def test_a_growing_range_costs_its_new_part(
    days: int, kept: str, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, real = candles(days), execute.run_slice
    computed: dict[int, list[Any]] = {}

    def counting(spec: Any, window: Any, sets: Any, starts: Any, *rest: Any) -> Any:
        for _, strategy in sets:
            computed.setdefault(strategy.fast, []).append(window.candles.t[window.lo : window.hi])
        return real(spec, window, sets, starts, *rest)

    monkeypatch.setattr(execute, "run_slice", counting)
    rows_read = []
    if kept == "database":
        own.save()
        reads = ClickHouseStore.read_columns

        def reading(*given: Any) -> Any:
            found = reads(*given)
            rows_read.append(len(found["t"]))
            return found

        monkeypatch.setattr(ClickHouseStore, "read_columns", reading)
    space = {"fast": [5, 7, 9, 11, 13, 15], "slow": [60]}
    study = cm.optimize(
        own if kept == "memory" else "OWN", "sma_cross", space=space, trials=6, sampler="grid", pruner="halving"
    )
    states = {trial.point["fast"]: trial.state for trial in trials_of(study)}
    assert {"done", "pruned"} == set(states.values())
    for fast, state in states.items():
        minutes = np.concatenate(computed[fast])
        assert len(minutes) == len(set(minutes.tolist())), "a minute was computed twice"
        assert len(minutes) // 1440 in ([days] if state == "done" else [days // 4, days // 2])
    assert study.guards is not None and study.guards["trials"] == 6
    assert sum(rows_read) <= days * 1440, "candles were read twice"


@pytest.mark.parametrize("pruner", ["median", "halving"])
def test_every_trial_counts_against_the_best(pruner: str) -> None:
    study = cm.optimize(candles(), "sma_cross", space=SPACE, trials=25, pruner=pruner)
    states = [trial.state for trial in trials_of(study)]
    ran = {trial.job_id for trial in trials_of(study) if trial.job_id}
    assert "pruned" in states and study.guards is not None
    assert study.guards["trials"] == len(ran) > states.count("done")
    assert trials_of(cm.optimize(candles(), "sma_cross", space=SPACE, trials=25, pruner=pruner)) == trials_of(study)
    assert "deflated Sharpe" in repr(study)


def test_a_best_of_one_says_that_nothing_tells_its_luck() -> None:
    study = cm.optimize(candles(), "sma_cross", points=[{"fast": 5, "slow": 50}])
    assert study.guards is None and "nothing tells how much of the best is luck" in repr(study)


def test_points_are_the_trials_themselves(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    own = candles()
    rows = [{"fast": 5, "slow": 50, "stop_loss": "1%"}, {"fast": 20, "slow": 10, "stop_loss": "0%"},
            {"fast": 8, "slow": 60, "stop_loss": "2%"}]  # fmt: skip
    study = cm.sweep(own, "sma_cross", points=pd.DataFrame(rows))
    assert [trial.state for trial in trials_of(study)] == ["done", "refused", "done"]
    assert trials_of(cm.optimize(own, "sma_cross", points=rows)) == trials_of(study)
    alone = cm.backtest(own, "sma_cross", fast=8, slow=60, stop_loss="2%")
    assert study.run(2).job_id == alone.job_id


def test_options_are_axes_of_a_walk_forward(database: Path, capsys: Any) -> None:
    own, grid = candles(), {"fast": [5, 9], "slow": [40, 60], "train": "5d", "test": "2d"}
    apart = [cm.walk_forward(own, "sma_cross", stop_loss=stop, timeframe="5m", **grid) for stop in ("1%", "2%")]
    both = cm.walk_forward(own, "sma_cross", stop_loss=["1%", "2%"], timeframe=["5m"], **grid)
    assert both.sweep_guards is not None and both.sweep_guards["trials"] == 8
    used = set()
    for k, fold in enumerate(both._folds):
        scores = [one._folds[k]["in_sample"] for one in apart]
        chosen = scores.index(max(scores))  # of equal sets the first
        used.add(chosen)
        assert fold == {
            **apart[chosen]._folds[k],
            "params": {**apart[chosen]._folds[k]["params"], "stop_loss": f"{chosen + 1}%", "timeframe": "5m"},
        }
    assert used == {0, 1}
    spec = both.result["spec"]
    assert [leg["options"] for leg in spec["schedule"]] == [
        {"stop_loss": int(fold["params"]["stop_loss"][0]) * 10_000, "timeframe": 5} for fold in both._folds
    ]
    words = ["--symbol", "AAAUSDT", "--strategy", "sma_cross", "--grid", "fast=5,9", "--param", "slow=40"]
    words += ["--grid", "stop-loss=1%:2%:1%", "--train", "5d", "--test", "2d"]
    assert main(["walk-forward", *words, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["guards"]["trials"] == 4 and {fold["params"]["fast"] for fold in first["folds"]} <= {5, 9}
    assert main(["walk-forward", *words, "--slices", "7", "--no-cache", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["result_digest"] == first["result"]["result_digest"]
    with pytest.raises(cm.BadInput, match="a walk-forward chooses fee"):
        cm.walk_forward(own, "sma_cross", fill=["close", "next_open"], **grid)


def test_options_are_axes_of_a_sweep(database: Path, capsys: Any) -> None:
    own = candles()
    study = cm.sweep(own, "sma_cross", fast=[5, 9], slow=40, stop_loss=["1%", "2%"], timeframe=["1m", "5m"])
    points = [(t.point["fast"], t.point["stop_loss"], t.point["timeframe"]) for t in trials_of(study)]
    assert points == [(f, s, t) for f in (5, 9) for s in ("1%", "2%") for t in ("1m", "5m")]
    alone = cm.backtest(own, "sma_cross", fast=9, slow=40, stop_loss="2%", timeframe="5m")
    assert trials_of(study)[-1].job_id == alone.job_id
    grid = ("--grid", "fast=5,9", "--grid", "stop-loss=1%:2%:1%", "--param", "slow=40")
    assert main(["sweep", "--symbol", "AAAUSDT", "--strategy", "sma_cross", *grid, "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert [trial["state"] for trial in output["trials"]] == ["done"] * 4 and output["guards"]["trials"] == 4
    with pytest.raises(cm.BadInput, match="5x"):
        cm.sweep(own, "sma_cross", fast=[5, 9], stop_loss=["5x"])


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"fast": (5, 50), "colour": ["red"]}, "colour"),
        ({"fast": (50, 5)}, "START <= END"),
        ({"fast": []}, "fast has no value"),
        ({"fast": (5, 500), "slow": [3, 4]}, "fast"),
        ({"stop_loss": ["5"], "fill": ["noon"]}, "noon"),
        ({}, "give a space"),
        ({"fast": (1, 2000), "slow": (2001, 4000)}, "the grid has 4,000,000 points"),
    ],
)
def test_a_bad_space_is_reported_in_one_line_before_any_trial(space: Any, said: str) -> None:
    with pytest.raises(cm.CandlemillError) as caught:
        cm.optimize(candles(), "sma_cross", space=space, trials=3, sampler="grid")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_spans_with_decimals_and_units() -> None:
    assert grid_values("x", "0.1:0.5:0.1") == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert grid_values("x", "1%:3%:0.5%") == ["1%", "1.5%", "2%", "2.5%", "3%"]
    assert grid_values("x", "5m:15m:5m") == ["5m", "10m", "15m"]
    assert grid_values("x", "5:9") == [5, 6, 7, 8, 9] and grid_values("x", "-2:2:2") == [-2, 0, 2]
    for wrong in ("0.1:0.5", "1%:5:1", "5:1:1", "1:5:0", "a:b:c", "1:2:3:4"):
        with pytest.raises(BadInput):
            grid_values("x", wrong)
    ordered = {
        one.name: one.ordered for one in space_of("sma_cross", {"fast": [5, 10], "fill": ["close", "next_open"]})
    }
    assert ordered == {"fast": True, "fill": False}


JOB = ("optimize", "--symbol", "AAAUSDT", "--strategy", "sma_cross", "--space", "fast=2:20", "--space", "slow=10:90:10",
       "--space", "stop-loss=0%:3%:1%", "--json")  # fmt: skip


def test_the_command_line_has_the_study_of_python(database: Path, capsys: Any, tmp_path: Path) -> None:
    assert main([*JOB, "--trials", "12"]) == 0
    output = json.loads(capsys.readouterr().out)
    study = cm.optimize(
        "AAAUSDT", "sma_cross", space={"fast": (2, 20), "slow": (10, 90, 10), "stop_loss": "0%:3%:1%"}, trials=12
    )
    assert (study.study_id, study.params) == (output["study_id"], output["trials"][output["best"]]["point"])
    assert main([*JOB[:-1], "--trials", "12"]) == 0
    shown = capsys.readouterr().out
    assert "deflated Sharpe" in shown and study.study_id in shown
    assert main(["results", study.study_id, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == output
    assert main(["jobs", "--json", "--kind", "study"]) == 0
    (line,) = [job for job in json.loads(capsys.readouterr().out)["jobs"] if job["job_id"] == study.study_id]
    assert main(["results", output["trials"][output["best"]]["job_id"], "--json"]) == 0
    best = json.loads(capsys.readouterr().out)
    figures = ("total_pnl", "sharpe_ratio", "max_drawdown")
    assert [line[name] for name in figures] == [best[name] for name in figures]
    with (tmp_path / "points.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["fast", "slow"])
        writer.writeheader()
        writer.writerows([{"fast": 5, "slow": 50}, {"fast": 9, "slow": 70}])
    assert main([*JOB[:5], "--points", str(tmp_path / "points.csv"), "--json"]) == 0
    assert [trial["state"] for trial in json.loads(capsys.readouterr().out)["trials"]] == ["done", "done"]


def test_after_a_kill_it_goes_on_with_the_same_trials(database: Path, capsys: Any) -> None:
    long = [sys.executable, "-m", "candlemill", *JOB, "--trials", "4000"]
    killed = subprocess.Popen(
        long, env=environment() | os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and killed.poll() is None and not _jobs(database):
        time.sleep(0.3)
    time.sleep(1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert main([*JOB, "--trials", "10"]) == 0
    output = json.loads(capsys.readouterr().out)
    again = cm.optimize(
        "AAAUSDT", "sma_cross", space={"fast": (2, 20), "slow": (10, 90, 10), "stop_loss": "0%:3%:1%"}, trials=10
    )
    assert [trial["job_id"] for trial in output["trials"]] == [trial.job_id for trial in trials_of(again)]


def _jobs(database: Path) -> bool:
    """Whether the killed process may have written some trials: its folder has grown."""
    return any(path.is_file() and time.time() - path.stat().st_mtime < 1 for path in database.rglob("*"))
