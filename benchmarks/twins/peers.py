"""Keeping a peer in an interpreter of its own alive, so that it takes its turn in every round."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from data.market import Market


class Peer:
    """A process of `peer_NAME.py` that simulates pairs on `market` and reports how long that took, without the way to
    it and back."""

    def __init__(self, name: str, python: Path, market: Market) -> None:
        self._name = name
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "prices.npy"
        np.save(path, np.stack([market.columns[name] for name in ("open", "close", "high", "low")]) / 1e8)
        self._complaints = (Path(self._folder.name) / "stderr").open("w+")
        self._process = subprocess.Popen(
            [python, script_of(name), path],
            env={**os.environ, "RAYON_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
        )

    def simulate(self, pairs: list[tuple[int, int]]) -> dict[str, Any]:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError(f"the {self._name} process has no pipes")
        self._process.stdin.write(json.dumps(pairs) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._complaints.seek(0)
            raise RuntimeError(f"{self._name} ended with status {self._process.wait()}:\n{self._complaints.read()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def nanoseconds(self, pairs: list[tuple[int, int]], chunk: int) -> int:
        return sum(int(self.simulate(pairs[k : k + chunk])["ns"]) for k in range(0, len(pairs), chunk))

    def __enter__(self) -> "Peer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()
        self._complaints.close()
        self._folder.cleanup()


def script_of(name: str) -> Path:
    return Path(__file__).with_name(f"peer_{name}.py")


def python_of(name: str, given: Path | None) -> Path | None:
    """The interpreter that has the peer: the one given, else this one where it can be found."""
    if given is not None:
        return given
    return Path(sys.executable) if importlib.util.find_spec(name) else None


def version_of(name: str, python: Path) -> str:
    found = subprocess.run([python, script_of(name)], capture_output=True, text=True, check=False)
    if found.returncode:
        raise SystemExit(f"{python} cannot import {name}: {found.stderr.strip().splitlines()[-1]}")
    return found.stdout.strip()
