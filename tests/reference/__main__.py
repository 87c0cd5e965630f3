"""Run the reference on Binance kline files: `python -m tests.reference --data FILE... --strategy NAME` (as JSON).

Files of one symbol are one series of candles; the symbol is the file's name up to the first `-`.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from .candles import Bar, read
from .cash import run_cash
from .units import run_units


def value(text: str) -> Any:
    """A JSON value, else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def pairs(items: list[str]) -> dict[str, Any]:
    """`name=value` arguments as a dict."""
    return {name: value(text) for name, _, text in (item.partition("=") for item in items)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.reference", description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="kline CSVs or zips")
    parser.add_argument("--strategy", required=True)
    parser.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="parameter of the strategy")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="see options.py; scaled")
    parser.add_argument("--account", choices=("units", "cash"), default="units")
    parser.add_argument("--events", action="store_true", help="print every fill as well")
    arguments = parser.parse_args()
    candles: dict[str, list[Bar]] = {}
    for path in arguments.data:
        candles.setdefault(path.name.split("-")[0], []).extend(read(path))
    strategy, options = (arguments.strategy, pairs(arguments.param)), pairs(arguments.option)
    if arguments.account == "cash":
        result = run_cash(candles, strategy, options)
        events = [dataclasses.asdict(event) for event in result.pop("events")]
    else:
        if len(candles) > 1:
            parser.error(f"{len(candles)} symbols in an account of units: give --account cash, or one symbol")
        result = run_units(next(iter(candles.values())), strategy, options)
        events = [{**dataclasses.asdict(fill), "traded": traded} for fill, traded in result.pop("events")]
    del result["equity"]
    print(json.dumps({**result, "events": events} if arguments.events else result))


if __name__ == "__main__":
    main()
