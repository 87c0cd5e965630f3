"""What each function may do in the database is what it does: seen while jobs of every kind run."""

import re
from collections import defaultdict
from pathlib import Path

import pytest
import yaml
from candlemill.cluster.kustomize import build
from candlemill.config import bundled
from candlemill.pipeline import prefix
from candlemill.store.schema import statements

from security.conftest import REQUEST, SWEEP
from security.desk import Desk

ROLES = statements([(bundled("schema") / "roles/roles.sql").read_text()])
ROLE_OF = {"split": "planner", "aggregate": "planner", "execute": "executor"}


def granted(role: str, right: str) -> set[str]:
    found = (re.fullmatch(rf"GRANT (.*) ON (\w+) TO candlemill_{role}", text) for text in ROLES)
    return {one[2] for one in found if one and right in one[1].split(", ")}


def test_functions_write_what_their_roles_may(
    desk: Desk, client: object, job: str, sweep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix, "PREFIX_SLICES", 1)  # jobs of few slices keep merged prefixes too
    monkeypatch.setattr(prefix, "_is_month_start", lambda ms: True)
    desk.finish(**{**REQUEST, "symbol": "AAAUSDT,BBBUSDT", "range": "2024-02"})
    desk.finish(**{**REQUEST, "account": "units", "slices": "4"})
    desk.finish(**{**SWEEP, "range": "all", "walk_forward.train": "3d", "walk_forward.test": "1d"})
    written: dict[str, set[str]] = defaultdict(set)
    for function, table in desk.tables:
        written[ROLE_OF.get(function, function)].add(table)
    assert {role: tables for role, tables in written.items() if role} == {
        role: granted(role, "INSERT") for role in ("planner", "executor")
    }


def test_functions_read_what_their_roles_may(desk: Desk, job: str, sweep: str) -> None:
    read = {table for _, sql in desk.said for table in re.findall(r"(?:FROM|JOIN)\s+(\w+)", sql)}
    assert read - {"system", "c4nary"} <= granted("reader", "SELECT") | granted("gateway", "SELECT")


def test_no_role_reaches_beyond_the_database() -> None:
    """ClickHouse can read addresses and files by functions: rights of their own, and nobody has them."""
    text = " ".join(ROLES).upper()
    for right in (
        "URL",
        "FILE",
        "S3",
        "REMOTE",
        "SOURCES",
        "ODBC",
        "MYSQL",
        "CREATE TEMPORARY",
        "ALL ON",
        "GRANT OPTION",
        "SYSTEM",
    ):
        assert right not in re.findall(r"[A-Z0-9]+(?: [A-Z]+)?", text), right
    assert "*.*" not in text


def test_deployment_gives_each_function_its_own_user() -> None:
    """In the manifests by a key of its own of the secret; in the documentation by the role that is its."""
    for overlay in ("local", "production"):
        for one in build(bundled("knative") / "overlays" / overlay):
            if not one["apiVersion"].startswith("serving.knative.dev"):
                continue
            (container,) = one["spec"]["template"]["spec"]["containers"]
            (dsn,) = (e for e in container["env"] if e["name"] == "CANDLEMILL_CLICKHOUSE_DSN")
            assert dsn["valueFrom"]["secretKeyRef"]["key"] == one["metadata"]["name"]
    output = (Path(__file__).parents[2] / "docs/deploy.md").read_text()
    for function, role in ROLE_OF.items():
        assert re.search(rf"{function}=\S*candlemill_{role}", output) or f"{function}='…'" in output, function


def test_pods_have_no_way_up() -> None:
    """Beside what tests/packaging checks of each container."""
    for overlay in ("local", "production"):
        text = yaml.safe_dump_all(build(bundled("knative") / "overlays" / overlay))
        for word in (
            "hostPath",
            "hostNetwork",
            "hostPID",
            "hostIPC",
            "hostPort",
            "privileged: true",
            "ClusterRole",
            "RoleBinding",
            "NodePort",
            "LoadBalancer",
            "SYS_ADMIN",
            "serviceAccountToken",
            "shareProcessNamespace",
        ):
            assert word not in text, (overlay, word)
