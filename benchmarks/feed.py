"""Figures of the feed. Each in a fresh process, on this machine as it is.

    python benchmarks/feed.py decode | files | sustain [--seconds 1200]
    python benchmarks/feed.py live [--seconds 120] [--symbols 2000] [--no-compression]

decode   messages per second and core, bytes to exact candles; finals and updates alike
files    30 days of one symbol from the archive's files, fetched from a server on this machine
sustain  candles per second into the embedded store, digests and all; least and most memory of every minute, and the
         slope of the least over the second half: the database keeps replaced parts for 8 minutes, so give it 20
live     processor time of a feed that follows many symbols, one update per symbol and two seconds
"""

import argparse
import asyncio
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "core")]

# ruff: noqa: E402 -- this checkout's packages, not installed ones
from candlemill.exchanges.base import MINUTE_MS, Candle
from candlemill.exchanges.registry import exchange
from candlemill.feed.batch_writer import BatchWriter
from candlemill.feed.download import Downloader
from candlemill.feed.live import LiveFeed, Settings
from candlemill.feed.rest_client import Clock
from candlemill.store.clickhouse import ClickHouseStore

from loadtests.exchange_simulator.market import synthetic
from loadtests.exchange_simulator.run import Stage, adapter
from loadtests.exchange_simulator.server import frame

START = 1_709_164_800_000
DAY_MS = 86_400_000


def decode() -> dict[str, float]:
    binance = exchange("binance")
    market = synthetic(1, ["BTCUSDT"], START, 1000, calm=True)
    frames = [
        frame("binance", "BTCUSDT", t, row, k % 30 == 0, t).decode()
        for k, (t, row) in enumerate(market.rows["BTCUSDT"].items())
    ]
    best = 0.0
    for _ in range(20):
        begin = time.process_time()
        for _ in range(10):
            for raw in frames:
                binance.decode(raw)
        best = max(best, 10 * len(frames) / (time.process_time() - begin))
    return {"messages_per_second": round(best)}


def files(folder: Path) -> dict[str, float]:
    first = 1_711_929_600_000  # 2024-04-01
    market = synthetic(1, ["BTCUSDT"], first - DAY_MS, 40 * 1440, calm=True)

    async def run() -> dict[str, float]:
        async with Stage(market, first + 32 * DAY_MS, 1, 1) as stage:
            with ClickHouseStore(f"chdb://{folder / 'db'}") as store:
                loader = Downloader(adapter("binance", stage.ports), store, stage.ours, folder / "files")
                begin = time.perf_counter()
                report = await loader.run(["BTCUSDT"], (first + DAY_MS // 2, first + 30 * DAY_MS + DAY_MS // 2))
                return {
                    "seconds": round(time.perf_counter() - begin, 2),
                    "candles": report.stored,
                    "files": report.files,
                }

    return asyncio.run(run())


def memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def memory_figures(samples: list[float]) -> dict[str, object]:
    """Of samples a second apart: least and most of each minute, and how the least goes on in the second half."""
    minutes = [samples[k : k + 60] for k in range(0, len(samples) - 59, 60)] or [samples]
    least = [min(minute) for minute in minutes]
    half = least[len(least) // 2 :]
    slope = statistics.linear_regression(range(len(half)), half).slope if len(half) > 1 else 0.0
    return {
        "memory_mb_least": [round(mb) for mb in least],
        "memory_mb_most": [round(max(minute)) for minute in minutes],
        "slope_of_second_half_mb_per_minute": round(slope, 2),
    }


def sustain(folder: Path, seconds: int, rate: int = 20_000) -> dict[str, object]:
    """`rate` candles per second of 500 symbols, each minute by minute, through the feed's own batches."""
    symbols = [f"S{k:03}USDT" for k in range(500)]
    per_second = rate // len(symbols)

    async def run() -> dict[str, object]:
        with ClickHouseStore(f"chdb://{folder / 'db'}") as store:
            usual = Settings()
            bounds = (usual.batch_rows, usual.batch_seconds, usual.buffer_rows)
            batches = BatchWriter(store, ThreadPoolExecutor(1), Clock(), lambda *_: None, *bounds)
            writing = asyncio.create_task(batches.run())
            begin, samples, minute, most = time.monotonic(), list[float](), 0, 0
            for second in range(seconds):
                for _ in range(per_second):
                    t = START + minute * MINUTE_MS
                    minute += 1
                    price = 10**10 + minute % 1000
                    for symbol in symbols:
                        batches.add(symbol, Candle(symbol, t, price, price + 5, price - 5, price, 10**8 + minute, True))
                most = max(most, batches.waiting)
                samples.append(memory_mb())
                await asyncio.sleep(max(0.0, begin + second + 1 - time.monotonic()))
            behind = time.monotonic() - begin - seconds
            writing.cancel()
            await batches.flush()
            done = time.monotonic() - begin
            rows = store._rows("SELECT count() FROM market_data_1m", {})[0][0]
            return {
                "candles_per_second": round(batches.counts.rows / done), "rows": rows,
                "behind_seconds": round(behind, 1),
                **memory_figures(samples), "waiting_most": most, "given_up": batches.counts.dropped,
            }  # fmt: skip

    return asyncio.run(run())


def live(folder: Path, seconds: int, count: int, compression: bool) -> dict[str, object]:
    """The simulator in a process of its own; ours is the feed alone."""
    symbols = [f"S{k:04}USDT" for k in range(count)]
    command = [sys.executable, "-m", "loadtests.exchange_simulator", "--port", "9310", "--symbols", ",".join(symbols)]
    command += ["--history", "0", "--days", "1", *([] if compression else ["--no-compression"])]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "core")])
    simulator = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.PIPE, text=True)
    try:
        assert simulator.stderr is not None
        simulator.stderr.readline()
        return asyncio.run(_follow(folder, symbols, seconds))
    finally:
        simulator.kill()


async def _follow(folder: Path, symbols: list[str], seconds: int) -> dict[str, object]:
    binance = exchange("binance", "http://127.0.0.1:9310", "ws://127.0.0.1:9311/stream", "")
    settings = Settings(new_days=0, audit=False)
    with ClickHouseStore(f"chdb://{folder / 'db'}") as store:
        feed = LiveFeed(binance, symbols, store, settings, Clock(), random.Random(1))
        running = asyncio.create_task(feed.run())
        while not feed.started or feed.feed.gap_minutes() or not feed.feed.counts.candles:
            await asyncio.sleep(0.5)
        before, used, begin = msg(feed), time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        spent, passed, messages = time.process_time() - used, time.monotonic() - begin, msg(feed) - before
        found = {
            "symbols": len(symbols), "messages_per_second": round(messages / passed),
            "core_percent": round(100 * spent / passed, 1), "missing_minutes": feed.feed.gap_minutes(),
            "filled_over_rest": feed.feed.counts.filled, "memory_mb": round(memory_mb()),
        }  # fmt: skip
        feed.stop()
        await running
        return found


def msg(feed: LiveFeed) -> int:
    counts = feed.feed.counts
    return counts.candles + counts.unfinished + counts.duplicates


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("what", choices=["decode", "files", "sustain", "live"])
    ask.add_argument("--seconds", type=int, default=60)
    ask.add_argument("--symbols", type=int, default=2000)
    ask.add_argument("--no-compression", dest="compression", action="store_false", help="of the streams")
    args = ask.parse_args()
    with tempfile.TemporaryDirectory(prefix="feed-bench-", dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        if args.what == "decode":
            found: dict[str, object] = dict(decode())
        elif args.what == "files":
            found = dict(files(folder))
        elif args.what == "sustain":
            found = sustain(folder, args.seconds)
        else:
            found = live(folder, args.seconds, args.symbols, args.compression)
    print(json.dumps({args.what: found}))


if __name__ == "__main__":
    main()
