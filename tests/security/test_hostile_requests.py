"""Thousands of strange requests and events: each is answered, and none by an error that nobody foresaw.

CANDLEMILL_HOSTILE_REQUESTS=N tries N of each kind, CANDLEMILL_HOSTILE_SEED=S others.
"""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from candlemill.gateway.access import AccessPolicy
from candlemill.gateway.app import create_app
from candlemill.gateway.job_service import JobService
from candlemill.gateway.routes import jobs
from candlemill.transport import functions
from hostile import NO_JSON, Requests, changed, leaves
from litestar.testing import TestClient

from security.conftest import REQUEST, SWEEP
from security.desk import Desk

NUMBER = int(os.environ.get("CANDLEMILL_HOSTILE_REQUESTS", "600"))
SEED = int(os.environ.get("CANDLEMILL_HOSTILE_SEED", "1"))
HANGS_SECONDS = 300.0
MEMORY_MIB = 96  # what a run of any length may grow by, after its first third
JOBS: list[dict[str, Any]] = [
    REQUEST,
    {**SWEEP, "slices": "3"},
    {**REQUEST, "symbol": "AAAUSDT,BBBUSDT", "range": "all"},
    {"symbol": "AAAUSDT,BBBUSDT", "strategy": "xs_momentum", "range": "all"},
    {**SWEEP, "symbol": "AAAUSDT,BBBUSDT", "range": "all"},
    {"symbol": "AAAUSDT", "strategy": "grid", "params.spacing": "1500", "path": "both", "range": "all"},
    {"symbol": "AAAUSDT", "strategy": "grid", "params.spacing": "1500", "account": "units", "range": "all"},
    {**REQUEST, "account": "units", "stop_loss": "1%", "range": "all"},
    {**SWEEP, "range": "all", "walk_forward.train": "3d", "walk_forward.test": "1d"},
]


@pytest.fixture(scope="module")
def ended(desk: Desk) -> list[Any]:
    """All events of jobs of many kinds."""
    return [event for job in JOBS for event in desk.finish(**job)]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def resident_mib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


class Flat:
    """Checks that memory stays flat while something is done again and again."""

    def __init__(self) -> None:
        self._settled = 0

    def step(self, k: int) -> None:
        if k == NUMBER // 3:
            self._settled = resident_mib()
        if k == NUMBER - 1 and Path("/proc/self/statm").exists():
            assert resident_mib() - self._settled < MEMORY_MIB


def test_every_request_is_answered(desk: Desk, ended: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "STREAM_POLLS", 3)  # jobs that are accepted here are never run
    app = create_app(JobService(desk.store, lambda published: None), AccessPolicy(per_minute=None))
    chance, known, flat, statuses = (
        Random(SEED),
        sorted({event.partitionkey for event in ended} - {""}),
        Flat(),
        Counter(),
    )
    with TestClient(app, raise_server_exceptions=False) as client:
        metrics = [row["key"] for row in client.get("/api/v1/metrics").json()["metrics"]]
        requests = Requests(client.get("/openapi.json").json(), known, metrics, chance)
        for k in range(NUMBER):
            sent = requests.draw()
            if sent.method == "DELETE" and chance.random() < 0.95:
                continue  # something has to be left to ask for
            began = time.monotonic()
            answer = client.request(sent.method, sent.url, headers=sent.headers, content=sent.body)
            assert time.monotonic() - began < HANGS_SECONDS, sent
            statuses[answer.status_code] += 1
            assert answer.status_code < 500, f"seed {SEED}, {k}: {sent} {answer.text}"
            if answer.status_code >= 400:
                problem = answer.json()
                assert problem["status"] == answer.status_code and problem["detail"], (SEED, k, sent)
                assert "\n" not in problem["detail"], (SEED, k, sent)
            flat.step(k)
    assert {200, 400, 404, 422} <= statuses.keys()


def test_every_event_is_answered(desk: Desk, ended: list[Any]) -> None:
    chance, flat, statuses = Random(SEED), Flat(), Counter()
    for k in range(NUMBER):
        event = chance.choice(ended)
        data, name = json.loads(event.data), functions.function_of(event)
        data = changed(data, list(leaves(data)), chance, chance.choice((1, 1, 1, 2, 4)))
        raw = chance.choice((*NO_JSON, event.data[: len(event.data) // 2])) if chance.random() < 0.05 else None
        more = {"partitionkey": event.partitionkey, "id": str(k)}
        if chance.random() < 0.1:
            more[chance.choice(("partitionkey", "id", "source", "subject", "time", "datacontenttype"))] = "é" * 400
        if chance.random() < 0.05:
            name = "aggregate"
            more |= {"knativeerrorcode": chance.choice(("500", "x")), "knativeerrordest": "http://split"}
            more["knativeerrordata"] = chance.choice(("", "eA==", "a" * 3_000))
        desk.sent.clear()
        desk.said.clear()
        began = time.monotonic()
        status, found = desk.post(name, event.type, data, raw, **more)
        assert time.monotonic() - began < HANGS_SECONDS, (SEED, k, data)
        statuses[status] += 1
        assert status in (202, 422) or found["title"] != "internal", (SEED, k, name, event.type, data, raw, more, found)
        flat.step(k)
    assert {202, 422} <= statuses.keys()
