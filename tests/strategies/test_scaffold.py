"""What `candlemill new-strategy` writes works as written: its tests pass, it runs, and it compiles."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from candlemill.errors import BadInput
from candlemill.strategies.scaffold import write_strategy
from conftest import CORE, environment, run_cli

TIMEOUT = 240


@pytest.mark.parametrize("kind", ["windowed", "stateful"])
def test_a_new_strategy_works(kind: str, database: Path, tmp_path: Path) -> None:
    where = str(tmp_path)
    made = run_cli("new-strategy", "my_fade", "--kind", kind, "--folder", where, "--json")
    assert {Path(file).name for file in json.loads(made.stdout)["files"]} >= {
        "my_fade.py",
        "test_my_fade.py",
        "README.md",
    }
    folder = tmp_path / "my_fade"
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        env=environment(), cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout
    call = ["backtest", "--symbol", "AAAUSDT", "--strategy", str(folder / "my_fade.py"), "--json"]
    digests = {run_digest(*call, "--slices", str(slices), "--no-cache") for slices in (1, 5)}
    if kind == "stateful":
        compile_loops(folder)
        digests.add(run_digest(*call, "--no-cache"))
    assert len(digests) == 1


def run_digest(*call: str) -> str:
    done = run_cli(*call, CANDLEMILL_CLICKHOUSE_DSN=os.environ["CANDLEMILL_CLICKHOUSE_DSN"])
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["result_digest"])


def compile_loops(folder: Path) -> None:
    """As its README says."""
    command = [str(Path(sys.executable).parent / "mypyc"), "my_fade_loops.py"]
    subprocess.run(
        command,
        env=environment(CFLAGS="-ffp-contract=off"),
        cwd=folder,
        capture_output=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert list(folder.glob("my_fade_loops.*.so"))
    found = subprocess.run(
        [sys.executable, "-c", "import my_fade_loops; print(my_fade_loops.__file__)"],
        env={**os.environ, "PYTHONPATH": f"{CORE}{os.pathsep}{folder}"}, capture_output=True, text=True,
        timeout=TIMEOUT, check=True,
    )  # fmt: skip
    assert found.stdout.strip().endswith(".so")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My-Fade", "is not words of two or more letters"),
        ("a_b", "is not words of two or more letters"),
        ("../x", "is not words"),
        ("donchian", "is a built-in strategy's"),
        ("json", "is an installed Python module's"),
        ("there", "is there already"),
    ],
)
def test_names_that_cannot_be(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(BadInput, match=message):
        write_strategy(name, "windowed", tmp_path)
