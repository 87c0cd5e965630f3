"""A Kubernetes API server on localhost: discovery, server-side apply, reads with label selectors, deletes, the pod
proxy, bearer tokens and denied rights, with the answers (Status objects) of a real one. Nothing runs behind it: what
becomes of an object is scripted."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Object = dict[str, Any]

CORE = {
    "v1": {
        "Namespace": ("namespaces", False),
        "Pod": ("pods", True),
        "Service": ("services", True),
        "Secret": ("secrets", True),
        "ConfigMap": ("configmaps", True),
        "ServiceAccount": ("serviceaccounts", True),
        "PersistentVolumeClaim": ("persistentvolumeclaims", True),
    },
    "apps/v1": {"StatefulSet": ("statefulsets", True)},
    "networking.k8s.io/v1": {"NetworkPolicy": ("networkpolicies", True)},
    "policy/v1": {"PodDisruptionBudget": ("poddisruptionbudgets", True)},
}
KNATIVE = {
    "serving.knative.dev/v1": {"Service": ("services", True)},
    "eventing.knative.dev/v1": {"Broker": ("brokers", True), "Trigger": ("triggers", True)},
    "eventing.knative.dev/v1alpha1": {"EventPolicy": ("eventpolicies", True)},
    "sources.knative.dev/v1": {"SinkBinding": ("sinkbindings", True), "PingSource": ("pingsources", True)},
    "sinks.knative.dev/v1alpha1": {"JobSink": ("jobsinks", True)},
}
TOKEN = "secret-token"
READY = {"type": "Ready", "status": "True"}
ITEM = re.compile(
    r"/(?:api|apis)/(?P<version>v1|[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?"
)
PROXY = re.compile(r"/api/v1/namespaces/([^/]+)/pods/([^/:]+):(\d+)/proxy(/.*)")


class FakeKube:
    """`served`: kinds by API version. `become(object)` is requested at each read for the object's status."""

    def __init__(self) -> None:
        self.served: dict[str, dict[str, tuple[str, bool]]] = {**CORE, **KNATIVE}
        self.objects: dict[str, Object] = {}
        self.denied: set[tuple[str, str]] = set()  # (verb, plural)
        self.binding = True  # whether SinkBindings have given Services their K_SINK
        self.failing: list[str] = []  # messages of 500 answers to the next applies
        self.become: Callable[[Object], Object | None] = lambda one: {"conditions": [READY]}
        self.gateway: Callable[[str, str, Any, dict[str, str]], tuple[int, Any]] = lambda *_: (404, {"detail": "no"})
        self.calls: list[tuple[str, str]] = []
        self.url = ""

    def add(self, version: str, kind: str, namespace: str, name: str, **rest: Any) -> Object:
        plural, namespaced = self.served[version][kind]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        where = f"/namespaces/{namespace}" if namespaced else ""
        one = {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace, **rest.pop("metadata", {})},
            **rest,
        }
        self.objects[f"{root}{where}/{plural}/{name}"] = one
        return one

    # -- answers: status and body --------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, str], body: Any, headers: Any) -> tuple[int, Object]:
        self.calls.append((method, path))
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return _status(401, "Unauthorized", "Unauthorized")
        if proxied := PROXY.fullmatch(path):
            if f"/api/v1/namespaces/{proxied[1]}/pods/{proxied[2]}" not in self.objects:
                return _status(404, "NotFound", f'pods "{proxied[2]}" not found')
            return self.gateway(method, proxied[4], body, dict(headers))
        if version := re.fullmatch(r"/(?:api/(v1)|apis/([^/]+/[^/]+))", path):
            return self.discovery(version[1] or version[2])
        found = ITEM.fullmatch(path)
        if found is None:
            return _status(404, "NotFound", "the server could not find the requested resource")
        kinds = self.served.get(found["version"], {})
        kind = next((name for name, (plural, _) in kinds.items() if plural == found["plural"]), None)
        if kind is None:
            return _status(404, "NotFound", "the server could not find the requested resource")
        verb = {"GET": "get" if found["name"] else "list", "PATCH": "patch", "DELETE": "delete"}[method]
        if (verb, found["plural"]) in self.denied:
            where = f' in API group "" in the namespace "{found["namespace"]}"'
            said = f'{found["plural"]} is forbidden: User "me" cannot {verb} resource "{found["plural"]}"{where}'
            return _status(403, "Forbidden", said)
        if found["name"] is None:
            return self.listed(path, found["version"], kind, query)
        if method == "PATCH":
            return self.applied(path, found, kind, query, body, headers)
        if path not in self.objects:
            return _status(404, "NotFound", f'{found["plural"]} "{found["name"]}" not found')
        if method == "DELETE":
            return 200, self.objects.pop(path)
        return 200, self.seen(path)

    def discovery(self, version: str) -> tuple[int, Object]:
        if version not in self.served:
            return _status(404, "NotFound", "the server could not find the requested resource")
        resources = []
        for kind, (plural, namespaced) in self.served[version].items():
            resources.append({"name": plural, "kind": kind, "namespaced": namespaced})
            resources.append({"name": f"{plural}/status", "kind": kind, "namespaced": namespaced})
        return 200, {"kind": "APIResourceList", "groupVersion": version, "resources": resources}

    def listed(self, path: str, version: str, kind: str, query: dict[str, str]) -> tuple[int, Object]:
        wanted = dict(one.split("=") for one in query.get("labelSelector", "").split(",") if one)
        items = [
            {name: value for name, value in self.seen(where).items() if name not in ("kind", "apiVersion")}
            for where, one in self.objects.items()
            if where.startswith(f"{path}/") and wanted.items() <= one["metadata"].get("labels", {}).items()
        ]
        return 200, {"kind": f"{kind}List", "apiVersion": version, "items": items}

    def applied(
        self, path: str, found: re.Match[str], kind: str, query: dict[str, str], body: Any, headers: Any
    ) -> tuple[int, Object]:
        if headers.get("Content-Type") != "application/apply-patch+yaml":
            return _status(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
        if not query.get("fieldManager"):
            return _status(422, "Invalid", "fieldManager: Required value: is required for apply patch")
        if self.failing:
            return _status(500, "InternalError", self.failing.pop(0))
        named = (body["apiVersion"], body["kind"], body["metadata"]["name"])
        if named != (found["version"], kind, found["name"]):
            return _status(400, "BadRequest", f"the name of the object {named} does not match the name on the URL")
        namespace = found["namespace"]
        if namespace and f"/api/v1/namespaces/{namespace}" not in self.objects:
            return _status(404, "NotFound", f'namespaces "{namespace}" not found')
        before = self.objects.get(path)
        changed = before is None or before.get("spec") != body.get("spec")
        generation = (0 if before is None else before["metadata"]["generation"]) + changed
        self.objects[path] = {**body, "metadata": {**body["metadata"], "generation": generation, "uid": path}}
        return 200 if before else 201, self.objects[path]

    def seen(self, path: str) -> Object:
        one = self.objects[path]
        if one["kind"] == "Pod":
            return one
        if self.binding and one["apiVersion"] == "serving.knative.dev/v1":
            one = self._bound(one)
        state = self.become(one)
        if state is None:
            return one
        return {**one, "status": {"observedGeneration": one["metadata"].get("generation", 0), **state}}

    def _bound(self, service: Object) -> Object:
        """A Service as its SinkBinding changes it."""
        name = service["metadata"]["name"]
        bindings = [one for one in self.objects.values() if one["kind"] == "SinkBinding"]
        if not any(one["spec"]["subject"].get("name") == name for one in bindings):
            return service
        bound: Object = json.loads(json.dumps(service))
        for container in bound["spec"]["template"]["spec"]["containers"]:
            container.setdefault("env", []).append({"name": "K_SINK", "value": "http://broker.here"})
        return bound


def _status(code: int, reason: str, message: str) -> tuple[int, Object]:
    return code, {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
    }


@contextmanager
def serving(fake: FakeKube) -> Iterator[FakeKube]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_any(self) -> None:
            parts = urlsplit(self.path)
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            status, answer = fake.answer(self.command, unquote(parts.path), query, body, self.headers)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = handle_any

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def kubeconfig(url: str, token: str = TOKEN) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "clusters": [{"name": "here", "cluster": {"server": url}}],
            "users": [{"name": "me", "user": {"token": token}}],
        }
    )
