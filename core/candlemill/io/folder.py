"""The embedded database's folder: one process at a time, and a clear word for the others."""

import contextlib
import fcntl
import os
import re
from pathlib import Path

from candlemill.errors import DatabaseLocked
from candlemill.io.settings import DSN_VARIABLE


def check_unlocked(folder: Path) -> None:
    """Raise DatabaseLocked if another process holds the lock that the engine is going to take.

    The engine says so too, but on stderr, and without a way out.
    """
    with contextlib.suppress(FileNotFoundError), (folder / "status").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = re.search(r"PID: (\d+)", file.read())
            if owner and int(owner[1]) == os.getpid():
                return
            raise DatabaseLocked(
                f"{folder} is open in {f'process {owner[1]}' if owner else 'another process'}: stop it, or run "
                f"`candlemill db` and set {DSN_VARIABLE} to its address, as in http://127.0.0.1:8123/default"
            ) from None
