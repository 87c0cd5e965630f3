"""What tests share: small synthetic markets in Binance's own format, and both kinds of store.

The embedded engine opens one folder per process at a time, so nothing here keeps a store open beyond its test; what is
expensive is made once as a folder and copied.
"""

import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import candlemill
import numpy as np
import pytest
from candlemill.cli import main
from candlemill.config import DSN_VARIABLE
from candlemill.ingest.candles import ingest
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.strategies import registry
from candlemill.telemetry import logs
from data import synthetic
from hypothesis import HealthCheck, settings
from named_skips import pytest_addoption, pytest_make_collect_report, pytest_runtest_makereport
from numpy.typing import NDArray

__all__ = ["pytest_addoption", "pytest_make_collect_report", "pytest_runtest_makereport"]

# Properties are tried on machines that do other things as well: how long a try takes says nothing.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# What the user has set is for the user: neither a database nor a proxy, a collector or a terminal of theirs is tested.
FOR_TESTS = ("CANDLEMILL_CHECK_RUNS", "CANDLEMILL_CLUSTER_", "CANDLEMILL_CRDS", "CANDLEMILL_HOSTILE_")
FOR_TESTS += ("CANDLEMILL_PEERS_PAGE",)
for _name in list(os.environ):
    if _name.startswith(("CANDLEMILL_", "OTEL_", "K_SINK")) and not _name.startswith(FOR_TESTS):
        del os.environ[_name]
for _name in ("COLUMNS", "LINES", "FORCE_COLOR", "PYTHONWARNINGS", "PYTHONHASHSEED"):
    os.environ.pop(_name, None)
os.environ["no_proxy"] = "*"

# A shell ignores Ctrl-C for what it runs in the background, and every process that a test starts inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

CORE = Path(candlemill.__file__).parents[1]
DAY_MS = 86_400_000
Columns = dict[str, NDArray[Any]]
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session", autouse=True)
def no_data_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A database that no test names lies in a folder of this run."""
    os.environ["XDG_DATA_HOME"] = str(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def no_log_on_stderr() -> Iterator[None]:
    """A process's main that a test has called leaves no log on the stderr of the next one."""
    root = logging.getLogger()
    level = root.level
    yield
    for handler in [one for one in root.handlers if isinstance(one, logs._Stderr)]:
        root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture(scope="module", autouse=True)
def registered_strategies() -> Iterator[None]:
    """What one module's tests register is not there in the next."""
    before, sources = dict(registry.REGISTERED), dict(registry._sources)
    yield
    for now, then in ((registry.REGISTERED, before), (registry._sources, sources)):
        now.clear()
        now.update(then)


@cache
def year(seed: int, number: int = 2024, price: float = 30_000.0) -> Columns:
    return synthetic.year(seed, number, price)


def days(seed: int, first: int, length: int, number: int = 2024) -> Columns:
    """`length` days of a synthetic year from its day `first` (0 is 1 January) on."""
    start = int(datetime(number, 1, 1, tzinfo=UTC).timestamp()) * 1000 + first * DAY_MS
    candles = year(seed, number)
    rows = slice(*np.searchsorted(candles["t"], [start, start + length * DAY_MS]).tolist())
    return {name: column[rows] for name, column in candles.items()}


def write_zip(folder: Path, name: str, candles: Columns | bytes, microseconds: bool = False) -> Path:
    """A kline zip as Binance makes them, `name` without `.zip`, of candles or of any CSV text."""
    folder.mkdir(parents=True, exist_ok=True)
    text = candles if isinstance(candles, bytes) else synthetic.csv_text(candles, microseconds)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.csv", text)
    path = folder / f"{name}.zip"
    path.write_bytes(buffer.getvalue())
    return path


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AAAUSDT: 8 days over a month's end, with a gap of 90 minutes. BBBUSDT: 3 days. Each in a zip per month."""
    folder = tmp_path_factory.mktemp("market")
    candles = days(1, 28, 8)
    keep = np.ones(len(candles["t"]), dtype=bool)
    keep[4000:4090] = False
    candles = {name: column[keep] for name, column in candles.items()}
    january = candles["t"] < int(datetime(2024, 2, 1, tzinfo=UTC).timestamp()) * 1000
    write_zip(folder, "AAAUSDT-1m-2024-01", {name: column[january] for name, column in candles.items()})
    write_zip(folder, "AAAUSDT-1m-2024-02", {name: column[~january] for name, column in candles.items()})
    write_zip(folder, "BBBUSDT-1m-2024-02", days(2, 40, 3))
    return folder


@pytest.fixture(scope="session")
def stored_market(market: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database folder that holds the market. Closed: copy it."""
    folder = tmp_path_factory.mktemp("stored") / "db"
    with ClickHouseStore(f"chdb://{folder}") as store:
        ingest(store, [market])
    return folder


@pytest.fixture
def database(stored_market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command line's database for this test: a copy of the stored market."""
    folder = tmp_path / "db"
    shutil.copytree(stored_market, folder, symlinks=True)
    monkeypatch.setenv(DSN_VARIABLE, f"chdb://{folder}")
    return folder


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "CANDLEMILL_DB_PASSWORD"}
    return {**kept, "PYTHONPATH": python_path(), "no_proxy": "*", **more}


def python_path() -> str:
    """The package, and what was given: under faketime that is tests/faketime."""
    return os.pathsep.join([str(CORE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]).rstrip(os.pathsep)


def run_cli(*arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "candlemill", *arguments]
    return subprocess.run(command, env=environment(**more), capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running `candlemill db`."""
    folder = tmp_path_factory.mktemp("server") / "db"
    command = [sys.executable, "-m", "candlemill", "db", "--port", "0"]
    env = environment(**{DSN_VARIABLE: f"chdb://{folder}"})
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()  # serving chdb:///... on http://127.0.0.1:PORT/default
        assert "http://127.0.0.1:" in line, line
        threading.Thread(target=process.stderr.read, daemon=True).start()  # a full pipe would stop the server
        yield line.split()[-1].removesuffix("/default")
    finally:
        process.kill()
        process.wait()


_numbers = count()


@pytest.fixture(params=["embedded", "server"])
def new_dsn(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes DSNs of empty databases: folders for the embedded engine, and databases of a real server."""

    def make() -> str:
        name = f"t{next(_numbers)}"
        if request.param == "embedded":
            return f"chdb://{tmp_path / name}"
        import clickhouse_connect

        address = request.getfixturevalue("server")
        with clickhouse_connect.get_client(dsn=f"{address}/default", autogenerate_session_id=False) as client:
            client.command(f"CREATE DATABASE {name}")
        return f"{address}/{name}"

    return make


@pytest.fixture
def store(new_dsn: Callable[[], str]) -> Iterator[ClickHouseStore]:
    with ClickHouseStore(new_dsn()) as opened:
        yield opened


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Status, stdout and stderr of a command in this process."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main.main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return call


def said(answer: tuple[int, str, str]) -> Any:
    """What a command with --json said: exactly one object, nothing on stderr."""
    status, out, err = answer
    assert (status, err, out.count("\n")) == (0, "", 1), answer
    return json.loads(out)
