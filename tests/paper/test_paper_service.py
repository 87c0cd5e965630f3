"""Paper runs as processes: the command, the sink, the function's settings."""

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from candlemill.errors import BadInput
from candlemill.paper import decision
from candlemill.paper.request import order_of
from candlemill.store.candle_writer import recount, touched_days, write
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.transport import cloudevents
from conftest import days, python_path
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
RUN = ["paper", "--symbol", "BTCUSDT", "--strategy", "sma_cross", "--from", "2023-01-01", "--follow"]
REFUSED = 3  # of the first requests


class Sink(BaseHTTPRequestHandler):
    """Refuses some requests, and keeps the events of those that it accepts."""

    refused = 0
    events: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if Sink.refused < REFUSED:
            Sink.refused += 1
            self.send_response(500)
        else:
            Sink.events.append(cloudevents.decode(dict(self.headers), body))
            self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def sink() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Sink) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A store with a day of candles, and how a process finds it."""
    folder = tmp_path_factory.mktemp("paper")
    parts = {"BTCUSDT": {name: column[:1500] for name, column in days(1, 0, 2, 2023).items()}}
    with ClickHouseStore(f"chdb://{folder / 'db'}") as store:
        store.add_symbol("BTCUSDT", 10**8)
        write(store, parts)
        recount(store, touched_days(parts))
    return {**os.environ, "PYTHONPATH": python_path(), "CANDLEMILL_CLICKHOUSE_DSN": f"chdb://{folder / 'db'}"}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "candlemill", *words]


def test_decisions_reach_a_sink_that_refuses_some(environment: dict[str, str], sink: str) -> None:
    words = [*RUN, "--since", "2023-01-02", "--sink", sink, "--json", "--port", "0"]
    process = subprocess.Popen(
        command(*words), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    late = threading.Timer(300, process.kill)  # its lines would be waited for without end
    late.start()
    line = process.stderr.readline()
    lines = [json.loads(process.stdout.readline()) for _ in range(60)]
    port = line.rpartition(":")[2].strip()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=300) as answer:
        assert answer.read() == b"ok\n"
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=300) as answer:
        assert b"candlemill_paper_published" in answer.read()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    late.cancel()
    assert process.returncode == 0, said
    assert "1,500 minutes" in said and "result " in said
    assert Sink.refused == REFUSED
    assert {event.id for event in Sink.events} == {one["id"] for one in lines}
    minutes = [json.loads(event.data)["minute"] for event in Sink.events]
    assert list(dict.fromkeys(minutes)) == sorted(set(minutes)), "in their order, apart from repetitions"
    schema = json.loads((ROOT / "schema/events/dev.candlemill.decision.v1.json").read_text())
    for event in Sink.events:
        assert event.type == decision.DECISION
        Draft202012Validator(schema).validate(json.loads(event.data))
    again = subprocess.run(
        command(*words[:-2], "--once"), env=environment, capture_output=True, text=True, timeout=300, check=True
    )
    assert again.stdout == "" and len(Sink.events) == len(minutes), "a run goes on where it was"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--path", "both"], "path=both"),
        (["--sink", "ftp://x"], "no http:// or https:// address"),
        (["--strategy", "xs_momentum", "--universe", "top:2"], "universe=top:2"),
    ],
)
def test_what_cannot_be_run_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    from candlemill.cli.main import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANDLEMILL_CLICKHOUSE_DSN", "chdb:///nowhere")
        assert main([*RUN, *words]) == 2
    assert said in capsys.readouterr().err


def test_what_lacks_rates_or_tiers_says_so(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from candlemill.cli.main import main

    monkeypatch.setenv("CANDLEMILL_CLICKHOUSE_DSN", environment["CANDLEMILL_CLICKHOUSE_DSN"])
    assert main([*RUN, "--funding", "--once"]) == 0
    assert "BTCUSDT has no funding rate" in capsys.readouterr().err
    assert main([*RUN, "--margin", "isolated", "--once"]) != 0
    assert "BTCUSDT has no maintenance tiers that are valid at 2023-01-01" in capsys.readouterr().err


def test_a_panel_and_a_warm_up_are_one_run_and_a_run_with_a_past(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has the digest of the backtest that its last line is about."""
    from candlemill.cli.main import main

    monkeypatch.setenv("CANDLEMILL_CLICKHOUSE_DSN", environment["CANDLEMILL_CLICKHOUSE_DSN"])
    for words in (["--strategy", "inverse_volatility"], ["--strategy", "sma_cross", "--warm-up", "stored"]):
        begin = ["--from", "2023-01-01T12:00"]
        assert main(["paper", "--symbol", "BTCUSDT", *words, *begin, "--follow", "--once"]) == 0
        digest = capsys.readouterr().err.rsplit("result ", 1)[1].strip()
        span = ["--range", "2023-01-01T12:00..2023-01-02T00:59"]
        assert main(["backtest", "--symbol", "BTCUSDT", *words, *span, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["result_digest"].startswith(digest)


def test_the_functions_request_is_one_of_the_rest_interface() -> None:
    order = order_of('{"symbol": "BTCUSDT,ETHUSDT", "strategy": "sma_cross", "params": {"fast": 5}}', "2024-02-01", "")
    assert [spec.symbol for spec in order.specs] == ["BTCUSDT", "ETHUSDT"]
    assert order.specs[0].params["fast"] == 5 and order.begin == 1_706_745_600_000
    for text in ("", "[]", '{"symbol": "X"}', '{"symbol": " ,", "strategy": "sma_cross"}'):
        with pytest.raises(BadInput):
            order_of(text, "", "")
