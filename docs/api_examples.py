"""Ask a server for the answers that the API page shows as examples, and write them to gateway/examples.json.

    .venv/bin/python docs/api_examples.py

The candles are made, so the answers differ only where the program does.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / part) for part in ("tests", "tests/support", "benchmarks")]
from candlemill.gateway.examples import BACKTEST, RECORDED, REQUESTS  # noqa: E402
from candlemill.ingest.candles import ingest  # noqa: E402
from candlemill.store.clickhouse import ClickHouseStore  # noqa: E402
from conftest import days, write_zip  # noqa: E402
from gateway.conftest import Gateway, serving  # noqa: E402

FILE = ROOT / "core/candlemill/gateway/examples.json"
ITEMS = 2  # of each list
BASE_MS = 1_706_745_600_000  # 2024-02-01: times of requests are replaced, as they differ each time


def stored(folder: Path) -> Path:
    """Store January 2024 of two made symbols; return the database's folder."""
    for seed, symbol in enumerate(("BTCUSDT", "ETHUSDT"), 1):
        write_zip(folder / "zips", f"{symbol}-1m-2024-01", days(seed, 0, 31))
    with ClickHouseStore(f"chdb://{folder}/db") as store:
        ingest(store, [folder / "zips"])
    return folder / "db"


def recorded(gateway: Gateway) -> dict[str, Any]:
    """Return the answers, by path."""
    plan = gateway.ask("POST", "/api/v1/plan", REQUESTS["a backtest"])[2]
    submitted = {name: gateway.submit(**body) for name, body in REQUESTS.items()}
    for one in submitted.values():
        gateway.wait(one["job_id"])
    found = {BACKTEST: submitted["a backtest"], "/api/v1/plan": plan}
    for path, name in RECORDED.items():
        found[path] = gateway.get(path.format(job_id=submitted[name]["job_id"] if name else ""))
    return {path: short(answer) for path, answer in found.items()}


def short(value: Any, name: str = "") -> Any:
    """Return a value with its lists cut, and without what differs from one request to the next."""
    if isinstance(value, dict):
        return {key: short(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [short(inner) for inner in value[:ITEMS]]
    return {"created_ms": BASE_MS, "updated_ms": BASE_MS, "execution_time_ms": 40, "seconds": 0.1}.get(name, value)


def main() -> None:
    with tempfile.TemporaryDirectory() as name, serving(stored(Path(name))) as gateway:
        FILE.write_text(json.dumps(recorded(gateway), indent=1) + "\n")


if __name__ == "__main__":
    main()
