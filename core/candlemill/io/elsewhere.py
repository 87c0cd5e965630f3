"""The same decisions in a fresh process, for `candlemill.check`: another clock, environment, hash seed and folder.

The process is this module run as a program: markets come in over stdin, decisions go out over stdout.
"""

import datetime
import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from candlemill.checks.market import COLUMNS, Market
from candlemill.checks.subject import Broken, Params, Refused, Subject
from candlemill.strategies import Strategy

TIMEOUT_SECONDS = 120
LATER_SECONDS = 400 * 86_400 + 7 * 3_600 + 13 * 60  # another year, weekday, hour and minute
KEPT = frozenset({"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP"})
PLUGINS = "candlemill_plugins."  # modules that the loader of files makes


class Question(msgspec.Struct, frozen=True):
    """`where` is FILE.py:CLASS or MODULE:CLASS; a market is its columns' bytes, int64."""

    path: list[str]
    where: str
    params: Params
    k: int
    markets: list[list[bytes]]


class Answer(msgspec.Struct, frozen=True):
    runs: list[tuple[bytes, bytes]] = []
    error: str = ""


def decide(subject: Subject, markets: Sequence[Market]) -> list[tuple[bytes, bytes]] | None:
    """The decisions and the memory for each market; None for a class that only this process can know.

    Raises Broken for what the strategy raises there.
    """
    where = _where(type(subject.strategy))
    if where is None:
        return None
    path = [str(Path(place).resolve()) for place in sys.path]
    columns = [[getattr(market, name).tobytes() for name in COLUMNS] for market in markets]
    question = msgspec.msgpack.encode(Question(path, where, subject.params, subject.k, columns))
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-m", __name__], input=question, env=_environment(path), cwd=folder,
                capture_output=True, timeout=TIMEOUT_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Broken(f"a fresh process has not decided after {TIMEOUT_SECONDS} s") from None
    if done.returncode:
        raise Broken(f"a fresh process ended with {done.returncode}: {_last_line(done.stderr)}")
    answer = msgspec.msgpack.decode(done.stdout, type=Answer)
    if answer.error:
        raise Broken(f"in a fresh process: {answer.error}")
    return answer.runs


def _where(kind: type[Strategy]) -> str | None:
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    if file is None or kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        return None
    if kind.__module__.startswith(PLUGINS):
        return f"{file}:{kind.__name__}"
    return f"{kind.__module__}:{kind.__qualname__}"


def _environment(path: Sequence[str]) -> dict[str, str]:
    """Little of this process's, and what differs from it."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT}
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    return {**kept, "PYTHONPATH": os.pathsep.join(path), "PYTHONHASHSEED": seed, "TZ": "Pacific/Kiritimati"}


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "no word of why"


# -- the other process ---------------------------------------------------------------------------------------------


def main() -> None:
    out = os.dup(1)
    os.dup2(2, 1)  # what the strategy prints is no answer
    question = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Question)
    _move_clock()
    with os.fdopen(out, "wb") as answers:
        answers.write(msgspec.msgpack.encode(_answer(question)))


def _answer(question: Question) -> Answer:
    try:
        strategy = msgspec.convert(question.params, _load(question.where))
        subject = Subject(strategy, question.params, question.k)
        runs = []
        for columns in question.markets:
            market = Market("", *(np.frombuffer(column, dtype=np.int64) for column in columns))
            run = subject.run(market)
            runs.append((run.desired.tobytes(), run.memory))
        return Answer(runs)
    except (Broken, Refused) as error:
        return Answer(error=str(error))
    except Exception as error:
        return Answer(error=f"{type(error).__name__}: {error}")


def _load(where: str) -> type[Strategy]:
    place, _, name = where.rpartition(":")
    if place.endswith(".py"):
        from candlemill.io import plugins
        from candlemill.strategies import REGISTERED

        return REGISTERED[plugins.load(where)]
    found: Any = importlib.import_module(place)
    for part in name.split("."):
        found = getattr(found, part)
    kind: type[Strategy] = found
    return kind


def _move_clock() -> None:
    """Before the strategy is loaded, so that it gets these whichever way it imports them."""
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + LATER_SECONDS
    time.time_ns = lambda: now_ns() + LATER_SECONDS * 10**9
    shift = datetime.timedelta(seconds=LATER_SECONDS)

    class Date(datetime.date):
        @classmethod
        def today(cls) -> "Date":
            return cls.fromtimestamp(time.time())

    class Moment(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Moment":
            return super().now(tz) + shift

        @classmethod
        def today(cls) -> "Moment":
            return cls.now()

        @classmethod
        def utcnow(cls) -> "Moment":
            return cls.now(datetime.UTC).replace(tzinfo=None)

    datetime.date, datetime.datetime = Date, Moment  # type: ignore[misc]


if __name__ == "__main__":
    main()
