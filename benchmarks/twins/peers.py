"""Keeping the vectorbt peer alive, so that it takes its turn in every round."""

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from data.market import Market

SCRIPT = Path(__file__).with_name("peer_vectorbt.py")


class VectorBt:
    """A process that simulates pairs on `market` and says how long that took, without the way to it and back."""

    def __init__(self, python: Path, market: Market) -> None:
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "prices.npy"
        np.save(path, np.stack([market.columns["open"], market.columns["close"]]) / 1e8)
        self._complaints = (Path(self._folder.name) / "stderr").open("w+")
        self._process = subprocess.Popen(
            [python, SCRIPT, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._complaints, text=True
        )

    def simulate(self, pairs: list[tuple[int, int]]) -> dict[str, Any]:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the vectorbt process has no pipes")
        self._process.stdin.write(json.dumps(pairs) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._complaints.seek(0)
            raise RuntimeError(f"vectorbt ended with status {self._process.wait()}:\n{self._complaints.read()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def nanoseconds(self, pairs: list[tuple[int, int]], chunk: int) -> int:
        return sum(int(self.simulate(pairs[k : k + chunk])["ns"]) for k in range(0, len(pairs), chunk))

    def __enter__(self) -> "VectorBt":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()
        self._complaints.close()
        self._folder.cleanup()


def vectorbt_python(given: Path | None) -> Path | None:
    """The interpreter that has vectorbt: the one given, else this one where it can be found."""
    if given is not None:
        return given
    return Path(sys.executable) if importlib.util.find_spec("vectorbt") else None


def vectorbt_version(python: Path) -> str:
    found = subprocess.run([python, SCRIPT], capture_output=True, text=True, check=False)
    if found.returncode:
        raise SystemExit(f"{python} cannot import vectorbt: {found.stderr.strip().splitlines()[-1]}")
    return found.stdout.strip()
