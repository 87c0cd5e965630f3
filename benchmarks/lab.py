"""What the rows share: the options, the synthetic years, and stores made from them."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import candlemill
from data import synthetic
from data.market import FIRST_OF_TEN, SYMBOL, YEAR, Ints, Market, market_of, one_year, years

RESULTS = Path(__file__).parent / "results"
LAUNCH = Path(__file__).with_name("launch.py")
MEGABYTE = 1e6


@dataclass(frozen=True)
class Run:
    """What a command took."""

    wall_ns: int
    peak_bytes: int
    cpu_ns: int = 0


def environment(store: Path | str) -> dict[str, str]:
    """For a process of candlemill's on an embedded store's folder, or on a DSN."""
    return {
        **os.environ,
        "CANDLEMILL_CLICKHOUSE_DSN": store if isinstance(store, str) else f"chdb://{store}",
        "PYTHONPATH": str(Path(candlemill.__file__).parent.parent),
    }


class Lab:
    """One run of the benchmark. Data is made when a row first asks for it."""

    def __init__(
        self, quick: bool, keep: bool, vectorbt_python: Path | None, raptorbt_python: Path | None = None
    ) -> None:
        self.quick = quick
        self.vectorbt_python = vectorbt_python
        self.raptorbt_python = raptorbt_python
        self._keep = keep
        self._made = Path(tempfile.mkdtemp(prefix="candlemill-bench-"))

    def close(self) -> None:
        shutil.rmtree(self._made, ignore_errors=True)
        if not self._keep:
            shutil.rmtree(RESULTS / "zips", ignore_errors=True)

    def rounds(self, full: int) -> int:
        """How often the contenders take turns: a third, and at least three times, under --quick."""
        return max(3, full // 3) if self.quick else full

    # -- data ----------------------------------------------------------------------------------------------------------

    @cached_property
    def year(self) -> Market:
        return one_year()

    @cached_property
    def ten_years(self) -> Market:
        return market_of(years(FIRST_OF_TEN, 10))

    def zips(self, first: int, count: int) -> Path:
        """A folder with the years' monthly zips. It stays for the next run under --keep."""
        seeded = hashlib.sha256(Path(synthetic.__file__).read_bytes()).hexdigest()[:8]
        folder = RESULTS / "zips" / f"{first}+{count}-{seeded}"
        if not folder.exists():
            say(f"writing {count * 12} monthly zips")
            unfinished = folder.with_name(f"{folder.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            with ProcessPoolExecutor() as pool:
                written = [
                    pool.submit(_write_year, unfinished, number, candles)
                    for number, candles in enumerate(years(first, count), first)
                ]
                for year in written:
                    year.result()
            unfinished.rename(folder)
        return folder

    def folder(self, name: str) -> Path:
        """An empty folder of this run's own."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._made))

    @cached_property
    def ten_years_store(self) -> Path:
        """The ten years, stored."""
        folder = self.folder("ten-years")
        say("storing ten years")
        self.cli(folder, "ingest", str(self.zips(FIRST_OF_TEN, 10)))
        return folder

    @cached_property
    def year_store(self) -> Path:
        folder = self.folder("year")
        say("storing a year")
        self.cli(folder, "ingest", str(self.zips(YEAR, 1)))
        return folder

    # -- processes -----------------------------------------------------------------------------------------------------

    @contextmanager
    def served(self, store: Path) -> Iterator[str]:
        """The DSN of a `candlemill db` that serves an embedded store while the block runs."""
        command = [sys.executable, "-m", "candlemill", "db", "--port", "0"]
        with subprocess.Popen(command, env=environment(store), stderr=subprocess.PIPE, text=True) as server:
            try:
                for line in server.stderr or ():
                    if "http://" in line:
                        yield line.split(" on ")[-1].strip()
                        break
            finally:
                server.terminate()

    def cli(self, store: Path | str, *arguments: str) -> Run:
        """Run candlemill's command line on an embedded store or a DSN, in a process of its own."""
        return self.launch(store, [sys.executable, "-m", "candlemill", *arguments])

    def launch(self, store: Path | str, command: list[str]) -> Run:
        found = subprocess.run(
            [sys.executable, "-S", "-E", LAUNCH, *command],
            env=environment(store), capture_output=True, text=True, check=True,
        )  # fmt: skip
        output = json.loads(found.stdout.splitlines()[-1])
        if output["status"]:
            raise SystemExit(f"{' '.join(command)} failed: {output['error']}")
        return Run(output["wall_ns"], output["peak_bytes"], output["cpu_ns"])

    def backtest(self, store: Path, *arguments: str) -> Run:
        """One uncached backtest of all that is stored, whole process."""
        return self.cli(
            store, "backtest", "--symbol", SYMBOL, "--strategy", "sma_cross", "--no-cache", "--json", *arguments
        )


def _write_year(folder: Path, number: int, candles: dict[str, Ints]) -> None:
    for month in range(1, 13):
        synthetic.write_month(folder, SYMBOL, number, month, candles)


def say(text: str) -> None:
    print(f"  … {text}", file=sys.stderr, flush=True)
