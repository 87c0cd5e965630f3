"""All kinds of users, for two seconds, against a real `candlemill serve`: no answer but the expected ones."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("locust") is None:  # not imported here: it would have gevent take the place of what pytest waits with
    pytest.skip("locust is not installed: pip install '.[load]', or make loadtest", allow_module_level=True)
for module in ("chdb", "uvicorn", "psutil"):
    pytest.importorskip(module)

import msgspec  # noqa: E402

from loadtests.common.lab import ROOT, environment, serving, store_candles  # noqa: E402
from loadtests.load.orders import Heard, Orders  # noqa: E402

USERS = str(ROOT / "loadtests" / "gateway" / "users.py")
KINDS = ["Researcher", "Returner", "Looker", "Sweeper", "Careless", "Backtester"]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("load")
    store_candles(f"chdb://{folder / 'db'}", folder, ["SYNTHUSDT"], 2023, months=2)
    with serving(f"chdb://{folder / 'db'}", folder) as (_, port):
        yield f"http://127.0.0.1:{port}"


def test_nobody_meets_what_was_not_to_be_expected(host: str, tmp_path: Path) -> None:
    """Two users of each kind."""
    orders = Orders(USERS, host, 2 * len(KINDS), 2.0, 0.05, KINDS, settle=0.0, seed=7)
    out = tmp_path / "heard.json"
    command = [sys.executable, "-m", "loadtests.load.swarm", msgspec.json.encode(orders).decode(), str(out)]
    done = subprocess.run(command, env=environment(""), capture_output=True, timeout=300, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    heard = msgspec.json.decode(out.read_bytes(), type=Heard)
    assert not heard.errors, "\n".join(heard.errors[:5])
    assert heard.samples
    assert all(one.good for one in heard.samples)
