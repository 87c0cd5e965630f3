"""Paper runs through a simulated day in which everything goes wrong, per seed; then each result is a backtest's.

    python -m loadtests.exchange_simulator.paper --seeds 50 [--first 1] [--hours 6] [--speed 1200]

A process with a feed and paper runs works against the simulator with the full menu of faults, and with corrections of
candles that the streams have delivered. Of three seeds one has runs of spot symbols, one of perpetuals with margin,
mark prices and funding that come late, and one a panel. Again and again the process is killed with SIGKILL and started
again. It publishes to a file, a line for each event. In the end the faults stop, the feed catches up and audits, and
the process ends in order. Then, for each run:
- the run's result has the digest of a backtest over the stored candles;
- each decision of the log was published, at least once, and no id was published with two contents;
- the attempts of each minute count up by one.
Prints a line per seed; exit 1 if something differs.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import Spec
from candlemill.exchanges.base import Exchange
from candlemill.feed.live import LiveFeed
from candlemill.feed.rest_client import cooldown_of
from candlemill.local.runner import JobRunner, Options, run_one
from candlemill.paper.decision import DECISION, event_of
from candlemill.paper.order import Order
from candlemill.paper.service import Paper, hand_over
from candlemill.pipeline.events import Event
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.units import LAST_MS

from loadtests.exchange_simulator.faults import NONE, Menu
from loadtests.exchange_simulator.late_data import LateData
from loadtests.exchange_simulator.market import MINUTE_MS, Correction, Market, VirtualClock, synthetic
from loadtests.exchange_simulator.run import FAST, Stage, adapter
from loadtests.exchange_simulator.server import Ports

START_MS = 1_709_164_800_000  # 2024-02-29
DAY_MS = 86_400_000
MINUTES = 1_440 * 15
AWAITED_SECONDS = 0.2
SYMBOLS = ["BTCUSDT", "ETHUSDT", "XRPUSDT"]
STRATEGIES: list[dict[str, Any]] = [
    {"strategy": "sma_cross", "params": {"fast": 3, "slow": 10}},
    {"strategy": "grid", "params": {}, "account": "units"},
    {"strategy": "donchian", "params": {"entry": 12, "exit": 6}, "timeframe": 5, "stop_loss": 3_000},
    {"strategy": "pullback_limit", "params": {"lookback": 20}},
    {"strategy": "momentum_v1", "params": {"lookback": 30}, "account": "units", "sizing": "compound"},
    {"strategy": "breakout_stop", "params": {"entry": 30}, "timeframe": 15},
    {"strategy": "sma_cross", "params": {"fast": 2, "slow": 7}, "volume_share": 20_000, "account": "cash"},
    {"strategy": "donchian", "params": {"entry": 90, "exit": 30}, "timeframe": 3, "warm_up": "stored"},
]
MARGIN = {"leverage": 200_000_000, "size": "notional", "notional": 2_000 * 10**8, "funding": True}
PERPETUALS: list[dict[str, Any]] = [
    {"strategy": "sma_cross", "params": {"fast": 5, "slow": 30, "allow_short": True}, "margin": "isolated", **MARGIN},
    {"strategy": "momentum_v1", "params": {"lookback": 30}, "margin": "cross", **MARGIN},
    {"strategy": "grid", "params": {"spacing": 500}, "margin": "cross", "leverage": 5_000_000},
    {"strategy": "sma_cross", "params": {"fast": 3, "slow": 9}, "account": "units", "funding": True},
]
PANELS: list[dict[str, Any]] = [
    {"strategy": "xs_momentum", "params": {"lookback": 10, "top": 2, "every": 3}, "stop_loss": 1_000},
    {"strategy": "xs_momentum", "params": {"lookback": 4, "top": 1, "every": 1}, "timeframe": 5, "funding": True},
    {"strategy": "inverse_volatility", "params": {"length": 20, "every": 4}, "warm_up": "stored"},
]
KINDS = ("symbols", "perpetuals", "panel")
SHOWN = ("result_digest", "data_digest", "end", "bars", "total_pnl", "funding", "liquidations")
CALM_SPEED = 300.0
PATIENCE = 1_200.0
ROOT = Path(__file__).parents[2]


class Task(msgspec.Struct, frozen=True):
    """What the process is to run, as JSON on its command line."""

    folder: str
    ports: Ports
    base_ms: int
    start: float
    speed: float
    seed: int
    begin: int
    until: int = 0  # end in order once all candles before this time are audited


def kind_of(seed: int) -> str:
    return KINDS[seed % len(KINDS)]


def names_of(seed: int) -> dict[str, str]:
    """Return the names of the store by the exchange's symbols."""
    return {symbol: symbol if kind_of(seed) == "symbols" else f"BINANCE-UM:{symbol}" for symbol in SYMBOLS}


def specs_of(seed: int, begin: int) -> list[Spec]:
    """Return what a process runs: three runs of one symbol each, or one of a panel."""
    chance, names, span = random.Random(seed), list(names_of(seed).values()), (begin, LAST_MS)
    if kind_of(seed) == "panel":
        return [resolve(symbol=",".join(names), span=span, **dict(chance.choice(PANELS)))]
    chosen = chance.sample(PERPETUALS if kind_of(seed) == "perpetuals" else STRATEGIES, len(names))
    scaled = [{"volume_scale": 10**8, **one} if "volume_share" in one else one for one in chosen]
    return [resolve(symbol=name, span=span, **dict(options)) for name, options in zip(names, scaled, strict=True)]


def exchange_of(seed: int, ports: Ports) -> Exchange:
    """Return the simulated exchange; of other kinds than `symbols` its candles are those of perpetuals."""
    found, names = adapter("binance", ports), names_of(seed)
    found.store_name = names.__getitem__  # type: ignore[method-assign]
    return found


def late_data(dsn: str, seed: int, clock: VirtualClock, begin: int) -> LateData:
    return LateData(dsn, clock, seed, names_of(seed), START_MS, MINUTES, begin)


async def live(task: Task) -> int:
    """The process: a feed, and paper runs that publish to a file."""
    clock = VirtualClock(task.base_ms, task.start, task.speed)
    folder = Path(task.folder)
    store = ClickHouseStore(f"chdb://{folder / 'db'}")
    exchange = exchange_of(task.seed, task.ports)
    rng = random.Random(task.seed)
    feed = LiveFeed(exchange, SYMBOLS, store, FAST, clock, rng, cooldown_of(exchange, folder / "silence"))
    own = ClickHouseStore(store.dsn)
    now, late = clock.now_ms(), late_data(store.dsn, task.seed, clock, task.begin)
    late.start()
    order = Order(specs_of(task.seed, task.begin), task.begin, task.begin)
    with (folder / "published").open("ab", buffering=0) as file:

        def publish(event: Event) -> None:
            file.write(json.dumps({"id": event.id, "data": event.data.decode()}).encode() + b"\n")

        paper = Paper(own, order, False, lambda rows: None, now, 1.0, publish, AWAITED_SECONDS)
        feed.on_candle = hand_over(feed, paper.loop)
        paper.loop.start()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, feed.stop)
        if task.until:
            asyncio.get_running_loop().create_task(_stop_when_audited(feed, clock, task.until))
        await feed.run()
        await asyncio.to_thread(late.stop)
        for symbol in list(paper.desk.runs):
            paper.loop.check(symbol)
        if not paper.loop.stop() or paper.loop.error or paper.loop.failed:
            print(json.dumps({"error": f"{paper.loop.error} {paper.loop.failed}"}), flush=True)
            return 1
    found = {}
    for symbol, run in paper.desk.runs.items():
        result = run.result()
        found[symbol] = {name: result[name] for name in SHOWN}
    print(json.dumps(found), flush=True)
    own.close()
    store.close()
    return 0


async def _stop_when_audited(feed: LiveFeed, clock: VirtualClock, until: int) -> None:
    while not feed.started or min(feed.audited.values()) < until:
        await clock.sleep(60)
        if feed.started:
            with contextlib.suppress(Exception):
                await feed.audit()
    feed.stop()


async def start(task: Task) -> asyncio.subprocess.Process:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "core"), os.environ.get("PYTHONPATH", "")])
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadtests.exchange_simulator.paper", "--task", msgspec.json.encode(task).decode(),
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths},
        stderr=None if os.environ.get("TORTURE_LOG") else asyncio.subprocess.DEVNULL,
    )  # fmt: skip


def corrections_of(market: Market, chance: random.Random, first: int, end: int) -> list[Correction]:
    """Ten corrected closes of each symbol, each some minutes after its candle: before the feed's audit of it."""
    found = []
    for symbol, rows in market.rows.items():
        stored = [t for t in rows if first <= t < end]  # few where an outage left few
        for t in chance.sample(stored, min(10, len(stored))):
            o, h, low, c, v = rows[t]
            at = t + MINUTE_MS + chance.randrange(10_000, 480_000)
            found.append(Correction(at, symbol, t, (o, h, low, low if c != low else h, v)))
    return sorted(found, key=lambda one: one.at_ms)


async def torture(seed: int, hours: float, speed: float, folder: Path) -> dict[str, Any]:
    chance = random.Random(seed)
    market = synthetic(seed, SYMBOLS, START_MS, MINUTES)
    base = START_MS + 3 * DAY_MS + chance.randrange(DAY_MS // MINUTE_MS) * MINUTE_MS
    market.corrections = corrections_of(market, chance, base, base + int(hours * 3_600_000))
    began, kills = time.monotonic(), 0
    async with Stage(market, base, speed, seed, Menu(), shared=True) as stage:
        task = Task(str(folder), stage.ports, base, stage.clock.start, speed, seed, base)
        ends = began + hours * 3600 / speed
        while True:
            process = await start(task)
            life = chance.uniform(7.0, 15.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), life)
                raise RuntimeError(f"the process ended by itself with {process.returncode}")
            process.kill()
            await process.wait()
            kills += 1
            if time.monotonic() > ends and kills >= 2:
                break
        stage.simulator.dice.menu = NONE
        for subscriber in list(stage.simulator.subscribers):
            stage.simulator.abort(subscriber)
        stage.change(CALM_SPEED)
        calm = stage.clock.now_ms() // MINUTE_MS * MINUTE_MS
        process = await start(
            msgspec.structs.replace(
                task, base_ms=stage.clock.base_ms, start=stage.clock.start, speed=CALM_SPEED, until=calm
            )
        )
        try:
            out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    if process.returncode:
        raise RuntimeError(f"the process ended with {process.returncode}: {out.decode()[:500]}")
    found = json.loads(out)
    report = judge(folder, specs_of(seed, base), found)
    return {
        "seed": seed,
        "kind": kind_of(seed),
        "kills": kills,
        **report,
        "seconds": round(time.monotonic() - began, 1),
    }


def judge(folder: Path, specs: list[Spec], found: dict[str, Any]) -> dict[str, Any]:
    """Compare with backtests, and the published events with the logs; `wrong` is empty where all is well."""
    published: dict[str, set[str]] = {}
    for line in (folder / "published").read_bytes().split(b"\n")[:-1]:
        with contextlib.suppress(ValueError):  # a line that a kill has cut
            one = json.loads(line)
            published.setdefault(one["id"], set()).add(one["data"])
    wrong: list[str] = []
    counts = {"bars": 0, "decisions": 0, "again": 0, "replays": 0, "claims": 0, "liquidations": 0}
    wrong += [f"{name} has {len(data)} contents" for name, data in published.items() if len(data) > 1]
    with ClickHouseStore(f"chdb://{folder / 'db'}") as store:
        for spec in specs:
            mine = found[spec.symbol]
            counts["bars"] += mine["bars"]
            job = msgspec.structs.replace(spec, end=mine["end"])
            row = run_one(JobRunner(store), job, Options(), lambda done, known: None)
            right = json.loads(row.result)
            if right["result_digest"] != mine["result_digest"]:
                other = {name: (mine[name], right[name]) for name in SHOWN if mine[name] != right[name]}
                wrong.append(f"{spec.symbol} {spec.strategy}: {other}")
            (run,) = [one for one in store.paper_runs() if one.symbol == spec.symbol]
            attempts: dict[int, int] = {}
            counts["liquidations"] += mine["liquidations"]
            counts["claims"] += len({one.claim for one in store.paper_log(run.run_id, 0)})
            for event in store.paper_events(run.run_id, 0, 1_000_000):
                if event_of(event).id not in published:
                    wrong.append(f"{spec.symbol}: {event.event} of {event.t} was never published")
                if event.event == DECISION:
                    counts["decisions"] += 1
                    counts["again"] += event.attempt > 1
                    if event.attempt != attempts.get(event.t, 0) + 1:
                        wrong.append(
                            f"{spec.symbol}: attempt {event.attempt} of {event.t} after {attempts.get(event.t, 0)}"
                        )
                    attempts[event.t] = event.attempt
                else:
                    counts["replays"] += 1
    return {"wrong": wrong[:5], **counts}


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--seeds", type=int, default=10)
    ask.add_argument("--first", type=int, default=1)
    ask.add_argument("--hours", type=float, default=6.0)
    ask.add_argument("--speed", type=float, default=1200.0)
    ask.add_argument("--task", help="of the process that is killed")
    args = ask.parse_args()
    if args.task:
        return asyncio.run(live(msgspec.json.decode(args.task, type=Task)))
    bad = 0
    for seed in range(args.first, args.first + args.seeds):
        with tempfile.TemporaryDirectory(prefix="paper-", ignore_cleanup_errors=True) as name:
            try:
                found = asyncio.run(torture(seed, args.hours, args.speed, Path(name)))
            except Exception as error:
                found = {"seed": seed, "wrong": [f"{type(error).__name__}: {error}"]}
        bad += bool(found["wrong"])
        print(("BAD  " if found["wrong"] else "same ") + json.dumps(found), flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
