"""`knative/` without a cluster: built, of the right shape, and in step with the code."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from candlemill import config
from candlemill.cluster.kustomize import build
from candlemill.config import bundled
from candlemill.errors import BadFile
from candlemill.pipeline import events, tasks
from candlemill.transport import cloudevents, functions
from shapes import Object, definitions, problems

OVERLAYS = ("local", "production")
BUILT = {name: build(bundled("knative") / "overlays" / name) for name in OVERLAYS}
SERVING_LIMIT = 600  # seconds, what Serving allows unless its operator says otherwise
CRDS = os.environ.get("CANDLEMILL_CRDS", "")  # a folder of Knative's CustomResourceDefinitions


def of_kind(overlay: str, kind: str, group: str = "") -> list[Object]:
    return [one for one in BUILT[overlay] if one["kind"] == kind and one["apiVersion"].startswith(group)]


def name_of(one: Object) -> str:
    return str(one["metadata"]["name"])


def label(one: Object) -> tuple[str, str, str]:
    return one["apiVersion"], one["kind"], name_of(one)


def pods(overlay: str) -> Iterator[tuple[str, Object]]:
    """Every pod's spec, whoever makes it."""
    for one in BUILT[overlay]:
        if one["kind"] in ("StatefulSet", "Deployment") or label(one)[0].startswith("serving.knative.dev"):
            yield name_of(one), one["spec"]["template"]["spec"]
        if one["kind"] == "JobSink":
            yield name_of(one), one["spec"]["job"]["spec"]["template"]["spec"]


def services(overlay: str) -> dict[str, Object]:
    return {name_of(one): one for one in of_kind(overlay, "Service", "serving.knative.dev")}


# -- shape ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_has_the_shape_of_its_kind(overlay: str) -> None:
    labels = [label(one) for one in BUILT[overlay]]
    assert len(labels) == len(set(labels))
    assert {str(label(one)): found for one in BUILT[overlay] if (found := problems(one))} == {}


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.skipif(not CRDS, reason="CANDLEMILL_CRDS names no folder of Knative's CustomResourceDefinitions")
def test_knatives_own_definitions_agree(overlay: str) -> None:
    known = definitions(Path(CRDS))
    ours = [one for one in BUILT[overlay] if ".knative.dev/" in one["apiVersion"]]
    assert {label(one)[:2] for one in ours} <= known.keys()
    for one in ours:
        validator = jsonschema.Draft202012Validator(known[label(one)[:2]])
        assert [(label(one), error.json_path, error.message) for error in validator.iter_errors(one)] == []


def test_a_shape_notices_what_is_wrong() -> None:
    """Of a sound object with one mistake: each is found."""
    for overlay in OVERLAYS:
        for one in BUILT[overlay]:
            broken = json.loads(json.dumps(one))
            broken["spec" if "spec" in one else "metadata"]["tpyo"] = 1
            assert problems(broken), label(one)
    (service,) = (one for one in of_kind("local", "Service", "serving.knative.dev") if name_of(one) == "execute")
    for path, value in [
        ("containers.0.readinesProbe", {}),
        ("containers.0.ports.0.containerPort", "8080"),
        ("containers.0.securityContext.runAsUser", "root"),
        ("nodeName", "here"),  # Serving refuses it
        ("timeoutSeconds", 601),
    ]:
        broken = json.loads(json.dumps(service))
        *parents, last = path.split(".")
        where: Any = broken["spec"]["template"]["spec"]
        for part in parents:
            where = where[int(part) if isinstance(where, list) else part]
        where[last] = value
        assert problems(broken), path


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubectl_builds_the_same(overlay: str) -> None:
    program = shutil.which("kustomize") or shutil.which("kubectl")
    if program is None:
        pytest.skip("neither kustomize nor kubectl is here")
    command = [program, "build" if program.endswith("kustomize") else "kustomize"]
    folder = bundled("knative") / "overlays" / overlay
    done = subprocess.run([*command, str(folder)], capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()
    theirs = {label(one): one for one in yaml.safe_load_all(done.stdout)}
    assert theirs == {label(one): one for one in BUILT[overlay]}


def test_what_is_not_understood_is_refused(tmp_path: Path) -> None:
    for text, said in [
        ("helmCharts: []", "helmCharts is not supported"),
        ("resources: [nothing.yaml]", "No such file"),
        ("resources: [a.yaml]\npatches: [{target: {kind: Pod}, patch: '[]'}]", "does not exist"),
        (
            "resources: [a.yaml]\npatches: [{target: {kind: ConfigMap}, patch: '[{op: move, path: /a}]'}]",
            "not one of add",
        ),
        (
            "resources: [a.yaml]\npatches: [{target: {kind: ConfigMap}, patch: '[{op: replace, path: /x, value: 1}]'}]",
            "has no /x to replace",
        ),
        ("resources: [", "flow"),
    ]:
        (tmp_path / "kustomization.yaml").write_text(text)
        (tmp_path / "a.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
        with pytest.raises(BadFile, match=said):
            build(tmp_path)


# -- routes --------------------------------------------------------------------------------------------------------


def passes(trigger: Object, attributes: dict[str, str]) -> bool:
    """Whether a Trigger lets an event through, as Eventing decides it."""
    spec = trigger["spec"]
    if "filters" in spec:
        return all(_passes(one, attributes) for one in spec["filters"])
    return all(attributes.get(name) == value for name, value in spec["filter"]["attributes"].items())


def _passes(one: Object, attributes: dict[str, str]) -> bool:
    ((dialect, argument),) = one.items()
    if dialect == "not":
        return not _passes(argument, attributes)
    if dialect == "any":
        return any(_passes(one, attributes) for one in argument)
    assert dialect == "exact"
    return all(attributes.get(name) == value for name, value in argument.items())


def goes_to(overlay: str, **attributes: str) -> list[str]:
    return [one["spec"]["subscriber"]["ref"]["name"] for one in of_kind(overlay, "Trigger") if passes(one, attributes)]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_triggers_say_what_the_code_says(overlay: str) -> None:
    for kind, function in functions.ROUTES.items():
        assert goes_to(overlay, type=kind) == [function], kind
    # Whatever else is emitted goes somewhere too, to one place, or it would be heard twice.
    for kind in events.DATA:
        assert len(goes_to(overlay, type=kind)) == 1, kind
    assert goes_to(overlay, type=events.SLICE_REQUESTED, work=tasks.LONG) == ["execute-long"]
    assert goes_to(overlay, type="anything.else") == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_watch_arrives(overlay: str) -> None:
    (ping,) = of_kind(overlay, "PingSource")
    (type_of_pings,) = cloudevents.ALIASES
    assert goes_to(overlay, type=type_of_pings, **ping["spec"]["ceOverrides"]["extensions"]) == ["aggregate"]
    assert goes_to(overlay, type=type_of_pings) == []
    assert goes_to(overlay, type=cloudevents.ALIASES[type_of_pings]) == ["aggregate"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_whoever_sends_has_a_sink(overlay: str) -> None:
    (broker,) = of_kind(overlay, "Broker")
    bound = {one["spec"]["subject"].get("name", "execute-long") for one in of_kind(overlay, "SinkBinding")}
    assert bound == {"gateway", "split", "execute", "aggregate", "execute-long"}
    for one in of_kind(overlay, "SinkBinding") + of_kind(overlay, "PingSource"):
        assert one["spec"]["sink"]["ref"]["name"] == name_of(broker)
    (job,) = of_kind(overlay, "JobSink")
    (binding,) = (one for one in of_kind(overlay, "SinkBinding") if "selector" in one["spec"]["subject"])
    wanted = binding["spec"]["subject"]["selector"]["matchLabels"].items()
    assert wanted <= job["spec"]["job"]["metadata"]["labels"].items()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_referred_to_is_there(overlay: str) -> None:
    there = {label(one) for one in BUILT[overlay]}
    accounts = {name_of(one) for one in of_kind(overlay, "ServiceAccount")}
    for one in BUILT[overlay]:
        for ref in _references(one):
            assert (ref["apiVersion"], ref["kind"], ref["name"]) in there, (label(one), ref)
    for name, pod in pods(overlay):
        assert pod["serviceAccountName"] in accounts, name
        assert pod["automountServiceAccountToken"] is False, name


def _references(value: Any) -> Iterator[Object]:
    if isinstance(value, list):
        for item in value:
            yield from _references(item)
    elif isinstance(value, dict):
        if value.keys() >= {"apiVersion", "kind", "name"}:
            yield value
        for item in value.values():
            yield from _references(item)


def test_the_brokers_channel_does_not_keep_senders_waiting() -> None:
    """Its Broker makes it, and takes annotations of this group over; others that it has are removed."""
    (broker,) = of_kind("local", "Broker")
    assert broker["metadata"]["annotations"]["messaging.knative.dev/async-handler"] == "true"
    assert not of_kind("local", "InMemoryChannel")


# -- time ----------------------------------------------------------------------------------------------------------


def seconds(text: str) -> float:
    found = re.fullmatch(r"PT(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?", text)
    assert found is not None, text
    return 60 * float(found[1] or 0) + float(found[2] or 0)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_timeouts_are_ordered(overlay: str) -> None:
    """A slice ends before Serving cuts it off, and Serving answers before the Broker takes the delivery for lost."""
    (broker,) = of_kind(overlay, "Broker")
    broker_seconds = seconds(broker["spec"]["delivery"]["timeout"])
    for name in ("split", "execute", "aggregate"):
        spec = services(overlay)[name]["spec"]["template"]["spec"]
        # Without the second the default of 300 s would cut off an answer that is late.
        assert spec["timeoutSeconds"] == spec["responseStartTimeoutSeconds"] == SERVING_LIMIT
        assert tasks.LONG_TASK_SECONDS * 5 < spec["timeoutSeconds"] < broker_seconds, name
    (job,) = of_kind(overlay, "JobSink")
    assert job["spec"]["job"]["spec"]["activeDeadlineSeconds"] > SERVING_LIMIT


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_failed_deliveries_are_tried_again_and_then_reported(overlay: str) -> None:
    (broker,) = of_kind(overlay, "Broker")
    delivery = broker["spec"]["delivery"]
    assert delivery["deadLetterSink"]["ref"]["name"] == functions.DEAD_LETTERS
    assert delivery["backoffPolicy"] == "exponential"
    waits = seconds(delivery["backoffDelay"]) * (2 ** delivery["retry"] - 1)
    assert waits >= 900  # a database may be away for a quarter of an hour
    for trigger in of_kind(overlay, "Trigger"):
        assert "delivery" not in trigger["spec"], "it would replace the Broker's as a whole"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_executors_take_one_task_each(overlay: str) -> None:
    template = services(overlay)["execute"]["spec"]["template"]
    assert template["spec"]["containerConcurrency"] == 1
    scaling = {name.partition("/")[2]: value for name, value in template["metadata"]["annotations"].items()}
    assert scaling["target"] == "1"
    assert scaling["target-utilization-percentage"] == "100"
    assert scaling["min-scale"] == "0"
    assert int(scaling["max-scale"]) > 0
    (split,) = services(overlay)["split"]["spec"]["template"]["spec"]["containers"]
    under_way = {one["name"]: one.get("value") for one in split["env"]}[config.TASKS_VARIABLE]
    assert int(under_way) == 2 * int(scaling["max-scale"]) * template["spec"]["containerConcurrency"]
    feed = services(overlay)["feed"]["spec"]["template"]["metadata"]["annotations"]
    assert feed["autoscaling.knative.dev/min-scale"] == feed["autoscaling.knative.dev/max-scale"] == "1"


def test_by_default_as_many_tasks_are_under_way_as_the_base_has_executors_for() -> None:
    scaling = services("local")["execute"]["spec"]["template"]["metadata"]["annotations"]
    assert 2 * int(scaling["autoscaling.knative.dev/max-scale"]) == config.TASKS_UNDER_WAY


# -- rights --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_runs_as_root_or_writes_its_root(overlay: str) -> None:
    for name, pod in pods(overlay):
        for container in pod["containers"]:
            secured = container["securityContext"]
            assert secured["runAsNonRoot"] is True, name
            assert secured["runAsUser"] > 0, name
            assert secured["readOnlyRootFilesystem"] is True, name
            assert secured["allowPrivilegeEscalation"] is False, name
            assert secured["capabilities"] == {"drop": ["ALL"]}, name
            assert secured["seccompProfile"] == {"type": "RuntimeDefault"}, name
            for mount in container["volumeMounts"]:
                assert mount["mountPath"] in ("/tmp", "/data") or mount["readOnly"], name
        assert all(volume.keys() <= {"name", "emptyDir", "secret"} for volume in pod["volumes"]), name
    (namespace,) = of_kind(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_whoever_serves_is_probed_and_bounded(overlay: str) -> None:
    for name, pod in pods(overlay):
        for container in pod["containers"]:
            assert container["resources"].keys() == {"requests", "limits"}
            for bounds in container["resources"].values():
                assert bounds.keys() == {"cpu", "memory"}, name
            if name != "execute-long":
                assert ("livenessProbe" in container) != (name == "execute"), name  # under load it answers late
                for probe in {"readinessProbe", "livenessProbe"} & container.keys():
                    assert container[probe]["httpGet"]["path"] in ("/healthz", "/livez", "/readyz", "/ping"), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_come_by_reference(overlay: str) -> None:
    for name, pod in pods(overlay):
        for variable in (one for container in pod["containers"] for one in container["env"]):
            value = variable.get("value", "")
            if re.search("DSN|PASSWORD|KEY|TOKEN|SECRET", variable["name"]):
                harmless = value == "off" or value.startswith(("chdb:", "/etc/"))
                assert harmless or "secretKeyRef" in variable["valueFrom"], name
            assert "@" not in value
    if overlay == "production":
        assert not of_kind(overlay, "Secret")
        assert "stringData" not in json.dumps(BUILT[overlay])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_the_gateway_is_reached_from_outside(overlay: str) -> None:
    for name, service in services(overlay).items():
        visibility = service["metadata"]["labels"].get("networking.knative.dev/visibility")
        assert (visibility == "cluster-local") == (name != "gateway"), name
    (closed,) = (one for one in of_kind(overlay, "NetworkPolicy") if name_of(one) == "nothing-by-default")
    assert closed["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_senders_that_a_policy_names_are_there() -> None:
    (policy,) = (one for one in of_kind("production", "EventPolicy") if name_of(one) == "functions-to-broker")
    named = {(one["ref"]["kind"], one["ref"]["name"]) for one in policy["spec"]["from"]}
    senders = of_kind("production", "SinkBinding") + of_kind("production", "PingSource")
    assert named == {(one["kind"], name_of(one)) for one in senders}


def test_every_image_is_built() -> None:
    """And only images that `images/Dockerfile` has a target for are requested."""
    text = (Path(__file__).parents[2] / "images/Dockerfile").read_text()
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE))
    for overlay in OVERLAYS:
        requested = {container["image"] for _, pod in pods(overlay) for container in pod["containers"]}
        assert {re.sub(r".*/candlemill/|:.*", "", image) for image in requested} <= targets
        assert not any(image.startswith("candlemill/") for image in requested), "an overlay says where images are"
