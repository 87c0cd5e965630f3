"""Columns of exported tables: the unit and meaning of each. Files carry both; docs/export.md shows them."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from candlemill.backtests.metric_table import BY_KEY
from candlemill.formatting import Unit


class Column(NamedTuple):
    """Unit and meaning of a column."""

    unit: str
    text: str


UNITS: Mapping[Unit, str] = {
    Unit.MONEY: "quote",
    Unit.SHARE: "percent",
    Unit.RATIO: "ratio",
    Unit.COUNT: "count",
    Unit.DAYS: "days",
    Unit.PPM: "ppm",
    Unit.SIDE: "side",
}

_IDS = {
    "job_id": Column("", "the job, or of a sweep the parameter set"),
    "symbol": Column("", "the symbol"),
    "strategy": Column("", "the strategy"),
    "start": Column("UTC", "the range begins with this minute"),
    "end": Column("UTC", "the range ends before this minute"),
    "params": Column("JSON", "the strategy's parameters"),
}
_TRADES = {
    "entry_time": Column("UTC", "opening time of the bar of the entry's fill"),
    "exit_time": Column("UTC", "opening time of the bar of the exit's fill"),
    "side": Column("", "long or short"),
    "quantity": Column("base", "units of base, all that was added"),
    "entry_price": Column("quote per base", "of the entry, after slippage; of several fills the mean by quantity"),
    "exit_price": Column("quote per base", "of the exit, after slippage; of several fills the mean by quantity"),
    "profit": Column("quote", "after fees, funding and borrow"),
    "fees": Column("quote", "paid for all fills"),
    "funding": Column("quote", "paid while the position was open"),
    "borrow": Column("quote", "paid by a short for what it has borrowed"),
    "mae": Column("quote", "worst profit of the open position, before costs, 0 or less"),
    "mfe": Column("quote", "best profit of the open position, before costs, 0 or more"),
    "bars": Column("minutes", "bars from entry to exit"),
    "reason": Column("", "signal, stop, take, order, liquidation or ruin"),
    "gap": Column("", "whether a minute was missing meanwhile"),
    "ambiguous": Column("", "whether the order of events in the last bar is not known"),
}
_EQUITY = {
    "time": Column("UTC", "opening time of the minute"),
    "close": Column("quote per base", "the minute's last price"),
    "position": Column("side", "at the close: 1 long, -1 short, 0 none"),
    "equity": Column("quote", "the account's value at the close"),
    "drawdown": Column("quote", "its fall from the highest value so far"),
}
_DAILY = {
    "day": Column("UTC", "midnight at which the day begins"),
    "profit": Column("quote", "of the day"),
    "equity": Column("quote", "the account's value at the day's end"),
}
_ORDERS = {
    "time": Column("UTC", "opening time of the bar of the fill"),
    "side": Column("", "buy or sell"),
    "what": Column("", "target, order, stop, take, liquidation or ruin"),
    "quantity": Column("base", "units of base that were filled"),
    "price": Column("quote per base", "of the fill, after slippage"),
    "fee": Column("quote", "paid for the fill, below 0 a rebate"),
}
TABLES: Mapping[str, Mapping[str, Column]] = {
    "trades": _IDS | _TRADES,
    "equity": _IDS | _EQUITY,
    "daily": _IDS | _DAILY,
    "orders": _IDS | _ORDERS,
    "sets": _IDS,
    "jobs": _IDS,
}


def column_of(table: str, name: str, unit: Unit | None = None) -> Column:
    """Return unit and meaning of a column, empty for one that is not known; `unit` is that of a figure."""
    if found := TABLES.get(table, {}).get(name):
        return found
    if name in BY_KEY:
        return Column(UNITS[unit or BY_KEY[name].unit], BY_KEY[name].definition)
    return Column("", "parameter of the strategy" if name.startswith("param_") else "")


def own_columns(table: str) -> Iterable[str]:
    """Return the names of a table's columns that identify no job."""
    return [name for name in TABLES[table] if name not in _IDS]
