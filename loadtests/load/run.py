"""Runs the stages of a load test, one after the other, and gathers what they say."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadtests.common.lab import SYMBOLS, YEAR, cpu_seconds, environment, machine, memory_mb, serving, store_candles
from loadtests.load import functions, gateway
from loadtests.load.feed.stage import Followed, follow
from loadtests.load.figures import Stage, stage_of
from loadtests.load.functions.stage import functions as started_functions
from loadtests.load.orders import Heard, Orders

GATEWAY_USERS = str(Path(gateway.__file__).with_name("users.py"))
FUNCTIONS_USERS = str(Path(functions.__file__).with_name("users.py"))
PEOPLE = ("Researcher", "Returner", "Looker", "Sweeper", "Careless")
AT_ONCE = 8  # users of one kind, without a thought between their requests
IDLE_SECONDS = 3.0
ALONE_SECONDS = 5.0
EVENT_USERS = 8
FEED_SYMBOLS, FEED_UPDATES, FEED_SECONDS = 500, 60, 65.0  # so that a minute ends meanwhile


class Options(msgspec.Struct, frozen=True):
    """`seconds` of the longest stage; `host` a gateway that runs already."""

    what: list[str]
    seconds: float = 45.0
    users: int = 240
    think: float = 1.0
    host: str = ""
    seed: int = 0


class Found(msgspec.Struct, frozen=True):
    """A whole load test."""

    when: str
    machine: dict[str, Any]
    gateway: list[Stage] = []
    events: list[Stage] = []
    feed: Followed | None = None


def run(options: Options) -> Found:
    about = machine()
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if options.host:
        return Found(when, about, gateway=[mixed(options, options.host, {}, 0.0)])
    with tempfile.TemporaryDirectory(prefix="candlemill-load-", dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        requested, sent, followed = [], [], None
        if {"gateway", "functions"} & set(options.what):
            print("making two years of candles", file=sys.stderr, flush=True)
            store_candles(f"chdb://{folder / 'db'}", folder, SYMBOLS, YEAR)
        if "gateway" in options.what:
            requested = list(gateway_stages(options, folder))
        if "functions" in options.what:
            sent = list(function_stages(options, folder))
        if "feed" in options.what:
            followed = follow(folder, FEED_SYMBOLS, FEED_UPDATES, FEED_SECONDS)
        return Found(when, about, requested, sent, followed)


# -- the gateway ---------------------------------------------------------------------------------------------------


def gateway_stages(options: Options, folder: Path) -> Iterator[Stage]:
    """All users together; each kind alone, as fast as it is answered; backtests alone."""
    with serving(f"chdb://{folder / 'db'}", folder) as (server, port):
        host, pids = f"http://127.0.0.1:{port}", {"serve": server.pid}
        idle = _idle_cores(pids)
        yield mixed(options, host, pids, idle)
        for kind in (*PEOPLE, "Backtester"):
            label = f"{kind} alone"
            orders = Orders(GATEWAY_USERS, host, AT_ONCE, ALONE_SECONDS, 0.0, [kind], 1.0, options.seed, label, pids)
            about = f"{AT_ONCE} at once, each asks again as soon as it is answered"
            yield _swarmed(kind, about, orders, list(pids), idle)


def mixed(options: Options, host: str, pids: dict[str, int], idle: float) -> Stage:
    orders = Orders(
        GATEWAY_USERS, host, options.users, options.seconds, options.think, [], 5.0, options.seed, "all", pids
    )
    about = f"{options.users} users of all kinds, who think {options.think:g} s before each request on average"
    return _swarmed("all", about, orders, list(pids), idle)


# -- the functions -------------------------------------------------------------------------------------------------


def function_stages(options: Options, folder: Path) -> Iterator[Stage]:
    with started_functions(folder / "db", 1, 4) as stage:
        pids = {name: one.pid for name, one in stage.processes.items()}
        idle = _idle_cores(pids)
        seconds = options.seconds / 2
        orders = Orders(FUNCTIONS_USERS, stage.broker, EVENT_USERS, seconds, 0.5, [], 3.0, options.seed, "events", pids)
        about = f"{EVENT_USERS} users, one executor; `candlemill db` is the store"
        stage.figures()
        urls = json.dumps(stage.urls)
        found = _swarmed("events", about, orders, list(pids), idle, CANDLEMILL_LOAD_FUNCTIONS=urls)
        yield msgspec.structs.replace(found, more={**found.more, **stage.figures()})


# -- both ----------------------------------------------------------------------------------------------------------


def _swarmed(name: str, about: str, orders: Orders, served: Sequence[str], idle: float, **more: str) -> Stage:
    with tempfile.TemporaryDirectory(prefix="candlemill-swarm-") as folder:
        out = Path(folder) / "heard.json"
        command = [sys.executable, "-m", "loadtests.load.swarm", msgspec.json.encode(orders).decode(), str(out)]
        subprocess.run(command, env=environment("", **more), check=True)
        heard = msgspec.json.decode(out.read_bytes(), type=Heard)
    memory = {group: round(memory_mb(pid)) for group, pid in orders.pids.items()}
    return stage_of(name, about, heard, orders.users, served, idle, os.getloadavg()[0], {"memory_mb": memory})


def _idle_cores(pids: Mapping[str, int]) -> float:
    """What processes use when nobody asks."""
    before = cpu_seconds(*pids.values())
    time.sleep(IDLE_SECONDS)
    return (cpu_seconds(*pids.values()) - before) / IDLE_SECONDS
