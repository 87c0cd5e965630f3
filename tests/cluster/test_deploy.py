"""`candlemill cluster` against a fake Kubernetes API server."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from candlemill.cli import main
from candlemill.cluster import deploy
from fake_kube import FakeKube, kubeconfig, serving

HERE = "candlemill"
DAY_MS = 86_400_000


@pytest.fixture
def kube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKube]:
    monkeypatch.setattr(deploy, "POLL_SECONDS", 0.01)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv(deploy.KEY_VARIABLE, raising=False)
    with serving(FakeKube()) as fake:
        (tmp_path / "config").write_text(kubeconfig(fake.url))
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
        yield fake


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any, str]:
    """Return the exit status, the JSON of stdout, and stderr."""
    status = main.main(["cluster", *arguments, "--json"])
    out, err = capsys.readouterr()
    assert "internal error" not in err, err
    return status, json.loads(out), err


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    status, found, err = run(capsys, *arguments)
    assert status in (1, 2)
    assert "Traceback" not in err
    message = str(found["error"]["message"])
    assert "\n" not in message
    return str(found["error"]["code"]), message


def pod(kube: FakeKube, function: str, name: str, ready: bool = True, made: str = "2026-01-01T00:00:00Z") -> None:
    state = {"conditions": [{"type": "Ready", "status": str(ready)}]}
    labels = {"serving.knative.dev/service": function}
    kube.add("v1", "Pod", HERE, name, metadata={"labels": labels, "creationTimestamp": made}, status=state)


# -- deploy --------------------------------------------------------------------------------------------------------


def test_deploy_applies_all_and_waits(kube: FakeKube, capsys: pytest.CaptureFixture[str]) -> None:
    requests: dict[str, int] = {}

    def become(one: dict[str, Any]) -> dict[str, Any] | None:
        """Status of an object: none at the first read, then not ready, ready at the third."""
        name = f"{one['kind']} {one['metadata']['name']}"
        requests[name] = requests.get(name, 0) + 1
        if requests[name] == 1:
            return None
        if one["kind"] == "StatefulSet":
            return {"readyReplicas": int(requests[name] > 2)}
        state = {"type": "Ready", "status": "Unknown", "reason": "Deploying", "message": "image is pulled"}
        return {"conditions": [state if requests[name] == 2 else {"type": "Ready", "status": "True"}]}

    kube.become = become
    status, found, err = run(capsys, "deploy", "local")
    assert status == 0
    objects = deploy.objects_of("local")
    assert found["objects"] == len(objects) == len(kube.objects)
    applied = [path for method, path in kube.calls if method == "PATCH"]
    assert applied[0] == "/api/v1/namespaces/candlemill"
    assert max(k for k, path in enumerate(applied) if re.search("configmaps|secrets|serviceaccounts", path)) < min(
        k for k, path in enumerate(applied) if ".knative.dev/" in path
    )
    kinds = [path.rsplit("/", 2)[1] for path in applied]
    assert max(k for k, kind in enumerate(kinds) if kind == "sinkbindings") < kinds.index("services")
    for message in (
        "Service execute: Deploying: image is pulled",
        "Service execute: ready",
        "StatefulSet database: ready",
    ):
        assert message in err
    before = {path: one["metadata"]["generation"] for path, one in kube.objects.items()}
    assert run(capsys, "deploy", "local")[0] == 0  # a second time: nothing changes
    assert {path: one["metadata"]["generation"] for path, one in kube.objects.items()} == before


def test_deploy_reports_objects_that_are_not_ready(kube: FakeKube, capsys: pytest.CaptureFixture[str]) -> None:
    failed = {"type": "Ready", "status": "False", "reason": "RevisionFailed", "message": "cannot pull\nthe image"}
    kube.become = lambda one: (
        {
            "readyReplicas": 1,
            "conditions": [failed if one["metadata"]["name"] == "split" else {"type": "Ready", "status": "True"}],
        }
    )
    code, message = error(capsys, "deploy", "--timeout", "1")
    assert code == "cluster_failed"
    assert message.startswith("not ready after 1 s: Service split: RevisionFailed: cannot pull the image")


def test_a_function_without_an_address_for_its_events_is_not_ready(
    kube: FakeKube, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without K_SINK a gateway takes requests and answers 503 to each."""
    kube.become = lambda one: {"readyReplicas": 1, "conditions": [{"type": "Ready", "status": "True"}]}
    kube.binding = False
    message = error(capsys, "deploy", "--timeout", "1")[1]
    for name in ("gateway", "split", "execute", "aggregate"):
        assert f"Service {name}: no K_SINK yet: its SinkBinding has not changed it" in message
    assert "Service feed" not in message  # it sends no events
    rows = {one["name"]: one for one in run(capsys, "status")[1]["services"]}
    assert (rows["gateway"]["ready"], rows["feed"]["ready"]) == (False, True)
    assert rows["gateway"]["why"].startswith("no K_SINK yet")


@pytest.mark.parametrize(("name", "probe"), [("feed", "/healthz"), ("gateway", "/readyz")])
def test_a_pod_that_is_not_ready_says_why(
    kube: FakeKube, capsys: pytest.CaptureFixture[str], name: str, probe: str
) -> None:
    waits = {"type": "Ready", "status": "Unknown", "reason": "RevisionMissing", "message": "waiting for the pod"}
    fine = {"type": "Ready", "status": "True"}
    kube.become = lambda one: {"readyReplicas": 1, "conditions": [waits if one["metadata"]["name"] == name else fine]}
    pod(kube, name, f"{name}-1", ready=False)
    kube.gateway = lambda method, path, body, headers: (503, "no answer yet") if path == probe else (404, "ok")
    assert f'{name} says: "no answer yet"' in error(capsys, "deploy", "--timeout", "1")[1]
    if name == "feed":  # without a gateway there is no status
        rows = {one["name"]: one for one in run(capsys, "status")[1]["services"]}
        assert 'waiting for the pod; feed says: "no answer yet"' in rows["feed"]["why"]


def test_deploy_waits_for_knatives_webhook(
    kube: FakeKube, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kube.become = lambda one: {"readyReplicas": 1, "conditions": [{"type": "Ready", "status": "True"}]}
    message = 'Internal error occurred: failed calling webhook "webhook.eventing.knative.dev": connection refused'
    kube.failing = [message, message]
    status, _, err = run(capsys, "deploy")
    assert status == 0
    assert err.count("waiting for Knative's webhook") == 2
    monkeypatch.setattr(deploy, "WEBHOOK_SECONDS", 0.0)
    kube.failing = [message]
    assert "failed calling webhook" in error(capsys, "deploy")[1]
    kube.failing = [
        'admission webhook "x" denied the request: validation failed: oidc-authentication feature not enabled: '
    ]
    assert "set authentication-oidc: enabled in" in error(capsys, "deploy")[1]


def test_deploy_waits_for_the_removal_of_the_namespace(
    kube: FakeKube, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    reads = 0

    def become(one: dict[str, Any]) -> dict[str, Any]:
        nonlocal reads
        if "deletionTimestamp" in one["metadata"]:
            reads += 1
            if reads == 3:
                del kube.objects[f"/api/v1/namespaces/{HERE}"]
            return {"conditions": [{"type": "ContentRemaining", "status": "True", "message": "pods: 2 are left"}]}
        return {"readyReplicas": 1, "conditions": [{"type": "Ready", "status": "True"}]}

    kube.become = become
    kube.add("v1", "Namespace", HERE, HERE, metadata=ending)
    status, _, err = run(capsys, "deploy")
    assert status == 0
    assert err.count(f"waiting for the removal of namespace {HERE}") == 1
    monkeypatch.setattr(deploy, "GONE_SECONDS", 0.0)
    kube.add("v1", "Namespace", HERE, HERE, metadata=ending)
    assert "is still being removed after 0 s: pods: 2 are left" in error(capsys, "deploy")[1]


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("serving.knative.dev/v1", "Knative Serving is not installed"),
        ("eventing.knative.dev/v1", "Knative Eventing is not installed"),
        ("sinks.knative.dev/v1alpha1", "Knative Eventing 1.17 or later is not installed"),
    ],
)
def test_without_knative_nothing_is_changed(
    kube: FakeKube, capsys: pytest.CaptureFixture[str], missing: str, message: str
) -> None:
    del kube.served[missing]
    code, message = error(capsys, "deploy")
    assert code == "cluster_failed"
    assert message in message
    assert "https://knative.dev/docs/install" in message
    assert not kube.objects


def test_missing_rights_are_named(kube: FakeKube, capsys: pytest.CaptureFixture[str]) -> None:
    kube.denied = {("patch", "secrets")}
    code, message = error(capsys, "deploy")
    assert code == "cluster_forbidden"
    assert message.startswith("not allowed to apply Secret candlemill-")
    assert 'cannot patch resource "secrets"' in message


def test_a_rejected_login(kube: FakeKube, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "config").write_text(kubeconfig(kube.url, "old-token"))
    code, message = error(capsys, "status")
    assert code == "cluster_forbidden"
    assert "log in again" in message


def test_no_cluster(kube: FakeKube, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "config").write_text(kubeconfig("http://127.0.0.1:9"))
    code, message = error(capsys, "status")
    assert code == "cluster_down"
    assert "http://127.0.0.1:9 does not answer" in message
    (tmp_path / "config").unlink()
    code, message = error(capsys, "deploy")
    assert code == "bad_input"
    assert "no cluster is configured" in message
    assert "KUBECONFIG" in message
    code, message = error(capsys, "deploy", "nowhere")
    assert code == "bad_input"
    (tmp_path / "config").write_text(kubeconfig(kube.url))
    assert "'nowhere' is neither one of local, production" in error(capsys, "deploy", "nowhere")[1]
    assert "no-such" in error(capsys, "deploy", "--context", "no-such")[1]


def test_down_keeps_data_without_all(kube: FakeKube, capsys: pytest.CaptureFixture[str]) -> None:
    kube.become = lambda one: {"readyReplicas": 1, "conditions": [{"type": "Ready", "status": "True"}]}
    run(capsys, "deploy")
    status, found, _ = run(capsys, "down")
    assert (status, list(kube.objects)) == (0, ["/api/v1/namespaces/candlemill"])
    assert found["deleted"] == len(deploy.objects_of("local")) - 1
    assert run(capsys, "down")[1]["deleted"] == 0
    assert run(capsys, "down", "--all")[1]["deleted"] == 1
    assert not kube.objects


# -- state ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def deployed(kube: FakeKube, capsys: pytest.CaptureFixture[str]) -> FakeKube:
    kube.become = lambda one: {
        "readyReplicas": 1,
        "conditions": [{"type": "Ready", "status": "True"}],
        "latestReadyRevisionName": f"{one['metadata']['name']}-00001",
    }
    run(capsys, "deploy")
    pod(kube, "gateway", "gateway-1")
    pod(kube, "execute", "execute-1")
    pod(kube, "execute", "execute-2", ready=False)
    return kube


def test_status(deployed: FakeKube, capsys: pytest.CaptureFixture[str]) -> None:
    progress = {"done": 3, "total": 10, "repairs": 0, "fraction": 0.3}
    rows = [{"state": state, "progress": progress} for state in ("planned", "repairing", "done", "failed")]
    deployed.gateway = lambda method, path, body, headers: (200, {"items": rows, "next": None})
    status, found, _ = run(capsys, "status")
    assert status == 0
    services = {one["name"]: one for one in found["services"]}
    assert services.keys() == {"gateway", "split", "execute", "aggregate", "feed"}
    execute = services["execute"]
    assert (execute["pods"], execute["pods_ready"], execute["max"]) == (2, 1, "8")
    assert execute["revision"] == "execute-00001"
    assert {one["name"]: one["to"] for one in found["events"] if one["kind"] == "Trigger"}[
        "slice-requested"
    ] == "execute"
    assert found["open_tasks"] == 14
    assert main.main(["cluster", "status"]) == 0
    assert "14 tasks of unfinished jobs are not done" in capsys.readouterr().out


def test_status_without_a_gateway_and_with_a_broken_trigger(
    deployed: FakeKube, capsys: pytest.CaptureFixture[str]
) -> None:
    del deployed.objects["/api/v1/namespaces/candlemill/pods/gateway-1"]
    broken = {"type": "Ready", "status": "False", "reason": "BrokerDoesNotExist", "message": "no broker"}
    fine = {"type": "Ready", "status": "True"}
    deployed.become = lambda one: {"conditions": [broken if one["kind"] == "Trigger" else fine]}
    status, found, err = run(capsys, "status")
    assert status == 1
    assert found["open_tasks"] is None
    assert "no gateway is ready" in err
    assert {one["why"] for one in found["events"] if one["kind"] == "Trigger"} == {"BrokerDoesNotExist: no broker"}


def test_the_youngest_gateway_pod_is_used(deployed: FakeKube, capsys: pytest.CaptureFixture[str]) -> None:
    """A pod of an older revision may still exist, and may lack the address of the event sink."""
    for name, hour in (("a", 11), ("m", 12), ("z", 10)):
        pod(deployed, "gateway", f"gateway-{name}", made=f"2026-01-01T{hour}:00:00Z")
    deployed.gateway = lambda method, path, body, headers: (200, {"items": [], "next": None})
    assert run(capsys, "status")[0] == 0
    assert [path for _, path in deployed.calls if "/proxy/" in path] == [
        f"/api/v1/namespaces/{HERE}/pods/gateway-m:8080/proxy/api/v1/backtests"
    ]


def test_status_without_a_deployment(kube: FakeKube, capsys: pytest.CaptureFixture[str]) -> None:
    assert "candlemill is not in namespace 'elsewhere'" in error(capsys, "status", "--namespace", "elsewhere")[1]
    del kube.served["serving.knative.dev/v1"]
    assert "Knative Serving is not installed" in error(capsys, "status")[1]


def moments(*rows: tuple[str, int]) -> Iterator[dict[str, Any]]:
    for state, done in rows:
        progress = {"done": done, "total": 10, "repairs": 1, "fraction": done / 10}
        yield {"state": state, "reason": "no luck" if state == "failed" else "", "progress": progress}


def test_watch_shows_progress_and_executors(deployed: FakeKube, capsys: pytest.CaptureFixture[str]) -> None:
    answers = moments(("accepted", 0), ("planned", 2), ("planned", 2), ("done", 10))
    deployed.gateway = lambda method, path, body, headers: (200, next(answers))
    status, found, err = run(capsys, "watch", "a" * 32)
    assert status == 0
    assert [(one["done"], one["executors"]) for one in found["moments"]] == [(0, 1), (2, 1), (10, 1)]
    assert "2 of 10 tasks, 1 repair  on 1 executor and 1 starting" in err


def test_watch_of_a_failed_job(deployed: FakeKube, capsys: pytest.CaptureFixture[str]) -> None:
    answers = moments(("planned", 1), ("failed", 1))
    deployed.gateway = lambda method, path, body, headers: (200, next(answers))
    assert error(capsys, "watch", "a" * 32)[1].endswith("ended as failed: no luck")
    deployed.gateway = lambda method, path, body, headers: (404, {"detail": "unknown job 'b'"})
    refused = f"the gateway answered 404 to GET /api/v1/backtest/{'b' * 32}: unknown job 'b'"
    assert refused in error(capsys, "watch", "b" * 32)[1]
    assert "'x' is no job's id" in error(capsys, "watch", "x")[1]


# -- smoke ---------------------------------------------------------------------------------------------------------


def fake_gateway(kube: FakeKube, digests: list[str], days: int = 30, slices: int | None = None) -> list[dict[str, Any]]:
    """Fake a gateway whose jobs are done at the second read; returns the requests."""
    requests: list[dict[str, Any]] = []
    reads = iter(range(10**6))

    def gateway(method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
        if path == "/api/v1/symbols":
            return 200, {"symbols": [{"symbol": "BTCUSDT", "first_ms": 0, "last_ms": days * DAY_MS}] if days else []}
        if method == "POST":
            requests.append({**body, "key": headers.get("X-API-Key", "")})
            return 202, {"job_id": "a" * 32}
        state = "done" if next(reads) % 3 else "planned"
        result = {"result_digest": digests[len(requests) - 1]}
        progress = {"done": 1, "total": 1, "repairs": 0, "fraction": 1.0}
        return 200, {
            "state": state,
            "progress": progress,
            "reason": "",
            "result": result | {"slices": slices or requests[-1]["slices"]},
        }

    kube.gateway = gateway
    return requests


def test_smoke_compares_two_numbers_of_slices(
    deployed: FakeKube, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(deploy.KEY_VARIABLE, "my key")
    requests = fake_gateway(deployed, ["d" * 64] * 2)
    status, found, _ = run(capsys, "smoke")
    assert status == 0
    assert found["result_digest"] == "d" * 64
    assert [one["slices"] for one in requests] == [1, 4]
    assert all(one["fresh"] and one["range"] == "1970-01-24..1970-01-30" for one in requests)
    assert {one["key"] for one in requests} == {"my key"}
    fake_gateway(deployed, ["d" * 64, "e" * 64])
    assert "with 1 and 4 slices gave different results" in error(capsys, "smoke")[1]
    fake_gateway(deployed, ["d" * 64] * 2, slices=1)
    assert "both runs had 1 slice, so nothing was compared" in error(capsys, "smoke")[1]


def test_smoke_without_candles(deployed: FakeKube, capsys: pytest.CaptureFixture[str]) -> None:
    fake_gateway(deployed, [], days=0)
    assert "no candles are stored there yet" in error(capsys, "smoke")[1]
    fake_gateway(deployed, [])
    assert "'X' is not stored there: BTCUSDT are" in error(capsys, "smoke", "--symbol", "X")[1]


def test_schema_needs_no_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    _, found, _ = run(capsys, "schema", "--on-cluster", "{cluster}")
    assert any("ReplicatedReplacingMergeTree" in one for one in found["statements"])
    assert main.main(["cluster", "schema", "--roles"]) == 0
    assert "CREATE ROLE IF NOT EXISTS candlemill_reader;\n" in capsys.readouterr().out
    assert "is no name" in error(capsys, "schema", "--on-cluster", "a'b")[1]
