"""What Kubernetes objects may look like, without a cluster.

Kubernetes' own kinds are checked by its client's models, which are generated from its API: what a model does not know,
or would write otherwise, is wrong. Knative publishes no such package; its kinds have the JSON Schemas below, written
from its documentation. A folder of its CustomResourceDefinitions, where there is one, is requested too.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from kubernetes import client

Object = dict[str, Any]


def problems(one: Object) -> list[str]:
    """What is wrong with a document; empty where nothing is."""
    schema = KNATIVE.get((one["apiVersion"], one["kind"]))
    if schema is None:
        return model_problems(one, f"V1{one['kind']}")
    found = [
        f"{error.json_path}: {error.message}" for error in jsonschema.Draft202012Validator(schema).iter_errors(one)
    ]
    for path, kind, value in embedded(one):
        found += [f"{path}: {problem}" for problem in model_problems(value, kind)]
    return found


def model_problems(value: Object, model: str) -> list[str]:
    """Deserialized by the client's model and written again it must be the same, with all that is required there."""
    api = client.ApiClient()
    try:
        found = api.deserialize(json.dumps(value), model, "application/json")
    except (ValueError, TypeError, AttributeError) as error:
        return [f"{model}: {error}"]
    written = json.loads(json.dumps(api.sanitize_for_serialization(found), default=str))
    return [] if written == value else [f"{model}: {_difference(value, written)}"]


def _difference(given: Any, written: Any, path: str = "$") -> str:
    if isinstance(given, dict) and isinstance(written, dict):
        for name in given:
            if given[name] != written.get(name):
                return _difference(given[name], written.get(name), f"{path}.{name}")
    if isinstance(given, list) and isinstance(written, list) and len(given) == len(written):
        for k, (a, b) in enumerate(zip(given, written, strict=True)):
            if a != b:
                return _difference(a, b, f"{path}[{k}]")
    return f"{path}: {given!r} is not known, or is not of its type ({written!r})"


def embedded(one: Object) -> Iterator[tuple[str, str, Object]]:
    """Kubernetes' own objects inside of Knative's."""
    if one["kind"] == "Service":
        template = json.loads(json.dumps(one["spec"]["template"]))
        for container in template["spec"]["containers"]:
            for probe in {"readinessProbe", "livenessProbe"} & container.keys():  # Serving puts in the container's port
                container[probe]["httpGet"].setdefault("port", container["ports"][0]["containerPort"])
        spec = {name: value for name, value in template["spec"].items() if name not in REVISION_FIELDS}
        yield "$.spec.template.spec", "V1PodSpec", spec
        yield "$.spec.template.metadata", "V1ObjectMeta", template["metadata"]
    if one["kind"] == "JobSink":
        yield "$.spec.job", "V1Job", one["spec"]["job"]


# -- Knative's kinds -----------------------------------------------------------------------------------------------


def fields(required: str = "", **properties: Any) -> Object:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def several(item: Object) -> Object:
    return {"type": "array", "items": item, "minItems": 1}


TEXT: Object = {"type": "string", "minLength": 1}
TEXTS: Object = {"type": "object", "additionalProperties": {"type": "string"}}
SPAN: Object = {"type": "string", "pattern": r"^P(T?\d+(\.\d+)?[DHMS])+$"}  # ISO 8601
COUNT: Object = {"type": "integer", "minimum": 0}
REF = fields("apiVersion kind name", apiVersion=TEXT, kind=TEXT, name=TEXT, namespace=TEXT)
DESTINATION = {**fields(ref=REF, uri=TEXT), "minProperties": 1}
DELIVERY = fields(
    deadLetterSink=DESTINATION,
    retry=COUNT,
    timeout=SPAN,
    backoffPolicy={"enum": ["linear", "exponential"]},
    backoffDelay=SPAN,
)
EXTENSION = {"type": "object", "propertyNames": {"pattern": "^[a-z0-9]{1,20}$"}, "additionalProperties": TEXT}
FILTER: Object = {"$ref": "#/$defs/filter"}
FILTERS = {
    "filter": {
        **fields(
            exact=EXTENSION,
            prefix=EXTENSION,
            suffix=EXTENSION,
            all=several(FILTER),
            any=several(FILTER),
            **{"not": FILTER},
        ),
        "minProperties": 1,
        "maxProperties": 1,
    }
}
NAME: Object = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}
METADATA = fields("name namespace", name=NAME, namespace=NAME, labels=TEXTS, annotations=TEXTS)

REVISION_FIELDS = frozenset(
    {"containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds", "idleTimeoutSeconds"}
)
# Of a pod's fields those that Serving lets through without its extensions.
POD_FIELDS = ("serviceAccountName", "automountServiceAccountToken", "enableServiceLinks", "containers", "volumes")
SERVING_SECONDS: Object = {"type": "integer", "minimum": 1, "maximum": 600}
REVISION = fields(
    "containers",
    containerConcurrency=COUNT,
    timeoutSeconds=SERVING_SECONDS,
    responseStartTimeoutSeconds=SERVING_SECONDS,
    idleTimeoutSeconds=SERVING_SECONDS,
    **{name: {} for name in POD_FIELDS},
)


def kind(api: str, name: str, **spec: Any) -> tuple[tuple[str, str], Object]:
    top = fields(
        "apiVersion kind metadata spec", apiVersion={"const": api}, kind={"const": name}, metadata=METADATA, **spec
    )
    return (api, name), {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": FILTERS, **top}


KNATIVE = dict(
    [
        kind(
            "serving.knative.dev/v1",
            "Service",
            spec=fields("template", template=fields("metadata spec", metadata={}, spec=REVISION)),
        ),
        kind("eventing.knative.dev/v1", "Broker", spec=fields("config", config=REF, delivery=DELIVERY)),
        kind(
            "eventing.knative.dev/v1",
            "Trigger",
            spec=fields(
                "broker subscriber",
                broker=TEXT,
                subscriber=DESTINATION,
                filter=fields("attributes", attributes=EXTENSION),
                filters=several(FILTER),
                delivery=DELIVERY,
            ),
        ),
        kind(
            "sources.knative.dev/v1",
            "SinkBinding",
            spec=fields(
                "subject sink",
                sink=DESTINATION,
                subject={
                    **fields(
                        "apiVersion kind",
                        apiVersion=TEXT,
                        kind=TEXT,
                        name=TEXT,
                        selector=fields("matchLabels", matchLabels=TEXTS),
                    ),
                    "oneOf": [{"required": ["name"]}, {"required": ["selector"]}],
                },
            ),
        ),
        kind(
            "sources.knative.dev/v1",
            "PingSource",
            spec=fields(
                "schedule sink",
                schedule={"type": "string", "pattern": r"^(\S+ ){4}\S+$"},
                timezone=TEXT,
                contentType=TEXT,
                data=TEXT,
                sink=DESTINATION,
                ceOverrides=fields("extensions", extensions=EXTENSION),
            ),
        ),
        kind("sinks.knative.dev/v1alpha1", "JobSink", spec=fields("job", job={"type": "object"})),
        kind(
            "eventing.knative.dev/v1alpha1",
            "EventPolicy",
            spec=fields(
                "from to",
                to=several(fields("ref", ref=fields("apiVersion kind name", apiVersion=TEXT, kind=TEXT, name=TEXT))),
                **{"from": several({**fields(ref=REF, sub=TEXT), "minProperties": 1})},
            ),
        ),
    ]
)


# -- the real thing, where there is one ----------------------------------------------------------------------------


def definitions(folder: Path) -> dict[tuple[str, str], Object]:
    """JSON Schemas by API version and kind from CustomResourceDefinitions in YAML files, however deep."""
    found = {}
    for path in sorted(folder.rglob("*.yaml")):
        for one in yaml.safe_load_all(path.read_text()):
            if isinstance(one, dict) and one.get("kind") == "CustomResourceDefinition":
                for version in one["spec"]["versions"]:
                    name = (f"{one['spec']['group']}/{version['name']}", one["spec"]["names"]["kind"])
                    found[name] = _closed(version["schema"]["openAPIV3Schema"], top=True)
    return found


def _closed(schema: Any, top: bool = False) -> Any:
    """With nothing beside what is named: a server would drop it without a word."""
    if not isinstance(schema, dict):
        return schema
    done = {
        name: {key: _closed(value) for key, value in part.items()}
        if name == "properties"
        else _closed(part)
        if name in ("items", "additionalProperties")
        else part
        for name, part in schema.items()
        if name not in ("format", "nullable")
    }
    if top:
        done["properties"] = {**done.get("properties", {}), "apiVersion": {}, "kind": {}, "metadata": {}}
    named = done.get("properties")
    if named and "additionalProperties" not in done and not done.get("x-kubernetes-preserve-unknown-fields"):
        done["additionalProperties"] = False
    return done
