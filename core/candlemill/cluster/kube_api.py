"""Client of the Kubernetes API over the official client, which handles kubeconfigs, logins and TLS.

Objects are plain dicts. Paths come from the API's discovery, so that custom resources need no special code, and errors
name a kind that is not installed.
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

MANAGER = "candlemill"  # field manager of server-side apply
SECONDS = 30.0
INSTALL = {
    "serving.knative.dev": "Knative Serving",
    "eventing.knative.dev": "Knative Eventing",
    "sources.knative.dev": "Knative Eventing",
    "sinks.knative.dev": "Knative Eventing 1.17 or later",
}


class Api:
    """Connection to the kubeconfig's current context, a given context, or the cluster that this process runs in."""

    def __init__(self, context: str | None = None) -> None:
        self._client = _connect(context)
        self._kinds: dict[str, dict[str, tuple[str, bool]]] = {}

    @property
    def address(self) -> str:
        return str(self._client.configuration.host)

    def path(self, one: Object) -> str:
        """API path of an object. Raises ClusterError for an unknown kind."""
        known = self.kinds(one["apiVersion"])
        if one["kind"] not in known:
            raise ClusterError(f"the cluster's {one['apiVersion']} has no {one['kind']}")
        plural, namespaced = known[one["kind"]]
        where = f"/namespaces/{one['metadata']['namespace']}" if namespaced else ""
        return f"{_root(one['apiVersion'])}{where}/{plural}/{quote(one['metadata']['name'])}"

    def kinds(self, version: str) -> dict[str, tuple[str, bool]]:
        """Kinds of an API version: plural name, and whether namespaced. Raises ClusterError if it is not installed."""
        if version not in self._kinds:
            found = self.get(_root(version))
            if found is None:
                group = version.partition("/")[0]
                what = INSTALL.get(group, group)
                raise ClusterError(
                    f"{what} is not installed in {self.address} ({version} is not served): "
                    "see https://knative.dev/docs/install"
                )
            self._kinds[version] = {
                one["kind"]: (one["name"], one["namespaced"]) for one in found["resources"] if "/" not in one["name"]
            }
        return self._kinds[version]

    def get(self, path: str, **query: str) -> Object | None:
        """Return an object, or None if it does not exist."""
        status, body = self.call("GET", path, query)
        if status == 404:
            return None
        found: Object = _checked(status, body, f"read {path}")
        return found

    def items(self, version: str, kind: str, namespace: str, **query: str) -> list[Object]:
        """All objects of a kind in a namespace; empty if the kind is not installed."""
        try:
            plural, _ = self.kinds(version)[kind]
        except (ClusterError, KeyError):
            return []
        found = self.get(f"{_root(version)}/namespaces/{namespace}/{plural}", **query)
        return [] if found is None else found["items"]

    def apply(self, one: Object) -> None:
        """Create or update an object by server-side apply."""
        query = {"fieldManager": MANAGER, "force": "true"}
        status, body = self.call("PATCH", self.path(one), query, one, "application/apply-patch+yaml")
        _checked(status, body, f"apply {one['kind']} {one['metadata']['name']}")

    def delete(self, one: Object) -> bool:
        """Delete an object; return False if it did not exist."""
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
        """Send a request with a JSON or bytes body; return status and body. Raises ClusterDown."""
        login = self._client.configuration.auth_settings().values()
        sent = {"Accept": "application/json", **headers, **{one["key"]: one["value"] for one in login}}
        if body is not None:
            sent["Content-Type"] = kind
        encoded = "?" + "&".join(f"{name}={quote(value)}" for name, value in query.items()) if query else ""
        try:
            response = self._client.rest_client.pool_manager.request(
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
        return response.status, response.data


def _connect(context: str | None) -> Any:
    loader: Any = config  # its type hints are incomplete
    try:
        loader.load_kube_config(context=context)
    except loader.ConfigException as error:
        if context is None:
            with suppress(loader.ConfigException):
                loader.load_incluster_config()
                return client.ApiClient()
        text = " ".join(str(error).split()).rstrip(".")
        raise BadInput(f"no cluster is configured: {text}; set KUBECONFIG to a kubeconfig file") from None
    return client.ApiClient()


def _root(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def _checked(status: int, body: bytes, what: str) -> Any:
    """Return the JSON of a body. Raises ClusterError with the API's message, ClusterForbidden for a missing right."""
    try:
        found = json.loads(body)
    except ValueError:
        found = {"message": body.decode(errors="replace")[:200]}
    if status < 300:
        return found
    message = " ".join(str(found.get("message", "") if isinstance(found, dict) else found).split())[:400]
    if status == 401:
        raise ClusterForbidden(f"the cluster rejected the login (401): log in again, then {what}")
    if status == 403:
        raise ClusterForbidden(f"not allowed to {what}: {message}; an administrator can grant it")
    raise ClusterError(f"the cluster refused to {what} ({status}): {message}")
