"""The feed as a service, with `/healthz`, `/livez`, `/metrics` and a graceful stop."""

import asyncio
import logging
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from candlemill.config import cooldown_folder
from candlemill.exchanges.base import Exchange
from candlemill.feed.live import LATE_MS, LiveFeed, Settings
from candlemill.feed.rest_client import Clock, cooldown_of
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.telemetry import logs, prometheus
from candlemill.transport.asgi import serving

STUCK_LIMIT_MS: Final = 120_000

_MESSAGES: Final = ("candles", "unfinished", "duplicates", "conflicts", "foreign", "others", "bad")


class Health:
    """Health check of the feed."""

    def __init__(self, feed: LiveFeed, clock: Clock) -> None:
        self._feed = feed
        self._clock = clock

    def problem(self) -> str:
        """One line, empty if healthy. Some symbols without trades always lag, so only a majority counts."""
        feed, now = self._feed, self._clock.now_ms()
        if not feed.started:
            return f"cannot start: {feed.waits_for}" if feed.waits_for else "still starting"
        disconnected_ms = feed.rest.now() - feed.feed.connections.connected_at
        if disconnected_ms > STUCK_LIMIT_MS:
            return f"no connection for {disconnected_ms // 1000} s"
        oldest = feed.batches.oldest_ms()
        if oldest and now - oldest > STUCK_LIMIT_MS:
            return f"the store has taken nothing for {(now - oldest) // 1000} s"
        lags = [feed.feed.lag_ms(symbol, feed.rest.now()) for symbol in feed.feed.trackers]
        late = sum(lag > LATE_MS for lag in lags)
        if 2 * late > len(lags):
            return f"{late} of {len(lags)} symbols lag more than {LATE_MS // 1000} s"
        return ""


class FeedCollector:
    """Prometheus metrics of the feed, computed at each scrape."""

    def __init__(self, feed: LiveFeed) -> None:
        self._feed = feed

    def collect(self) -> Iterator[Metric]:
        live, feed, counts = self._feed, self._feed.feed, self._feed.feed.counts
        connections, batches, audits = self._feed.feed.connections, self._feed.batches.counts, self._feed.audits
        exchange = live.exchange.name
        messages = CounterMetricFamily("candlemill_feed_messages", "Messages by kind", labels=["exchange", "kind"])
        for kind in _MESSAGES:
            messages.add_metric([exchange, kind], getattr(counts, kind))
        yield messages
        for name, text, value in (
            ("connects", "Attempts to open a connection", connections.counts.connects),
            ("reconnects", "Connections that ended unexpectedly", connections.counts.lost),
            ("silences", "Connections that were closed because they delivered nothing", connections.counts.timeouts),
            (
                "resubscribed",
                "Symbols that were subscribed again because they delivered nothing",
                connections.counts.resubscribed,
            ),
            ("filled", "Candles that were filled in over REST", counts.filled),
            ("outage_minutes", "Minutes that the exchange lacks", counts.outage_minutes),
            ("audited", "Candles that were read again over REST", audits.minutes),
            ("corrected", "Stored candles that were corrected from REST", audits.corrected),
            ("rows", "Candles that were written", batches.rows),
            ("batches", "Batches that were written", batches.batches),
            ("batch_failures", "Attempts to write a batch that failed", batches.failures),
            ("given_up", "Candles that were dropped and will be requested again", batches.dropped),
            ("unstorable", "Candles whose volume does not fit", batches.unstorable),
            ("requests", "REST requests", live.rest.requests if live.started else 0),
            ("requests_refused", "REST requests answered 429 or 418", live.rest.refused if live.started else 0),
        ):
            yield CounterMetricFamily(f"candlemill_feed_{name}", text, value=value)
        for name, text, value in (
            ("connections", "Connections that are open", connections.connected()),
            ("gap_minutes", "Missing minutes that are being requested", feed.gap_minutes()),
            ("buffered_rows", "Candles that wait to be written", live.batches.waiting),
            ("batch_rows", "Candles in the last batch", batches.last_rows),
            ("symbols", "Symbols that are followed", len(feed.trackers)),
        ):
            yield GaugeMetricFamily(f"candlemill_feed_{name}", text, value=value)
        lag = GaugeMetricFamily("candlemill_feed_lag_seconds", "Age of the last present minute", labels=["symbol"])
        if live.started:
            now = live.rest.now()
            for symbol in feed.trackers:
                lag.add_metric([live.exchange.store_name(symbol)], feed.lag_ms(symbol, now) / 1000)
        yield lag


def application(problem_of: Callable[[], str], *collectors: Any) -> Starlette:
    """Return the app of `/healthz`, `/livez` and `/metrics`; `problem_of` returns one line, empty if all is well."""

    async def healthz(_: Request) -> Response:
        problem = problem_of()
        return PlainTextResponse(f"{problem or 'ok'}\n", 503 if problem else 200)

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")  # a restart would not bring an exchange or a database back

    async def metrics(_: Request) -> Response:
        found = prometheus.page(*collectors)
        assert found is not None, "prometheus_client is imported above"
        return Response(found[0], headers={"Content-Type": found[1]})

    return Starlette(routes=[Route("/healthz", healthz), Route("/livez", livez), Route("/metrics", metrics)])


async def serve_feed(
    exchange: Exchange,
    symbols: Sequence[str],
    store: ClickHouseStore,
    settings: Settings,
    host: str,
    port: int | None,
    ready: Callable[[int], None] = lambda port: None,
) -> bool:
    """Run the feed until SIGTERM or SIGINT; return whether all candles were written.

    `port`: of `/healthz` and `/metrics`; None serves neither, 0 chooses a free port.
    """
    clock = Clock()
    cooldown = cooldown_of(exchange, cooldown_folder())
    feed = LiveFeed(exchange, symbols, store, settings, clock, random.Random(), cooldown)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, feed.stop)
    async with AsyncExitStack() as stack:
        if port is not None:
            app = application(Health(feed, clock).problem, FeedCollector(feed))
            ready(await stack.enter_async_context(serving(app, host, port)))
        return await feed.run()


def run_service(
    exchange: Exchange, symbols: Sequence[str], store: ClickHouseStore, settings: Settings, **where: Any
) -> None:
    """Run the feed as the main program of a process, with logging and an exit status, and close the store."""
    logs.setup_once()
    with store:
        if not asyncio.run(serve_feed(exchange, symbols, store, settings, **where)):
            logging.shutdown()
            os._exit(1)  # do not wait for a thread that hangs in the database
