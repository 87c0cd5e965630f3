"""candlemill on a Kubernetes cluster with Knative: applying, watching, asking and removing it."""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import urllib3

from candlemill.errors import BadInput, ClusterDown, ClusterError
from candlemill.io.kubeapi import Api, Object
from candlemill.io.kustomize import build
from candlemill.io.settings import bundled

SERVING, EVENTING, SOURCES = "serving.knative.dev/v1", "eventing.knative.dev/v1", "sources.knative.dev/v1"
SINKS = "sinks.knative.dev/v1alpha1"
EVENTS = ((EVENTING, "Broker"), (EVENTING, "Trigger"), (SINKS, "JobSink"), (SOURCES, "PingSource"))
POLL_SECONDS = 1.0
WEBHOOK_SECONDS = 60.0  # how long Knative's own admission may need to come up
GONE_SECONDS = 180.0  # how long the removal of a namespace may take
GATEWAY_PORT = 8080
FIRST = ("Namespace", "ServiceAccount", "ConfigMap", "Secret")
OIDC = (
    "set authentication-oidc: enabled in the ConfigMap config-features of knative-eventing, or leave policies.yaml out"
)
KEPT = frozenset({"Namespace", "PersistentVolumeClaim"})  # what holds data, or would take it along
KEY_VARIABLE = "CANDLEMILL_API_KEY"

Say = Callable[[str], None]


class Part(msgspec.Struct, frozen=True):
    """One object's state. `ready` None: it has not been said yet."""

    kind: str
    name: str
    ready: bool | None
    why: str = ""


class Pods(msgspec.Struct, frozen=True):
    """How many pods of a function there are, and how many of them take requests."""

    all: int
    ready: int


def objects_of(overlay: str) -> list[Object]:
    """The objects of an overlay by its name, or of a folder. Raises BadInput."""
    here, ours = Path(overlay), bundled("knative") / "overlays" / overlay
    if "/" not in overlay and ours.is_dir():
        return build(ours)
    if not (here / "kustomization.yaml").is_file():
        names = ", ".join(sorted(path.name for path in (bundled("knative") / "overlays").iterdir()))
        raise BadInput(f"{overlay!r} is neither one of {names}, nor a folder with a kustomization.yaml")
    return build(here)


# -- deploy and down -----------------------------------------------------------------------------------------------


def check_installed(api: Api, objects: Iterable[Object]) -> None:
    """Raises ClusterError for the first kind that the cluster lacks, before anything is changed."""
    for version in dict.fromkeys(one["apiVersion"] for one in objects):
        api.kinds(version)
    for one in objects:
        api.path(one)


def apply(api: Api, objects: Sequence[Object], say: Say) -> None:
    """What others need first, then in order. Raises ClusterError."""
    check_installed(api, objects)
    for one in sorted(objects, key=lambda one: FIRST.index(one["kind"]) if one["kind"] in FIRST else len(FIRST)):
        if one["kind"] == "Namespace":
            _wait_until_gone(api, one, say)
        _apply_patiently(api, one, say)


def _wait_until_gone(api: Api, namespace: Object, say: Say) -> None:
    """Nothing can be made in a namespace that is being removed, as `down --all` leaves it for a while."""
    until, name = time.monotonic() + GONE_SECONDS, namespace["metadata"]["name"]
    said = False
    while (found := api.get(api.path(namespace))) is not None and "deletionTimestamp" in found["metadata"]:
        if time.monotonic() > until:
            conditions = found.get("status", {}).get("conditions", [])
            why = " ".join(str(one.get("message", "")) for one in conditions if one["status"] == "True")
            raise ClusterError(
                f"namespace {name} is still being removed after {GONE_SECONDS:g} s: {why or 'no word why'}"
            )
        if not said:
            say(f"waiting for the end of namespace {name}, which is being removed")
            said = True
        time.sleep(POLL_SECONDS)


def _apply_patiently(api: Api, one: Object, say: Say) -> None:
    """Knative checks what is applied in a pod of its own, which may just be starting."""
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
            say(f"waiting for Knative's webhook: {error}")
            time.sleep(5 * POLL_SECONDS)


def wait_until_ready(api: Api, objects: Sequence[Object], seconds: float, say: Say) -> list[Part]:
    """Says each change; what is ready at once is none. Raises ClusterError: what is not ready in time, and why."""
    until = time.monotonic() + seconds
    before: dict[tuple[str, str], Part] = {}
    while True:
        parts = [part_of(one, api.get(api.path(one))) for one in objects]
        for part in parts:
            key = (part.kind, part.name)
            news = not part.ready if key not in before else before[key] != part
            if news and (part.ready is not None or part.why):
                say(f"{part.kind} {part.name}: {'ready' if part.ready else part.why or 'not ready'}")
            before[key] = part
        waiting = [part for part in parts if not part.ready]
        if not waiting:
            return parts
        if time.monotonic() > until:
            named = "; ".join(f"{part.kind} {part.name}: {part.why or 'no word yet'}" for part in waiting)
            raise ClusterError(f"not ready after {seconds:g} s: {named[:1500]}")
        time.sleep(POLL_SECONDS)


def part_of(wanted: Object, found: Object | None) -> Part:
    """What became of an object. Those that have no state are ready when they are there."""
    kind, name = wanted["kind"], wanted["metadata"]["name"]
    if found is None:
        return Part(kind, name, None, "is not there")
    status = found.get("status", {})
    if kind == "StatefulSet":
        ready, replicas = status.get("readyReplicas", 0), found["spec"].get("replicas", 1)
        return Part(kind, name, ready >= replicas, f"{ready} of {replicas} pods are ready")
    if ".knative.dev/" not in wanted["apiVersion"]:
        return Part(kind, name, True)
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 0):
        return Part(kind, name, None)
    ready = next((one for one in status.get("conditions", []) if one["type"] == "Ready"), None)
    if ready is None:
        return Part(kind, name, None)
    why = " ".join(f"{ready.get('reason', '')}: {ready.get('message', '')}".split()).strip(": ")
    return Part(kind, name, {"True": True, "False": False}.get(ready["status"]), why)


def remove(api: Api, objects: Sequence[Object], everything: bool, say: Say) -> int:
    """Delete what was applied, last first; the namespace, and with it data in volumes, only if told. How many were."""
    count = 0
    for one in reversed(objects):
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
            say(f"{one['kind']} {one['metadata']['name']} deleted")
    return count


# -- state ---------------------------------------------------------------------------------------------------------


def pods_of(api: Api, namespace: str, function: str) -> Pods:
    """A function's pods that are not on their way out."""
    return pods_with(api, namespace, f"serving.knative.dev/service={function}")


def pods_with(api: Api, namespace: str, selector: str) -> Pods:
    """As `pods_of`, by labels."""
    found = api.items("v1", "Pod", namespace, labelSelector=selector)
    here = [one for one in found if "deletionTimestamp" not in one["metadata"]]
    return Pods(len(here), sum(_takes_requests(one) for one in here))


def _takes_requests(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def status(api: Api, namespace: str) -> dict[str, Any]:
    """Services with revisions and pods, and what events go through. Raises ClusterError where there is none."""
    services = api.items(SERVING, "Service", namespace)
    if not services:
        api.kinds(SERVING)  # raises where Knative is what lacks
        raise ClusterError(f"candlemill is not in namespace {namespace!r} of {api.address}: candlemill cluster deploy")
    found: dict[str, Any] = {"namespace": namespace, "cluster": api.address, "services": [], "events": []}
    for one in services:
        name = one["metadata"]["name"]
        part, pods = part_of(_named(one, SERVING, "Service"), one), pods_of(api, namespace, name)
        scale = one["spec"]["template"]["metadata"].get("annotations", {})
        found["services"].append(
            {
                "name": name,
                "ready": part.ready,
                "why": part.why,
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
    """Items of a list do not say their kind."""
    return {"apiVersion": version, "kind": kind, "metadata": one["metadata"]}


# -- the gateway ---------------------------------------------------------------------------------------------------


class Gateway:
    """The REST interface: at `url`, or through the cluster's API server, to a pod of the gateway."""

    def __init__(self, api: Api, namespace: str, url: str | None = None) -> None:
        self._api, self._namespace, self._url = api, namespace, url
        # The API server keeps Authorization for itself.
        self._headers = {"X-API-Key": os.environ[KEY_VARIABLE]} if os.environ.get(KEY_VARIABLE) else {}

    def call(self, method: str, path: str, body: object = None, **query: str) -> Any:
        """The answer's JSON. Raises ClusterError with what the gateway says."""
        if self._url is None:
            where = f"/api/v1/namespaces/{self._namespace}/pods/{self._pod()}:{GATEWAY_PORT}/proxy{path}"
            status, data = self._api.call(method, where, query, body, headers=self._headers)
        else:
            status, data = self._directly(method, f"{self._url.rstrip('/')}{path}", body, query)
        try:
            found = json.loads(data)
        except ValueError:
            found = {}
        if status >= 300:
            said = found.get("detail") or found.get("message") or data.decode(errors="replace")[:200]
            raise ClusterError(f"the gateway answered {status} to {method} {path}: {said}")
        return found

    def _directly(self, method: str, url: str, body: object, query: dict[str, str]) -> tuple[int, bytes]:
        try:
            answer = urllib3.request(
                method,
                url + (f"?{urlencode(query)}" if query else ""),
                body=None if body is None else json.dumps(body).encode(),
                headers={"Content-Type": "application/json", **self._headers},
                timeout=30.0,
                retries=2,
            )
        except urllib3.exceptions.HTTPError as error:
            raise ClusterDown(f"the gateway at {url} does not answer: {' '.join(str(error).split())[:200]}") from None
        return answer.status, answer.data

    def _pod(self) -> str:
        """The youngest that takes requests: those of a revision that was replaced may still be there."""
        found = self._api.items("v1", "Pod", self._namespace, labelSelector="serving.knative.dev/service=gateway")
        ready = [
            one["metadata"] for one in found if _takes_requests(one) and "deletionTimestamp" not in one["metadata"]
        ]
        if not ready:
            raise ClusterError(
                f"no gateway is ready in namespace {self._namespace!r}: candlemill cluster status says why"
            )
        return str(max(ready, key=lambda one: one.get("creationTimestamp", ""))["name"])

    def open_tasks(self) -> int:
        """How many tasks of unfinished jobs are not done: what the executors lag behind."""
        jobs = self.call("GET", "/api/v1/backtests", limit="100")["items"]
        rows = [one["progress"] for one in jobs if one["state"] not in FINISHED]
        return sum(max(0, row["total"] - row["done"]) for row in rows)


FINISHED = frozenset({"done", "failed", "cancelled"})


class Moment(msgspec.Struct, frozen=True):
    """A job and its executors at one time."""

    state: str
    done: int
    total: int
    repairs: int
    executors: Pods
    reason: str = ""


def counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def follow(api: Api, namespace: str, gateway: Gateway, job: str) -> Iterator[Moment]:
    """A job's moments until it has ended; one that is as before is left out."""
    before = None
    while True:
        row = gateway.call("GET", f"/api/v1/backtest/{job}")
        progress = row["progress"]
        executors = pods_of(api, namespace, "execute")
        moment = Moment(
            row["state"], progress["done"], progress["total"], progress["repairs"], executors, row.get("reason") or ""
        )
        if moment != before:
            yield moment
            before = moment
        if moment.state in FINISHED:
            return
        time.sleep(POLL_SECONDS)


def smoke(api: Api, namespace: str, gateway: Gateway, body: dict[str, Any], seconds: float, say: Say) -> dict[str, Any]:
    """One small job, computed twice, cut differently: the results must be the same bits. Raises ClusterError."""
    digests = []
    found: dict[str, Any] = {}
    for slices in (1, 4):
        began = time.monotonic()
        job = gateway.call("POST", "/api/v1/backtest", {**body, "slices": slices, "fresh": True})["job_id"]
        last = None
        for moment in follow(api, namespace, gateway, job):
            last = moment
            executors = counted(moment.executors.ready, "executor")
            say(f"{moment.state}: {moment.done} of {counted(moment.total, 'task')}, {executors}")
            if time.monotonic() - began > seconds and moment.state not in FINISHED:
                raise ClusterError(f"job {job} has not ended within {seconds:g} s: it is {moment.state}")
        assert last is not None
        if last.state != "done":
            raise ClusterError(f"job {job} ended as {last.state}: {last.reason}")
        found = gateway.call("GET", f"/api/v1/backtest/{job}")["result"]
        digests.append(found["result_digest"])
        say(f"{counted(slices, 'slice')}: {found['result_digest'][:16]} after {time.monotonic() - began:.1f} s")
    if len(set(digests)) > 1:
        raise ClusterError(f"the same job, cut differently, gave different results: {digests[0]} and {digests[1]}")
    return found
