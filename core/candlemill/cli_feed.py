"""The commands around exchanges: `feed`, `ingest --symbol`, `coverage --check`."""

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from candlemill.errors import BadInput
from candlemill.model import parse_range

DAY_MS = 86_400_000
DAYS_MAX = 20_000


def add_exchange(sub: argparse.ArgumentParser) -> None:
    """Where candles come from. The addresses are for mirrors, proxies and the simulator."""
    sub.add_argument("--exchange", default="binance", help="binance, binanceus or bybit (default binance)")
    for name in ("rest", "stream", "archive"):
        sub.add_argument(f"--{name}-url", metavar="URL", help=f"another address for {name}")


def add_download(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--symbol", action="append", default=[], metavar="S", help="download it; several, or with commas")
    sub.add_argument("--days", type=int, metavar="N", help="the last N days, until now")
    sub.add_argument("--from", dest="first", metavar="DATE", help="from 2023, 2023-01 or 2023-01-31 on")
    sub.add_argument("--to", dest="last", metavar="DATE", help="to its end (default: until now)")
    sub.add_argument("--all", action="store_true", help="all there is")
    add_exchange(sub)


def add_feed(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--symbol", action="append", required=True, metavar="S", help="several, or with commas")
    sub.add_argument("--port", type=int, metavar="PORT", help="serve /healthz and /metrics there; 0 takes any free one")
    sub.add_argument("--host", default="127.0.0.1")
    add_exchange(sub)


def adapter(args: argparse.Namespace) -> Any:
    from importlib.util import find_spec

    from candlemill.exchanges import exchange

    if not find_spec("aiohttp") or not find_spec("prometheus_client"):
        raise BadInput("exchanges need aiohttp and prometheus-client: pip install 'candlemill[feed]'")

    return exchange(args.exchange, args.rest_url or "", args.stream_url or "", args.archive_url)


def symbols_of(args: argparse.Namespace) -> list[str]:
    names = [name.strip() for text in args.symbol for name in text.upper().split(",") if name.strip()]
    if not names:
        raise BadInput(f"--symbol {args.symbol[0]!r} names no symbol: give it like BTCUSDT or BTCUSDT,ETHUSDT")
    return names


def span_of(args: argparse.Namespace, now_ms: int) -> tuple[int, int] | None:
    """What `--days`, `--from`, `--to` and `--all` ask for: `start <= t < end` in ms, None for all."""
    if (args.days is not None) + (args.first is not None) + args.all != 1:
        raise BadInput("say how much: one of --days N, --from DATE (with --to DATE or without), or --all")
    if args.last is not None and args.first is None:
        raise BadInput(f"--to {args.last} needs --from")
    if args.all:
        return None
    if args.days is not None:
        if not 1 <= args.days <= DAYS_MAX:
            raise BadInput(f"--days {args.days} is not between 1 and {DAYS_MAX:,}")
        midnight = now_ms // DAY_MS * DAY_MS
        return midnight - args.days * DAY_MS, now_ms
    start, end = parse_range(f"{args.first}..{args.last}") if args.last else (parse_range(args.first)[0], now_ms)
    if start >= now_ms:
        raise BadInput(f"--from {args.first} is in the future: nothing to ingest")
    return start, end


def download(args: argparse.Namespace) -> Any:
    """Run `ingest --symbol …`; returns its report."""
    import asyncio  # imported late: it takes longer than all that is imported above

    from candlemill.io import logs
    from candlemill.io.clock import clock_ms
    from candlemill.io.download import Downloader
    from candlemill.io.rest import Clock, silence_of
    from candlemill.io.settings import SILENCE, data_folder

    if args.paths:
        raise BadInput(f"give either files ({args.paths[0]}, …) or --symbol, not both")
    if args.volume_scale is not None:
        raise BadInput("--volume-scale is for files: with --symbol the exchange says how fine volumes are")
    exchange, symbols, span = adapter(args), symbols_of(args), span_of(args, clock_ms())
    logs.setup(json=False, level=logging.WARNING)
    with store() as opened:
        silence = silence_of(exchange, data_folder() / SILENCE)
        loader = Downloader(exchange, opened, Clock(), data_folder() / "downloads", silence)
        return asyncio.run(loader.run(symbols, span))


def run_feed(args: argparse.Namespace) -> None:
    from candlemill.io.feed import Settings
    from candlemill.io.feedservice import run_service
    from candlemill.io.settings import dsn

    def ready(port: int) -> None:
        print(f"feeding, with /healthz and /metrics on http://{args.host}:{port}", file=sys.stderr, flush=True)

    settings = Settings(report_seconds=60.0 if sys.stderr.isatty() else 3600.0)
    run_service(adapter(args), symbols_of(args), dsn(), settings, host=args.host, port=args.port, ready=ready)


def store() -> Any:
    from candlemill.io.feedstore import FeedStore
    from candlemill.io.settings import dsn

    return FeedStore(dsn())


def check(store: Any, symbols: Sequence[str]) -> tuple[dict[str, Any], str]:
    """`coverage --check`: every missing stretch between a symbol's first and last candle, and whose fault it is."""
    from candlemill.io.coverage import current_days
    from candlemill.io.healing import holes_of, outages_left
    from candlemill.show import table

    found: dict[str, Any] = {}
    lines: list[tuple[str, str, str, str, str]] = []
    for symbol in symbols:
        days = current_days(store, symbol)
        start, end = (days[0].first, days[-1].last) if days else (0, 0)
        holes, outages = holes_of(store, symbol, start, end), outages_left(store, symbol, start, end)
        found[symbol] = {"outages": _rows(outages), "missing": _rows(holes)}
        for kind, spans in (("at the exchange", outages), ("here", holes)):
            lines += [(symbol, _iso(a), _iso(b), f"{(b - a) // 60_000:,}", kind) for a, b in spans]
    lines.sort()
    text = table(lines, ["symbol", "from", "to", "minutes", "missing"], right=[3]) if lines else "nothing is missing"
    if any(row[4] == "here" for row in lines):
        text += "\nwhat is missing here: candlemill ingest --symbol S --from DATE fetches it, and so does a feed"
    return {"symbols": found}, text


def _rows(spans: Iterable[tuple[int, int]]) -> list[dict[str, int]]:
    return [{"start": a, "end": b, "minutes": (b - a) // 60_000} for a, b in spans]


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%MZ")
