"""Check the libraries of a release for known vulnerabilities. `python -m release.audit`, run by `make release`.

pip-audit reads PyPI's advisories for each library of the locks; those of the front end come from OSV. A library without
an answer counts like a vulnerable one, so nothing passes while a service is unreachable. Exits with 0, or prints one
line with the reason.
"""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from release.locks import LOCKS, Package, front_end

OSV = "https://api.osv.dev/v1/querybatch"
SECONDS = 30


def of_lock(lock: Path) -> list[str]:
    """What is wrong with a lock's libraries, a line for each."""
    command = [sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip", "--requirement", str(lock)]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", str(SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return problems(lock.name, done.stdout, done.stderr)


def problems(name: str, answer: str, said: str) -> list[str]:
    """What pip-audit's answer tells; that it has none is a problem too."""
    try:
        found: list[dict[str, Any]] = json.loads(answer)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = said.strip().splitlines() or ["no answer"]
        return [f"{name}: not audited: {lines[-1][:200]}"]
    if not found:
        return [f"{name}: not audited: no library was looked at"]
    out = []
    for one in found:
        if "skip_reason" in one:
            out.append(f"{name}: {one['name']} not audited: {one['skip_reason']}")
        out += [
            f"{name}: {one['name']} {one['version']}: {hole['id']}, mended in "
            + (", ".join(hole["fix_versions"]) or "no version")
            for hole in one.get("vulns", [])
        ]
    return out


def of_front_end(packages: list[Package]) -> list[str]:
    queries = [{"package": {"ecosystem": "npm", "name": one.name}, "version": one.version} for one in packages]
    body = json.dumps({"queries": queries}).encode()
    query = urllib.request.Request(OSV, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(query, timeout=SECONDS) as answer:
            results = json.load(answer)["results"]
        holes = [[hole["id"] for hole in one.get("vulns", [])] for one in results]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"front-end: not audited: {error}"]
    if len(holes) != len(packages):
        return ["front-end: not audited: there is not an answer for each library"]
    return [
        f"front-end: {one.name} {one.version}: {name}"
        for one, names in zip(packages, holes, strict=True)
        for name in names
    ]


def main() -> None:
    found = [line for lock in LOCKS for line in of_lock(lock)] + of_front_end(front_end())
    holes = [line for line in found if "not audited" not in line]
    for line in holes:
        print(line, file=sys.stderr)
    if holes:
        sys.exit(f"release: {len(holes)} known holes; mend the locks (`make locks`), or say AUDIT=skip and why")
    if found:
        sys.exit(f"release: {len(found)} libraries could not be audited, first {found[0]}; AUDIT=skip goes on without")
    print("audited: no known hole")


if __name__ == "__main__":
    main()
