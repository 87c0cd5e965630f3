"""What is killed: the command line, `serve` with a user, `db` with two writers. Each is a function of a fork.

All run until they are killed, with what they have started. `serve` and `db` are also killed alone and started again.
"""

import http.client
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, NoReturn

from candlemill.cli import main as cli
from candlemill.config import DSN_VARIABLE

from loadtests.common.ports import free_port

COMMANDS: list[tuple[str, ...]] = [
    ("backtest", "--symbol", "AAAUSDT", "--strategy", "sma_cross", "--slices", "4"),
    ("backtest", "--symbol", "BBBUSDT", "--strategy", "momentum_v1", "--account", "units", "--stop-loss", "1%"),
    ("sweep", "--symbol", "AAAUSDT", "--strategy", "sma_cross", "--grid", "fast=2:5", "--grid", "slow=30:33"),
    ("backtest", "--symbol", "AAAUSDT", "--strategy", "grid", "--param", "spacing=1500"),
]
BODIES: list[dict[str, Any]] = [
    {"symbol": "AAAUSDT", "strategy": "sma_cross", "slices": 4},
    {"symbol": "BBBUSDT", "strategy": "momentum_v1", "account": "units", "stop_loss": "1%"},
    {"symbol": "AAAUSDT", "strategy": "sma_cross", "grid": {"fast": "2:5", "slow": "30:33"}},
    {"symbol": "AAAUSDT", "strategy": "grid", "params": {"spacing": 1500}},
]
ENDED = ("done", "failed", "cancelled")
TICKS = os.sysconf("SC_CLK_TCK")


def shift_clocks(seconds: int) -> None:
    """Set the wall clock of this process, as far as Python reads it."""
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + seconds * 10**9


def fill_disk(chance: Random) -> None:
    """Let no file grow beyond a size, as on a disk that is nearly full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = chance.randint(1_000, 200_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def quietly(dsn: str, *arguments: str) -> int:
    """A command in this process, of which nothing is printed."""
    os.environ[DSN_VARIABLE] = dsn
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    return cli.main([*arguments])


def forked(work: Callable[[], object]) -> int:
    """The pid of a process of this group that does it."""
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            work()
        os._exit(0)
    return pid


def outlived(pid: int, seconds: float) -> bool:
    """Wait until a child has computed for `seconds`, or five times as long has passed; return whether it lives.

    CPU seconds, so that on a busy machine it is killed at the same places as on an idle one.
    """
    end = time.monotonic() + 5 * seconds
    stat = Path(f"/proc/{pid}/stat")
    while time.monotonic() < end:
        state, *fields = stat.read_text().rpartition(")")[2].split()
        if state == "Z":
            return False
        if sum(map(int, fields[10:12])) / TICKS >= seconds:  # utime and stime
            break
        time.sleep(0.005)
    return True


def ask(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, json.dumps(body) if body else None)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    finally:
        connection.close()


def commands(dsn: str, market: Path, chance: Random) -> None:
    """Ingest, repair and compute, one after the other."""
    for _ in range(20):
        command = chance.choice([("ingest", str(market)), ("doctor", "--repair"), *COMMANDS, *COMMANDS])
        more = ("--no-cache",) if command in COMMANDS and chance.random() < 0.5 else ()
        with suppress(SystemExit):
            quietly(dsn, *command, *more, "--json")


def user(port: int, right: dict[str, str], wrong: Path, chance: Random) -> None:
    """Request, look at, cancel and remove jobs; note each wrong figure."""
    known: list[str] = []
    while True:
        with suppress(OSError, http.client.HTTPException, ValueError):
            action = chance.random()
            if action < 0.4 or not known:
                body = chance.choice(BODIES) | ({"fresh": True} if chance.random() < 0.5 else {})
                status, found = ask(port, "POST", "/api/v1/backtest", body)
                known += [found["job_id"]] if status in (200, 202) else []
            elif action < 0.5:
                ask(port, chance.choice(("POST", "DELETE")), f"/api/v1/backtest/{chance.choice(known)}/cancel")
            elif action < 0.55:
                ask(port, "DELETE", f"/api/v1/backtest/{chance.choice(known)}")
            else:
                _, found = ask(port, "GET", f"/api/v1/backtest/{chance.choice(known)}")
                digest = ((found or {}).get("result") or {}).get("result_digest")
                if digest and right.get(found["job_id"], digest) != digest:
                    with wrong.open("a") as file:
                        file.write(json.dumps(found)[:300] + "\n")
        time.sleep(0.02)


def kill_again_and_again(folder: Path, name: str, port: int, chance: Random) -> NoReturn:
    """Start this service and kill it or ask it to end; `kills` beside the folder gets a line for each."""
    while True:
        server = forked(lambda: quietly(f"chdb://{folder}", name, "--port", str(port)))
        if outlived(server, chance.uniform(0.2, 3)):
            kind = chance.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
            os.kill(server, kind)
            with folder.with_name("kills").open("a") as file:
                file.write(f"{name} itself {kind.name}\n")
        os.waitpid(server, 0)


def serve(folder: Path, right: dict[str, str], wrong: Path, chance: Random) -> NoReturn:
    port = free_port()
    forked(lambda: user(port, right, wrong, chance))
    kill_again_and_again(folder, "serve", port, chance)


def db(folder: Path, market: Path, chance: Random) -> NoReturn:
    port = free_port()
    for seed in (chance.random(), chance.random()):
        forked(lambda: commands(f"http://127.0.0.1:{port}/default", market, Random(seed)))  # noqa: B023
    kill_again_and_again(folder, "db", port, chance)


def unfinished(folder: Path, seconds: float) -> list[str]:
    """Start `serve` and wait for the jobs that are left; return those that do not end. The process ends then."""
    port = free_port()
    server = forked(lambda: quietly(f"chdb://{folder}", "serve", "--port", str(port)))
    end, left = time.monotonic() + seconds, ["serve does not answer"]
    while left and time.monotonic() < end:
        time.sleep(0.2)
        with suppress(OSError, http.client.HTTPException, ValueError):
            status, found = ask(port, "GET", "/api/v1/backtests?limit=200")
            left = [f"{job['job_id']} is {job['state']}" for job in found["items"] if job["state"] not in ENDED]
            assert status == 200, found
    os.kill(server, signal.SIGTERM)
    os.waitpid(server, 0)
    return left
