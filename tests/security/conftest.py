"""One database, one finished job, one app for all attacks of a module."""

import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

for module in ("chdb", "litestar", "functions_framework"):
    pytest.importorskip(module)

from candlemill.gateway.access import AccessPolicy  # noqa: E402
from candlemill.gateway.api_keys import make_key  # noqa: E402
from candlemill.gateway.app import create_app  # noqa: E402
from candlemill.gateway.job_service import JobService  # noqa: E402
from candlemill.pipeline.events import Event  # noqa: E402
from candlemill.store.clickhouse import ClickHouseStore  # noqa: E402
from gateway.conftest import Gateway, serving  # noqa: E402
from litestar.testing import TestClient  # noqa: E402

from security.desk import Desk  # noqa: E402

REQUEST = {"symbol": "AAAUSDT", "strategy": "sma_cross", "range": "2024-01", "params.fast": "5", "params.slow": "50"}
SWEEP = {"symbol": "AAAUSDT", "strategy": "sma_cross", "range": "2024-01", "grid.fast": "5,10", "grid.slow": "50,60"}


@pytest.fixture(scope="package")
def desk(stored_market: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk") / "db"
    shutil.copytree(stored_market, folder, symlinks=True)
    with pytest.MonkeyPatch.context() as patch, ClickHouseStore(f"chdb://{folder}") as store:
        store._client.command("CREATE TABLE c4nary (x Int64) ENGINE = MergeTree ORDER BY x")
        store._client.command("INSERT INTO c4nary VALUES (1)")
        yield Desk(store, patch)


@pytest.fixture(scope="package")
def output(desk: Desk) -> list[Event]:
    """All events of a finished job."""
    return desk.finish(**REQUEST)


@pytest.fixture(scope="package")
def job(output: list[Event]) -> str:
    return output[-1].partitionkey


@pytest.fixture(scope="package")
def sweep(desk: Desk) -> str:
    return desk.finish(**SWEEP)[-1].partitionkey


@pytest.fixture(scope="package")
def client(desk: Desk) -> Iterator[Any]:
    """Asks the gateway's app; what it publishes goes nowhere."""
    app = create_app(JobService(desk.store, lambda published: None), AccessPolicy(per_minute=None))
    with TestClient(app, raise_server_exceptions=False) as found:
        yield found


class Served(NamedTuple):
    """A `candlemill serve` with keys, as a process, and a key."""

    gateway: Gateway
    key: str

    def raw(self, *pieces: bytes) -> bytes:
        """What is answered to these bytes, until the other side closes."""
        with socket.create_connection(("127.0.0.1", self.gateway.port), timeout=300) as connection:
            found = b""
            with suppress(OSError):  # it may close before all is sent
                for piece in pieces:
                    connection.sendall(piece)
            with suppress(OSError):
                while piece := connection.recv(1 << 16):
                    found += piece
        return found


@pytest.fixture(scope="package")
def served(stored_market: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(stored_market, folder / "db", symlinks=True)
    key, line = make_key("alice")
    (folder / "keys").write_text(f"{line}\n")
    more = {"CANDLEMILL_API_KEYS": str(folder / "keys"), "CANDLEMILL_REQUESTS_PER_MINUTE": "100000"}
    with serving(folder / "db", **more) as found:
        yield Served(found, key)


def one_of(output: list[Event], kind: str) -> Event:
    return next(event for event in output if event.type == kind)
