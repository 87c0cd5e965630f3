"""What ends a process, and what it leaves: a crash, Ctrl-C while modules are imported, a killed group."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from candlemill.store import shared_memory
from conftest import Cli, environment

ABORTS = """
import os
from candlemill.config import dsn
from candlemill.store.clickhouse import ClickHouseStore
with ClickHouseStore(dsn()) as store:
    store.symbols()
    os.kill(os.getpid(), {number})
    print("still here")
"""
# Ctrl-C when the command line's first module is looked for, as an import in a slow folder gives time for.
INTERRUPTED = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "candlemill.cli.main":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from candlemill.__main__ import run
sys.exit(run())
"""
KILLED = """
import os, signal
from multiprocessing.shared_memory import SharedMemory
from candlemill.store.shared_memory import new_name
memory = SharedMemory(new_name(), create=True, size=1 << 20)
print(memory.name, flush=True)
os.killpg(0, signal.SIGKILL)
"""


def python(code: str, **more: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, check=False, **more)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("name", ["SIGABRT", "SIGSEGV", "SIGBUS"])
def test_a_crash_ends_the_process(database: Path, name: str) -> None:
    """The embedded database's own handlers would have it wait for ever."""
    number = signal.Signals[name]
    assert python(ABORTS.format(number=int(number))).returncode == -number


def test_ctrl_c_while_modules_are_imported_leaves_no_traceback() -> None:
    done = python(INTERRUPTED)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_shared_memory_of_a_killed_group_is_swept_at_the_next_start(database: Path, run: Cli) -> None:
    name = python(KILLED, start_new_session=True).stdout.strip()
    assert name.startswith("candlemill-") and name in dict(shared_memory.orphans())
    own = shared_memory.FOLDER / f"candlemill-{os.getpid()}-00000000"
    own.touch()
    try:
        assert run("results")[0] == 0
        assert name not in dict(shared_memory.orphans()) and own.exists(), "those of living processes stay"
    finally:
        own.unlink()
