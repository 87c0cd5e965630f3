"""Jobs over REST: what the issue's one curl line promises, and what can go wrong with it."""

import http.client
import json
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import said

from gateway.conftest import PATIENCE_SECONDS, Gateway, serving

SEED = {"symbol": "AAAUSDT", "strategy": "momentum_v1", "range": "2024", "params": {"lookback": 60}}
GRID = {"symbol": "AAAUSDT", "strategy": "sma_cross", "grid": {"fast": "5:50:5", "slow": [60, 100, 200]}}


def test_the_curl_line_as_written(gateway: Gateway):
    """No content type, no options: what curl sends by itself."""
    command = ["curl", "-sX", "POST", f"{gateway.url}/api/v1/backtest", "-d", json.dumps(SEED)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=300).stdout)
    assert found["state"] in ("accepted", "done")
    assert found["plan"]["rows"] > 10_000
    job = gateway.wait(found["job_id"])
    assert (job["state"], job["result"]["job_id"]) == ("done", found["job_id"])
    assert gateway.get(found["links"]["self"]) == job


@pytest.mark.clock
def test_the_result_is_the_command_lines(gateway: Gateway, database: Path, run: Any):
    """The same address and the same bits, for one set and for all of a sweep."""
    alone = said(run("backtest", "--symbol", "AAAUSDT", "--strategy", "momentum_v1", "--range", "2024", "--param",
                     "lookback=60", "--json"))  # fmt: skip
    job = gateway.finish(**SEED)
    assert job["result"]["result_digest"] == alone["result_digest"]
    sweep = said(run("sweep", "--symbol", "AAAUSDT", "--strategy", "sma_cross", "--grid", "fast=5:50:5", "--grid",
                     "slow=60,100,200", "--json"))  # fmt: skip
    job = gateway.finish(**GRID)
    assert (job["job_id"], job["result"]["guards"]) == (sweep["job_id"], sweep["guards"])
    page = gateway.get(f"/api/v1/backtest/{job['job_id']}/results?limit=30")
    assert [row["result_digest"] for row in page["items"]] == [row["result_digest"] for row in sweep["results"]]


def test_a_job_says_how_it_is_requested_again(gateway: Gateway):
    """Its request leads to the same job, a sweep's row to its set, computed as part of the sweep."""
    job = gateway.finish(**GRID)
    assert gateway.submit(**job["request"])["job_id"] == job["job_id"]
    row = job["result"]["best"][0]
    alone = gateway.get(f"/api/v1/backtest/{row['job_id']}")
    assert (alone["state"], alone["result"]) == ("done", row)
    again = gateway.submit(**alone["request"])
    assert (again["job_id"], gateway.wait(row["job_id"])["result"]) == (row["job_id"], row)


def test_ten_clients_at_once_are_one_computation(gateway: Gateway):
    body = {**GRID, "grid": {"fast": "3:30", "slow": "40:60:5"}}
    answers: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: answers.append(gateway.submit(**body))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer["job_id"] for answer in answers}) == 1
    job = gateway.wait(answers[0]["job_id"])
    assert job["result"]["sets"] == 28 * 5
    listed = gateway.get("/api/v1/backtests?symbol=AAAUSDT&kind=sweep&limit=200")["items"]
    assert [line["job_id"] for line in listed].count(job["job_id"]) == 1
    assert gateway.submit(**body)["plan"]["cached"]


def test_nothing_is_started_that_cannot_end(gateway: Gateway):
    def refused(**change: Any) -> tuple[int, str, str]:
        status, headers, found = gateway.ask("POST", "/api/v1/backtest", SEED | change)
        assert headers["content-type"] == "application/problem+json"
        assert found["status"] == status
        return status, found["code"], found["detail"]

    jobs = len(gateway.get("/api/v1/backtests?limit=200")["items"])
    status, code, detail = refused(symbol="AAUSDT")
    assert (status, code) == (404, "unknown_name")
    assert "did you mean 'AAAUSDT'" in detail
    status, code, detail = refused(range="2023")
    assert (status, code) == (409, "no_data")
    assert "stored are 2024-01-29" in detail
    assert refused(range="2024-01-29..2024-02-05", max_gap=0)[:2] == (409, "no_data")
    assert refused(strategy="momentum")[:2] == (422, "unknown_name")
    assert refused(params={"lookback": 0})[:2] == (422, "bad_input")
    assert refused(fee=-(10**9))[:2] == (422, "bad_input")
    status, _, detail = refused(colour="red")
    assert status == 400 and "unknown field `colour`" in detail
    assert len(gateway.get("/api/v1/backtests?limit=200")["items"]) == jobs
    assert refused(fee="much") == (422, "bad_input", "fee='much' is no rate: write it like 0.1%, 10bp or 1000 (ppm)")
    assert refused(fee=0.001) == (422, "bad_input", "fee=0.001 has no unit: write 0.1% or 1000")
    status, _, found = gateway.ask("POST", "/api/v1/backtest", SEED | {"funding": "much"})
    assert (status, found["field"]) == (400, "funding")


def test_a_plan_starts_nothing(gateway: Gateway):
    status, _, found = gateway.ask("POST", "/api/v1/plan", SEED | {"fee": 77})
    assert (status, found["plan"]["cached"]) == (200, False)
    assert gateway.ask("GET", f"/api/v1/backtest/{found['job_id']}")[0] == 404


def test_finished_results_need_not_be_sent_again(gateway: Gateway):
    job = gateway.finish(**SEED)
    path = f"/api/v1/backtest/{job['job_id']}"
    status, headers, _ = gateway.ask("GET", path)
    assert (status, headers["cache-control"]) == (200, "private, max-age=60")
    status, _, body = gateway.ask("GET", path, If_None_Match=headers["etag"])
    assert (status, body) == (304, "")


def events_of(gateway: Gateway, job_id: str, last: str = "") -> tuple[int, list[dict[str, str]]]:
    """The events of a stream until its end."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=300)
    connection.request("GET", f"/api/v1/backtest/{job_id}/events", headers={"Last-Event-ID": last} if last else {})
    answer = connection.getresponse()
    text = answer.read().decode().replace("\r\n", "\n")
    connection.close()
    blocks = [block for block in text.split("\n\n") if "data:" in block]
    return answer.status, [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]


def test_progress_is_reported_as_it_comes(gateway: Gateway):
    job_id = gateway.submit(**{**GRID, "grid": {"fast": "2:40", "slow": "41:120"}})["job_id"]
    status, found = events_of(gateway, job_id)
    assert (status, found[-1]["event"]) == (200, "done")
    output = [json.loads(event["data"]) for event in found]
    assert [one["fraction"] for one in output] == sorted(one["fraction"] for one in output)
    assert output[-1] == {"state": "done", "done": output[-1]["total"], "total": output[-1]["total"], "repairs": 0,
                        "fraction": 1.0}  # fmt: skip
    assert events_of(gateway, job_id, found[-1]["id"]) == (204, [])  # all was seen: a browser stops asking
    assert events_of(gateway, job_id, "something else")[1] == [found[-1]]


@pytest.mark.clock
def test_cancelled_and_removed(gateway: Gateway):
    big = {**GRID, "grid": {"fast": "2:200", "slow": "201:400"}, "strategy": "ema_cross"}
    job_id = gateway.submit(**big)["job_id"]
    assert gateway.ask("DELETE", f"/api/v1/backtest/{job_id}")[0] == 409
    status, _, found = gateway.ask("POST", f"/api/v1/backtest/{job_id}/cancel")
    assert (status, found["state"]) == (202, "cancelled")
    assert gateway.ask("POST", f"/api/v1/backtest/{job_id}/cancel")[0] == 409
    job = gateway.get(f"/api/v1/backtest/{job_id}")
    assert (job["state"], job["reason"], job["result"]) == ("cancelled", "cancelled", None)
    end = time.monotonic() + PATIENCE_SECONDS
    while (removed := gateway.ask("DELETE", f"/api/v1/backtest/{job_id}"))[0] == 409 and time.monotonic() < end:
        assert "remove it again later" in removed[2]["detail"]  # a slow machine takes long to stop it
    assert removed[0] == 204
    assert gateway.ask("GET", f"/api/v1/backtest/{job_id}")[0] == 404


def test_jobs_are_listed_page_by_page(gateway: Gateway):
    wanted = [gateway.finish(**SEED, fee=fee)["job_id"] for fee in (11, 12, 13)]
    found: list[dict[str, Any]] = []
    cursor = ""
    for _ in range(50):
        page = gateway.get(f"/api/v1/backtests?limit=2&state=done&strategy=momentum_v1&cursor={cursor}")
        found += page["items"]
        cursor = page["next"]
        if not cursor:
            break
    assert [line["job_id"] for line in found][:3] == wanted[::-1]
    assert all(line["total_pnl"] is not None and line["progress"]["fraction"] == 1 for line in found)
    assert len({line["job_id"] for line in found}) == len(found)
    assert gateway.ask("GET", "/api/v1/backtests?cursor=nonsense")[0] == 422


def test_a_stop_loses_nothing(stored_market: Path, tmp_path: Path):
    """A gateway that is stopped stops, and the next one ends its jobs."""
    folder = tmp_path / "db"
    shutil.copytree(stored_market, folder, symlinks=True)
    with serving(folder) as first:
        job_id = first.submit(**{**GRID, "grid": {"fast": "2:40", "slow": "41:100"}})["job_id"]
    assert first.process.returncode == 0
    with serving(folder) as second:
        assert second.wait(job_id)["result"]["sets"] == 39 * 60


@pytest.mark.parametrize("variable", ["CANDLEMILL_API_KEYS"])
def test_beyond_this_machine_only_with_keys(stored_market: Path, variable: str):
    from conftest import run_cli

    done = run_cli("serve", "--host", "0.0.0.0", "--port", "0", CANDLEMILL_CLICKHOUSE_DSN=f"chdb://{stored_market}")
    assert done.returncode == 2
    assert variable in done.stderr


@pytest.mark.clock
def test_what_is_known_need_not_be_computed(gateway: Gateway):
    """A range that grows, and a grid that grows, compute what is new; the plan says so before and with the answer."""
    body = {"symbol": "AAAUSDT", "strategy": "donchian", "grid": {"entry": [30, 60], "exit": [15, 20]}}
    first = gateway.finish(**body, range="2024-01-29..2024-02-02")
    assert first["state"] == "done"
    longer = body | {"range": "2024-01-29..2024-02-03"}
    _, _, planned = gateway.ask("POST", "/api/v1/plan", longer)
    reuse = planned["plan"]["reuse"]
    assert (reuse["reused_outcomes"], reuse["outcomes"] - reuse["reused_outcomes"]) == (4, 4)
    assert [one["reason"] for one in reuse["missing"]] == ["new_range"]
    assert gateway.submit(**longer)["plan"]["reuse"]["reused_outcomes"] == 4
    more = longer | {"grid": {"entry": [30, 60, 90], "exit": [15, 20]}}
    gateway.finish(**longer)
    output = gateway.submit(**more)["plan"]["reuse"]
    assert output["outcomes"] - output["reused_outcomes"] == output["slices"] * 2
    alone = {"symbol": "AAAUSDT", "strategy": "donchian", "params": {"entry": 30, "exit": 15}}
    assert gateway.submit(**alone, range="2024-01-29..2024-02-01")["plan"]["reuse"]["reused_outcomes"] == 0


def test_notes_are_kept_beside_a_job_and_found(gateway: Gateway):
    job = gateway.finish(symbol="AAAUSDT", strategy="sma_cross", params={"fast": 3, "slow": 1_047})
    path = f"/api/v1/backtest/{job['job_id']}"
    assert gateway.get(f"{path}/notes") == {"label": "", "note": "", "tags": []}
    assert all(one["label"] == "" for one in gateway.get("/api/v1/backtests")["items"])  # now the line is cached
    body = {"label": "Tuesday", "note": "look\nagain", "tags": ["b", "a", "b"]}
    status, _, found = gateway.ask("PUT", f"{path}/notes", body)
    assert (status, found) == (200, {**body, "tags": ["a", "b"]}) and gateway.get(f"{path}/notes") == found
    for query in ("tag=a&tag=b", "text=AGAIN", "param=fast=3&param=slow=1047", "where=trades>=0&param=slow=1047"):
        (line,) = gateway.get(f"/api/v1/backtests?{query}")["items"]
        assert (line["job_id"], line["label"], line["tags"]) == (job["job_id"], "Tuesday", ["a", "b"]), query
    assert gateway.get("/api/v1/backtests?tag=a&tag=c")["items"] == []
    assert gateway.get("/api/v1/backtests?until=2020")["items"] == []
    for wrong in ({"tags": ["a,b"]}, {"label": "a\nb"}):
        assert gateway.ask("PUT", f"{path}/notes", wrong)[0] == 422
    assert gateway.ask("PUT", f"{path}/notes", {"labels": "x"})[0] == 400
    assert gateway.ask("PUT", f"/api/v1/backtest/{'0' * 32}/notes", body)[0] == 404
    assert gateway.ask("GET", "/api/v1/backtests?where=sharp>1")[0] == 422
    assert gateway.ask("DELETE", path)[0] == 204
    assert gateway.get("/api/v1/backtests?tag=a")["items"] == []
