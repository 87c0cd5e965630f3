"""A process whose database is not up yet answers that, goes on when it is up, and ends when it is stopped."""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from candlemill.errors import BadInput, StoreDown
from candlemill.transport import waiting

from loadtests.common.ports import free_port

FUNCTIONS = Path(__file__).parents[2] / "functions"


def answer(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=300) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def answer_when_up(port: int, path: str) -> tuple[int, str]:
    for _ in range(3_000):
        try:
            return answer(port, path)
        except OSError:
            time.sleep(0.1)
    raise AssertionError("nobody listens")


def test_a_store_that_is_up_is_opened_at_once() -> None:
    assert waiting.open_when_up(lambda: "store", "127.0.0.1", 0, "/healthz") == "store"


def test_a_store_is_opened_when_its_database_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "RETRY_SECONDS", 0.01)
    port, seen, up = free_port(), [], threading.Event()

    def look() -> None:
        seen.extend(answer_when_up(port, path) for path in ("/healthz", "/readyz", "/api/v1/about"))
        up.set()

    def open_store() -> str:
        if not up.is_set():
            raise StoreDown("nothing at database:8123")
        return "store"

    looking = threading.Thread(target=look)
    looking.start()
    assert waiting.open_when_up(open_store, "127.0.0.1", port, "/healthz") == "store"
    looking.join()
    assert seen == [(200, "ok\n"), *[(503, "waiting for the database: nothing at database:8123\n")] * 2]


def test_another_error_is_not_waited_for() -> None:
    def refuse() -> str:
        raise BadInput("no such database")

    with pytest.raises(BadInput):
        waiting.open_when_up(refuse, "127.0.0.1", 0, "/healthz")


@pytest.mark.parametrize(
    ("function", "alive", "more"),
    [
        ("gateway", "/healthz", {"CANDLEMILL_API_KEYS": "off"}),
        ("feed", "/livez", {"CANDLEMILL_FEED_SYMBOLS": "BTCUSDT"}),
    ],
)
def test_a_function_stays_up_without_its_database(function: str, alive: str, more: dict[str, str]) -> None:
    port, nobody = free_port(), free_port()
    env = {**os.environ, "PORT": str(port), "HOST": "127.0.0.1", **more}
    env["CANDLEMILL_CLICKHOUSE_DSN"] = f"http://127.0.0.1:{nobody}/default"
    process = subprocess.Popen(
        [sys.executable, FUNCTIONS / function / "main.py"], env=env, stderr=subprocess.PIPE, text=True
    )
    try:
        assert answer_when_up(port, alive) == (200, "ok\n")
        status, text = answer(port, "/readyz")
        assert status == 503 and text.startswith("waiting for the database: ")
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Traceback" not in log
