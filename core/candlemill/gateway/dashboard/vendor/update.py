"""Fetch the pinned front-end libraries from npm again, and check them.

    python core/candlemill/gateway/dashboard/vendor/update.py           # fetch, check, write
    python update.py --check   # compare the files here with SHA256SUMS (no network)

A package's archive must have the integrity that npm published for the pinned version. To move to a newer version,
replace its pin by the output of `npm view NAME version dist.integrity`.
"""

import base64
import hashlib
import io
import sys
import tarfile
import urllib.request
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
SUMS = HERE / "SHA256SUMS"
REGISTRY = "https://registry.npmjs.org"


class Package(NamedTuple):
    """Pinned npm package. `files` maps a file name here to its path in the archive."""

    name: str
    version: str
    integrity: str
    files: dict[str, str]


PINS = (
    Package(  # draws candles, lines, heat maps and calendars
        "echarts",
        "6.1.0",
        "sha512-q0yaFPggC9FUdsWH4blavRWFmxdrIodbkoKNAjJudAI6CA9gNPxHtV2RcZNEepZVlk4yvBYkOkbk6HIVpIyHZA==",
        {
            "echarts.js": "dist/echarts.esm.min.mjs",
            "echarts.LICENSE.txt": "LICENSE",
            "echarts.NOTICE.txt": "NOTICE",
            "echarts.d3.LICENSE.txt": "licenses/LICENSE-d3",
        },
    ),
    Package(  # components, and morphing of changed parts of the page
        "preact",
        "11.2.0",
        "sha512-/HfHI/7N84e6GrWBJ3J280z3mLaRJiDcSvj/A+y/4AbLnND/1UlGHe1sR6oYuTGwId0nP7dqDU9OnLxMPZ7xBg==",
        {
            "preact.js": "dist/preact.mjs",
            "preact-hooks.js": "hooks/dist/hooks.mjs",
            "preact.LICENSE.txt": "LICENSE",
        },
    ),
    Package(  # templates without a build step
        "htm",
        "3.1.1",
        "sha512-983Vyg8NwUE7JkZ6NmOqpCZ+sh1bKv2iYTlUkzlWmA5JD2acKoxd4KVxbMmxX/85mtfdnDmTFoNKcg5DGAvxNQ==",
        {"htm.js": "dist/htm.mjs", "htm.LICENSE.txt": "LICENSE"},
    ),
    Package(  # shows the OpenAPI description, at /docs
        "swagger-ui-dist",
        "5.35.0",
        "sha512-U06rpMtW9V3XPGOBeamTUSr0Z09jMX4IJuANpE/EZbAhw0G8CgwrzU4YmXkn/h0wCDNsXdGarTNNHC3sU8yVUQ==",
        {
            "swagger-ui.js": "swagger-ui-bundle.js",
            "swagger-ui.css": "swagger-ui.css",
            "swagger-ui.LICENSE.txt": "LICENSE",
            "swagger-ui.NOTICE.txt": "NOTICE",
        },
    ),
)


def fetched(package: Package) -> dict[str, bytes]:
    """Return the package's files as they are served. Raises ValueError if the archive is not the pinned one."""
    url = f"{REGISTRY}/{package.name}/-/{package.name}-{package.version}.tgz"
    with urllib.request.urlopen(url, timeout=120) as answer:
        archive = answer.read()
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if found != package.integrity:
        raise ValueError(f"{url} has integrity {found}, pinned is {package.integrity}")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        out = {}
        for name, path in package.files.items():
            member = tar.extractfile(f"package/{path}")
            assert member is not None, path
            out[name] = served(name, member.read())
    return out


def served(name: str, data: bytes) -> bytes:
    """Return a file adapted for browsers: with paths in place of bare module names, and without links to source
    maps."""
    if not name.endswith((".js", ".css")):
        return data
    lines = data.replace(b'from"preact"', b'from"./preact.js"').splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith((b"//# sourceMappingURL=", b"/*# sourceMappingURL=")))


def update() -> None:
    files = {name: data for package in PINS for name, data in fetched(package).items()}
    for name, data in files.items():
        (HERE / name).write_bytes(data)
    SUMS.write_text("".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items())))


def wrong() -> list[str]:
    """Return the files that differ from SHA256SUMS, are missing, or are not listed in it."""
    known = {name: digest for digest, name in (line.split() for line in SUMS.read_text().splitlines())}
    here = {path.name for path in HERE.iterdir() if path.suffix in (".js", ".css", ".txt")}
    present = {name: hashlib.sha256((HERE / name).read_bytes()).hexdigest() for name in here}
    return sorted(name for name in known.keys() | present.keys() if known.get(name) != present.get(name))


if __name__ == "__main__":
    if "--check" not in sys.argv[1:]:
        update()
    if different := wrong():
        sys.exit(f"not what SHA256SUMS says: {', '.join(different)}")
