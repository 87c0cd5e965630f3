"""`images/` without a builder: what is pinned, what is locked, what a final stage may have."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "images/Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = {  # extras
    "functions": ["functions", "tracing"],
    "gateway": ["gateway", "report", "tracing"],
    "feed": ["feed"],
    "db": ["embedded"],
}
COMMANDS_ONLY = {"tqdm", "tabulate", "isal"}


def stages() -> dict[str, tuple[str, list[str]]]:
    """Of each stage what it comes from, and its lines."""
    found: dict[str, tuple[str, list[str]]] = {}
    for line in TEXT.splitlines():
        if begun := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            found[begun[2]] = (begun[1], lines := [])
        elif found and line and not line.startswith("#"):
            lines.append(line)
    return found


def final(target: str) -> list[str]:
    """The lines of a target and of the stages that it stands on."""
    parent, lines = stages()[target]
    return (final(parent) if parent in stages() else []) + lines


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=\[; ]", one)[0].lower().replace("_", "-") for one in requirements}


def locked(name: str) -> set[str]:
    return names(re.findall(r"^\S+==\S+", (ROOT / f"images/{name}.txt").read_text(), re.MULTILINE))


TARGETS = ["gateway", "split", "execute", "aggregate", "feed", "db"]


def test_the_base_is_pinned() -> None:
    (base,) = re.findall(r"^ARG BASE=(.*)$", TEXT, re.MULTILINE)
    assert re.fullmatch(r"docker\.io/library/python:[\w.-]+@sha256:[0-9a-f]{64}", base)
    assert set(re.findall(r"^FROM (\S+)", TEXT, re.MULTILINE)) - stages().keys() == {"${BASE}"}


@pytest.mark.parametrize("target", TARGETS)
def test_a_final_stage_has_no_compiler_and_no_rights(target: str) -> None:
    lines = "\n".join(final(target))
    assert not re.search(r"apt-get|pip (install|wheel)|gcc|curl", lines)
    assert "USER 65532:65532" in lines
    assert lines.rindex("USER") > lines.rindex("RUN ")
    assert "ENTRYPOINT [" in lines
    if target != "db":  # whose pod waits for seconds only: see candlemill.transport.start
        assert 'ENTRYPOINT ["python", "-m", "candlemill.transport.start", "/opt/candlemill/' in lines
    copied = re.findall(r"^COPY (.*)$", lines, re.MULTILINE)
    assert [re.sub(r"\w+-environment", "X", one) for one in copied] == ["--from=X /opt/candlemill /opt/candlemill"]


@pytest.mark.parametrize(("lock", "extras"), LOCKS.items())
def test_locks_hold_what_the_project_asks_for(lock: str, extras: list[str]) -> None:
    requested = [one for extra in extras for one in PROJECT["project"]["optional-dependencies"][extra]]
    wanted = names(PROJECT["project"]["dependencies"] + requested)
    left_out = COMMANDS_ONLY if lock == "functions" else set()
    assert wanted - locked(lock) == left_out
    text = (ROOT / f"images/{lock}.txt").read_text()
    assert text.count("==") <= text.count("--hash=sha256:")


def test_the_executor_has_only_what_it_needs() -> None:
    assert not locked("functions") & {"chdb", "chdb-core", "pandas", "pyarrow", "litestar", "plotly", "websockets"}


@pytest.mark.parametrize(
    ("name", "lock", "modules"),
    [
        ("split", "functions", "candlemill.transport.http candlemill.store.clickhouse candlemill.local.workflow_runs"),
        ("execute", "functions", "candlemill.transport.http candlemill.store.clickhouse candlemill.transport.job_main"),
        ("aggregate", "functions", "candlemill.transport.http candlemill.store.clickhouse candlemill.guards"),
        ("gateway", "gateway", "candlemill.store.clickhouse"),
        ("feed", "feed", "candlemill.store.clickhouse"),
    ],
)
def test_a_function_loads_with_what_its_image_has(name: str, lock: str, modules: str) -> None:
    """In a process that can import nothing of what the project knows but the lock does not hold."""
    extras = PROJECT["project"]["optional-dependencies"].values()
    absent = names([one for extra in extras for one in extra] + PROJECT["project"]["dependencies"]) - locked(lock)
    program = f"""
import importlib, importlib.util, sys
sys.modules.update(dict.fromkeys({sorted(one.replace("-", "_") for one in absent)!r}))
spec = importlib.util.spec_from_file_location("main", {str(ROOT / "functions" / name / "main.py")!r})
spec.loader.exec_module(importlib.util.module_from_spec(spec))
for name in {modules.split()!r}:
    importlib.import_module(name)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "core")}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()[-1000:]


def test_what_builds_the_wheel_is_what_the_project_says() -> None:
    text = (ROOT / "images/build.in").read_text()
    requested = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert set(requested) == {*PROJECT["build-system"]["requires"], "pip"}
    assert names(requested) <= locked("build") | {"mypy"}
