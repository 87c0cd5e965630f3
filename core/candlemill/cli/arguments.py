"""Code that all commands share: arguments, the store, output, the progress bar."""

import argparse
import json
import sys
from typing import Any, NoReturn

from candlemill.backtests.options import METAVARS, Option
from candlemill.backtests.spec import ParamValue
from candlemill.errors import BadInput

SECONDS_LIMIT = 1_000_000
LAST_PORT = 65_535


class Parser(argparse.ArgumentParser):
    """Parser with one-line errors and without abbreviated options, whose meaning a later option could change."""

    def __init__(self, **more: Any) -> None:
        super().__init__(allow_abbrev=False, **more)

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; see `{self.prog} --help`")


def text_argument(text: str) -> str:
    """Return a printable text argument. Raises ArgumentTypeError otherwise, as the database stores text only."""
    if not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is not printable text")
    return text


def port_argument(text: str) -> int:
    if not text.isdecimal() or int(text) > LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 0 to {LAST_PORT}")
    return int(text)


def count_argument(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found <= SECONDS_LIMIT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0, up to {SECONDS_LIMIT:,}")
    return found


def option_argument(sub: argparse.ArgumentParser, option: Option) -> None:
    """Add the command line's form of a job's option."""
    text = option.help.replace("%", "%%")
    if option.kind == "flag":
        sub.add_argument(option.flag, dest=option.name, action="store_true", help=text)
        return
    sub.add_argument(
        option.flag,
        dest=option.name,
        default=None if option.inferred else option.default_text(),
        type=int if option.kind == "minutes" else str,
        choices=option.choices or None,
        metavar=None if option.choices else METAVARS.get(option.kind, option.name.upper()),
        help=text,
    )


def strategy_seconds(sub: argparse.ArgumentParser) -> None:
    """Add the option `--strategy-seconds`."""
    text = "time limit of a task of a strategy from a file (default 60, and 1 ms for each bar of each set)"
    sub.add_argument("--strategy-seconds", type=_seconds, metavar="SECONDS", help=text)


def parameters(texts: list[str]) -> dict[str, ParamValue]:
    """Parse texts of the form `NAME=VALUE`. Raises BadInput."""
    found: dict[str, ParamValue] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise BadInput(f"parameter {text!r} is not like fast=10")
        if name in found:
            raise BadInput(f"parameter {name!r} is given twice")
        found[name] = value
    return found


def open_store() -> Any:
    from candlemill.config import dsn
    from candlemill.store import shared_memory
    from candlemill.store.clickhouse import ClickHouseStore

    shared_memory.sweep()
    return ClickHouseStore(dsn())


def announce(text: str) -> None:
    """Print one line on stderr in a single write, so that no log line comes between the text and its newline."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def output(args: argparse.Namespace, found: dict[str, Any], text: str) -> None:
    print(json.dumps(found) if args.json else text)
