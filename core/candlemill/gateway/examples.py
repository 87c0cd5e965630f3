"""Examples of the OpenAPI document: requests that can be sent as they are, and answers that were given to them.

`docs/api_examples.py` asks a server and writes the answers to `examples.json`, long lists cut to their first items.
"""

from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

BACKTEST = "/api/v1/backtest"
SWEEP = {
    "symbol": "BTCUSDT",
    "strategy": "sma_cross",
    "grid": {"fast": "10:30:10", "slow": "60,120"},
    "range": "2024-01",
}
REQUESTS: dict[str, dict[str, Any]] = {
    "a backtest": {
        "symbol": "BTCUSDT",
        "strategy": "sma_cross",
        "params": {"fast": 60, "slow": 240},
        "range": "2024-01",
        "fee": "0.1%",
        "stop_loss": "2%",
    },
    "a sweep": SWEEP,
    "a walk-forward": {**SWEEP, "walk_forward": {"train": "10d", "test": "5d"}},
    "a portfolio": {"symbol": ["BTCUSDT", "ETHUSDT"], "strategy": "donchian", "range": "2024-01", "timeframe": "15m"},
}
# The paths whose answers are recorded, and of which of the requests the job is.
RECORDED = {
    "/api/v1/backtest/{job_id}": "a backtest",
    "/api/v1/backtest/{job_id}/equity": "a backtest",
    "/api/v1/backtest/{job_id}/monthly": "a backtest",
    "/api/v1/backtest/{job_id}/profile": "a backtest",
    "/api/v1/backtest/{job_id}/trades": "a backtest",
    "/api/v1/backtest/{job_id}/results": "a sweep",
    "/api/v1/backtest/{job_id}/heatmap": "a sweep",
    "/api/v1/backtests": "",
    "/api/v1/symbols": "",
}


@cache
def answers() -> dict[str, Any]:
    """Return the recorded answers, by path."""
    found: dict[str, Any] = msgspec.json.decode(files("candlemill.gateway").joinpath("examples.json").read_bytes())
    return found


def add(document: dict[str, Any]) -> None:
    """Put the examples into an OpenAPI document."""
    named = {name: {"summary": name, "value": body} for name, body in REQUESTS.items()}
    for path in (BACKTEST, "/api/v1/plan"):
        document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"] = named
    for path, answer in answers().items():
        methods = document["paths"][path]
        operation = methods["post"] if path in (BACKTEST, "/api/v1/plan") else methods["get"]
        status = next(code for code in operation["responses"] if code.startswith("2"))
        operation["responses"][status]["content"]["application/json"]["example"] = answer
        for parameter in operation.get("parameters", ()):
            if parameter["name"] == "job_id":
                parameter["example"] = answers()[BACKTEST]["job_id"]
