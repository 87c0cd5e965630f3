"""API keys. A file has their SHA-256 hashes, one `NAME SHA256` a line; the keys themselves are not stored."""

import hashlib
import hmac
import logging
import re
import secrets
import threading
from pathlib import Path

from candlemill.errors import BadInput
from candlemill.gateway.problems import KeysUnreadable, NoAccess

LINE = re.compile(r"([\w.@-]{1,64})\s+([0-9a-f]{64})")
PREFIX = "cm_"

log = logging.getLogger("candlemill.gateway")


def make_key(name: str) -> tuple[str, str]:
    """Create a key; return it and its line for the key file. A key has 256 random bits, so a slow hash is not
    needed."""
    if not LINE.fullmatch(f"{name} {'0' * 64}"):
        raise BadInput(f"{name!r} is not a name of letters, digits, '.', '@', '-' and '_'")
    key = PREFIX + secrets.token_urlsafe(32)
    return key, f"{name} {_digest(key)}"


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class ApiKeys:
    """Keys of a file, read again when it changes: a mounted secret is replaced in place. While the file cannot be read,
    the last keys stay valid."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises BadInput for a file that cannot be read or has no key."""
        self._path = path
        self._lock = threading.Lock()
        self._changed = -1
        self._problem = ""
        self._names: dict[str, str] = {}
        self._read_if_changed()

    def name_of(self, key: str) -> str:
        """Return the name of a key's owner. Raises NoAccess for an unknown key, KeysUnreadable if the file is broken
        and may contain the key."""
        self._refresh()
        digest = _digest(key)
        found = [name for known, name in self._names.items() if hmac.compare_digest(known, digest)]
        if not found and self._problem:
            raise KeysUnreadable("the keys cannot be read now, those known before go on: its log says why")
        if not found:
            raise NoAccess("the key is not known: `candlemill key NAME` makes one")
        return found[0]

    def _refresh(self) -> None:
        with self._lock:
            try:
                self._read_if_changed()
                problem = ""
            except BadInput as error:
                problem = str(error)
            if problem and problem != self._problem:
                log.error("the last good API keys go on: %s", problem)
            self._problem = problem

    def _read_if_changed(self) -> None:
        try:
            changed = self._path.stat().st_mtime_ns
            if changed != self._changed or self._problem:
                self._names, self._changed = _read(self._path), changed
        except OSError as error:
            raise BadInput(f"the file of API keys {self._path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise BadInput(f"the file of API keys {self._path} is not text") from None


def _read(path: Path) -> dict[str, str]:
    names: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.partition("#")[0].strip()
        found = LINE.fullmatch(text)
        if found:
            names[found[2]] = found[1]
        elif text:
            raise BadInput(f"{path}:{number}: not a NAME and its key's SHA256, as `candlemill key NAME` prints them")
    if not names:
        raise BadInput(f"{path} has no key: `candlemill key NAME >> {path}` adds one")
    return names
