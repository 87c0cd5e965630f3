"""Lag of paper runs: from a candle's arrival to the decision at its sink, for many symbols whose candles close at once.

    python benchmarks/paper.py [--symbols 100] [--minutes 60] [--strategy sma_cross | xs_momentum] [--core 0]

One process, held to one core, has the runs, the embedded store and the senders; a thread of it writes the candles to
the store as a feed does. The sink is a process of its own: it answers each POST and notes when it came. Both read the
same clock. Prints the median, the 99th percentile and the longest lag in ms, the processor time of a minute in ms, the
writing of its candles included, and the load of the machine. A strategy of many symbols has one run of all.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

START_MS = 1_709_164_800_000  # 2024-02-29
MINUTE_MS = 60_000
HISTORY = 1_500  # minutes before the run
SINK = """
import json, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        came = time.time()
        self.send_response(204); self.send_header("Content-Length", "0"); self.end_headers()
        one = json.loads(body)
        sys.stdout.write(f"{one['symbol'].split(',')[0]} {one['minute']} {came!r}\\n")
    def log_message(self, *_): pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
server.daemon_threads = True
print(server.server_address[1], flush=True)
server.serve_forever()
"""


def rows_of(symbols: int, minutes: int) -> Any:
    """Return closes of random walks, one row for each symbol."""
    rng = np.random.default_rng(1)
    steps = rng.integers(-500, 501, (symbols, HISTORY + minutes))
    return (3_000_000 + np.cumsum(steps, axis=1)) * 10**6


def candle(closes: Any, symbol: int, k: int) -> tuple[int, int, int, int, int, int]:
    close, before = int(closes[symbol, k]), int(closes[symbol, max(k - 1, 0)])
    high, low = max(close, before) + 10**6, min(close, before) - 10**6
    return START_MS + k * MINUTE_MS, before, high, low, close, 10**8


def columns_of(rows: list[tuple[int, ...]]) -> dict[str, Any]:
    names = ("t", "open", "high", "low", "close", "volume")
    table = np.array(rows, dtype=np.int64)
    return {name: table[:, k].copy() for k, name in enumerate(names)}


def run(args: argparse.Namespace, folder: Path, sink: "subprocess.Popen[str]") -> dict[str, Any]:
    from candlemill.backtests.resolve import resolve
    from candlemill.backtests.spec_rules import sees_panel
    from candlemill.paper.order import Order
    from candlemill.paper.service import Paper
    from candlemill.store.candle_writer import recount, touched_days, write
    from candlemill.store.clickhouse import ClickHouseStore
    from candlemill.units import LAST_MS

    names = [f"COIN{k:03}USDT" for k in range(args.symbols)]
    closes = rows_of(args.symbols, args.minutes)
    begin = START_MS + HISTORY * MINUTE_MS
    assert sink.stdout is not None
    port = int(sink.stdout.readline())
    came: dict[tuple[str, int], float] = {}

    def listen() -> None:
        for line in sink.stdout or ():
            name, minute, at = line.split()
            came[name, int(minute)] = float(at)

    threading.Thread(target=listen, daemon=True).start()
    os.sched_setaffinity(0, {args.core})
    offered: dict[int, float] = {}
    with ClickHouseStore(f"chdb://{folder}") as store, ClickHouseStore(f"chdb://{folder}") as own:
        parts = {name: columns_of([candle(closes, k, j) for j in range(HISTORY)]) for k, name in enumerate(names)}
        write(store, parts)
        recount(store, touched_days(parts))
        runs = [",".join(names)] if sees_panel(args.strategy) else names
        specs = [resolve(symbol=name, strategy=args.strategy, params={}, span=(START_MS, LAST_MS)) for name in runs]
        order = Order(specs, START_MS, begin, f"http://127.0.0.1:{port}/")
        paper = Paper(own, order, False, lambda rows: None, begin)
        paper.loop.start()

        def store_candles(j: int) -> None:
            """Write a minute's candles, as a feed does when its batch is old enough."""
            time.sleep(args.seconds / 2)
            batch = {name: columns_of([candle(closes, k, j)]) for k, name in enumerate(names)}
            write(store, batch)
            recount(store, touched_days(batch))

        used = time.process_time()
        for j in range(HISTORY, HISTORY + args.minutes):
            following = time.monotonic() + args.seconds
            writer = threading.Thread(target=store_candles, args=(j,))
            rows = [candle(closes, k, j) for k in range(args.symbols)]
            offered[rows[0][0]] = time.time()
            for name, row in zip(names, rows, strict=True):
                paper.loop.offer(name, row)
            writer.start()
            writer.join()
            time.sleep(max(0.0, following - time.monotonic()))
        used = time.process_time() - used
        assert paper.loop.stop(30) and paper.loop.error is None
    warm = sorted(offered)[2:]  # the first minutes open connections
    lags = [1000 * (came[name, t] - offered[t]) for t in warm for name in (names[:1] if len(runs) == 1 else names)]
    return {
        "symbols": args.symbols, "strategy": args.strategy, "minutes": len(warm),
        **{f"p{q}_ms": round(float(np.quantile(lags, q / 100)), 1) for q in (50, 99, 100)},
        "cpu_ms": round(1000 * used / args.minutes, 1),
        "load": [round(x, 1) for x in os.getloadavg()], "cores": os.cpu_count(),
    }  # fmt: skip


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--symbols", type=int, default=100)
    ask.add_argument("--minutes", type=int, default=60)
    ask.add_argument("--seconds", type=float, default=2.0, help="real seconds between two minutes")
    ask.add_argument("--strategy", default="sma_cross")
    ask.add_argument("--core", type=int, default=0)
    args = ask.parse_args()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        subprocess.Popen([sys.executable, "-c", SINK], stdout=subprocess.PIPE, text=True) as sink,
    ):
        try:
            print(json.dumps(run(args, Path(folder) / "db", sink)))
        finally:
            sink.terminate()


if __name__ == "__main__":
    main()
