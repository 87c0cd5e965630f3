"""`make demo`: from nothing to a backtest's result, by the commands that a user would type.

python examples/demo.py [FOLDER]     FOLDER of Binance kline zips; without it a synthetic year, said loudly
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".demo"
SYMBOL, YEAR, SEED = "SYNTHUSDT", "2023", "1"


def candlemill(*arguments: str) -> str:
    """Run the program as a user would, showing the command; returns what it printed."""
    if "--json" not in arguments:
        print(f"\n$ candlemill {' '.join(arguments)}", flush=True)
    command = [sys.executable, "-m", "candlemill", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    if "--json" not in arguments:
        print(done.stdout, end="", flush=True)
    return done.stdout


def main() -> None:
    given = sys.argv[1] if len(sys.argv) > 1 else ""
    HOME.mkdir(exist_ok=True)
    os.environ["CANDLEMILL_CLICKHOUSE_DSN"] = f"chdb://{HOME / ('real' if given else 'synthetic')}"
    folder = Path(given) if given else HOME / "candles"
    if not given:
        print("*** SYNTHETIC CANDLES: a seeded random market, not real prices. Real ones: make demo DATA=FOLDER ***")
        if not any(folder.glob("*.zip")):
            options = [str(folder), "--symbol", SYMBOL, "--year", YEAR, "--seed", SEED]
            subprocess.run([sys.executable, str(ROOT / "benchmarks/data/synthetic.py"), *options], check=True)
    candlemill("ingest", str(folder))
    candlemill("coverage")
    stored = json.loads(candlemill("coverage", "--json"))["symbols"]
    symbol = max(stored, key=lambda name: sum(month["rows"] for month in stored[name]))
    candlemill("backtest", "--symbol", symbol, "--strategy", "sma_cross", "--range", "all")
    grid = ("--grid", "fast=60:240:60", "--grid", "slow=480,1440,2880")
    candlemill("sweep", "--symbol", symbol, "--strategy", "sma_cross", "--range", "all", *grid, "--top", "5")
    if not given:
        print("\n*** These figures are of SYNTHETIC candles. ***")


if __name__ == "__main__":
    main()
