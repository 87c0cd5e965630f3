"""A feed follows many symbols of the simulated exchange: messages and candles per second, lag, what it costs."""

import re
import sys
import time
import urllib.request
from pathlib import Path

import msgspec

from loadtests.common.lab import Busy, Line, environment, memory_mb, port_in, process

POLL_SECONDS = 0.5
CATCH_UP_SECONDS = 60.0
METRIC = re.compile(r"^(candlemill_feed_\w+?)(?:_total)?(?:\{(.*?)\})? (\S+)$", re.MULTILINE)


class Followed(msgspec.Struct, frozen=True):
    """`lags` are the greatest lag of any symbol at each look, in seconds: 0 where all have their last finished minute.
    `late` is, for each minute that ended meanwhile, how long the last symbol's candle took to be there."""

    seconds: float
    symbols: int
    messages_per_second: float
    finals: int
    minutes_ended: int
    stored: int
    missing_minutes: int
    refused: int
    lags: list[float]
    late: list[float]
    cores: dict[str, float]
    memory_mb: float


def follow(folder: Path, count: int, updates: int, seconds: float) -> Followed:
    """`updates` are the unfinished candles of each symbol and minute."""
    symbols = ",".join(f"S{k:04}USDT" for k in range(count))
    dsn = f"chdb://{folder / 'feed'}"
    command = [sys.executable, "-m", "loadtests.exchange_simulator", "--port", "0", "--symbols", symbols]
    command += ["--history", "0", "--days", "1", "--updates", str(updates)]
    log = folder / "exchange.log"
    with process(command, log, environment(dsn)) as simulator:
        rest, stream = f"http://127.0.0.1:{port_in(log, simulator)}", f"ws://127.0.0.1:{port_in(log, simulator, 'ws')}"
        command = [sys.executable, "-m", "candlemill", "feed", "--symbol", symbols, "--port", "0"]
        command += ["--rest-url", rest, "--stream-url", f"{stream}/stream", "--archive-url", ""]
        log = folder / "feed.log"
        with process(command, log, environment(dsn, CANDLEMILL_DATA=str(folder))) as feed:
            own = port_in(log, feed)
            _wait_until_there(own, Line())
            return _watch(own, count, seconds, {"feed": feed.pid, "exchange": simulator.pid})


def _watch(port: int, count: int, seconds: float, pids: dict[str, int]) -> Followed:
    line, busy, lags, late = Line(), Busy(**pids), list[float](), list[float]()
    first, began = page(port), time.monotonic()
    worst, minute = 0.0, int(time.time() // 60)
    while (passed := time.monotonic() - began) < seconds:
        found = page(port)
        lag = max(found.lags.values(), default=0.0)
        lags.append(lag)
        if int(time.time() // 60) != minute:
            minute, worst = int(time.time() // 60), 0.0
            late.append(0.0)
        if late:
            worst = max(worst, lag)
            late[-1] = worst
        rate = (found.messages - first.messages) / max(passed, 1e-9)
        line.say(f"feed: {passed:3.0f} of {seconds:.0f} s, {count} symbols, {rate:,.0f} messages/s, lag {lag:.2f} s")
        time.sleep(POLL_SECONDS)
    last, passed = page(port), time.monotonic() - began
    rate = (last.messages - first.messages) / passed
    line.end(f"feed: {passed:.0f} s, {count} symbols, {rate:,.0f} messages/s, greatest lag {max(lags):.2f} s")
    return Followed(
        passed,
        count,
        rate,
        int(last.values["candles"] - first.values["candles"]),
        len(late),
        int(last.values["candlemill_feed_rows"] - first.values["candlemill_feed_rows"]),
        int(last.values["candlemill_feed_gap_minutes"]),
        int(last.values["bad"]),
        lags,
        late,
        busy.cores(),
        memory_mb(pids["feed"]),
    )


class Page(msgspec.Struct, frozen=True):
    """What the feed's /metrics says: kinds of messages and figures by name, lags by symbol in seconds."""

    values: dict[str, float]
    lags: dict[str, float]

    @property
    def messages(self) -> float:
        return sum(self.values.get(kind, 0.0) for kind in ("candles", "unfinished", "duplicates"))


def page(port: int) -> Page:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return read_page(answer.read().decode())


def read_page(text: str) -> Page:
    values: dict[str, float] = {}
    lags: dict[str, float] = {}
    for name, labels, value in METRIC.findall(text):
        output = dict(re.findall(r'(\w+)="(.*?)"', labels))
        if "symbol" in output:
            lags[output["symbol"]] = float(value)
        else:
            values[output.get("kind", name)] = float(value)
    return Page(values, lags)


def _wait_until_there(port: int, line: Line) -> None:
    """Until every symbol is subscribed and nothing is missing."""
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while time.monotonic() < deadline:
        found = page(port)
        if found.lags and found.messages and not found.values["candlemill_feed_gap_minutes"]:
            return
        line.say(f"feed: catching up, {found.values.get('candlemill_feed_gap_minutes', 0):.0f} minutes are missing")
        time.sleep(POLL_SECONDS)
    raise SystemExit(f"the feed did not catch up within {CATCH_UP_SECONDS:.0f} s")
