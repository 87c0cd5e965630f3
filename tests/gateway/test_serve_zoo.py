"""`candlemill serve` with an operator's folder of strategies that misbehave: every other job goes on."""

import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from candlemill.config import STRATEGIES_VARIABLE

from gateway.conftest import Gateway, serving

ZOO = Path(__file__).parents[1] / "support" / "zoo.py"
ON_LOADING = {
    "loads_for_ever.py": "while True:\n    pass\n",
    "leaves_on_loading.py": "import os\nos._exit(0)\n",
    "exits_on_loading.py": "import sys\nsys.exit(0)\n",
}
MORE = '''
class LoopsInLookback(Tame, frozen=True):
    def lookback(self) -> int:
        while True:
            pass


class LeavesWhenMade(Tame, frozen=True):
    def __post_init__(self) -> None:
        os._exit(0)


class LoopsOnceTraded(Tame, frozen=True):
    """Decides once, and never again."""

    def positions(self, bars: Bars) -> Any:
        place = os.environ["CANDLEMILL_TEST_MARK"]
        if os.path.exists(place):
            time.sleep(3600)
        open(place, "w").close()
        return bars.close > bars.open
'''
GOOD: dict[str, Any] = {"symbol": "AAAUSDT", "strategy": "sma_cross", "params": {"fast": 5, "slow": 30}}
# What ends a lane, a process, or nothing at all; tests/local/test_zoo.py has the others.
ENDED = {
    "exits_with_secret": r"^ExitsWithSecret: SystemExit \(zoo.py:\d+\)$",
    "interrupts": r"^Interrupts: KeyboardInterrupt \(zoo.py:\d+\)$",
    "closes_generator": r"^ClosesGenerator: GeneratorExit \(zoo.py:\d+\)$",
    "says_stopped": r"^SaysStopped: Stopped \(zoo.py:\d+\)$",
    "says_cancelled": r"^SaysCancelled: Cancelled \(zoo.py:\d+\)$",
    "leaves": "^leaves: took its worker process down 2 times: exit code 0$",
    "crashes": r"^crashes: took its worker process down 2 times: SIGSEGV \(zoo.py:\d+\)$",
    "kills_its_group": "^kills_its_group: took its worker process down 2 times: SIGTERM$",
    "loops": r"^loops: took longer than 2 s for a task \(zoo.py:\d+\)",
    "ignores_term": r"^ignores_term: took longer than 2 s for a task \(zoo.py:\d+\)",
}


@pytest.fixture
def folder(stored_market: Path, tmp_path: Path) -> Path:
    strategies = tmp_path / "strategies"
    strategies.mkdir()
    (strategies / "zoo.py").write_text(ZOO.read_text() + MORE)
    shutil.copytree(stored_market, tmp_path / "db", symlinks=True)
    return tmp_path


def served(folder: Path, seconds: str) -> Any:
    variables = {STRATEGIES_VARIABLE: str(folder / "strategies"), "CANDLEMILL_TEST_MARK": str(folder / "mark")}
    return serving(folder / "db", "--strategy-seconds", seconds, **variables)


def ask(name: str) -> dict[str, Any]:
    return {"symbol": "BBBUSDT", "strategy": name}


def test_each_job_fails_and_every_other_goes_on(folder: Path) -> None:
    with served(folder, "2") as gateway:
        jobs = {}
        for number, name in enumerate(ENDED):
            jobs[name] = gateway.submit(**ask(name))["job_id"]
            good = {**GOOD, "params": {"fast": 5, "slow": 30 + number}}
            assert gateway.finish(**good)["state"] == "done", name
        for name, job_id in jobs.items():
            job = gateway.wait(job_id)
            assert job["state"] == "failed"
            assert re.search(ENDED[name], job["reason"]), job["reason"]
        assert gateway.finish(**ask("tame"))["state"] == "done"
        assert any("ExitsWithSecret: SystemExit: secret" in line for line in gateway.log), "the log has it in full"
        assert gateway.process.poll() is None
    assert gateway.process.returncode == 0


def test_what_plans_go_by_is_found_out_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(folder, "600") as gateway:
        for name, words in {
            "leaves_when_made": "took its worker process down 2 times: exit code 0",
            "exits_in_lookback": "ExitsInLookback: SystemExit (zoo.py:",
            "loops_in_lookback": "loops_in_lookback: took longer than 10 s",
        }.items():
            status, _, problem = gateway.ask("POST", "/api/v1/backtest", ask(name))
            assert status == 422 and words in problem["detail"], problem
            assert gateway.finish(**GOOD)["state"] == "done"


def test_a_job_without_end_is_cancelled_and_ends_with_the_process(folder: Path) -> None:
    with served(folder, "600") as gateway:
        first = gateway.submit(**ask("loops"))["job_id"]
        wait_for_worker(gateway)
        behind = gateway.submit(**GOOD)["job_id"]
        status, _, _ = gateway.ask("POST", f"/api/v1/backtest/{first}/cancel")
        assert status == 202
        assert gateway.wait(behind)["state"] == "done", "the lane is free again"
        assert gateway.get(f"/api/v1/backtest/{first}")["state"] == "cancelled"
        second = gateway.submit(**ask("ignores_term"))["job_id"]
        wait_for_worker(gateway)
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(300) == 0
    with served(folder, "2") as gateway:  # what was stopped goes on, and comes to its end
        assert gateway.wait(second)["state"] == "failed"


def wait_for_worker(gateway: Gateway) -> None:
    """Until a job's worker process is there, beside the one that describes strategies and multiprocessing's tracker."""
    end = time.monotonic() + 300
    while len(children(gateway.process.pid)) < 3:
        assert time.monotonic() < end, children(gateway.process.pid)
        time.sleep(0.1)


def children(pid: int) -> list[str]:
    """Of all threads."""
    return [one for file in Path(f"/proc/{pid}/task").glob("*/children") for one in file.read_text().split()]


def test_the_replay_of_a_run_has_the_same_limits(folder: Path) -> None:
    with served(folder, "2") as gateway:
        job = gateway.finish(**ask("loops_once_traded"))
        assert job["state"] == "done", job
        status, _, problem = gateway.ask("GET", f"/api/v1/backtest/{job['job_id']}/trades")
        assert status == 422 and "took longer than 2 s for a task" in problem["detail"], problem
        assert gateway.finish(**GOOD)["state"] == "done"


def test_files_that_cannot_be_loaded_are_left_out(folder: Path) -> None:
    for name, text in ON_LOADING.items():
        (folder / "strategies" / name).write_text(text)
    with served(folder, "2") as gateway:
        assert gateway.finish(**ask("tame"))["state"] == "done"
        said = "".join(gateway.log)
    for name in ON_LOADING:
        assert name in said
