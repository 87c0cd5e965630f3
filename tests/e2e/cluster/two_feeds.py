"""A simulated exchange in a pod, feeds that follow it, and what both have: for the test of feeds that overlap."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from candlemill.cluster.kube_api import Api, Object
from candlemill.exchanges.base import MINUTE_MS
from cluster_world import NAMESPACE, proxied, sql

NAME, PORT, STREAM_PORT, FEED = "e2e-exchange", 9000, 9001, "feed-e2e"
SYMBOLS = ("E2EONEUSDT", "E2ETWOUSDT")
SOURCES = Path(__file__).parents[3] / "loadtests" / "exchange_simulator"
LABELS = {"app.kubernetes.io/name": NAME}
SELECTOR = f"app.kubernetes.io/name={NAME}"
PROGRAM = ["__init__.py", "__main__.py", "faults.py", "guard.py", "market.py", "rest.py", "server.py"]

_PORTS = [{"name": "rest", "port": PORT}, {"name": "stream", "port": STREAM_PORT}]  # a Service's have to have names

Row = tuple[int, ...]  # time in ms, open, high, low, close, volume


def simulator_of(feed: Object) -> list[Object]:
    """The simulator's program in the feed's image, its address, and leave for the feed to talk to it."""
    container = feed["spec"]["template"]["spec"]["containers"][0]
    wanted = (
        f"python -m loadtests.exchange_simulator --host 0.0.0.0 --port {PORT} --stream-port {STREAM_PORT} --updates 6"
    )
    wanted += f" --symbols {','.join(SYMBOLS)}"
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {
                "name": "exchange",
                "image": container["image"],
                "imagePullPolicy": container.get("imagePullPolicy", "IfNotPresent"),
                "command": wanted.split(),
                "env": [{"name": "PYTHONPATH", "value": "/simulator"}],
                "readinessProbe": {"httpGet": {"path": "/api/v3/time", "port": PORT}, "periodSeconds": 1},
                "resources": container["resources"],
                "securityContext": container["securityContext"],
                "volumeMounts": [{"name": "program", "mountPath": "/simulator/loadtests/exchange_simulator"}],
            }
        ],
        "volumes": [{"name": "program", "configMap": {"name": NAME}}],
    }
    way: Object = {"ports": [{"port": PORT}, {"port": STREAM_PORT}]}
    policy = {
        "podSelector": {"matchExpressions": [_named("app.kubernetes.io/name", [NAME, "feed"])]},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": {}}], **way}],
        "egress": [{"to": [{"podSelector": {"matchLabels": LABELS}}], **way}],
    }
    return [
        _object("v1", "ConfigMap", data={name: (SOURCES / name).read_text() for name in PROGRAM}),
        _object("v1", "Service", spec={"selector": LABELS, "ports": _PORTS}),
        _object("networking.k8s.io/v1", "NetworkPolicy", spec=policy),
        _object("v1", "Pod", spec=pod),
    ]


def _named(key: str, values: list[str]) -> Object:
    return {"key": key, "operator": "In", "values": values}


def _object(version: str, kind: str, **parts: Any) -> Object:
    metadata = {"name": NAME, "namespace": NAMESPACE, "labels": LABELS}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **parts}


def feed_of(feed: Object, pods: int) -> Object:
    """The overlay's feed once more, so many times, following the simulator."""
    made: Object = json.loads(json.dumps(feed))
    made["metadata"]["name"] = FEED
    template = made["spec"]["template"]
    for end in ("min", "max"):
        template["metadata"]["annotations"][f"autoscaling.knative.dev/{end}-scale"] = str(pods)
    (container,) = template["spec"]["containers"]
    container.pop("command", None)  # where no exchange is in reach, an overlay may have something else in its place
    where = f"{NAME}.{NAMESPACE}.svc.cluster.local"
    given = {
        "CANDLEMILL_FEED_SYMBOLS": ",".join(SYMBOLS),
        "CANDLEMILL_FEED_EXCHANGE": "binance",
        "CANDLEMILL_FEED_REST": f"http://{where}:{PORT}",
        "CANDLEMILL_FEED_STREAM": f"ws://{where}:{STREAM_PORT}/stream",
    }
    others = [one for one in container["env"] if one["name"] not in given]
    container["env"] = others + [{"name": name, "value": value} for name, value in given.items()]
    return made


@contextmanager
def exchange(api: Api, feed: Object) -> Iterator[None]:
    """The simulator runs meanwhile; neither it nor a feed of it nor their candles are left."""
    made = simulator_of(feed)
    forget(api)
    try:
        for one in made:
            api.apply(one)
        yield
    finally:
        for one in (feed_of(feed, 1), *reversed(made)):
            api.delete(one)
        forget(api)


def forget(api: Api) -> None:
    for table in ("market_data_1m", "symbols", "coverage_days", "candle_audits", "candle_outages"):
        sql(api, f"DELETE FROM {table} WHERE symbol IN {SYMBOLS}")  # noqa: S608


def stored(api: Api, symbol: str) -> list[Row]:
    """What a reader of the cluster's database gets, in time order."""
    columns = "toUnixTimestamp64Milli(timestamp), open, high, low, close, volume"
    found = sql(
        api,
        f"SELECT {columns} FROM market_data_1m FINAL WHERE symbol = '{symbol}' "  # noqa: S608
        "ORDER BY timestamp FORMAT JSONCompactEachRow",
    )
    return [tuple(map(int, json.loads(line))) for line in found.splitlines()]


def indexed(api: Api, symbol: str) -> list[tuple[int, str]]:
    """Rows and digest of each day that the index has."""
    found = sql(
        api,
        f"SELECT rows, digest FROM coverage_days FINAL WHERE symbol = '{symbol}' "  # noqa: S608
        "ORDER BY day FORMAT JSONCompactEachRow",
    )
    return [(int(rows), str(digest)) for rows, digest in map(json.loads, found.splitlines())]


def clock_ms(api: Api) -> int:
    """What time it is on the simulator."""
    status, answer = proxied(api, NAMESPACE, SELECTOR, PORT, "GET", "/api/v3/time", None, {})
    assert status == 200, answer
    return int(json.loads(answer)["serverTime"])


def history(api: Api, symbol: str, first: int, last: int) -> list[Row]:
    """What the simulator has of the minutes `first` to `last`, as its REST interface says it."""
    found: list[Row] = []
    start = first
    while start <= last:
        path = f"/api/v3/klines?symbol={symbol}&interval=1m&startTime={start}&limit=1000"
        status, answer = proxied(api, NAMESPACE, SELECTOR, PORT, "GET", path, None, {})
        assert status == 200, answer
        rows = json.loads(answer)
        assert rows, f"the simulator knows nothing from {start} on"
        found += [(int(row[0]), *(int(text.replace(".", "")) for text in row[1:6])) for row in rows]
        start = found[-1][0] + MINUTE_MS
    return [row for row in found if row[0] <= last]
