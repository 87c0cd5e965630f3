"""`candlemill serve` as its users meet it: a process of its own on the stored market."""

import http.client
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("litestar")
pytest.importorskip("chdb")

from candlemill.config import DSN_VARIABLE
from conftest import environment

PATIENCE_SECONDS = 300
READY_SECONDS = 300


class Gateway:
    """A running gateway: requests to it, its process, and what it has logged so far."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process, self.log = process, list[str]()
        line = ""
        assert process.stderr is not None
        late = threading.Timer(PATIENCE_SECONDS, process.kill)  # one that says nothing would be waited for without end
        late.start()
        try:
            while not line.startswith("candlemill serves http://"):
                line = process.stderr.readline()
                assert line, self.log
                self.log.append(line)
        finally:
            late.cancel()
        self.port = int(self.log.pop().rstrip().rpartition(":")[2])
        threading.Thread(target=self._read, daemon=True).start()  # or it would wait with a full pipe

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], Any]:
        """Status, headers (lower case) and the answer: parsed where it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        try:
            text = body if body is None or isinstance(body, str | bytes) else json.dumps(body)
            connection.request(method, path, text, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        output = {name.lower(): value for name, value in answer.getheaders()}
        kind = output.get("content-type", "")
        if "json" in kind and content:
            return answer.status, output, json.loads(content)
        return answer.status, output, content if "vnd.apache" in kind else content.decode()

    def get(self, path: str) -> Any:
        status, _, found = self.ask("GET", path)
        assert status == 200, found
        return found

    def submit(self, **body: Any) -> dict[str, Any]:
        status, _, found = self.ask("POST", "/api/v1/backtest", body)
        assert status == 202, found
        return found

    def finish(self, **body: Any) -> dict[str, Any]:
        """The finished job that a body asks for."""
        return self.wait(self.submit(**body)["job_id"])

    def wait(self, job_id: str) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            job = self.get(f"/api/v1/backtest/{job_id}")
            if job["state"] in ("done", "failed", "cancelled"):
                return job
            time.sleep(0.05)
        raise AssertionError(f"job {job_id} did not end: {job['progress']}")


@contextmanager
def serving(folder: Path, *arguments: str, **more: str) -> Iterator[Gateway]:
    command = [sys.executable, "-m", "candlemill", "serve", "--port", "0", *arguments]
    env = environment(**{DSN_VARIABLE: f"chdb://{folder}", **more})
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    try:
        yield Gateway(process)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(READY_SECONDS)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def gateway(stored_market: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway") / "db"
    shutil.copytree(stored_market, folder, symlinks=True)
    with serving(folder) as found:
        yield found
