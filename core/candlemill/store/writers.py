"""Names of processes that write candles; other processes of the machine can check whether they still run."""

import contextlib
import os
import secrets
import socket
from pathlib import Path


def writer_name() -> str:
    """Name of this process: machine, process id, start time and a random token."""
    return "|".join((_machine(), str(os.getpid()), _started(os.getpid()), secrets.token_hex(4)))


def has_ended(name: str) -> bool:
    """Whether the process has certainly ended; False for processes of other machines."""
    machine, pid, started, *_ = (*name.split("|"), "", "")
    return machine == _machine() and bool(started) and _started(int(pid)) != started


def _machine() -> str:
    """Host, boot id and process id namespace; a random text without Linux's /proc."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()}/{boot}/{Path('/proc/self/ns/pid').readlink()}"
    return secrets.token_hex(8)


def _started(pid: int) -> str:
    """Start time of a process in kernel ticks; empty if it does not run."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    return ""
