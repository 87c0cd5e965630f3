"""Check of the lock of the embedded database's folder, which only one process can open."""

import contextlib
import fcntl
import os
import re
from pathlib import Path

from candlemill.config import DSN_VARIABLE
from candlemill.errors import DatabaseLocked


def check_unlocked(folder: Path) -> None:
    """Raise DatabaseLocked if another process holds the engine's lock.

    The engine would report it only on stderr, without a way out.
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
