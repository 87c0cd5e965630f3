"""`candlemill db`, split, execute and aggregate as processes, and the broker between them."""

import json
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from loadtests.common.lab import ROOT, Process, database, environment, port_in, process
from loadtests.common.ports import free_port

NAMES = ("split", "execute", "aggregate")
READY_SECONDS = 60.0


class Stage:
    """Where to send events, and whose processes these are."""

    def __init__(self, broker: str, dsn: str, urls: Mapping[str, list[str]], processes: Mapping[str, Process]) -> None:
        self.broker = broker
        self.dsn = dsn
        self.urls = urls
        self.processes = processes

    def figures(self) -> dict[str, Any]:
        """What the broker has measured since it was requested last, in ms."""
        with urllib.request.urlopen(f"{self.broker}figures", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@contextmanager
def functions(store: Path, executors: int, slots: int = 1) -> Iterator[Stage]:
    """Executors take one task each; split and aggregate take `slots` events at once."""
    folder = store.parent
    with ExitStack() as stack:
        db, dsn = stack.enter_context(database(store))
        processes: dict[str, Process] = {"db": db}
        port = free_port()  # the functions have to know the broker's address before it can know theirs
        urls: dict[str, list[str]] = {}
        for name, count, threads in (("split", 1, slots), ("execute", executors, 1), ("aggregate", 1, slots)):
            urls[name] = []
            for number in range(count):
                log = folder / f"{name}{number}.log"
                env = environment(
                    dsn, K_SINK=f"http://127.0.0.1:{port}/", THREADS=str(threads + 1), GUNICORN_LOG_LEVEL="info"
                )
                source = str(ROOT / "functions" / name / "main.py")
                command = [sys.executable, "-m", "functions_framework", "--source", source, "--target", "main"]
                started = stack.enter_context(process([*command, "--host", "127.0.0.1", "--port", "0"], log, env))
                processes[f"{name}{number}"] = started
                urls[name].append(f"http://127.0.0.1:{port_in(log, started)}/+{threads}")
        log = folder / "broker.log"
        command = [sys.executable, "-m", "loadtests.load.functions.broker", json.dumps(urls), str(port)]
        broker = stack.enter_context(process(command, log, environment(dsn)))
        processes["broker"] = broker
        port_in(log, broker)
        bare = {name: [url.partition("+")[0] for url in found] for name, found in urls.items()}
        _wait_ready([url for found in bare.values() for url in found])
        yield Stage(f"http://127.0.0.1:{port}/", dsn, bare, processes)


def _wait_ready(urls: list[str]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    for url in urls:
        while True:
            try:
                urllib.request.urlopen(f"{url}healthz", timeout=5).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
