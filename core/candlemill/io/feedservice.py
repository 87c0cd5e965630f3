"""The feed as a service: `/healthz` and `/metrics` beside it, an end in order when it is asked to end."""

import asyncio
import logging
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from aiohttp import web
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from candlemill.exchange import Exchange
from candlemill.io import logs, meters
from candlemill.io.feed import LATE_MS, LiveFeed, Settings
from candlemill.io.feedstore import FeedStore
from candlemill.io.rest import Clock, silence_of
from candlemill.io.settings import SILENCE, data_folder

STUCK_LIMIT_MS: Final = 120_000
START_LIMIT_MS: Final = 120_000

_MESSAGES: Final = ("candles", "unfinished", "duplicates", "conflicts", "foreign", "others", "bad")


class Health:
    """Whether the feed does its work, and if not, why, in one line."""

    def __init__(self, feed: LiveFeed, clock: Clock) -> None:
        self._feed = feed
        self._clock = clock
        self._since = clock.now_ms()

    def problem(self) -> str:
        """Empty where all is well. A symbol that does not trade lags for ever: only when half of them do, it counts."""
        feed, now = self._feed, self._clock.now_ms()
        if not feed.started:
            return "still starting" if now - self._since < START_LIMIT_MS else "cannot start: see the log"
        apart = feed.rest.now() - feed.feed.lines.connected_at
        if apart > STUCK_LIMIT_MS:
            return f"no connection for {apart // 1000} s"
        oldest = feed.batches.oldest_ms()
        if oldest and now - oldest > STUCK_LIMIT_MS:
            return f"the store has taken nothing for {(now - oldest) // 1000} s"
        lags = [feed.feed.lag_ms(symbol, feed.rest.now()) for symbol in feed.feed.minutes]
        late = sum(lag > LATE_MS for lag in lags)
        if 2 * late > len(lags):
            return f"{late} of {len(lags)} symbols lag more than {LATE_MS // 1000} s"
        return ""


class Figures:
    """What Prometheus is told, read from the feed when it asks."""

    def __init__(self, feed: LiveFeed) -> None:
        self._feed = feed

    def collect(self) -> Iterator[Metric]:
        live, feed, counts = self._feed, self._feed.feed, self._feed.feed.counts
        lines, batches, audits = self._feed.feed.lines, self._feed.batches.counts, self._feed.audits
        exchange = live.exchange.name
        messages = CounterMetricFamily("candlemill_feed_messages", "Messages by kind", labels=["exchange", "kind"])
        for kind in _MESSAGES:
            messages.add_metric([exchange, kind], getattr(counts, kind))
        yield messages
        for name, text, value in (
            ("connects", "Connections that were begun", lines.counts.connects),
            ("reconnects", "Connections that ended unasked", lines.counts.breaks),
            ("silences", "Connections that were given up as silent", lines.counts.silences),
            ("resubscribed", "Symbols that had gone quiet", lines.counts.resubscribed),
            ("filled", "Candles that came over REST", counts.filled),
            ("outage_minutes", "Minutes that the exchange itself lacks", counts.outage_minutes),
            ("audited", "Candles that were read again over REST", audits.minutes),
            ("corrected", "Candles that were stored otherwise than REST says", audits.corrected),
            ("rows", "Candles that were written", batches.rows),
            ("batches", "Batches that were written", batches.batches),
            ("batch_failures", "Attempts to write a batch that failed", batches.failures),
            ("given_up", "Candles that were dropped, to be asked for again", batches.given_up),
            ("unstorable", "Candles whose volume does not fit", batches.unstorable),
            ("requests", "REST requests", live.rest.requests if live.started else 0),
            ("requests_refused", "REST requests answered 429 or 418", live.rest.refused if live.started else 0),
        ):
            yield CounterMetricFamily(f"candlemill_feed_{name}", text, value=value)
        for name, text, value in (
            ("connections", "Connections that are open", lines.connected()),
            ("gap_minutes", "Minutes that are missing and being asked for", feed.hole_minutes()),
            ("buffered_rows", "Candles that wait for the store", live.batches.waiting),
            ("batch_rows", "Candles in the last batch", batches.last_rows),
            ("symbols", "Symbols that are followed", len(feed.minutes)),
        ):
            yield GaugeMetricFamily(f"candlemill_feed_{name}", text, value=value)
        lag = GaugeMetricFamily(
            "candlemill_feed_lag_seconds", "Age of the last minute that is there", labels=["symbol"]
        )
        if live.started:
            now = live.rest.now()
            for symbol in feed.minutes:
                lag.add_metric([live.exchange.store_name(symbol)], feed.lag_ms(symbol, now) / 1000)
        yield lag


def application(feed: LiveFeed, health: Health) -> web.Application:
    figures = Figures(feed)

    async def healthz(_: web.Request) -> web.Response:
        problem = health.problem()
        return web.Response(text=f"{problem or 'ok'}\n", status=503 if problem else 200)

    async def metrics(_: web.Request) -> web.Response:
        found = meters.page(figures)
        assert found is not None, "prometheus_client is imported above"
        return web.Response(body=found[0], headers={"Content-Type": found[1]})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/metrics", metrics)])
    return app


async def serve_feed(
    exchange: Exchange,
    symbols: Sequence[str],
    store: FeedStore,
    settings: Settings,
    host: str,
    port: int | None,
    ready: Callable[[int], None] = lambda port: None,
) -> bool:
    """Feed until SIGTERM or SIGINT, then write what has come; whether that succeeded. `port` None serves no page, 0 any
    free one."""
    clock = Clock()
    silence = silence_of(exchange, data_folder() / SILENCE)
    feed = LiveFeed(exchange, symbols, store, settings, clock, random.Random(), silence)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, feed.stop)
    runner = web.AppRunner(application(feed, Health(feed, clock)), access_log=None, shutdown_timeout=1.0)
    try:
        await runner.setup()
        if port is not None:
            await web.TCPSite(runner, host, port).start()
            ready(int(runner.addresses[0][1]))
        return await feed.run()
    finally:
        await runner.cleanup()


def run_service(exchange: Exchange, symbols: Sequence[str], dsn: str, settings: Settings, **where: Any) -> None:
    """The whole of it, for a process that does nothing else."""
    logs.setup()
    with FeedStore(dsn) as store:
        if not asyncio.run(serve_feed(exchange, symbols, store, settings, **where)):
            logging.shutdown()
            os._exit(1)  # a thread that waits for the database would keep this process beyond its grace
