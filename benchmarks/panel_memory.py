"""Many symbols over a year of minutes: `python benchmarks/panel_memory.py [SYMBOLS] [--store FOLDER]`.

Stores a synthetic year of each symbol (500 unless given), unless the folder has it already, then runs `candlemill
backtest` over all of them as a user would: `xs_momentum` on hourly bars with an account of cash, nothing cached. Tells
the processor time of all its processes, and the largest resident size of any.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from candlemill.exchanges.binance.kline_files import Candles
from candlemill.ingest.candles import store_candles
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.units import SCALE
from data import synthetic
from lab import Lab

YEAR, BASES = 2024, 20
MEBIBYTE = 2**20
PARAMS = ("lookback=24", "top=10", "every=1")


def fill(folder: Path, count: int) -> None:
    """Store a year of each symbol; each is one of a few walks at a price and with outages of its own."""
    begin = time.process_time()
    with ClickHouseStore(f"chdb://{folder}") as store:
        known = set(store.symbols())
        for base in range(BASES):
            walk = synthetic.year(base, YEAR, 1000.0 + base)
            for k in range(base, count, BASES):
                if name_of(k) not in known:
                    present = (walk["t"] // 60_000 + 7 * k) % 100_003 >= k  # different minutes of each
                    prices = (walk[one][present] + k * SCALE for one in ("open", "high", "low", "close"))
                    rows = Candles(walk["t"][present], *prices, walk["volume"][present].astype(np.uint64))
                    store_candles(store, name_of(k), rows, SCALE)
            print(f"{base + 1} of {BASES} walks stored, {time.process_time() - begin:,.0f} s", flush=True)


def name_of(k: int) -> str:
    return f"S{k:03}USDT"


def run(lab: Lab, folder: Path, count: int, workers: int) -> None:
    names = ",".join(map(name_of, range(count)))
    params = [word for one in PARAMS for word in ("--param", one)]
    command = ("backtest", "--symbol", names, "--strategy", "xs_momentum", "--timeframe", "1h", *params, "--workers",
               str(workers), "--no-cache", "--json")  # fmt: skip
    found = lab.cli(folder, *command)
    print(f"{count} symbols x a year of minutes, {workers} workers: {found.cpu_ns / 1e9:,.1f} s of processor time, "
          f"{found.wall_ns / 1e9:,.1f} s, the largest process {found.peak_bytes / MEBIBYTE:,.0f} MiB")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("symbols", type=int, nargs="?", default=500)
    parser.add_argument("--store", type=Path, help="keep the candles here (500 symbols: see benchmarks/README.md)")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    lab = Lab(quick=False, keep=False, vectorbt_python=None)
    try:
        with tempfile.TemporaryDirectory(prefix="candlemill-panel-") as made:
            folder = given.store or Path(made)
            fill(folder, given.symbols)
            run(lab, folder, given.symbols, given.workers)
    finally:
        lab.close()


if __name__ == "__main__":
    main()
