"""Runs a strategy in a fresh process for `candlemill.check`, with other times, environment, hash seed and folder.

The process runs this module as a program. It reads markets from stdin and writes decisions to stdout.
"""

import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from candlemill.checks.hidden_state import Answers, Decider
from candlemill.checks.markets import COLUMNS, Market
from candlemill.checks.moved_clock import MovedClock, moments
from candlemill.checks.orders import OrderSubject
from candlemill.checks.subject import Broken, Params, Refused, Subject
from candlemill.strategies import OrderStrategy, Strategy, Weighted
from candlemill.units import iso

TIMEOUT_SECONDS: Final = 120
MOMENTS_CPU_SECONDS: Final = 2.0  # limit for runs at other times; enough for all of them if the strategy is fast
MOMENTS_SECONDS: Final = 20.0  # the same by the clock, for strategies that wait
MOMENTS_MIN: Final = 2  # minimum number of other times, also for slow strategies
KEPT: Final = frozenset(
    {"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP"}
)
PLUGINS: Final = "candlemill_plugins."  # prefix of the modules that strategies.loader creates


class DecisionRequest(msgspec.Struct, frozen=True):
    """The request to the fresh process.

    `where` is FILE.py:CLASS or MODULE:CLASS, `now_ms` the time of the parent process; a market is the bytes of its
    columns, int64.
    """

    path: list[str]
    where: str
    params: Params
    k: int
    now_ms: int
    markets: list[list[bytes]]


class Reply(msgspec.Struct, frozen=True):
    """The reply of the fresh process: its results or its error."""

    found: Answers | None = None
    error: str = ""


def decide(subject: Decider, markets: Sequence[Market]) -> Answers | str:
    """Return the decisions for each market in a fresh process, or the reason (text) why this is impossible.

    Raises Broken if the strategy raises there.
    """
    where = _where(type(subject.strategy))
    if where is None:
        return "a fresh process cannot find this class: put it into a file"
    path = [str(Path(place).resolve()) for place in sys.path]
    columns = [[getattr(market, name).tobytes() for name in COLUMNS] for market in markets]
    request = DecisionRequest(path, where, subject.params, subject.k, time.time_ns() // 1_000_000, columns)
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-m", __name__], input=msgspec.msgpack.encode(request), env=_environment(path),
                cwd=folder, capture_output=True, timeout=TIMEOUT_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"a fresh process has not decided after {TIMEOUT_SECONDS} s"
    if done.returncode:
        raise Broken(f"a fresh process ended with {done.returncode}: {_last_line(done.stderr)}")
    reply = msgspec.msgpack.decode(done.stdout, type=Reply)
    if reply.found is None:
        raise Broken(f"in a fresh process: {reply.error}")
    return reply.found


def _where(kind: type[Strategy]) -> str | None:
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    if file is None or kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        return None
    if kind.__module__.startswith(PLUGINS):
        return f"{file}:{kind.__name__}"
    return f"{kind.__module__}:{kind.__qualname__}"


def _environment(path: Sequence[str]) -> dict[str, str]:
    """Return the environment of the fresh process: a few variables of this one, and some with other values."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT}
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    return {**kept, "PYTHONPATH": os.pathsep.join(path), "PYTHONHASHSEED": seed, "TZ": "Pacific/Kiritimati"}


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "no word of why"


# -- the other process ---------------------------------------------------------------------------------------------


def main() -> None:
    out = os.dup(1)
    os.dup2(2, 1)  # stdout carries only the reply: the strategy's prints go to stderr
    request = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=DecisionRequest)
    reply = _reply(request)
    with os.fdopen(out, "wb") as answers:
        answers.write(msgspec.msgpack.encode(reply))


def _reply(request: DecisionRequest) -> Reply:
    used, seconds = time.process_time, time.monotonic  # the original functions, which `install` does not change
    clock = MovedClock()
    clock.install()  # before the strategy is loaded, so that every kind of import gets the wrapped functions
    clock.move_to(request.now_ms, 0)
    moment = None
    tried = 0
    try:
        runs = _runs(request)
        used_end, end = used() + MOMENTS_CPU_SECONDS, seconds() + MOMENTS_SECONDS
        for moment in moments():
            if tried >= MOMENTS_MIN and (used() > used_end or seconds() > end):
                break
            tried += 1
            clock.move_to(moment, tried)
            other = _runs(request)
            if other != runs:
                return Reply(Answers(runs, tried, moment, other))
        return Reply(Answers(runs, tried))
    except (Broken, Refused) as error:
        text = str(error)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    return Reply(error=text if moment is None else f"at {iso(moment)}: {text}")


def _runs(request: DecisionRequest) -> list[tuple[bytes, bytes]]:
    """Reload the strategy's own code, because it may read the clock on import, and run it. Libraries stay loaded."""
    strategy = msgspec.convert(request.params, _load(request.where))
    subject: Subject | OrderSubject = Subject(strategy, request.params, request.k)
    if isinstance(strategy, OrderStrategy | Weighted):
        subject = OrderSubject(strategy, request.params, request.k, 0)
    markets = (Market("", *(np.frombuffer(column, dtype=np.int64) for column in found)) for found in request.markets)
    return list(map(subject.answer, markets))


def _load(where: str) -> type[Strategy]:
    place, _, name = where.rpartition(":")
    if place.endswith(".py"):
        from candlemill.strategies import REGISTERED, loader

        return REGISTERED[loader.load(where)]
    sys.modules.pop(place, None)
    found: Any = importlib.import_module(place)
    for part in name.split("."):
        found = getattr(found, part)
    kind: type[Strategy] = found
    return kind


if __name__ == "__main__":
    main()
