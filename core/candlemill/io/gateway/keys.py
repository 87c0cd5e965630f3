"""API keys: who may ask. A file has their hashes, one `NAME SHA256` a line; the keys themselves are kept nowhere."""

import hashlib
import hmac
import re
import secrets
import threading
from pathlib import Path

from candlemill.errors import BadInput
from candlemill.io.gateway.problems import NoAccess

LINE = re.compile(r"([\w.@-]{1,64})\s+([0-9a-f]{64})")
PREFIX = "cm_"


def make_key(name: str) -> tuple[str, str]:
    """A new key and the line that lets it in. 256 random bits need no slow hash."""
    if not LINE.fullmatch(f"{name} {'0' * 64}"):
        raise BadInput(f"{name!r} is not a name of letters, digits, '.', '@', '-' and '_'")
    key = PREFIX + secrets.token_urlsafe(32)
    return key, f"{name} {_digest(key)}"


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class Keys:
    """The keys of a file, read again when it changes: a mounted secret is replaced in place."""

    def __init__(self, path: Path) -> None:
        """Raises BadInput for a file that cannot be read, or has no key."""
        self._path = path
        self._lock = threading.Lock()
        self._changed = -1
        self._names: dict[str, str] = {}
        self._refresh()

    def name_of(self, key: str) -> str:
        """Whose key it is. Raises NoAccess."""
        self._refresh()
        digest = _digest(key)
        found = [name for known, name in self._names.items() if hmac.compare_digest(known, digest)]
        if not found:
            raise NoAccess("the key is not known: `candlemill key NAME` makes one")
        return found[0]

    def _refresh(self) -> None:
        with self._lock:
            try:
                changed = self._path.stat().st_mtime_ns
                if changed != self._changed:
                    self._names, self._changed = _read(self._path), changed
            except OSError as error:
                raise BadInput(f"the file of API keys {self._path}: {error.strerror}") from None


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
