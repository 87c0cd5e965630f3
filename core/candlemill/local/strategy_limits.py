"""Time and memory limits of strategies from files; a worker process writes a report when it breaks one.

The timer runs in C (`faulthandler`), so an endless loop cannot delay it; before it ends the process it writes the line
that was running. This protects against mistakes, not against an attacker: a user who may load strategies may run any
code.
"""

import faulthandler
import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import msgspec

from candlemill.config import memory_bytes
from candlemill.strategies.registry import origin

SECONDS_MIN = 60.0  # for a task, by default
SECONDS_PER_BAR = 0.001  # for each parameter set: hundreds of times what a loop in Python takes
MEMORY_MIN = 256 << 20
START_SECONDS = 60.0  # for the start of a worker, on a busy machine
FALLS = 2  # deaths of a job's worker processes until it fails: the first may have had another cause

_FRAME = re.compile(r'File "(.+)", line (\d+)')
_TIMEOUT = "Timeout ("  # start of faulthandler's report


class Limits(msgspec.Struct, frozen=True):
    """Limits of a strategy's code: `seconds` for a task (None: by its bars) and `memory` in bytes for a process.
    Workers write their reports into `folder`."""

    strategy: str
    origin: str
    seconds: float | None
    memory: int
    folder: str

    def seconds_for(self, bars: int) -> float:
        return self.seconds or SECONDS_MIN + SECONDS_PER_BAR * bars


def limits_of(strategy: str, seconds: float | None, workers: int, folder: str) -> Limits:
    """Return the limits of `workers` processes that share half of the machine's memory."""
    memory = max(MEMORY_MIN, memory_bytes() // 2 // workers)
    return Limits(strategy, origin(strategy), seconds, memory, folder)


# -- in a worker ---------------------------------------------------------------------------------------------------

_report: IO[str] | None = None  # stays open: a crash is written to it


def begin(limits: Limits) -> None:
    """Limit this process to its share of memory, and redirect a strategy's prints to stderr."""
    global _report
    if _report is not None:
        return
    _report = (Path(limits.folder) / str(os.getpid())).open("w")
    faulthandler.enable(_report)
    os.dup2(2, 1)
    with suppress(OSError):
        os.setpgrp()  # own process group: processes that a strategy starts end with this one
    with suppress(ImportError, OSError, ValueError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        allowed = _data_bytes() + limits.memory
        resource.setrlimit(resource.RLIMIT_DATA, (allowed if most < 0 else min(allowed, most), most))


def _data_bytes() -> int:
    """Return this process's private memory in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmData")


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Context that ends this process after `seconds`; 0: no limit."""
    if not seconds or _report is None:
        yield
        return
    faulthandler.dump_traceback_later(seconds, exit=True, file=_report)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


# -- what became of workers ----------------------------------------------------------------------------------------


class Report(msgspec.Struct, frozen=True):
    """Report on ended worker processes: whether one took too long, its last line, and its exit code or signal."""

    is_late: bool
    place: str
    how: str


def report_of(limits: Limits, exit_codes: Sequence[int | None]) -> Report:
    """Return the report on a job's ended workers, and delete the files that they wrote."""
    texts = []
    for path in sorted(Path(limits.folder).iterdir()):
        texts.append(path.read_text(errors="replace"))
        path.unlink()
    texts.sort(key=lambda text: _TIMEOUT not in text)
    place = next((found for text in texts if (found := _place(limits, text))), "")
    ended = [code for code in exit_codes if code is not None]
    own = [code for code in ended if code != -signal.SIGTERM] or ended  # the executor terminates the others
    return Report(any(_TIMEOUT in text for text in texts), place, _how(own[0]) if own else "no exit code")


def _place(limits: Limits, text: str) -> str:
    """Return the innermost line of the strategy's own file in a report, else the innermost of all."""
    frames = _FRAME.findall(text)
    file, line = next((one for one in frames if one[0] == limits.origin), frames[0] if frames else ("", ""))
    return f"{file.rsplit('/', 1)[-1]}:{line}" if file else ""


def _how(code: int) -> str:
    if code == -signal.SIGKILL:
        return "killed, perhaps for want of memory"
    with suppress(ValueError):
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"signal {-code}"
