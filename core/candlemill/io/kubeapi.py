"""As much of the Kubernetes API as a deployment needs, through its own client (which knows kubeconfigs, logins, TLS).

Objects are plain dicts. A kind's address comes from the API's own discovery, so that custom resources are nothing
special, and one that is not installed is told by name.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import urllib3

from candlemill.errors import BadInput, ClusterDown, ClusterError, ClusterForbidden

try:
    from kubernetes import client, config
except ImportError:
    raise BadInput("clusters need the Kubernetes client: pip install 'candlemill[cluster]'") from None

Object = dict[str, Any]

MANAGER = "candlemill"  # whose fields are whose: server-side apply
SECONDS = 30.0
INSTALL = {
    "serving.knative.dev": "Knative Serving",
    "eventing.knative.dev": "Knative Eventing",
    "sources.knative.dev": "Knative Eventing",
    "sinks.knative.dev": "Knative Eventing 1.17 or later",
}


class Api:
    """One cluster: the kubeconfig's current context, or the one given, or the cluster that this runs in."""

    def __init__(self, context: str | None = None) -> None:
        self._client = _connect(context)
        self._kinds: dict[str, dict[str, tuple[str, bool]]] = {}

    @property
    def address(self) -> str:
        return str(self._client.configuration.host)

    def path(self, one: Object) -> str:
        """Where an object is, or would be. Raises ClusterError for a kind that the cluster does not know."""
        known = self.kinds(one["apiVersion"])
        if one["kind"] not in known:
            raise ClusterError(f"the cluster's {one['apiVersion']} has no {one['kind']}")
        plural, namespaced = known[one["kind"]]
        where = f"/namespaces/{one['metadata']['namespace']}" if namespaced else ""
        return f"{_root(one['apiVersion'])}{where}/{plural}/{quote(one['metadata']['name'])}"

    def kinds(self, version: str) -> dict[str, tuple[str, bool]]:
        """Of an API version: each kind's name in addresses, and whether it lives in a namespace."""
        if version not in self._kinds:
            found = self.get(_root(version))
            if found is None:
                group = version.partition("/")[0]
                what = INSTALL.get(group, group)
                raise ClusterError(
                    f"{what} is not installed in {self.address} ({version} is not served): "
                    "https://knative.dev/docs/install says how"
                )
            self._kinds[version] = {
                one["kind"]: (one["name"], one["namespaced"]) for one in found["resources"] if "/" not in one["name"]
            }
        return self._kinds[version]

    def get(self, path: str, **query: str) -> Object | None:
        """None where there is nothing."""
        status, body = self.call("GET", path, query)
        if status == 404:
            return None
        found: Object = _checked(status, body, f"read {path}")
        return found

    def items(self, version: str, kind: str, namespace: str, **query: str) -> list[Object]:
        """All objects of a kind in a namespace; none where the kind is not installed."""
        try:
            plural, _ = self.kinds(version)[kind]
        except (ClusterError, KeyError):
            return []
        found = self.get(f"{_root(version)}/namespaces/{namespace}/{plural}", **query)
        return [] if found is None else found["items"]

    def apply(self, one: Object) -> None:
        """Create it, or make it what it says."""
        query = {"fieldManager": MANAGER, "force": "true"}
        status, body = self.call("PATCH", self.path(one), query, one, "application/apply-patch+yaml")
        _checked(status, body, f"apply {one['kind']} {one['metadata']['name']}")

    def delete(self, one: Object) -> bool:
        """False where it was not there."""
        status, body = self.call("DELETE", self.path(one), {"propagationPolicy": "Background"})
        if status == 404:
            return False
        _checked(status, body, f"delete {one['kind']} {one['metadata']['name']}")
        return True

    def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] = {},
        body: object = None,
        kind: str = "application/json",
        headers: Mapping[str, str] = {},
    ) -> tuple[int, bytes]:
        """Status and body of any request; what is sent is JSON, or bytes as they are. Raises ClusterDown."""
        login = self._client.configuration.auth_settings().values()
        sent = {"Accept": "application/json", **headers, **{one["key"]: one["value"] for one in login}}
        if body is not None:
            sent["Content-Type"] = kind
        encoded = "?" + "&".join(f"{name}={quote(value)}" for name, value in query.items()) if query else ""
        try:
            answer = self._client.rest_client.pool_manager.request(
                method,
                self.address + path + encoded,
                body=body if body is None or isinstance(body, bytes) else json.dumps(body).encode(),
                headers=sent,
                timeout=SECONDS,
                retries=False,
            )
        except urllib3.exceptions.HTTPError as error:
            text = " ".join(str(error).split())
            raise ClusterDown(f"the cluster at {self.address} does not answer: {text[:200]}") from None
        return answer.status, answer.data


def _connect(context: str | None) -> Any:
    loader: Any = config  # the library's types are incomplete
    try:
        loader.load_kube_config(context=context)
    except loader.ConfigException as error:
        if context is None:
            with suppress(loader.ConfigException):
                loader.load_incluster_config()
                return client.ApiClient()
        text = " ".join(str(error).split()).rstrip(".")
        raise BadInput(f"no cluster is configured: {text}; KUBECONFIG names a file that says which") from None
    return client.ApiClient()


def _root(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def _checked(status: int, body: bytes, what: str) -> Any:
    """The body's JSON. Raises ClusterError with what the API says, ClusterForbidden where a right is missing."""
    try:
        found = json.loads(body)
    except ValueError:
        found = {"message": body.decode(errors="replace")[:200]}
    if status < 300:
        return found
    said = " ".join(str(found.get("message", "") if isinstance(found, dict) else found).split())[:400]
    if status == 401:
        raise ClusterForbidden(f"the cluster does not know who asks (401): log in again, then {what}")
    if status == 403:
        raise ClusterForbidden(f"not allowed to {what}: {said}; an administrator can grant it")
    raise ClusterError(f"the cluster refused to {what} ({status}): {said}")
