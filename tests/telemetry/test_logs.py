"""JSON log lines, and text log lines on a terminal."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
from candlemill.telemetry import logs


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(monkeypatch: pytest.MonkeyPatch, json: bool | None, terminal: bool = False) -> list[str]:
    """Output of a log of three lines."""
    stream = io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", stream)
    logs.setup(json)
    log = logging.getLogger("candlemill.test")
    log.debug("never seen")
    logging.getLogger("urllib3.connectionpool").warning("an attempt of a library")
    log.info("%d minutes\nare missing", 3, extra={"symbol": "BTCUSDT", "job": "a1"})
    log.warning("a day", extra={"slice": 7})
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("broken")
    output = stream.getvalue()
    assert ("\r\x1b[K" in output) == terminal
    return output.replace("\r\x1b[K", "").rstrip("\n").split("\n")


@pytest.mark.parametrize("json_", [True, None])
def test_json_lines(monkeypatch: pytest.MonkeyPatch, json_: bool | None) -> None:
    found = [json.loads(line) for line in lines(monkeypatch, json_)]
    assert [row["level"] for row in found] == ["info", "warning", "error"]
    first = found[0]
    assert (first["message"], first["symbol"], first["job"]) == ("3 minutes\nare missing", "BTCUSDT", "a1")
    assert list(first) == ["time", "level", "logger", "message", "symbol", "job"]
    assert len(first["time"]) == 24 and first["time"].endswith("Z") and first["logger"] == "candlemill.test"
    assert found[1]["slice"] == 7 and "ValueError: no" in found[2]["error"]


@pytest.mark.parametrize(("json_", "terminal"), [(False, False), (None, True)])
def test_text_lines(monkeypatch: pytest.MonkeyPatch, json_: bool | None, terminal: bool) -> None:
    found = lines(monkeypatch, json_, terminal)
    assert found[0][8:] == " 3 minutes\\nare missing symbol=BTCUSDT job=a1"
    assert found[1][8:] == " warning: a day slice=7" and "error: broken" in found[2]
    assert found[-1] == "ValueError: no"


def test_a_second_setup_replaces_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    lines(monkeypatch, True)
    lines(monkeypatch, True)
    assert len(logging.getLogger().handlers) == 1
