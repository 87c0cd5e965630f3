"""The command `paper`: decide on candles as they close. No order is ever placed."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import msgspec

from candlemill.backtests.spec import OPTIONS
from candlemill.cli.arguments import Parser, announce, option_argument, parameters, port_argument
from candlemill.cli.candles import adapter, add_exchange, feed_store, symbols_of
from candlemill.engine.candles import MINUTE_MS
from candlemill.errors import BadInput, NoData
from candlemill.formatting import exact, money
from candlemill.paper.decision import DECISION, Decision, event_of
from candlemill.pipeline.request import Request
from candlemill.pipeline.rows import PaperLogRow
from candlemill.units import iso, parse_range


def paper_arguments(sub: Parser) -> None:
    sub.add_argument("--symbol", action="append", required=True, metavar="S", help="run it; several with commas")
    sub.add_argument("--strategy", required=True, metavar="NAME|FILE.py[:CLASS]", help="built in, or in a file")
    sub.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="of the strategy")
    for option in OPTIONS.values():
        option_argument(sub, option)
    sub.add_argument(
        "--from", dest="begin", metavar="TIME", help="when the run begins, like 2024-02-01 (default: now, or as before)"
    )
    sub.add_argument("--since", metavar="TIME", help="publish decisions from this time on (default: now)")
    sub.add_argument(
        "--follow", action="store_true", help="read the store that `candlemill feed` writes, without an own feed"
    )
    sub.add_argument("--once", action="store_true", help="with --follow: use what is stored now, then end")
    sub.add_argument("--sink", default="", metavar="URL", help="POST each decision to URL, as a CloudEvent")
    sub.add_argument("--json", action="store_true", help="write each event as a line of JSON on stdout")
    text = "serve /healthz and /metrics there; 0 takes any free one"
    sub.add_argument("--port", type=port_argument, metavar="PORT", help=text)
    sub.add_argument("--host", default="127.0.0.1", help="the address of /healthz and /metrics")
    add_exchange(sub)


def run_paper(args: argparse.Namespace) -> None:
    """Run `paper`. Raises BadInput if its libraries are not installed."""
    if lacking := [name for name in ("websockets", "uvicorn", "starlette", "prometheus_client") if not find_spec(name)]:
        raise BadInput(f"paper runs need {', '.join(lacking)}: pip install 'candlemill[feed]'")
    from candlemill.feed.live import Settings
    from candlemill.paper.order import Order
    from candlemill.paper.request import specs_of
    from candlemill.paper.service import run_beside_store, run_with_feed
    from candlemill.telemetry import logs

    logs.setup_service(args.verbose)
    exchange, symbols = adapter(args), symbols_of(args)
    names = symbols if args.follow else [exchange.store_name(symbol) for symbol in symbols]
    specs = specs_of(request_of(args, names[0]), names)
    if args.sink and not args.sink.startswith(("http://", "https://")):
        raise BadInput(f"--sink {args.sink!r} is no http:// or https:// address")
    if args.once and not args.follow:
        raise BadInput("--once belongs to --follow: a feed of its own goes on until it is stopped")
    begin, since = (parse_range(given)[0] if given else None for given in (args.begin, args.since))
    order = Order(specs, begin, since, args.sink)
    said = printer(args.json)

    def ready(port: int) -> None:
        announce(f"paper runs, with /healthz and /metrics on http://{args.host}:{port}")

    with feed_store() as store:
        where = {"host": args.host, "port": args.port, "ready": ready}
        if args.follow:
            paper = run_beside_store(store, order, said, args.once, **where)
        else:
            paper = run_with_feed(store, order, exchange, symbols, Settings(), said, **where)
        for run in paper.desk.runs.values():
            announce(summary(run))


def request_of(args: argparse.Namespace, symbol: str) -> Request:
    from candlemill.strategies import loader

    return Request(
        symbol=symbol,
        strategy=loader.load(args.strategy),
        range="all",
        params=parameters(args.param),
        **{name: getattr(args, name) for name in OPTIONS},
    )


def printer(as_json: bool) -> Callable[[Sequence[PaperLogRow]], None]:
    """Return what prints the events of logged rows, a line each."""

    def show(rows: Sequence[PaperLogRow]) -> None:
        lines = [json_line(row) if as_json else text_line(row) for row in rows if row.event]
        if lines:
            sys.stdout.write("\n".join(lines) + "\n")
            sys.stdout.flush()

    return show


def json_line(row: PaperLogRow) -> str:
    event = event_of(row)
    return json.dumps({"id": event.id, "type": event.type, "source": event.source, "data": json.loads(row.data)})


def text_line(row: PaperLogRow) -> str:
    if row.event != DECISION:
        found = json.loads(row.data)
        return f"{iso(row.t)} {found['symbol']}: {found['reason']} candle, replayed from here"
    decision = msgspec.json.decode(row.data, type=Decision)
    again = f" (attempt {decision.attempt})" if decision.attempt > 1 else ""
    return f"{iso(decision.minute)} {decision.symbol}{again}: {', '.join(parts_of(decision))}"


def parts_of(decision: Decision) -> list[str]:
    """Return what a decision says, in words."""
    target = "keeps" if decision.target is None else f"target {percent(decision.target)}"
    parts = [target, f"holds {percent(decision.exposure)}"]
    for order in decision.orders:
        verb = "buy" if order.side > 0 else "sell"
        parts.append(f"{order.kind} {verb} {order.key} at {exact(order.price)}")
    for fill in decision.fills:
        quantity = "" if fill.quantity is None else f" {exact(fill.quantity)}"
        parts.append(f"{'bought' if fill.side > 0 else 'sold'}{quantity} at {exact(fill.price)} ({fill.what})")
    if decision.equity is not None:
        parts.append(f"equity {money(decision.equity)}")
    return parts


def percent(ppm: int) -> str:
    return f"{ppm / 10_000:g}%"


def summary(run: Any) -> str:
    """Return the line that says what a run has come to, and how a backtest shows the same."""
    if run.last < run.spec.start:
        return f"{run.spec.symbol}: no candle since {iso(run.spec.start)}"
    try:
        found = run.result()
    except NoData as error:  # funding without a rate
        return f"no result yet: {error}"
    return (
        f"{run.spec.symbol}: {found['bars']:,} minutes from {iso(run.spec.start)} to {iso(run.last + MINUTE_MS)}, "
        f"{found['trades']:,} trades, profit {money(found['total_pnl'])}, result {found['result_digest'][:16]}"
    )
