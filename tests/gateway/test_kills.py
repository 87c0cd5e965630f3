"""A gateway that is killed at any moment, again and again: every job that it accepted ends in the right bits."""

import http.client
import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

from conftest import said

from gateway.conftest import Gateway, serving

SEED, KILLS = 11, 3
REQUESTS: list[dict[str, Any]] = [
    {"symbol": "AAAUSDT", "strategy": "sma_cross", "grid": {"fast": "2:30", "slow": "31:70"}, "slices": 8},
    {"symbol": "AAAUSDT", "strategy": "momentum_v1", "params": {"lookback": 77}, "slices": 5},
    {"symbol": "BBBUSDT", "strategy": "donchian", "grid": {"entry": "20:60:4", "exit": "10:40:3"}},
    {"symbol": "AAAUSDT", "strategy": "ema_cross", "grid": {"fast": "2:12", "slow": "20:44:2"}, "stop_loss": 9000},
]


def test_every_accepted_job_ends_right(stored_market: Path, tmp_path: Path, database: Path, run: Any):
    chance = random.Random(SEED)
    folder = tmp_path / "killed"
    shutil.copytree(stored_market, folder, symlinks=True)
    accepted: dict[str, dict[str, Any]] = {}
    waits = []
    for _ in range(KILLS):
        with serving(folder) as gateway:
            waits.append(round(chance.uniform(0.0, 1.5), 3))
            ask(gateway, chance, accepted, waits[-1])
            gateway.process.kill()
            gateway.process.wait()
    with serving(folder) as gateway:
        for body in REQUESTS:
            accepted[gateway.submit(**body)["job_id"]] = body
        for job_id, body in accepted.items():
            job = gateway.wait(job_id)
            assert job["state"] == "done", f"seed {SEED}, killed after {waits} s: {job['reason']}"
            assert digests(gateway, job) == expected(body, run), f"seed {SEED}, killed after {waits} s"


def ask(gateway: Gateway, chance: random.Random, accepted: dict[str, Any], seconds: float) -> None:
    """Ask for jobs one after the other until the time has come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        body = chance.choice(REQUESTS)
        try:
            status, _, found = gateway.ask("POST", "/api/v1/backtest", body)
        except (OSError, http.client.HTTPException):
            return
        assert status == 202, found
        accepted[found["job_id"]] = body
        time.sleep(chance.uniform(0.0, 0.3))


def digests(gateway: Gateway, job: dict[str, Any]) -> list[str]:
    if job["kind"] != "sweep":
        return [job["result"]["result_digest"]]
    page = gateway.get(f"/api/v1/backtest/{job['job_id']}/results?limit=1000")
    rows = page["items"]
    while page["next"]:
        page = gateway.get(f"/api/v1/backtest/{job['job_id']}/results?limit=1000&cursor={page['next']}")
        rows += page["items"]
    return sorted(row["result_digest"] for row in rows)


def expected(body: dict[str, Any], run: Any) -> list[str]:
    """The same from the command line on a store that nobody disturbs, uncut."""
    options = ["--symbol", body["symbol"], "--strategy", body["strategy"], "--slices", 1, "--json"]
    options += [x for name, value in body.get("params", {}).items() for x in ("--param", f"{name}={value}")]
    options += [x for name, value in body.get("grid", {}).items() for x in ("--grid", f"{name}={value}")]
    if "stop_loss" in body:
        options += ["--stop-loss", body["stop_loss"]]
    found = said(run("sweep" if "grid" in body else "backtest", *options))
    results = json.loads(json.dumps(found)).get("results", [found])
    return sorted(row["result_digest"] for row in results)
