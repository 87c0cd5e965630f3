"""The commands for exchange data: `feed`, `ingest --symbol`, `coverage --check`."""

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from candlemill.cli.arguments import announce, open_store, output, port_argument, text_argument
from candlemill.engine.candles import DAY_MS
from candlemill.errors import BadFile, BadInput
from candlemill.units import iso, parse_range, parse_timeframe

DAYS_MAX = 20_000


def add_exchange(sub: argparse.ArgumentParser) -> None:
    """Add the options of the exchange. The addresses are for mirrors, proxies and the simulator."""
    sub.add_argument("--exchange", default="binance", help="binance, binanceus or bybit (default binance)")
    for name in ("rest", "stream", "archive"):
        sub.add_argument(f"--{name}-url", metavar="URL", help=f"another address of {name}")


def add_market(sub: argparse.ArgumentParser, known: str) -> None:
    sub.add_argument("--market", metavar="M", help=f"market of the files: {known} (default: from their folders)")


def add_download(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--symbol", action="append", default=[], metavar="S", help="download it; several with commas")
    sub.add_argument(
        "--all-symbols",
        action="store_true",
        help="download all symbols, also delisted ones; --quote selects among them",
    )
    sub.add_argument("--quote", metavar="QUOTE", help="with --all-symbols: only symbols that end with it, like USDT")
    sub.add_argument("--days", type=int, metavar="N", help="the last N days")
    sub.add_argument("--from", dest="first", metavar="DATE", help="first date, like 2023, 2023-01 or 2023-01-31")
    sub.add_argument("--to", dest="last", metavar="DATE", help="to its end (default: until now)")
    sub.add_argument("--all", action="store_true", help="all there is")
    add_exchange(sub)


def add_feed(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--symbol", action="append", required=True, metavar="S", help="follow it; several with commas")
    text = "serve /healthz and /metrics there; 0 takes any free one"
    sub.add_argument("--port", type=port_argument, metavar="PORT", help=text)
    sub.add_argument("--host", default="127.0.0.1", help="the address of /healthz and /metrics")
    add_exchange(sub)


def add_own(sub: argparse.ArgumentParser) -> None:
    """Add the options of files from other sources."""
    sub.add_argument("--format", choices=["parquet", "csv"], help="files of any source, not Binance's: see --map, --as")
    sub.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        help="column of a field: time, open, high, low, close, volume or symbol; several with commas",
    )
    sub.add_argument("--as", dest="own", type=text_argument, metavar="SYMBOL", help="the symbol of all rows")
    sub.add_argument("--tz", metavar="ZONE", help="of times that have no zone, like Europe/Berlin (default UTC)")
    sub.add_argument(
        "--decimals", type=int, metavar="N", help="round to N decimals; without it more than 8 are refused"
    )
    sub.add_argument("--timeframe", metavar="T", help="of longer candles, like 1h or 1d: stored as SYMBOL@1h")
    sub.add_argument("--fold", action="store_true", help="put candles of seconds together to minutes")


def own_format(args: argparse.Namespace) -> Any:
    """Return how to read files of other sources, or None for Binance's files. Raises BadInput."""
    from candlemill.ingest.own_files import OwnFormat

    if args.format is None:
        options = {"map": args.map, "as": args.own, "fold": args.fold, "tz": args.tz, "timeframe": args.timeframe}
        for name, given in options.items():
            if given:
                raise BadInput(f"--{name} is for files of other sources: say --format parquet or --format csv")
        return None
    if args.market:
        raise BadInput("--market is for Binance's files: name the symbol with --as")
    if args.decimals is not None and not 0 <= args.decimals <= 8:
        raise BadInput(f"--decimals {args.decimals} is not between 0 and 8")
    names: dict[str, str] = {}
    for text in (part for given in args.map for part in given.split(",")):
        field, equals, column = (part.strip() for part in text.partition("="))
        if not equals or not field or not column:
            raise BadInput(f"--map {text!r} is not like open=o")
        if field in names:
            raise BadInput(f"--map has {field} twice")
        names[field] = column
    minutes = parse_timeframe(args.timeframe) if args.timeframe else 1
    options = {"tz": args.tz, "decimals": args.decimals, "fold": args.fold, "minutes": minutes}
    return OwnFormat(form=args.format, names=names, symbol=args.own, **options)


def adapter(args: argparse.Namespace) -> Any:
    from candlemill.exchanges.registry import exchange

    return exchange(args.exchange, args.rest_url or "", args.stream_url or "", args.archive_url)


def symbols_of(args: argparse.Namespace) -> list[str]:
    names = [name.strip() for text in args.symbol for name in text.upper().split(",") if name.strip()]
    if not names:
        raise BadInput(f"--symbol {args.symbol[0]!r} names no symbol: give it like BTCUSDT or BTCUSDT,ETHUSDT")
    return names


def span_of(args: argparse.Namespace, now_ms: int) -> tuple[int, int] | None:
    """Return the span of `--days`, `--from`, `--to` and `--all`: `start <= t < end` in ms, None for all."""
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
    """Run `ingest --symbol …`; return its report."""
    import asyncio  # late import: it takes longer than all imports above

    from candlemill.config import cooldown_folder, data_folder
    from candlemill.feed.all_symbols import HistoryDownloader
    from candlemill.feed.download import Downloader
    from candlemill.feed.rest_client import Clock, cooldown_of
    from candlemill.telemetry import logs
    from candlemill.units import clock_ms

    if args.paths:
        raise BadInput(f"give either files ({args.paths[0]}, …) or --symbol, not both")
    if args.volume_scale is not None:
        raise BadInput("--volume-scale is for files: with --symbol the exchange says how fine volumes are")
    exchange = adapter(args)
    quote = quote_of(args) if args.all_symbols else ""
    symbols = [] if quote else symbols_of(args)
    span = None if args.all_symbols and not _says_how_much(args) else span_of(args, clock_ms())
    logs.setup(json=False, level=logging.WARNING)
    with feed_store() as opened:
        cooldown = cooldown_of(exchange, cooldown_folder())
        arguments = (exchange, opened, Clock(), data_folder() / "downloads", cooldown)
        if quote:
            return asyncio.run(HistoryDownloader(*arguments).run_all(quote, span))
        return asyncio.run(Downloader(*arguments).run(symbols, span))


def quote_of(args: argparse.Namespace) -> str:
    """Return the quote of `--all-symbols`. Raises BadInput."""
    if args.symbol:
        raise BadInput(f"give either --all-symbols or --symbol {args.symbol[0]}, not both")
    quote = (args.quote or "").strip().upper()
    if not quote.isalnum() or len(quote) > 10:
        raise BadInput("--all-symbols needs --quote, what the symbols end with, like USDT")
    return quote


def _says_how_much(args: argparse.Namespace) -> bool:
    return args.days is not None or args.first is not None or bool(args.all)


def run_feed(args: argparse.Namespace) -> None:
    """Run `feed`. Raises BadInput if its libraries are not installed; `ingest` needs none of them."""
    from importlib.util import find_spec

    if lacking := [name for name in ("websockets", "uvicorn", "starlette", "prometheus_client") if not find_spec(name)]:
        raise BadInput(f"a feed needs {', '.join(lacking)}: pip install 'candlemill[feed]'")

    from candlemill.feed.live import Settings
    from candlemill.feed.service import run_service

    def ready(port: int) -> None:
        announce(f"feeding, with /healthz and /metrics on http://{args.host}:{port}")

    settings = Settings(report_seconds=60.0 if sys.stderr.isatty() else 3600.0)
    exchange, symbols = adapter(args), symbols_of(args)
    run_service(exchange, symbols, feed_store(), settings, host=args.host, port=args.port, ready=ready)


def feed_store() -> Any:
    from candlemill.config import dsn
    from candlemill.store.clickhouse import ClickHouseStore

    return ClickHouseStore(dsn())


def check(store: Any, symbols: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Run `coverage --check`; return the report and its text.

    Lists every missing stretch between a symbol's first and last candle, and whether the exchange lacks it too (by the
    exchange's answer or by the known gaps of Binance) or only this store. Also lists the days whose candles, counted
    again, differ from the index.
    """
    from candlemill.exchanges.binance.outages import divide_holes
    from candlemill.feed.backfill import missing_intervals, remaining_outages
    from candlemill.formatting import table
    from candlemill.store.candle_writer import current_days
    from candlemill.store.integrity import damaged_days

    found: dict[str, Any] = {}
    lines: list[tuple[str, str, str, str, str]] = []
    for symbol in symbols:
        days = current_days(store, symbol)
        start, end = (days[0].first, days[-1].last) if days else (0, 0)
        known, holes = divide_holes(symbol, missing_intervals(store, symbol, start, end))
        outages = sorted([*remaining_outages(store, symbol, start, end), *known])
        damaged = damaged_days(store, symbol)
        found[symbol] = {"outages": _rows(outages), "missing": _rows(holes), "damaged": [d._asdict() for d in damaged]}
        for one in damaged:
            short = max(0, one.indexed_rows - one.stored_rows)
            lines.append((symbol, iso(one.start), iso(one.start + DAY_MS), f"{short:,}", "damaged"))
        for kind, spans in (("at the exchange", outages), ("here", holes)):
            lines += [(symbol, iso(a), iso(b), f"{(b - a) // 60_000:,}", kind) for a, b in spans]
    lines.sort()
    text = table(lines, ["symbol", "from", "to", "minutes", "missing"], right=[3]) if lines else "nothing is missing"
    if any(row[4] == "here" for row in lines):
        text += "\nwhat is missing here: candlemill ingest --symbol S --from DATE fetches it, and so does a feed"
    if any(row[4] == "damaged" for row in lines):
        text += "\ndamaged days have lost candles that the index has: candlemill doctor"
    return {"symbols": found}, text


def _rows(spans: Iterable[tuple[int, int]]) -> list[dict[str, int]]:
    return [{"start": a, "end": b, "minutes": (b - a) // 60_000} for a, b in spans]


def run_ingest(args: argparse.Namespace) -> int:
    from candlemill.ingest.candles import FilesRefused, ingest_own, read_ahead, store_files

    if args.quote and not args.all_symbols:
        raise BadInput(f"--quote {args.quote} belongs to --all-symbols")
    if args.symbol or args.all_symbols:
        if args.market:
            raise BadInput("--market is for files: --symbol downloads an exchange's spot candles")
        downloaded = download(args)
        output(args, downloaded.to_dict(), downloaded.text())
        return 0
    if not args.paths:
        raise BadInput("nothing to ingest: give files or folders, or --symbol BTCUSDT --days 30")
    own = own_format(args)
    try:
        if own is not None:
            with open_store() as store:
                report = ingest_own(store, args.paths, own, args.volume_scale)
        else:
            with read_ahead(args.paths, args.volume_scale, args.market) as ahead, open_store() as store:
                report = store_files(store, ahead, args.volume_scale)
    except FilesRefused as refused:
        return _refuse(args, refused, refused.report.to_dict(), refused.report.text())
    output(args, report.to_dict(), report.text())
    return 0


def _refuse(args: argparse.Namespace, error: BadFile, report: dict[str, Any], text: str) -> int:
    """Report the finished part and the refused files; return the exit status."""
    print(f"candlemill: {error}", file=sys.stderr)
    output(args, {**report, "error": {"code": error.code, "message": str(error)}}, text)
    return error.exit_status


def run_funding(args: argparse.Namespace) -> None:
    from candlemill.ingest.funding import ingest_funding

    with open_store() as store:
        counts = ingest_funding(store, args.paths, args.market)
    output(args, {"rates": counts}, "\n".join(f"{symbol}: {count:,} rates" for symbol, count in counts.items()))


def run_margin_tiers(args: argparse.Namespace) -> None:
    from candlemill.ingest.margin_tiers import ingest_margin_tiers

    with open_store() as store:
        counts = ingest_margin_tiers(store, args.file, args.valid_from)
    text = "\n".join(
        f"{symbol}: tiers of {count:,} date{'' if count == 1 else 's'}" for symbol, count in counts.items()
    )
    output(args, {"dates": counts}, text)


def run_coverage(args: argparse.Namespace) -> int:
    from candlemill.cli import coverage_tables
    from candlemill.errors import UnknownName
    from candlemill.store.candle_writer import current_days

    with feed_store() as store:
        known = store.symbols()
        if args.symbol and args.symbol not in known:
            raise UnknownName("symbol", args.symbol, known, "`candlemill coverage` lists what is stored")
        chosen = [args.symbol] if args.symbol else known
        if args.check:
            found, text = check(store, chosen)
            output(args, found, text)
            return int(any(one["damaged"] for one in found["symbols"].values()))
        days = {symbol: current_days(store, symbol) for symbol in chosen}
    if args.symbol:
        text = coverage_tables.coverage(args.symbol, days[args.symbol])
    else:
        text = coverage_tables.coverage_summary(days) if known else "nothing is stored yet: candlemill ingest PATH"
    output(args, {"symbols": {symbol: coverage_tables.coverage_rows(rows) for symbol, rows in days.items()}}, text)
    return 0
