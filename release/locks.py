"""What a release is made of: the libraries that images/*.txt pin by hash, and the front-end's, inside the wheel."""

import re
import runpy
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "images").glob("*.txt"))
FRONT_END = ROOT / "core/candlemill/gateway/dashboard/vendor"
PIN = re.compile(r"([A-Za-z0-9][\w.-]*)==([^\s;\\]+)")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


class Pinned(NamedTuple):
    """A library in one version. `hashes` are the SHA-256 of the files that may be installed; `locks` say where."""

    name: str
    version: str
    hashes: tuple[str, ...]
    locks: tuple[str, ...]


def pinned(text: str, lock: str) -> list[Pinned]:
    """The libraries of a lock. Raises ValueError for a line that pins nothing, or a pin without a hash."""
    found = []
    for entry in re.sub(r"\\\n\s*", " ", text).splitlines():
        line = entry.strip()
        if not line or line.startswith("#"):
            continue
        pin, hashes = PIN.match(line), HASH.findall(line)
        if pin is None or not hashes:
            raise ValueError(f"{lock}: {line[:80]!r} is not NAME==VERSION with hashes: run `make locks`")
        found.append(Pinned(pin[1].lower(), pin[2], tuple(sorted(hashes)), (lock,)))
    return found


def libraries() -> list[Pinned]:
    """Of all locks; the same library in two of them is one."""
    found: dict[tuple[str, str], Pinned] = {}
    for path in LOCKS:
        for one in pinned(path.read_text(), path.stem):
            known = found.get((one.name, one.version))
            if known is not None:
                hashes = tuple(sorted({*known.hashes, *one.hashes}))
                one = known._replace(hashes=hashes, locks=known.locks + one.locks)
            found[one.name, one.version] = one
    return [found[key] for key in sorted(found)]


class Package(NamedTuple):
    """A package of npm, of which some files are in the wheel; `integrity` is npm's own hash of its archive."""

    name: str
    version: str
    integrity: str
    files: dict[str, str]


def front_end() -> list[Package]:
    return [Package(*pin) for pin in runpy.run_path(str(FRONT_END / "update.py"), run_name="update")["PINS"]]
