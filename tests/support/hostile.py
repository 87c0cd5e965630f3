"""Requests and events that nobody would send, drawn from a seed and from the descriptions of what may be sent."""

import json
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from security.desk import HOSTILE, places, with_value

LARGE = (2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64)
TEXTS = [*HOSTILE, *map(str, (-1, 0, 1, *LARGE, -(2**63), 2**70)), *"*?'\"\\.,:-%", "[]", "{}", "null", "true", "NaN"]
TEXTS += ["", " ", "inf", "-inf", "1e308", "1e-400", "-0", "9" * 30, "１２", "٣", "0x10", "1_000", "é" * 40, "a" * 300]
TEXTS += ["../../etc/passwd", "%00", "\r\nX: y", "(a+)+$", "AAAUSDT,AAAUSDT", "AAAUSDT,BBBUSDT", ",", "x" * 5_000]
TEXTS += ["2024-02-30", "9999-12", "2024-01..2023-01", "..", "2024-01..", "all", "1w", "0d", "99999999d", "60", "3d"]
TEXTS += ["0.1%", "10bp", "1:5", "1:1000000000", "1:5:0", "5:1", "1%:5%:1%", "-1:1:0.0000001", "top:50", "top:0:by=x"]
TEXTS += [
    "sharpe_ratio",
    "total_pnl>0",
    "total_pnl>1e999",
    "params.fast=5",
    "grid",
    "worst",
    "both",
    "isolated",
    "cross",
]
TEXTS += ["cash", "units", "equity", "fixed", "top:50:by=turnover:over=30d:every=7d"]
VALUES = [None, True, False, 0, -1, 1, *LARGE, -(2**63), 1.5, -0.0, 1e308, 1e-320, [], {}, [[]], [None], {"a": 1}]
VALUES += [[0] * 1_000, {str(k): k for k in range(300)}]
BODIES: list[dict[str, Any]] = [
    {"symbol": "AAAUSDT", "strategy": "sma_cross", "range": "2024-01", "params": {"fast": 5, "slow": 50}},
    {"symbol": "AAAUSDT", "strategy": "sma_cross", "grid": {"fast": "2:5", "slow": [50, 60]}, "range": "2024-01"},
    {"symbol": "AAAUSDT,BBBUSDT", "strategy": "xs_momentum"},
    {"symbol": "AAAUSDT,BBBUSDT", "strategy": "sma_cross", "weights": {"AAAUSDT": 1, "BBBUSDT": 2}},
    {"symbol": "AAAUSDT", "strategy": "grid", "params": {"spacing": 1500}, "path": "both"},
    {"symbol": "AAAUSDT", "strategy": "dca", "account": "cash", "margin": "isolated", "leverage": "5"},
    {"symbol": "AAAUSDT", "strategy": "sma_cross", "account": "units", "quantity": "0.5", "stop_loss": "1%"},
    {
        "symbol": "AAAUSDT",
        "strategy": "sma_cross",
        "grid": {"fast": "2:5"},
        "walk_forward": {"train": "3d", "test": "1d"},
    },
    {"label": "x", "note": "y", "tags": ["a"]},
]
NO_JSON = [
    b"",
    b"{",
    b"[" * 20_000,
    b"null",
    b'"x"',
    b"\xff\xfe",
    b'{"a":' * 3_000,
    b"1e999",
    b'{"symbol":1,"symbol":2}',
]
KINDS = ["text/csv", "application/json", "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream", "*/*"]
ACCEPTED = [
    *KINDS,
    "text/csv;q=0, */*",
    "q=",
    ";;;",
    "a/b/c",
    "*",
    "",
    "text/*;q=2",
    "text/csv;q=nan",
    ",",
    "x" * 3_000,
]
ACCEPTED += ["text/csv;q=0.5, application/json;q=1e9", f"text/csv;q={'9' * 400}", "text/csv;q=-inf"]
SENT = ["application/json"] * 8 + ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
PAGES = (
    "/",
    "/docs",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/app.js",
    "/vendor/{x}",
    "/app.js/{x}",
    "/{x}",
)


class Sent(NamedTuple):
    operation: str
    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None


def changed(data: Any, found: Sequence[Any], chance: Random, times: int) -> Any:
    """A copy of `data` with strange values at some of the places."""
    for _ in range(times):
        place = chance.choice(found)
        texts = "*key" in place or chance.random() < 0.6
        data = with_value(data, place, chance.choice(TEXTS if texts else VALUES))
    return data


def leaves(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """All places of a JSON value, objects and lists themselves among them."""
    if isinstance(data, dict):
        for name, value in data.items():
            yield from leaves(value, (*path, name))
        yield (*path, "*key")
    elif isinstance(data, list) and data:
        yield from leaves(data[0], (*path, 0))
    yield path


class Requests:
    """`document`: the OpenAPI document. `jobs`: ids that exist. `metrics`: names of figures."""

    def __init__(self, document: dict[str, Any], jobs: Sequence[str], metrics: Sequence[str], chance: Random) -> None:
        self._jobs, self._metrics, self._chance, self._document = jobs, metrics, chance, document
        self._operations = [
            (method, path, operation) for path, ways in document["paths"].items() for method, operation in ways.items()
        ]
        page = [{"in": "path", "name": "x", "schema": {}}]
        self._operations += [("get", path, {"parameters": page if "{" in path else []}) for path in PAGES]
        self._places: dict[str, list[Any]] = {}

    def draw(self) -> Sent:
        chance = self._chance
        method, path, operation = chance.choice(self._operations)
        url, query = path, []
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                text = quote(str(self._value(parameter)), safe=chance.choice(("", "/:")))
                url = url.replace("{" + parameter["name"] + "}", text)
            elif parameter["in"] == "query" and chance.random() < 0.5:
                query.append((parameter["name"], self._value(parameter)))
        if query and chance.random() < 0.1:
            query.append((query[0][0], chance.choice(TEXTS)))
        url += "?" + urlencode(query) if query else ""
        url += chance.choice(("?&&&", "&%zz", "?a[]=1;")) if chance.random() < 0.02 else ""
        headers = {"accept": chance.choice(ACCEPTED)} if chance.random() < 0.5 else {}
        if chance.random() < 0.1:
            headers["if-none-match"] = chance.choice((f'"{chance.choice(self._jobs)}-1"', "*", "W/", '"'))
        if chance.random() < 0.1:
            headers["last-event-id"] = chance.choice(("1-5-1-0", "x", "9" * 90, "-"))
        body = None
        if method in ("post", "put"):
            headers["content-type"] = chance.choice(SENT)
            body = chance.choice(NO_JSON) if chance.random() < 0.08 else self._body(operation)
        return Sent(f"{method} {path}", method.upper(), url, headers, body)

    def _body(self, operation: dict[str, Any]) -> bytes:
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        key = json.dumps(content)
        if key not in self._places:
            self._places[key] = list(places(content, self._document))
        data = self._chance.choice(BODIES)
        times = self._chance.choice((0, 1, 1, 2, 3)) if self._places[key] else 0
        return json.dumps(changed(data, self._places[key], self._chance, times)).encode()

    def _value(self, parameter: dict[str, Any]) -> Any:
        chance, name, schema = self._chance, parameter["name"], parameter.get("schema", {})
        if name == "job_id" and chance.random() < 0.85:
            return chance.choice(self._jobs)
        if name == "symbol" and chance.random() < 0.6:
            return chance.choice(("AAAUSDT", "BBBUSDT"))
        if name in ("from", "to") and chance.random() < 0.7:
            return chance.choice((1_706_486_400_000, 1_706_745_600_000, 1_706_745_660_000, 1_707_091_200_000, 0))
        if name in ("x", "y") and chance.random() < 0.6:
            return chance.choice(("fast", "slow", "symbol"))
        if name in ("metric", "sort") and chance.random() < 0.6:
            return chance.choice(self._metrics)
        if name == "cursor" and chance.random() < 0.6:
            return chance.choice(("MTAw", "MA", "LTE=", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5", "bzo1", "1"))
        choices = [*schema.get("enum", ()), *(one for some in schema.get("anyOf", ()) for one in some.get("enum", ()))]
        for bound in ("minimum", "maximum"):
            choices += [schema[bound] + k for k in (-1, 0, 1)] if bound in schema else []
        return chance.choice(choices) if choices and chance.random() < 0.7 else chance.choice(TEXTS)
