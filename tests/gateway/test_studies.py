"""Studies over REST: the same as anywhere, followed, cancelled, resumed after a kill, and one line of the list."""

import csv
import io
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.conftest import Gateway, serving

pytest.importorskip("optuna", reason="optuna is not installed: pip install 'candlemill[optimize]'")

BOTH = "2024-01-29..2024-02-12"  # the days of both symbols
STUDY: dict[str, Any] = {
    "symbol": "AAAUSDT", "strategy": "sma_cross", "range": "2024-01", "fee": "0.1%",
    "space": {"fast": "2:20", "slow": "30:90:10", "stop_loss": "0%:3%:1%"}, "trials": 8, "seed": 3,
}  # fmt: skip


def ask(gateway: Gateway, **more: Any) -> dict[str, Any]:
    status, _, found = gateway.ask("POST", "/api/v1/optimize", STUDY | more)
    assert status == 202, found
    return found


def test_a_study_has_its_luck_its_plots_and_one_line(gateway: Gateway) -> None:
    begun = ask(gateway)
    job = gateway.wait(begun["job_id"])
    result = job["result"]
    assert (begun["kind"], begun["trials"], job["state"]) == ("study", 8, "done")
    assert len(result["trials"]) == 8 and result["best"] is not None
    assert result["guards"]["deflated_sharpe"] is not None and result["guards"]["warnings"]
    assert set(result["importance"]) == {"fast", "slow", "stop_loss"}
    assert all(0 <= share <= 1 for share in result["importance"].values())
    lines = gateway.get("/api/v1/backtests?strategy=sma_cross&symbol=AAAUSDT")["items"]
    trials = {trial["job_id"] for trial in result["trials"]}
    assert [line["sets"] for line in lines if line["job_id"] == begun["job_id"]] == [8]
    assert not trials & {line["job_id"] for line in lines}
    status, headers, page = gateway.ask("GET", f"/api/v1/backtest/{begun['job_id']}/report")
    assert status == 200 and headers["content-type"].startswith("text/html")
    assert page.index("By luck alone") < page.index("Best trials")  # never the best without its luck
    best = gateway.get(f"/api/v1/backtest/{result['trials'][result['best']]['job_id']}")["result"]
    status, _, sets = gateway.ask("GET", f"/api/v1/backtest/{begun['job_id']}/tables/sets?format=csv")
    rows = list(csv.DictReader(io.StringIO(sets)))
    done = {t["job_id"]: t["point"] for t in result["trials"] if t["state"] == "done"}
    assert status == 200 and [row["job_id"] for row in rows] == list(done)
    for row in rows:
        assert {name: row[f"param_{name}"] for name in STUDY["space"]} == {
            k: str(v) for k, v in done[row["job_id"]].items()
        }
    assert best["sharpe_ratio"] == max(t["score"] for t in result["trials"] if t["state"] == "done")


def test_the_same_request_is_the_same_study_and_more_trials_go_on_with_it(gateway: Gateway) -> None:
    first = gateway.wait(ask(gateway)["job_id"])
    assert ask(gateway)["state"] == "done"
    status, _, again = gateway.ask("POST", "/api/v1/optimize", first["request"])
    assert (status, again["job_id"], again["state"]) == (202, first["job_id"], "done")
    more = gateway.wait(ask(gateway, trials=12)["job_id"])
    assert more["job_id"] == first["job_id"]
    assert more["result"]["trials"][:8] == first["result"]["trials"] and len(more["result"]["trials"]) == 12


def test_symbols_are_an_axis_and_several_figures_have_a_front(gateway: Gateway) -> None:
    space = {"fast": [5, 10], "slow": [30, 60], "symbol": ["AAAUSDT", "BBBUSDT"]}
    begun = ask(gateway, space=space, trials=6, sampler="random", score="total_pnl,max_drawdown", range=BOTH)
    job = gateway.wait(begun["job_id"])
    result = job["result"]
    assert job["state"] == "done", job["reason"]
    assert {trial["point"]["symbol"] for trial in result["trials"]} == {"AAAUSDT", "BBBUSDT"}
    done = [trial for trial in result["trials"] if trial["state"] == "done"]
    front = {trial["number"] for trial in done if trial["number"] in result["front"]}
    values = {trial["number"]: (trial["score"], -trial["more"][0]) for trial in done}
    for number, own in values.items():
        beaten = any(other != own and other[0] >= own[0] and other[1] >= own[1] for other in values.values())
        assert beaten or number in front or own in [values[one] for one in front]
        assert not (beaten and number in front)


@pytest.mark.parametrize(
    "more, text",
    [
        ({"space": {}}, "needs something to vary"),
        ({"space": {"no_such": [1]}}, "unknown parameter or option 'no_such'"),
        ({"grid": {"fast": [1, 2]}}, "a study has a space"),
        ({"symbol": "AAAUSDT,BBBUSDT"}, "a study is of one symbol"),
        ({"score": "sharpe_ratio,nonsense"}, "score='nonsense'"),
        ({"score": "sharpe_ratio,trades", "pruner": "median"}, "several figures"),
        ({"space": {"symbol": ["AAAUSDT", "NOSUCH"]}}, "NOSUCH"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_runs(gateway: Gateway, more: Any, text: str) -> None:
    status, _, found = gateway.ask("POST", "/api/v1/optimize", STUDY | more)
    assert status in (404, 422) and text in found["detail"], found


def test_a_cancelled_study_stops_and_goes_on_when_it_is_requested_again(gateway: Gateway) -> None:
    begun = ask(gateway, seed=99, trials=400)
    status, _, found = gateway.ask("POST", f"/api/v1/backtest/{begun['job_id']}/cancel")
    assert (status, found["state"]) == (202, "cancelled")
    assert gateway.get(f"/api/v1/backtest/{begun['job_id']}")["state"] == "cancelled"
    end = time.monotonic() + 300
    while (again := ask(gateway, seed=99, trials=5))["state"] != "planned":  # until the first run of it has stopped
        assert time.monotonic() < end, again
    while (job := gateway.wait(begun["job_id"]))["state"] == "cancelled" and time.monotonic() < end:
        ask(gateway, seed=99, trials=5)
    assert job["state"] == "done" and len(job["result"]["trials"]) == 5


def test_a_study_resumes_after_a_kill_with_the_same_trials(stored_market: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "killed", tmp_path / "whole"]
    for folder in folders:
        shutil.copytree(stored_market, folder, symlinks=True)
    wanted = {"trials": 40, "seed": 5}
    with serving(folders[0]) as gateway:
        job_id = ask(gateway, **wanted)["job_id"]
        end = time.monotonic() + 300
        while gateway.get(f"/api/v1/backtest/{job_id}")["progress"]["done"] < 3:
            assert time.monotonic() < end
            time.sleep(0.02)
        gateway.process.kill()
        gateway.process.wait()
    with serving(folders[0]) as gateway:  # without another request
        resumed = gateway.wait(job_id)
    with serving(folders[1]) as gateway:
        whole = gateway.wait(ask(gateway, **wanted)["job_id"])
    assert resumed["state"] == "done"
    assert resumed["result"]["trials"] == whole["result"]["trials"]
    assert resumed["result"]["guards"] == whole["result"]["guards"]
