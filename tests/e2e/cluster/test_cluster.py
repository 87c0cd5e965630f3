"""End to end on the cluster that KUBECONFIG names: Knative Serving, Eventing and `knative/overlays/local`.

    KUBECONFIG=~/.kube/config pytest tests/e2e/cluster

The overlay is applied, and all of it must come up; `CANDLEMILL_CLUSTER_OVERLAY` names another one. Candles are made up
and stored under the symbol E2EUSDT in the cluster's own database; every result's digest must be that of the same job
computed here, embedded. Tests that disturb (kill pods, stop the database, roll out) put things back.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import numpy as np
import pytest

if not os.environ.get("KUBECONFIG"):
    pytest.skip("KUBECONFIG names no cluster", allow_module_level=True)

from candlemill.backtests.resolve import resolve
from candlemill.cluster import deploy
from candlemill.cluster.kube_api import Api
from candlemill.config import AUDIENCE_VARIABLE
from candlemill.engine.candles import DAY_MS
from candlemill.errors import ClusterError
from candlemill.exchanges.base import MINUTE_MS
from candlemill.feed.live import whole_minute
from candlemill.local.runner import JobRunner
from candlemill.pipeline import events
from candlemill.store.candle_writer import CANDLE_COLUMNS, count_days
from candlemill.store.clickhouse import ClickHouseStore
from cluster_world import BROKER, DAYS, NAMESPACE, START, SYMBOL, copy_candles, proxied, store_candles
from two_feeds import FEED, SELECTOR, SYMBOLS, clock_ms, exchange, feed_of, history, indexed, stored

OVERLAY = os.environ.get("CANDLEMILL_CLUSTER_OVERLAY", "local")  # a name or a folder
DATABASE, GATEWAY = "app.kubernetes.io/name=database", "serving.knative.dev/service=gateway"
PATIENCE_SECONDS = float(os.environ.get("CANDLEMILL_CLUSTER_PATIENCE", "300"))

Body = dict[str, Any]


class World:
    """The cluster, its gateway, and the digests that jobs must have."""

    def __init__(self, embedded: ClickHouseStore) -> None:
        self.api = Api()
        self.gateway = deploy.Gateway(self.api, NAMESPACE)
        self._runner = JobRunner(embedded)

    def expected(self, body: Body) -> str:
        """The digest of the same job, embedded."""
        given = dict(body)
        first, last = given.pop("days", (0, DAYS))
        span = (START + first * DAY_MS, START + last * DAY_MS)
        for name in ("symbol", "fresh", "slices", "range"):
            given.pop(name, None)
        spec = resolve(symbol=SYMBOL, strategy=given.pop("strategy"), span=span, **{"params": {}, **given})
        job = self._runner.prepare(spec, None)
        self._runner.run(job, events.Requested(spec), 1, lambda done, known: None)
        return str(json.loads(self._runner.store.results([job.job_id])[0].result)["result_digest"])

    def check_sweep(self, job: str, body: Body) -> None:
        """The job's best sets have the digests of the same sweep, embedded."""
        assert self.ended(job)["state"] == "done"
        query = {"sort": "total_pnl", "limit": "50"}
        rows = self.gateway.call("GET", f"/api/v1/backtest/{job}/results", **query)["items"]
        assert len(rows) == 50
        for row in rows[:: len(rows) // 5]:
            one = {"strategy": body["strategy"], "params": row["params"]}
            assert row["result_digest"] == self.expected(one)

    def task_of(self, body: Body) -> tuple[str, Body]:
        """A job's id, and the data of the one task that it is uncut."""
        span = (START, START + DAYS * DAY_MS)
        spec = resolve(symbol=SYMBOL, strategy=body["strategy"], span=span, params=body["params"])
        job = self._runner.prepare(spec, 1)
        task = events.SliceRequested(job.job_id, job.data_digest, job.spec, 0, 0, 1, 0, [*span])
        found: Body = json.loads(msgspec.json.encode(task))
        return job.job_id, found

    def running(self, job: str) -> None:
        """Returns while some of its tasks are done, and some are not."""
        wait_for(lambda: self.state(job)["progress"]["done"] > 0, "the first task's end")
        assert self.state(job)["state"] not in deploy.FINISHED, "it was too short to be disturbed"

    def ask(self, body: Body) -> str:
        given = {"symbol": SYMBOL, "range": range_text(*body.get("days", (0, DAYS))), **body}
        given.pop("days", None)
        return str(self.gateway.call("POST", "/api/v1/backtest", given)["job_id"])

    def state(self, job: str) -> Body:
        found: Body = self.gateway.call("GET", f"/api/v1/backtest/{job}")
        return found

    def ended(self, job: str) -> Body:
        """The job once it has ended."""
        wait_for(lambda: self.state(job)["state"] in deploy.FINISHED, f"the end of {job}")
        return self.state(job)

    def digest(self, job: str) -> str:
        found = self.ended(job)
        assert found["state"] == "done", found
        return str(found["result"]["result_digest"])

    def pods(self, function: str) -> deploy.Pods:
        return deploy.pods_of(self.api, NAMESPACE, function)

    def names(self, selector: str, ending: bool = False) -> list[str]:
        """Of pods; of those on their way out only on request."""
        found = self.api.items("v1", "Pod", NAMESPACE, labelSelector=selector)
        return [one["metadata"]["name"] for one in found if ending or "deletionTimestamp" not in one["metadata"]]

    def kill(self, name: str) -> None:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}"
        self.api.call("DELETE", path, {"gracePeriodSeconds": "0"})

    def patch(self, path: str, body: Body) -> None:
        status, answer = self.api.call("PATCH", path, body=body, kind="application/merge-patch+json")
        assert status < 300, answer

    def send(self, kind: str, data: Any, **attributes: str) -> None:
        """An event to the Broker, through its ingress."""
        headers = {
            "ce-specversion": "1.0",
            "ce-id": uuid.uuid4().hex,
            "ce-source": "/tests/e2e/cluster",
            "ce-type": kind,
            **{f"ce-{name}": value for name, value in attributes.items()},
        }
        selector, path = "eventing.knative.dev/brokerRole=ingress", f"/{NAMESPACE}/{BROKER}"
        status, answer = proxied(self.api, "knative-eventing", selector, 8080, "POST", path, data, headers)
        assert status == 202, answer


def range_text(first: int, last: int) -> str:
    days = [time.strftime("%Y-%m-%d", time.gmtime((START + k * DAY_MS) / 1000)) for k in (first, last - 1)]
    return f"{days[0]}..{days[1]}"


def wait_for(done: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """The gateway may be away: it is not ready while the database is not."""
    until = time.monotonic() + seconds
    while True:
        with suppress(ClusterError):
            if done():
                return
        assert time.monotonic() < until, f"{what} did not come within {seconds:g} s"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    api = Api()
    objects = deploy.objects_of(OVERLAY)
    deploy.apply(api, objects, print)
    deploy.wait_until_ready(api, objects, PATIENCE_SECONDS, print)
    with ClickHouseStore(f"chdb://{tmp_path_factory.mktemp('embedded')}") as embedded:
        store_candles(embedded)
        copy_candles(embedded, api)
        yield World(embedded)


SMALL: Body = {"strategy": "sma_cross", "params": {"fast": 5, "slow": 30}}
# Long enough to be disturbed: 3,600 sets over 12 slices are 96 tasks.
LARGE: Body = {"strategy": "sma_cross", "grid": {"fast": list(range(2, 62)), "slow": list(range(70, 190, 2))}}


def fresh(**more: Any) -> Body:
    return {**SMALL, "fresh": True, **more}


# -- tests ---------------------------------------------------------------------------------------------------------


def test_smoke(world: World) -> None:
    found = deploy.smoke(
        world.api, NAMESPACE, world.gateway, {"symbol": SYMBOL, "range": range_text(0, DAYS), **SMALL}, 300, print
    )
    assert found["result_digest"] == world.expected(SMALL)


def test_a_sweep_has_the_same_digests(world: World) -> None:
    body = {"strategy": "sma_cross", "grid": {"fast": [3, 5, 8], "slow": [20, 40]}, "fresh": True}
    job = world.ask(body)
    assert world.ended(job)["state"] == "done"
    rows = world.gateway.call("GET", f"/api/v1/backtest/{job}/results", limit="10")["items"]
    assert len(rows) == 6
    for row in rows:
        assert row["result_digest"] == world.expected({"strategy": "sma_cross", "params": row["params"]})


def test_executors_come_from_zero_and_go_again(world: World) -> None:
    wait_for(lambda: world.pods("execute").all == 0, "zero executors")
    job = world.ask(fresh(slices=8))
    most = 0
    while world.state(job)["state"] not in deploy.FINISHED:
        most = max(most, world.pods("execute").all)
        time.sleep(0.2)
    assert most >= 1
    assert world.digest(job) == world.expected(SMALL)
    wait_for(lambda: world.pods("execute").all == 0, "zero executors again")


def test_pods_that_are_killed_in_mid_job_cost_time_only(world: World) -> None:
    job = world.ask({**LARGE, "fresh": True, "slices": DAYS})
    world.running(job)
    killed = world.names("serving.knative.dev/service=execute")
    for name in killed:
        world.kill(name)
    assert killed
    world.check_sweep(job, LARGE)


def test_doubled_and_reordered_events(world: World) -> None:
    """The request twice at once, and completions that come late and again."""
    body = {"strategy": "macd", "slices": 6}
    with ThreadPoolExecutor(4) as pool:
        (job,) = set(pool.map(lambda _: world.ask(body), range(4)))
    for k in (5, 0, 3, 3):
        world.send(events.SLICE_COMPLETED, {"job_id": job, "batch": 0, "slice": k, "task": "x"}, partitionkey=job)
    assert world.digest(job) == world.expected({"strategy": "macd"})
    world.send(events.SLICE_COMPLETED, {"job_id": job, "batch": 0, "slice": 1, "task": "x"}, partitionkey=job)
    time.sleep(5)
    assert world.state(job)["state"] == "done"


def test_poison_ends_its_job_with_the_reason(world: World) -> None:
    job = uuid.uuid4().hex
    world.send(events.SLICE_REQUESTED, {"job_id": job, "nonsense": True}, partitionkey=job)
    wait_for(lambda: _known(world, job), "the dead letter")
    found = world.state(job)
    assert found["state"] == "failed"
    assert "answered 422" in found["reason"]


def _known(world: World, job: str) -> bool:
    """Whether the job is known, whatever it is."""
    return proxied(world.api, NAMESPACE, GATEWAY, 8080, "GET", f"/api/v1/backtest/{job}", None, {})[0] == 200


def test_kn_sends_fields(world: World) -> None:
    """What `kn event send --field …` puts on the wire."""
    data = {"symbol": SYMBOL, "strategy": "rsi_reversion", "range": range_text(0, 3), "slices": 3}
    world.send(events.REQUESTED, data)
    plan = world.gateway.call("POST", "/api/v1/plan", data)
    job = str(plan["job_id"])
    wait_for(lambda: _known(world, job) and world.state(job)["state"] == "done", "the job that was sent")
    assert world.digest(job) == world.expected({"strategy": "rsi_reversion", "days": (0, 3)})


@contextmanager
def scaled(world: World, replicas: int) -> Iterator[None]:
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets/database"
    world.patch(path, {"spec": {"replicas": replicas}})
    try:
        yield
    finally:
        world.patch(path, {"spec": {"replicas": 1}})


def back(world: World) -> None:
    """Returns when the database and the gateway are ready again."""
    wait_for(lambda: deploy.pods_with(world.api, NAMESPACE, DATABASE).ready > 0, "the database")
    wait_for(lambda: world.pods("gateway").ready > 0, "the gateway")


def test_the_database_is_away_for_a_while(world: World) -> None:
    job = world.ask({**LARGE, "fresh": True, "slices": DAYS})
    world.running(job)
    with scaled(world, 0):
        wait_for(lambda: not world.names(DATABASE), "the database's end")
        time.sleep(10)
    back(world)
    world.check_sweep(job, LARGE)


def test_a_rolling_update_during_a_job(world: World) -> None:
    path = f"/apis/serving.knative.dev/v1/namespaces/{NAMESPACE}/services/execute"
    before = _revision(world, path)
    job = world.ask({**LARGE, "fresh": True, "slices": DAYS})
    world.running(job)
    stamp = {"spec": {"template": {"metadata": {"annotations": {"candlemill.dev/rolled": uuid.uuid4().hex}}}}}
    world.patch(path, stamp)
    world.check_sweep(job, LARGE)
    wait_for(lambda: _revision(world, path) != before, "the new revision")


def test_two_feeds_overlap(world: World) -> None:
    """Two pods fill the same day and follow the same streams, and hand over to a new revision's: each minute is stored
    once, as the exchange has it."""
    feed = next(one for one in deploy.objects_of(OVERLAY) if one["kind"] == "Service" and _is(one, "feed"))
    with exchange(world.api, feed):
        wait_for(lambda: deploy.pods_with(world.api, NAMESPACE, SELECTOR).ready > 0, "the simulated exchange")
        for pods in (2, 1):
            world.api.apply(feed_of(feed, pods))
            wait_for(lambda pods=pods: world.pods(FEED) == deploy.Pods(pods, pods), f"{pods} feeds alone")
            until = whole_minute(clock_ms(world.api)) + 2 * MINUTE_MS
            wait_for(lambda until=until: _last(world) >= until, "two more minutes")
        world.api.delete(feed_of(feed, 1))
        wait_for(lambda: not world.names(f"serving.knative.dev/service={FEED}", ending=True), "the feeds' end")
        for symbol in SYMBOLS:
            rows = stored(world.api, symbol)
            assert len(rows) >= 1440 + 4
            assert rows == history(world.api, symbol, rows[0][0], rows[-1][0])
            columns = {
                name: np.array(column) for name, column in zip(CANDLE_COLUMNS, zip(*rows, strict=True), strict=True)
            }
            counted = [(day.rows, day.digest) for day in count_days(columns)]
            said = indexed(world.api, symbol)
            # A day whose last writer did not count it says so, and is counted again before anyone relies on it.
            assert [one for one in said if one[1]] == [b for a, b in zip(said, counted, strict=True) if a[1]]


def _is(one: Body, name: str) -> bool:
    return bool(one["metadata"]["name"] == name)


def _last(world: World) -> int:
    """The last minute that is stored of both symbols, in ms; 0 where there is none."""
    return min(rows[-1][0] if (rows := stored(world.api, symbol)) else 0 for symbol in SYMBOLS)


def test_a_long_task_is_a_kubernetes_job(world: World) -> None:
    """One that split would mark so, of a job that is there; and poison, which ends as a dead letter all the same."""
    world.digest(world.ask(SMALL))
    job, task = world.task_of(SMALL)
    world.send(events.SLICE_REQUESTED, task, partitionkey=job, work="long")
    wait_for(lambda: _succeeded(world) > 0, "the Job's end")
    unknown = uuid.uuid4().hex
    world.send(events.SLICE_REQUESTED, {**task, "job_id": unknown}, partitionkey=unknown, work="long")
    wait_for(lambda: _known(world, unknown), "the dead letter")
    assert "a long task answered 422" in world.state(unknown)["reason"]


def _succeeded(world: World) -> int:
    found = world.api.items("batch/v1", "Job", NAMESPACE, labelSelector="app.kubernetes.io/name=execute-long")
    return sum(one.get("status", {}).get("succeeded", 0) for one in found)


def test_a_long_task_outlasts_a_database_that_is_away(world: World) -> None:
    """Longer than a Job's own retries would last (10 + 20 + 40 s): its one pod tries on."""
    job, task = world.task_of(SMALL)
    world.digest(world.ask(SMALL))
    before = _succeeded(world)
    with scaled(world, 0):
        wait_for(lambda: not world.names(DATABASE, ending=True), "the database's end")
        world.send(events.SLICE_REQUESTED, {**task, "batch": 7}, partitionkey=job, work="long")
        wait_for(lambda: bool(_long_pods(world)), "the Job's pod")
        time.sleep(90)
        (pod,) = _long_pods(world)
        assert (pod["status"]["phase"], _restarts(pod)) == ("Running", 0)
        log = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}/log"
        assert b"try 5 of 11 of task" in world.api.call("GET", log)[1]
    back(world)
    wait_for(lambda: not _long_pods(world), "the Job's end")
    assert _succeeded(world) == before + 1


def _long_pods(world: World) -> list[Body]:
    """Of Jobs that have not ended."""
    found = world.api.items("v1", "Pod", NAMESPACE, labelSelector="app.kubernetes.io/name=execute-long")
    return [one for one in found if one["status"]["phase"] in ("Pending", "Running")]


def _restarts(pod: Body) -> int:
    return sum(one["restartCount"] for one in pod["status"].get("containerStatuses", ()))


def test_functions_that_start_before_the_database_stay_up(world: World) -> None:
    with scaled(world, 0):
        wait_for(lambda: not world.names(DATABASE, ending=True), "the database's end")
        for name in world.names(GATEWAY):
            world.kill(name)
        wait_for(lambda: "waiting for the database" in _says(world), "the new gateway's answer")
        time.sleep(30)
        assert "waiting for the database" in _says(world)
    back(world)
    assert [_restarts(one) for one in world.api.items("v1", "Pod", NAMESPACE, labelSelector=GATEWAY)] == [0]


def _says(world: World) -> str:
    """What a gateway's pod that is not ready says of itself."""
    found = deploy.status(world.api, NAMESPACE)["services"]
    return " ".join(deploy._health_of(world.api, NAMESPACE, one["name"]) for one in found if one["name"] == "gateway")


def test_a_queue_longer_than_the_limit_of_a_request_fails_nothing(world: World) -> None:
    """96 tasks for one executor, and requests that end after a few seconds: more than one wave has time for."""
    root = f"/apis/serving.knative.dev/v1/namespaces/{NAMESPACE}/services"
    with patched(world, f"{root}/execute", _narrow), patched(world, f"{root}/split", _two_under_way):
        began = time.monotonic()
        job = world.ask({**LARGE, "fresh": True, "slices": DAYS})
        world.check_sweep(job, LARGE)
        assert time.monotonic() - began > REQUEST_SECONDS


REQUEST_SECONDS = 6


def _narrow(template: Body) -> None:
    template["metadata"]["annotations"]["autoscaling.knative.dev/max-scale"] = "1"
    template["spec"]["timeoutSeconds"] = template["spec"]["responseStartTimeoutSeconds"] = REQUEST_SECONDS


def _two_under_way(template: Body) -> None:
    (container,) = template["spec"]["containers"]
    (one,) = [one for one in container["env"] if one["name"] == "CANDLEMILL_TASKS_UNDER_WAY"]
    one["value"] = "2"


@contextmanager
def patched(world: World, path: str, change: Callable[[Body], None]) -> Iterator[None]:
    """A Service with another template meanwhile, and all requests with it."""
    found = world.api.get(path)
    assert found is not None
    template = json.loads(json.dumps(found["spec"]["template"]))
    change(template)
    before = _revision(world, path)
    world.patch(path, {"spec": {"template": template}})
    try:
        wait_for(lambda: _revision(world, path) != before, "the new revision")
        yield
    finally:
        world.patch(path, {"spec": {"template": found["spec"]["template"]}})


def test_smoke_refuses_to_compare_a_cut_with_itself(world: World) -> None:
    body = {"symbol": SYMBOL, "range": range_text(0, 1), **SMALL}
    with pytest.raises(ClusterError, match="nothing was compared"):
        deploy.smoke(world.api, NAMESPACE, world.gateway, body, 300, print)


def test_a_forged_dead_letter_ends_nothing(world: World) -> None:
    """Where functions ask for their callers' tokens, an event around the Broker is refused."""
    path = f"/apis/serving.knative.dev/v1/namespaces/{NAMESPACE}/services/aggregate"
    found = world.api.get(path)
    assert found is not None
    (container,) = found["spec"]["template"]["spec"]["containers"]
    if not any(one["name"] == AUDIENCE_VARIABLE for one in container["env"]):
        pytest.skip("the functions of this overlay ask for no tokens")
    job = world.ask({**LARGE, "fresh": True, "slices": DAYS})
    headers = {"ce-specversion": "1.0", "ce-id": "forged", "ce-source": "/nobody", "ce-type": events.SLICE_REQUESTED}
    headers |= {"ce-knativeerrordest": "nobody", "ce-knativeerrorcode": "422"}
    selector = "serving.knative.dev/service=aggregate"
    status, answer = proxied(world.api, NAMESPACE, selector, 8012, "POST", "/", {"job_id": job}, headers)
    assert status == 401, answer
    world.check_sweep(job, LARGE)


def _revision(world: World, path: str) -> str:
    found = world.api.get(path)
    return "" if found is None else str(found["status"].get("latestReadyRevisionName", ""))
