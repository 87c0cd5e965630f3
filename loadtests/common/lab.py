"""What load tests share: candles that never were in a store of their own, processes, and what these cost."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "loadtests/results"
SYMBOLS = ("SYNTHUSDT", "DREAMUSDT")
YEAR = 2023
START_SECONDS = 60
STOP_SECONDS = 20
REPORT_SECONDS = 5.0
QUIET_CORES, QUIET_SECONDS = 0.2, 8.0

if str(ROOT / "benchmarks") not in sys.path:
    sys.path.append(str(ROOT / "benchmarks"))  # for what is imported below, where it is needed

Process = subprocess.Popen[bytes]


def environment(dsn: str, **more: str) -> dict[str, str]:
    """This checkout's packages, one database, no proxy, nothing of the caller's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CANDLEMILL_", "OTEL_"))}
    paths = os.pathsep.join(str(ROOT / name) for name in ("core", "benchmarks", "."))
    fixed = {"PYTHONPATH": paths, "CANDLEMILL_CLICKHOUSE_DSN": dsn, "no_proxy": "*", "PYTHONUNBUFFERED": "1"}
    return {**kept, **fixed, **more}


@contextmanager
def process(command: Sequence[str], log: Path, env: Mapping[str, str]) -> Iterator[Process]:
    """A process in a group of its own, which ends at the block's end."""
    with log.open("wb") as out:
        started = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True, cwd=ROOT)
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            started.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def port_in(log: Path, started: Process, scheme: str = "http") -> int:
    """The port that the process says it listens on. Raises SystemExit with its log where it ends or says none."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and started.poll() is None:
        if found := re.search(rf"{scheme}://(?:127\.0\.0\.1|localhost):(\d+)", log.read_text()):
            return int(found[1])
        time.sleep(0.02)
    raise SystemExit(f"{log.name} did not start: {log.read_text()[-2000:]}")


@contextmanager
def serving(dsn: str, folder: Path) -> Iterator[tuple[Process, int]]:
    """`candlemill serve` on a free port of this machine."""
    log = folder / "serve.log"
    command = [sys.executable, "-m", "candlemill", "serve", "--host", "127.0.0.1", "--port", "0"]
    with process(command, log, environment(dsn)) as started:
        yield started, port_in(log, started)


@contextmanager
def database(folder: Path) -> Iterator[tuple[Process, str]]:
    """`candlemill db` on an embedded store's folder, and its DSN: what several processes share."""
    log = folder.parent / "db.log"
    command = [sys.executable, "-m", "candlemill", "db", "--port", "0"]
    with process(command, log, environment(f"chdb://{folder}")) as started:
        yield started, f"http://127.0.0.1:{port_in(log, started)}/default"


def cli(dsn: str, *arguments: str) -> dict[str, Any]:
    """What `candlemill … --json` answers. Raises SystemExit with its error."""
    command = [sys.executable, "-m", "candlemill", *arguments, "--json"]
    done = subprocess.run(command, env=environment(dsn), capture_output=True, check=False, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.decode()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def store_candles(dsn: str, folder: Path, symbols: Sequence[str], year: int, years: int = 1, months: int = 12) -> int:
    """Synthetic candles into a store; how many."""
    from data import synthetic

    zips = folder / "zips"
    zips.mkdir(parents=True)
    for seed, symbol in enumerate(symbols, 1):
        price = 30_000.0
        for number in range(year, year + years):
            candles = synthetic.year(seed, number, price)
            price = int(candles["close"][-1]) / 10**8
            for month in range(1, months + 1):
                synthetic.write_month(zips, symbol, number, month, candles)
    return int(cli(dsn, "ingest", str(zips))["stored"])


def cpu_seconds(*roots: int) -> float:
    """CPU time that processes and all below them have used; those that have ended count where a parent waited."""
    total = 0.0
    for root in roots:
        with suppress(psutil.Error):
            top = psutil.Process(root)
            for one in (top, *top.children(recursive=True)):
                with suppress(psutil.Error):
                    spent = one.cpu_times()
                    total += spent.user + spent.system + spent.children_user + spent.children_system
    return total


def memory_mb(root: int) -> float:
    """Resident, of the largest of a process and those below it."""
    top = psutil.Process(root)
    return float(max(one.memory_info().rss for one in (top, *top.children(recursive=True)))) / 1e6


class Busy:
    """How many cores' worth of CPU time the whole machine, and groups of processes, used since this was made."""

    def __init__(self, **groups: int) -> None:
        self._groups = groups
        self._before = {name: cpu_seconds(pid) for name, pid in groups.items()}
        self._machine = _machine_seconds()
        self._began = time.monotonic()

    def cores(self) -> dict[str, float]:
        """By group; `others` is what nobody of them used: other people's work on the same machine."""
        passed = time.monotonic() - self._began
        used = {name: cpu_seconds(pid) - self._before[name] for name, pid in self._groups.items()}
        used["others"] = max(0.0, _machine_seconds() - self._machine - sum(used.values()))
        return {name: round(seconds / passed, 3) for name, seconds in used.items()}


def quiet(patience: float = QUIET_SECONDS) -> float:
    """Wait until nobody uses more than a little of the machine, or patience ends; the cores that are used then."""
    deadline = time.monotonic() + patience
    while True:
        before = _machine_seconds()
        time.sleep(1.0)
        used = _machine_seconds() - before
        if used < QUIET_CORES or time.monotonic() > deadline:
            return used


def _machine_seconds() -> float:
    """CPU time of the whole machine that was not idle."""
    spent = psutil.cpu_times()
    idle = spent.idle + getattr(spent, "iowait", 0.0)
    guests = getattr(spent, "guest", 0.0) + getattr(spent, "guest_nice", 0.0)  # in user and nice already
    return float(sum(spent) - idle - guests)


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    import measure

    return {**measure.machine(), "load": [round(one, 2) for one in os.getloadavg()]}


class Line:
    """One line that says how things go: rewritten on a terminal, said now and then anywhere else."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._said = float("-inf")

    def say(self, text: str) -> None:
        now = time.monotonic()
        if self._terminal:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        elif now - self._said >= REPORT_SECONDS:
            self._said = now
            print(text, file=sys.stderr, flush=True)

    def end(self, text: str) -> None:
        print(f"\r\033[K{text}" if self._terminal else text, file=sys.stderr, flush=True)
