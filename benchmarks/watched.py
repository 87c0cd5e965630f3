"""Run `candlemill sweep` and watch it from outside: its progress bar, the memory of its processes, an interruption."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOOK_SECONDS = 0.5
BAR = re.compile(rb"\| ([\d,]+)/([\d,]+) \[")  # of tqdm: tasks done and known
PROC = Path("/proc")


@dataclass
class Look:
    """What was seen at a time: tasks done and known, and the memory of the largest process."""

    seconds: float
    done: int
    known: int
    bytes: int


@dataclass
class Watched:
    """A run that has ended. `peak` is the memory in bytes of the largest process at its largest."""

    status: int
    seconds: float
    cpu_seconds: float
    peak: int
    answer: dict[str, Any]
    errors: str
    looks: list[Look] = field(repr=False)

    @property
    def tasks(self) -> tuple[int, int]:
        """Tasks done and known when the bar was seen last."""
        seen = [look for look in self.looks if look.known]
        return (seen[-1].done, seen[-1].known) if seen else (0, 0)

    def growth(self) -> int:
        """The largest memory in the last third of the run's time less that in the second third, in bytes."""
        end = self.looks[-1].seconds if self.looks else 0.0
        thirds = [[0], [0], [0]]
        for look in self.looks:
            thirds[min(2, int(3 * look.seconds / end)) if end else 0].append(look.bytes)
        return max(thirds[2]) - max(thirds[1])

    def deviation(self) -> float:
        """The most by which the share of tasks that the bar shows differs from the share of time, from the first task
        on."""
        seen = [look for look in self.looks if look.done]
        if len(seen) < 2 or seen[-1].done == seen[0].done:
            return 0.0
        first, last = seen[0], seen[-1]
        return max(
            abs(
                (one.done - first.done) / (last.done - first.done)
                - (one.seconds - first.seconds) / (last.seconds - first.seconds)
            )
            for one in seen
        )


def watch(command: Sequence[str], env: dict[str, str], stop_at: float | None = None) -> Watched:
    """Run a command with its stderr on a terminal; send it SIGINT when this share of its tasks is done."""
    terminal, stderr = pty.openpty()
    termios.tcsetwinsize(stderr, (24, 120))
    begin = time.monotonic()
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True)
    os.close(stderr)
    assert process.stdout is not None
    streams = {terminal: b"", process.stdout.fileno(): b""}
    looks: list[Look] = []
    peak = done = known = 0
    interrupted = False
    looked = begin
    open_streams = set(streams)
    while open_streams:
        for stream in select.select(list(open_streams), [], [], LOOK_SECONDS)[0]:
            try:
                piece = os.read(stream, 1 << 16)
            except OSError:  # a terminal whose other end is closed
                piece = b""
            streams[stream] = streams[stream][-4096:] + piece if stream == terminal else streams[stream] + piece
            if not piece:
                open_streams.discard(stream)
        if found := BAR.findall(streams[terminal]):
            done, known = (int(number.replace(b",", b"")) for number in found[-1])
        if time.monotonic() - looked >= LOOK_SECONDS:
            looked = time.monotonic()
            now, most = memory_of(process.pid)
            peak = max(peak, most)
            looks.append(Look(looked - begin, done, known, now))
            if stop_at is not None and not interrupted and known and done >= stop_at * known:
                process.send_signal(signal.SIGINT)
                interrupted = True
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    out = streams[process.stdout.fileno()]
    os.close(terminal)
    process.stdout.close()
    return Watched(
        process.returncode, time.monotonic() - begin, used.ru_utime + used.ru_stime, peak,
        json.loads(out.splitlines()[-1]) if out.strip() else {}, streams[terminal].decode(errors="replace"), looks,
    )  # fmt: skip


def memory_of(pid: int) -> tuple[int, int]:
    """Return the memory of the largest process, of this one and those that it started: now, and at its largest."""
    now = most = 0
    for one in (pid, *_children(pid)):
        try:
            status = (PROC / str(one) / "status").read_text()
        except OSError:  # it has ended
            continue
        sizes = {name: int(kb) << 10 for name, kb in re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", status, re.MULTILINE)}
        now, most = max(now, sizes.get("VmRSS", 0)), max(most, sizes.get("VmHWM", 0))
    return now, most


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for listed in (PROC / str(pid) / "task").glob("*/children"):
        try:
            children = [int(child) for child in listed.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *_children(child)]
    return found
