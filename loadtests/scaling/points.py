"""Sweeps that are really run: by the functions with some executors, and by `candlemill sweep` with some workers."""

import http.client
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil
from candlemill.pipeline import events
from candlemill.pipeline.events import Event, Requested

from loadtests.common.lab import SYMBOLS, YEAR, Busy, cpu_seconds, environment, quiet
from loadtests.load.functions.stage import Stage, functions
from loadtests.scaling.measure import FEES, settle, sweep_spec

HOPS = 120
ENDED_SECONDS = 180.0


class Point(msgspec.Struct, frozen=True):
    """A sweep that was run. `others` are the cores that other people's work took meanwhile, `cpu` the CPU seconds of
    all processes of ours; `start` is what an executor's process used until it answered, `hop` how long an event
    travels; `broker`, `receive` and `publish` the CPU seconds that one costs the broker, the function that takes it
    and the one that sends it."""

    executors: int
    wall: float
    cpu: float
    others: float
    start: float
    hop: float
    broker: float
    receive: float
    publish: float


class Local(msgspec.Struct, frozen=True):
    """`candlemill sweep --workers N` of so many sets over so many years, as a whole process. `parent` and `children`
    are CPU seconds; `worked` and `waited` those of the parent's main thread, and for how long it was kept from a core;
    `pace` is the share of the time in which its workers could work that they did. `others` as above."""

    sets: int
    years: int
    workers: int
    wall: float
    parent: float
    children: float
    worked: float
    waited: float
    pace: float
    others: float

    @property
    def alone(self) -> float:
        """What the wall time may be on a machine that nobody else uses: the parent's work, and while it slept, that of
        its workers at full pace."""
        return self.worked + max(0.0, self.wall - self.worked - self.waited) * self.pace


# -- by events -----------------------------------------------------------------------------------------------------


def by_events(store: Path, executors: int, sets: int, years: int, event_bytes: int, rounds: int) -> list[Point]:
    """Some rounds, each a sweep that nobody has requested."""
    with functions(store, executors, 2) as stage:
        start = cpu_seconds(stage.processes["execute0"].pid)
        _ask(stage, 8, 1)  # every process has its connections then
        hop, broker, receive = _hop(stage)
        publish = _publish(stage, event_bytes)
        found = []
        for _ in range(rounds):
            pids = {name: one.pid for name, one in stage.processes.items()}
            quiet()
            settle(*pids.values())
            busy, before, began = Busy(**pids), cpu_seconds(*pids.values()), time.monotonic()
            _ask(stage, sets, years)
            wall, others = time.monotonic() - began, busy.cores()["others"]
            settle(*pids.values())
            cpu = cpu_seconds(*pids.values()) - before
            found.append(Point(executors, wall, cpu, others, start, hop, broker, receive, publish))
        return found


def _ask(stage: Stage, sets: int, years: int) -> None:
    """Have a sweep done. Raises SystemExit where it does not end well."""
    trace = uuid.uuid4().hex
    body = msgspec.json.encode(Requested(sweep_spec(sets, years)))
    headers = _headers(events.REQUESTED) | {"ce-traceparent": f"00-{trace}-{'1' * 16}-00"}
    urllib.request.urlopen(urllib.request.Request(stage.broker, body, headers), timeout=30).close()
    deadline = time.monotonic() + ENDED_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{stage.broker}ended/{trace}", timeout=90) as answer:
                said = json.load(answer)["type"]
        except urllib.error.HTTPError:  # not within its patience: ask again
            continue
        if said == events.COMPLETED:
            return
        break
    raise SystemExit(f"a sweep of {sets} sets over {years} years did not end well")


def _headers(kind: str) -> dict[str, str]:
    return {
        "ce-specversion": "1.0",
        "ce-id": uuid.uuid4().hex,
        "ce-source": "/loadtests",
        "ce-type": kind,
        "Content-Type": "application/json",
    }


def _hop(stage: Stage) -> tuple[float, float, float]:
    """Post to the broker, and to a function that refuses at once. Return the time that both take, the first quartile
    (others disturb), and the CPU time that it costs the broker, which sends as often as it takes, and the function."""
    broker, executor = (stage.processes[name].pid for name in ("broker", "execute0"))
    before = cpu_seconds(broker), cpu_seconds(executor)
    there = [_post(stage.broker, "dev.example.nothing.v1") for _ in range(HOPS)]
    on = [_post(stage.urls["execute"][0], events.SLICE_REQUESTED) for _ in range(HOPS)]
    own = (cpu_seconds(broker) - before[0]) / HOPS, (cpu_seconds(executor) - before[1]) / HOPS
    return statistics.quantiles(there, n=4)[0] + statistics.quantiles(on, n=4)[0], 2 * own[0], own[1]


def _publish(stage: Stage, event_bytes: int) -> float:
    """As a function does it, several at a time: events of a type that goes nowhere."""
    from candlemill.transport.sink import publish

    os.environ["K_SINK"] = stage.broker
    said = [
        Event(id=f"{k}", source="/loadtests", type="dev.example.nothing.v1", data=b" " * event_bytes)
        for k in range(320)
    ]
    publish(said[:20])
    began = time.process_time()
    publish(said[20:])
    return (time.process_time() - began) / len(said[20:])


def _post(url: str, kind: str) -> float:
    connection = http.client.HTTPConnection(url.split("/")[2], timeout=30)
    began = time.perf_counter()
    connection.request("POST", "/", b"{}", _headers(kind))
    connection.getresponse().read()
    taken = time.perf_counter() - began
    connection.close()
    return taken


# -- on one machine ----------------------------------------------------------------------------------------------------


def run_locally(store: Path, workers: int, sets: int, years: int) -> Local:
    """One sweep over the last years that are stored, from the shell and back."""
    symbol, first = SYMBOLS[0], YEAR - years + 1
    fast = min(64, sets)
    slow = sets // fast
    command = [
        sys.executable, "-m", "candlemill", "sweep", "--symbol", symbol, "--strategy", "sma_cross",
        "--grid", f"fast=2:{1 + fast}", "--grid", f"slow=110:{105 + 5 * slow}:5", "--fee", str(next(FEES)),
        "--range", f"{first}..{YEAR}", "--workers", str(workers), "--no-cache", "--top", "1", "--json",
    ]  # fmt: skip
    quiet()
    busy, began = Busy(own=os.getpid()), time.monotonic()
    started = subprocess.Popen(command, env=environment(f"chdb://{store}"), stdout=subprocess.DEVNULL)
    parent = children = 0.0
    seen: dict[int, tuple[float, float]] = {}
    while started.poll() is None:
        with suppress(psutil.Error, OSError):
            one = psutil.Process(started.pid)
            spent = one.cpu_times()
            parent = max(parent, spent.user + spent.system)
            children = max(children, cpu_seconds(started.pid) - spent.user - spent.system)
            workers_of = [it.pid for it in one.children() if "resource_tracker" not in " ".join(it.cmdline())]
            seen |= {pid: _main_thread(pid) for pid in (started.pid, *workers_of)}
        time.sleep(0.02)
    if started.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    wall = time.monotonic() - began
    others = max(0.0, busy.cores()["others"] - (parent + children) / wall)
    worked, waited = seen.pop(started.pid)
    theirs = [sum(one) for one in zip(*seen.values(), strict=True)] or [1.0, 0.0]
    return Local(sets, years, workers, wall, parent, children, worked, waited, theirs[0] / sum(theirs), others)


def _main_thread(pid: int) -> tuple[float, float]:
    """For how long it has worked, and has waited for a core, in seconds."""
    path = Path(f"/proc/{pid}/task/{pid}")
    ticks = path.joinpath("stat").read_text().rpartition(")")[2].split()[11:13]
    waited = int(path.joinpath("schedstat").read_text().split()[1])
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), waited / 1e9


def ceiling() -> float:
    """What two processes that share nothing get done beside one, as an efficiency: 1 where each has a core to itself.
    Virtual cores may be two threads of one."""
    quiet()
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        wait([pool.submit(_work_alone) for _ in range(4)])  # all is imported and warm
        alone = pool.submit(_work_alone).result()
        together = [pool.submit(_work_alone) for _ in range(2)]
        return alone / max(one.result() for one in together)


def _work_alone() -> float:
    """Seconds for a sweep of a year in memory, in this process."""
    import candlemill
    from data import synthetic

    candles = candlemill.Candles("ALONEUSDT", synthetic.year(1, YEAR, 30_000.0))
    began = time.perf_counter()
    candlemill.sweep(candles, "sma_cross", fast=range(2, 34), slow=range(110, 260, 10), workers=1)
    return time.perf_counter() - began
