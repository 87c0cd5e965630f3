"""Who sends events to the functions. A locustfile; its host is the address of `loadtests.load.functions.broker`.

CANDLEMILL_LOAD_FUNCTIONS has the functions' own addresses as JSON, for what a broker would not let through.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[3])]

# ruff: noqa: E402 -- locust loads this file by its path
from candlemill.pipeline import events
from locust import constant, task

from loadtests.common.lab import SYMBOLS, YEAR
from loadtests.load.gateway.asking import STRATEGIES, Asker, chance

FUNCTIONS: dict[str, list[str]] = json.loads(os.environ.get("CANDLEMILL_LOAD_FUNCTIONS", "{}"))


class Sender(Asker):
    """Sends CloudEvents, and hears when a job that it requested has ended."""

    abstract = True
    wait_time = constant(0)

    def on_start(self) -> None:
        self.think()

    def send(self, data: dict[str, Any], kind: str, structured: bool = False, copies: int = 1) -> str:
        """A requested backtest in fields of their own, as `kn event send` has them; the trace that identifies it."""
        trace = f"{chance.getrandbits(128):032x}"
        attributes = {
            "specversion": "1.0",
            "id": f"load-{trace}",
            "source": "/loadtests",
            "type": events.REQUESTED,
            "traceparent": f"00-{trace}-{'1' * 16}-00",
        }
        if structured:
            headers = {"Content-Type": "application/cloudevents+json"}
            body = json.dumps({**attributes, "datacontenttype": "application/json", "data": data}).encode()
        else:
            headers = {f"ce-{name}": value for name, value in attributes.items()} | {"Content-Type": "application/json"}
            body = json.dumps(data).encode()
        for _ in range(copies):
            self.ask("POST", "/", kind, expect=202, raw=body, headers=headers)
        return trace

    def hear(self, trace: str, kind: str, began: float, end: str) -> None:
        found = self.ask("GET", f"/ended/{trace}", "word of a job's end")
        said = found.get("type", "nothing")
        self.journey(kind, began, "" if said == end else f"{said} instead of {end}")


class Requester(Sender):
    """New backtests: binary and structured events, some of them twice."""

    weight = 6

    @task
    def ask_for_a_backtest(self) -> None:
        self.think()
        data = {"symbol": chance.choice(SYMBOLS), "strategy": chance.choice(STRATEGIES)}
        data |= {"range": f"{YEAR}-{chance.randint(1, 12):02d}", "fee": chance.randint(1, 99_999)}
        structured, copies = chance.random() < 0.5, 1 if chance.random() < 0.9 else 2
        began = time.perf_counter()
        trace = self.send(data, "backtest.requested", structured, copies)
        self.hear(trace, "a new backtest by events", began, events.COMPLETED)


class Sweeper(Sender):
    """Small sweeps in four slices."""

    weight = 1

    @task
    def ask_for_a_sweep(self) -> None:
        self.think()
        data = {
            "symbol": chance.choice(SYMBOLS),
            "strategy": "sma_cross",
            "range": f"{YEAR}-{chance.randint(1, 12):02d}",
        }
        data |= {"grid": {"fast": "5:20:5", "slow": "50:150:50"}, "fee": chance.randint(1, 99_999), "slices": 4}
        began = time.perf_counter()
        trace = self.send(data, "backtest.requested, a sweep")
        self.hear(trace, "a sweep of 12 sets by events", began, events.COMPLETED)


class Poisoner(Sender):
    """What no function can do anything with: 422, so that a broker never tries it again."""

    weight = 1

    @task
    def poison(self) -> None:
        good = {"ce-specversion": "1.0", "ce-id": "p", "ce-source": "/loadtests", "Content-Type": "application/json"}
        requested = good | {"ce-type": events.SLICE_REQUESTED}
        for name, kind, headers, body in (
            ("execute", "data that is no JSON", requested, b"{"),
            ("execute", "data of another shape", requested, b"{}"),
            ("execute", "a type that is none of its own", good | {"ce-type": "dev.example.v1"}, b"{}"),
            ("aggregate", "no event at all", {"Content-Type": "application/json"}, b"{}"),
            ("split", "more than 128 KiB", good | {"ce-type": events.REQUESTED}, b" " * 200_000),
        ):
            self.think()
            url = chance.choice(FUNCTIONS[name])
            self.ask("POST", url, f"422: {kind}", expect=422, raw=body, headers=headers)
