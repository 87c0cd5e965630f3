"""Commands that run or administer services: serve, db, key, mcp."""

import argparse
import logging
import sys
from pathlib import Path

from candlemill.cli.arguments import announce
from candlemill.errors import BadInput


def run_serve(args: argparse.Namespace) -> None:
    from candlemill.config import dsn
    from candlemill.gateway.standalone import serve
    from candlemill.telemetry import logs

    logs.setup_service(args.verbose)

    def ready(port: int) -> None:
        announce(f"candlemill serves http://{args.host}:{port}")

    serve(dsn(), args.host, args.port, ready, args.strategy_seconds)


def run_key(args: argparse.Namespace) -> None:
    from candlemill.gateway.api_keys import make_key

    key, line = make_key(args.name)
    print(f"the key of {args.name}, shown only now: {key}", file=sys.stderr)
    print(line)


def run_db(args: argparse.Namespace) -> None:
    from candlemill.config import dsn
    from candlemill.local.db_server import serve
    from candlemill.telemetry import logs

    logs.setup_service(args.verbose)
    where = dsn()
    if not where.startswith("chdb://"):
        raise BadInput(f"candlemill db serves an embedded database, not {where.split('@')[-1]}: give a chdb:// DSN")

    def ready(port: int) -> None:
        announce(f"serving {where} on http://{args.host}:{port}/default")

    serve(Path(where.removeprefix("chdb://")), args.host, args.port, ready)


def run_mcp(args: argparse.Namespace) -> None:
    """Run `mcp`. Raises BadInput if its library is not installed."""
    from importlib.util import find_spec

    if find_spec("mcp") is None:
        raise BadInput("an assistant's server needs mcp: pip install 'candlemill[mcp]'")
    from candlemill.assistants.service import run
    from candlemill.config import dsn
    from candlemill.telemetry import logs

    logs.setup(json=False, level=logging.WARNING)
    run(dsn(), args.url, args.allow_jobs)
