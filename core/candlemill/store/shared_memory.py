"""Segments of shared memory, named by their process, so that segments of killed processes can be found."""

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path("/dev/shm")  # shared memory of Linux
_NAME = re.compile(r"candlemill-(\d+)-[0-9a-f]+\Z")


def new_name() -> str:
    return f"candlemill-{os.getpid()}-{secrets.token_hex(4)}"


def orphans() -> Iterator[tuple[str, int]]:
    """Yield name and size in bytes of segments whose process has ended. Yields none if FOLDER does not exist."""
    for path in sorted(FOLDER.glob("candlemill-*")) if FOLDER.is_dir() else ():
        found = _NAME.match(path.name)
        if found is not None and not _is_alive(int(found[1])):
            with contextlib.suppress(FileNotFoundError):
                yield path.name, path.stat().st_size


def sweep() -> None:
    """Remove the segments of processes that were killed."""
    for name, _ in orphans():
        remove(name)


def remove(name: str) -> None:
    (FOLDER / name).unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
