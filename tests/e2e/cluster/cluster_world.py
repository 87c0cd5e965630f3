"""Candles for the cluster, and ways into it: all through the API server's proxy to pods."""

import base64
from typing import Any
from urllib.parse import quote

import numpy as np
from candlemill.cluster.kube_api import Api
from candlemill.engine.candles import DAY_MS
from candlemill.store import candle_writer
from candlemill.store.clickhouse import ClickHouseStore
from data import synthetic

NAMESPACE, BROKER, SYMBOL = "candlemill", "candlemill", "E2EUSDT"
START = 1_672_531_200_000  # 2023-01-01
DAYS = 12
TABLES = ("market_data_1m", "symbols", "coverage_days")


def store_candles(embedded: ClickHouseStore) -> None:
    """Made-up candles, the same every time."""
    year = synthetic.year(11, 2023)
    inside = (year["t"] >= START) & (year["t"] < START + DAYS * DAY_MS)
    columns = {name: np.ascontiguousarray(column[inside]) for name, column in year.items()}
    embedded.add_symbol(SYMBOL, 10**8)
    candle_writer.write(embedded, {SYMBOL: columns})
    assert len(candle_writer.current_days(embedded, SYMBOL)) == DAYS


def pod_of(api: Api, namespace: str, selector: str) -> str:
    for pod in api.items("v1", "Pod", namespace, labelSelector=selector):
        conditions = pod.get("status", {}).get("conditions", [])
        if any(one["type"] == "Ready" and one["status"] == "True" for one in conditions):
            return str(pod["metadata"]["name"])
    raise AssertionError(f"no pod with {selector} is ready in {namespace}")


def proxied(
    api: Api, namespace: str, selector: str, port: int, method: str, path: str, body: Any, headers: dict[str, str]
) -> tuple[int, bytes]:
    """A request to a pod, through the API server."""
    where = f"/api/v1/namespaces/{namespace}/pods/{pod_of(api, namespace, selector)}:{port}/proxy{path}"
    return api.call(method, where, body=body, headers=headers)


def sql(api: Api, query: str, data: bytes | None = None) -> str:
    """A query's answer from the cluster's database, as its administrator; `data` is what an INSERT inserts."""
    secret = api.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/candlemill-database")
    assert secret is not None
    login = {"X-ClickHouse-User": "default", "X-ClickHouse-Key": base64.b64decode(secret["data"]["password"]).decode()}
    selector, path = "app.kubernetes.io/name=database", f"/?query={quote(query)}"
    status, answer = proxied(api, NAMESPACE, selector, 8123, "POST", path, data, login)
    assert status == 200, answer
    return answer.decode()


def copy_candles(embedded: ClickHouseStore, api: Api) -> None:
    """What `embedded` has of the symbol, into the cluster's database, as it is."""
    for table in TABLES:
        query = f"SELECT * FROM {table} FINAL WHERE symbol = '{SYMBOL}' FORMAT JSONEachRow"  # noqa: S608
        sql(api, f"INSERT INTO {table} FORMAT JSONEachRow", embedded._client.raw_query(query))
