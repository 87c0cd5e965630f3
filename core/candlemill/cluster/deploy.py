"""Deployment on a Kubernetes cluster with Knative: apply, wait, show the state, test and remove."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import urllib3

from candlemill.cluster.kube_api import Api, Object
from candlemill.cluster.kustomize import build
from candlemill.config import KEY_VARIABLE, bundled, setting
from candlemill.errors import BadInput, ClusterDown, ClusterError

SERVING, EVENTING, SOURCES = "serving.knative.dev/v1", "eventing.knative.dev/v1", "sources.knative.dev/v1"
SINKS = "sinks.knative.dev/v1alpha1"
EVENTS = ((EVENTING, "Broker"), (EVENTING, "Trigger"), (SINKS, "JobSink"), (SOURCES, "PingSource"))
POLL_SECONDS = 1.0
WEBHOOK_SECONDS = 60.0  # for the start of Knative's admission webhooks
GONE_SECONDS = 180.0  # for the removal of a namespace
GATEWAY_PORT = 8080
RESULT_SECONDS = 1.1  # two results of one job in one second are not distinguished: created_at has whole seconds
READY_PATHS = ("/readyz", "/healthz")  # of the gateway; of the other functions
# A SinkBinding changes Services that come after it; one that comes later makes a second revision of each.
FIRST = ("Namespace", "ServiceAccount", "ConfigMap", "Secret", "SinkBinding")
OIDC = (
    "set authentication-oidc: enabled in the ConfigMap config-features of knative-eventing, or leave policies.yaml out"
)
NO_SINK = "no K_SINK yet: its SinkBinding has not changed it, so its events would go nowhere"
KEPT = frozenset({"Namespace", "PersistentVolumeClaim"})  # they hold data, or their removal deletes it

Report = Callable[[str], None]


class Part(msgspec.Struct, frozen=True):
    """State of an object. `ready` None: not reported yet."""

    kind: str
    name: str
    ready: bool | None
    why: str = ""


class Pods(msgspec.Struct, frozen=True):
    """Number of a function's pods, and of those that accept requests."""

    all: int
    ready: int


def objects_of(overlay: str) -> list[Object]:
    """Objects of an overlay, given by name or folder. Raises BadInput."""
    here, ours = Path(overlay), bundled("knative") / "overlays" / overlay
    if "/" not in overlay and ours.is_dir():
        return build(ours)
    if not (here / "kustomization.yaml").is_file():
        names = ", ".join(sorted(path.name for path in (bundled("knative") / "overlays").iterdir()))
        raise BadInput(f"{overlay!r} is neither one of {names}, nor a folder with a kustomization.yaml")
    return build(here)


# -- deploy and down -----------------------------------------------------------------------------------------------


def check_installed(api: Api, objects: Iterable[Object]) -> None:
    """Check that the cluster has all kinds of the objects. Raises ClusterError for the first missing one."""
    for version in dict.fromkeys(one["apiVersion"] for one in objects):
        api.kinds(version)
    for one in objects:
        api.path(one)


def apply(api: Api, objects: Sequence[Object], report: Report) -> None:
    """Apply the objects, those that others need first. Raises ClusterError; missing kinds before any change."""
    check_installed(api, objects)
    for one in _in_order(objects):
        if one["kind"] == "Namespace":
            _wait_until_gone(api, one, report)
        _apply_with_retries(api, one, report)


def _in_order(objects: Iterable[Object]) -> list[Object]:
    """Return the objects, those that others need first."""
    return sorted(objects, key=lambda one: FIRST.index(one["kind"]) if one["kind"] in FIRST else len(FIRST))


def _wait_until_gone(api: Api, namespace: Object, report: Report) -> None:
    """Wait until a namespace that is being removed is gone, since no object can be created in it."""
    until, name = time.monotonic() + GONE_SECONDS, namespace["metadata"]["name"]
    reported = False
    while (found := api.get(api.path(namespace))) is not None and "deletionTimestamp" in found["metadata"]:
        if time.monotonic() > until:
            conditions = found.get("status", {}).get("conditions", [])
            why = " ".join(str(one.get("message", "")) for one in conditions if one["status"] == "True")
            raise ClusterError(
                f"namespace {name} is still being removed after {GONE_SECONDS:g} s: {why or 'no reason reported'}"
            )
        if not reported:
            report(f"waiting for the removal of namespace {name}")
            reported = True
        time.sleep(POLL_SECONDS)


def _apply_with_retries(api: Api, one: Object, report: Report) -> None:
    """Apply an object, with retries while Knative's admission webhook is starting."""
    until = time.monotonic() + WEBHOOK_SECONDS
    while True:
        try:
            api.apply(one)
            return
        except ClusterError as error:
            if "oidc-authentication feature not enabled" in str(error):
                raise ClusterError(f"{error}; {OIDC}") from None
            if "failed calling webhook" not in str(error) or time.monotonic() > until:
                raise
            report(f"waiting for Knative's webhook: {error}")
            time.sleep(5 * POLL_SECONDS)


def wait_until_ready(api: Api, objects: Sequence[Object], seconds: float, report: Report) -> list[Part]:
    """Wait for all objects and report changes. Raises ClusterError with the objects that are not ready in time."""
    until = time.monotonic() + seconds
    previous: dict[tuple[str, str], Part] = {}
    while True:
        found = [api.get(api.path(one)) for one in objects]
        parts = [
            _with_sink(part_of(one, there), one, there, objects) for one, there in zip(objects, found, strict=True)
        ]
        for part in parts:
            key = (part.kind, part.name)
            changed = not part.ready if key not in previous else previous[key] != part
            if changed and (part.ready is not None or part.why):
                report(f"{part.kind} {part.name}: {'ready' if part.ready else part.why or 'not ready'}")
            previous[key] = part
        waiting = [part for part in parts if not part.ready]
        if not waiting:
            return parts
        if time.monotonic() > until:
            named = "; ".join(f"{part.kind} {part.name}: {part.why or 'no state reported'}" for part in waiting)
            namespace = next((one["metadata"]["namespace"] for one in objects if "namespace" in one["metadata"]), "")
            named += "".join(_health_of(api, namespace, part.name) for part in waiting if part.kind == "Service")
            raise ClusterError(f"not ready after {seconds:g} s: {named[:1500]}")
        time.sleep(POLL_SECONDS)


def part_of(expected: Object, found: Object | None) -> Part:
    """State of an object. Objects without a status are ready if they exist."""
    kind, name = expected["kind"], expected["metadata"]["name"]
    if found is None:
        return Part(kind, name, None, "does not exist")
    status = found.get("status", {})
    if kind == "StatefulSet":
        ready, replicas = status.get("readyReplicas", 0), found["spec"].get("replicas", 1)
        return Part(kind, name, ready >= replicas, f"{ready} of {replicas} pods are ready")
    if ".knative.dev/" not in expected["apiVersion"]:
        return Part(kind, name, True)
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 0):
        return Part(kind, name, None)
    ready = next((one for one in status.get("conditions", []) if one["type"] == "Ready"), None)
    if ready is None:
        return Part(kind, name, None)
    why = " ".join(f"{ready.get('reason', '')}: {ready.get('message', '')}".split()).strip(": ")
    return Part(kind, name, {"True": True, "False": False}.get(ready["status"]), why)


def _with_sink(part: Part, expected: Object, found: Object | None, objects: Iterable[Object]) -> Part:
    """Return a Service as not ready if a SinkBinding names it and has not given it `K_SINK` yet."""
    if found is None or not part.ready or expected["kind"] != "Service" or part.name not in _bound(objects):
        return part
    containers = found["spec"]["template"]["spec"]["containers"]
    if any(variable["name"] == "K_SINK" for container in containers for variable in container.get("env", ())):
        return part
    return Part(part.kind, part.name, False, NO_SINK)


def _bound(objects: Iterable[Object]) -> set[str]:
    """Names of the Services that SinkBindings name."""
    return {str(one["spec"]["subject"].get("name", "")) for one in objects if one["kind"] == "SinkBinding"}


def _health_of(api: Api, namespace: str, function: str) -> str:
    """What a pod of a function that is not ready says of itself, as a part of a message; empty if nothing."""
    for pod in api.items("v1", "Pod", namespace, labelSelector=f"serving.knative.dev/service={function}"):
        root = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}:{GATEWAY_PORT}/proxy"
        for path in READY_PATHS:
            status, data = api.call("GET", root + path, {}, None)
            text = " ".join(data.decode(errors="replace").split())[:200]
            if status == 503 and text and not text.startswith("{"):  # JSON: the API server's own answer
                return f"; {function} says: {text}"
    return ""


def remove(api: Api, objects: Sequence[Object], everything: bool, report: Report) -> int:
    """Delete the objects in reverse order; return how many. `everything`: also the namespace and volumes with data."""
    count = 0
    for one in reversed(_in_order(objects)):
        if one["kind"] in KEPT and not everything:
            continue
        try:
            there = api.delete(one)
        except ClusterError as error:
            if "is not installed" not in str(error):
                raise
            there = False
        if there:
            count += 1
            report(f"{one['kind']} {one['metadata']['name']} deleted")
    return count


# -- state ---------------------------------------------------------------------------------------------------------


def pods_of(api: Api, namespace: str, function: str) -> Pods:
    """Count a function's pods, except those that are terminating."""
    return pods_with(api, namespace, f"serving.knative.dev/service={function}")


def pods_with(api: Api, namespace: str, selector: str) -> Pods:
    """Count pods by a label selector, except those that are terminating."""
    found = api.items("v1", "Pod", namespace, labelSelector=selector)
    here = [one for one in found if "deletionTimestamp" not in one["metadata"]]
    return Pods(len(here), sum(_is_ready(one) for one in here))


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def status(api: Api, namespace: str) -> dict[str, Any]:
    """State of services, with revisions and pods, and of event objects. Raises ClusterError if nothing is deployed."""
    services = api.items(SERVING, "Service", namespace)
    if not services:
        api.kinds(SERVING)  # raises if Knative is missing
        raise ClusterError(
            f"candlemill is not in namespace {namespace!r} of {api.address}: run candlemill cluster deploy"
        )
    found: dict[str, Any] = {"namespace": namespace, "cluster": api.address, "services": [], "events": []}
    bindings = [one | {"kind": "SinkBinding"} for one in api.items(SOURCES, "SinkBinding", namespace)]
    for one in services:
        name = one["metadata"]["name"]
        named = _named(one, SERVING, "Service")
        part, pods = _with_sink(part_of(named, one), named, one, bindings), pods_of(api, namespace, name)
        why = part.why if part.ready else part.why + _health_of(api, namespace, name)
        scale = one["spec"]["template"]["metadata"].get("annotations", {})
        found["services"].append(
            {
                "name": name,
                "ready": part.ready,
                "why": why,
                "revision": one.get("status", {}).get("latestReadyRevisionName", ""),
                "pods": pods.all,
                "pods_ready": pods.ready,
                "max": scale.get("autoscaling.knative.dev/max-scale", ""),
                "url": one.get("status", {}).get("url", ""),
            }
        )
    for version, kind in EVENTS:
        for one in api.items(version, kind, namespace):
            part = part_of(_named(one, version, kind), one)
            to = one["spec"].get("subscriber", {}).get("ref", {}).get("name", "")
            found["events"].append({"kind": kind, "name": part.name, "ready": part.ready, "why": part.why, "to": to})
    return found


def _named(one: Object, version: str, kind: str) -> Object:
    """Add kind and version, which items of a list lack."""
    return {"apiVersion": version, "kind": kind, "metadata": one["metadata"]}


# -- the gateway ---------------------------------------------------------------------------------------------------


class Gateway:
    """Client of the REST interface: at `url`, or at a gateway pod through the cluster's API server."""

    def __init__(self, api: Api, namespace: str, url: str | None = None) -> None:
        self._api, self._namespace, self._url = api, namespace, url
        # The API server does not forward the Authorization header.
        self._headers = {"X-API-Key": key} if (key := setting(KEY_VARIABLE)) else {}

    def call(self, method: str, path: str, body: object = None, **query: str) -> Any:
        """Return the JSON of a response. Raises ClusterError with the gateway's message."""
        if self._url is None:
            where = f"/api/v1/namespaces/{self._namespace}/pods/{self._pod()}:{GATEWAY_PORT}/proxy{path}"
            status, data = self._api.call(method, where, query, body, headers=self._headers)
        else:
            status, data = self._call_url(method, f"{self._url.rstrip('/')}{path}", body, query)
        try:
            found = json.loads(data)
        except ValueError:
            found = {}
        if status >= 300:
            message = found.get("detail") or found.get("message") or data.decode(errors="replace")[:200]
            raise ClusterError(f"the gateway answered {status} to {method} {path}: {message}")
        return found

    def _call_url(self, method: str, url: str, body: object, query: dict[str, str]) -> tuple[int, bytes]:
        try:
            response = urllib3.request(
                method,
                url + (f"?{urlencode(query)}" if query else ""),
                body=None if body is None else json.dumps(body).encode(),
                headers={"Content-Type": "application/json", **self._headers},
                timeout=30.0,
                retries=2,
            )
        except urllib3.exceptions.HTTPError as error:
            raise ClusterDown(f"the gateway at {url} does not answer: {' '.join(str(error).split())[:200]}") from None
        return response.status, response.data

    def _pod(self) -> str:
        """Name of the youngest ready gateway pod, since pods of an older revision may still exist."""
        found = self._api.items("v1", "Pod", self._namespace, labelSelector="serving.knative.dev/service=gateway")
        ready = [one["metadata"] for one in found if _is_ready(one) and "deletionTimestamp" not in one["metadata"]]
        if not ready:
            raise ClusterError(f"no gateway is ready in namespace {self._namespace!r}: see candlemill cluster status")
        return str(max(ready, key=lambda one: one.get("creationTimestamp", ""))["name"])

    def open_tasks(self) -> int:
        """Number of open tasks of unfinished jobs."""
        jobs = self.call("GET", "/api/v1/backtests", limit="100")["items"]
        rows = [one["progress"] for one in jobs if one["state"] not in FINISHED]
        return sum(max(0, row["total"] - row["done"]) for row in rows)


FINISHED = frozenset({"done", "failed", "cancelled"})


class Moment(msgspec.Struct, frozen=True):
    """Progress of a job, and its executors, at one time."""

    state: str
    done: int
    total: int
    repairs: int
    executors: Pods
    reason: str = ""


def counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def follow(api: Api, namespace: str, gateway: Gateway, job: str) -> Iterator[Moment]:
    """Yield a job's progress at each change, until the job ends."""
    previous = None
    while True:
        row = gateway.call("GET", f"/api/v1/backtest/{job}")
        progress = row["progress"]
        executors = pods_of(api, namespace, "execute")
        current = Moment(
            row["state"], progress["done"], progress["total"], progress["repairs"], executors, row.get("reason") or ""
        )
        if current != previous:
            yield current
            previous = current
        if current.state in FINISHED:
            return
        time.sleep(POLL_SECONDS)


def smoke(
    api: Api, namespace: str, gateway: Gateway, body: dict[str, Any], seconds: float, report: Report
) -> dict[str, Any]:
    """Compute one small job with 1 and 4 slices and compare the results bit by bit. Raises ClusterError."""
    digests, cuts = [], []
    found: dict[str, Any] = {}
    for slices in (1, 4):
        time.sleep(RESULT_SECONDS)
        began = time.monotonic()
        job = gateway.call("POST", "/api/v1/backtest", {**body, "slices": slices, "fresh": True})["job_id"]
        last = None
        for current in follow(api, namespace, gateway, job):
            last = current
            executors = counted(current.executors.ready, "executor")
            report(f"{current.state}: {current.done} of {counted(current.total, 'task')}, {executors}")
            if time.monotonic() - began > seconds and current.state not in FINISHED:
                raise ClusterError(f"job {job} has not ended within {seconds:g} s: it is {current.state}")
        assert last is not None
        if last.state != "done":
            raise ClusterError(f"job {job} ended as {last.state}: {last.reason}")
        found = gateway.call("GET", f"/api/v1/backtest/{job}")["result"]
        digests.append(found["result_digest"])
        cuts.append(int(found["slices"]))
        report(f"{counted(cuts[-1], 'slice')}: {found['result_digest'][:16]} after {time.monotonic() - began:.1f} s")
    if cuts[0] == cuts[1]:
        raise ClusterError(
            f"both runs had {counted(cuts[0], 'slice')}, so nothing was compared: store candles of more days"
        )
    if len(set(digests)) > 1:
        raise ClusterError(
            f"the same job with {cuts[0]} and {cuts[1]} slices gave different results: {digests[0]} and {digests[1]}"
        )
    return found
