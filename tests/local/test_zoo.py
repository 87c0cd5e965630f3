"""Strategies that misbehave, on the command line and from Python: a reason within their limits, whatever they do."""

import json
import os
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import candlemill as cm
import pytest
from candlemill.api.results import Run
from candlemill.api.session import Source
from candlemill.errors import BadStrategy, CandlemillError
from candlemill.local import strategy_limits
from candlemill.store import shared_memory
from candlemill.store.candle_reader import CandleReader
from candlemill.strategies import loader
from conftest import run_cli

ZOO = Path(__file__).parents[1] / "support" / "zoo.py"
SECONDS = 3.0

DOWN = r"took its worker process down 2 times: {}"
LATE = r"took longer than 3 s for a task \(zoo.py:\d+\): --strategy-seconds gives it more"
REASONS = {
    "Exits": r"Exits: SystemExit: 0 \(zoo.py:\d+\)",
    "ExitsWithSecret": r"ExitsWithSecret: SystemExit: secret \(zoo.py:\d+\)",
    "Interrupts": r"Interrupts: KeyboardInterrupt:  \(zoo.py:\d+\)",
    "ClosesGenerator": r"ClosesGenerator: GeneratorExit:  \(zoo.py:\d+\)",
    "StopsIteration": r"StopsIteration: StopIteration:  \(zoo.py:\d+\)",
    "Base": r"Base: BaseException: secret \(zoo.py:\d+\)",
    "Leaves": DOWN.format("exit code 0"),
    "Crashes": DOWN.format(r"SIGSEGV \(zoo.py:\d+\)"),
    "Aborts": DOWN.format(r"SIGABRT \(zoo.py:\d+\)"),
    "KillsItself": DOWN.format("killed, perhaps for want of memory"),
    "KillsItsGroup": DOWN.format("SIGTERM"),
    "Loops": LATE,
    "Sleeps": LATE,
    "LoopsInC": LATE,
    "Locks": LATE,
    "IgnoresTerm": LATE,
    "StepsForEver": LATE,
    "Hoards": r"Hoards: \w*MemoryError: ",
    "AsksForTooMuch": r"AsksForTooMuch: \w*MemoryError: ",
    "Recurses": r"Recurses: RecursionError: ",
    "SaysStopped": r"SaysStopped: Stopped: the process ends",
    "SaysCancelled": r"SaysCancelled: Cancelled: ",
    "SaysLater": r"SaysLater: BeingWritten: try again",
    "CannotSay": r"CannotSay: Mute: its text cannot be had",
    "CannotTravel": r"CannotTravel: Unpicklable: secret",
    "NegativeLookback": r"NegativeLookback: lookback\(\) is outside 0 to 100,000,000 decision bars",
    "EndlessLookback": r"EndlessLookback: lookback\(\) is outside 0 to",
    "ExitsInLookback": r"ExitsInLookback: SystemExit: 0",
    "ExitsWhenMade": r"ExitsWhenMade: SystemExit: 0",
    "OddNeeds": r"OddNeeds: TypeError: ",
    "OddArray": r"OddArray: SystemExit: 0",
    "OddDecision": r"OddDecision: positions of shape \(1,\)",
    "OddMemory": r"OddMemory: a memory that is not bytes",
}


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategy_limits, "memory_bytes", lambda: 0)  # so it is the least that a worker gets


@pytest.mark.parametrize("name", REASONS)
def test_each_fails_with_its_reason(name: str, database: Path, small_memory: None) -> None:
    seconds = SECONDS if REASONS[name] == LATE else 300.0
    with pytest.raises(BadStrategy, match=REASONS[name]) as caught:
        cm.backtest("BBBUSDT", f"{ZOO}:{name}", strategy_seconds=seconds, progress=False)
    assert "secret" not in caught.value.public
    assert "secret" not in json.dumps([entry.row.reason for entry in jobs(database)])


def jobs(database: Path) -> list:
    with Source(f"chdb://{database}").runner() as runner:
        return list(runner.store.jobs())


def test_the_command_line_says_what_happened(database: Path) -> None:
    done = run_cli("backtest", "--symbol", "BBBUSDT", "--strategy", f"{ZOO}:ExitsWithSecret", "--json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (2, "bad_strategy")
    assert error["message"].startswith("ExitsWithSecret: SystemExit: secret (zoo.py:"), "the user's own file: its text"


def test_its_limit_is_an_option(database: Path) -> None:
    arguments = ("--symbol", "BBBUSDT", "--strategy", f"{ZOO}:Sleeps", "--strategy-seconds", "1.5")
    done = run_cli("sweep", *arguments, "--grid", "back=1:4")
    assert done.returncode == 2
    assert "sleeps: took longer than 1.5 s for a task (zoo.py:" in done.stderr
    assert run_cli("backtest", *arguments[:-1], "-1").returncode == 2


def digest(found: Run) -> str:
    return str(found.result["result_digest"])


def test_a_tame_one_is_what_it_is_in_this_process(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one worker, in two, and with its code in this process; its trades too."""
    options = {"progress": False, "fresh": True, "stop_loss": "1%"}
    alone = cm.backtest("AAAUSDT", f"{ZOO}:Tame", **options, back=7)
    swept = cm.sweep("AAAUSDT", f"{ZOO}:Tame", **options, slices=6, workers=2, back=[6, 7, 8])
    trades = len(alone.trades)
    monkeypatch.setattr(loader, "is_plugin", lambda name: False)
    here = cm.backtest("AAAUSDT", f"{ZOO}:Tame", **options, back=7)
    assert digest(alone) == digest(here)
    assert digest(here) == digest(swept.run(here.job_id))
    assert trades == len(here.trades) > 0


@pytest.mark.parametrize("lost", [1, 99])
def test_bars_that_no_worker_has_are_shared_for_the_task(
    database: Path, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    """As where an outcome was known, but not from the state that a repair starts from."""
    prefetch, calls = CandleReader.prefetch, iter(range(1000))

    def forgetful(self: CandleReader, *arguments: object) -> None:
        if next(calls) >= lost:
            prefetch(self, *arguments)

    monkeypatch.setattr(CandleReader, "prefetch", forgetful)
    run = partial(cm.backtest, "AAAUSDT", f"{ZOO}:Tame", progress=False, fresh=True, slices=4)
    if lost == 1:
        assert digest(run()) == digest(cm.backtest("AAAUSDT", f"{ZOO}:Tame", progress=False))
    else:
        with pytest.raises(CandlemillError, match="do not fit into the memory"):
            run()


def test_nothing_is_left_behind(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(shared_memory.FOLDER.glob(f"candlemill-{os.getpid()}-*"))
    for name in ("Tame", "Leaves"):
        with suppress(BadStrategy):
            cm.backtest("AAAUSDT", f"{ZOO}:{name}", progress=False)
    assert set(shared_memory.FOLDER.glob(f"candlemill-{os.getpid()}-*")) == before
    assert not list(tmp_path.glob("candlemill-*"))
