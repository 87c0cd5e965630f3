"""Tables of results: trades, equity by minute, profits by day, figures of jobs and of parameter sets."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from candlemill.backtests.fill_list import WHAT
from candlemill.backtests.metric_table import RANKED, unit_of, value_of
from candlemill.backtests.replay import Replay
from candlemill.backtests.trades import Reason
from candlemill.errors import BadInput
from candlemill.formatting import Unit
from candlemill.tables.table import Kind, Series, Table, from_rows

OWN_RANGE = ("start", "end")


def trades_table(trace: Replay) -> Table:
    """Return the closed round trips, in order of their exits."""
    t = trace.trades
    exact = ("quantity", "entry_price", "exit_price")
    money_names = ("profit", "fees", "funding", "borrow", "mae", "mfe")
    columns = {
        **_symbols(trace, of_fills=False),
        "entry_time": Series(Kind.TIME, t.entry_t),
        "exit_time": Series(Kind.TIME, t.exit_t),
        "side": Series(Kind.LABEL, (t.side < 0).astype(np.int8), ("long", "short")),
        **{name: Series(Kind.SCALED, getattr(t, name)) for name in exact},
        **{name: money(getattr(t, name)) for name in money_names},
        "bars": Series(Kind.COUNT, t.bars),
        "reason": Series(Kind.LABEL, t.reason.astype(np.int8), tuple(reason.name.lower() for reason in Reason)),
        "gap": Series(Kind.FLAG, t.gap),
        "ambiguous": Series(Kind.FLAG, t.ambiguous),
    }
    return Table(columns, name="trades")


def orders_table(trace: Replay) -> Table:
    """Return the fills of orders, in order: of targets, of resting orders, and of stops and takes."""
    f = trace.fills
    if f is None:
        raise BadInput(f"the fills of {trace.spec.strategy} are not recorded")
    columns = {
        **_symbols(trace, of_fills=True),
        "time": Series(Kind.TIME, f.t),
        "side": Series(Kind.LABEL, (f.side < 0).astype(np.int8), ("buy", "sell")),
        "what": Series(Kind.LABEL, f.what, WHAT),
        "quantity": Series(Kind.SCALED, f.quantity),
        "price": Series(Kind.SCALED, f.price),
        "fee": money(f.fee),
    }
    return Table(columns, name="orders")


def equity_table(trace: Replay) -> Table:
    """Return a row for each minute bar: close, position, the account's value at the close, its fall from the peak.

    With several symbols `position` is how many are held, and no row has a close.
    """
    value = trace.equity + trace.capital
    peak = np.maximum.accumulate(np.maximum(value, trace.capital))
    columns = {
        "time": Series(Kind.TIME, trace.t),
        "close": Series(Kind.SCALED, np.full(len(trace.t), None) if trace.panel else trace.close),
        "position": Series(Kind.COUNT, trace.position),
        "equity": money(value),
        "drawdown": money(peak - value),
    }
    return Table(columns, index="time", name="equity")


def _symbols(trace: Replay, of_fills: bool) -> dict[str, Series]:
    """Return the column of symbols, where there are several."""
    panel = trace.panel
    if panel is None:
        return {}
    of = panel.of_fill if of_fills else panel.of_trade
    return {"symbol": Series(Kind.LABEL, of.astype(np.int16), panel.symbols)}


def contribution_table(trace: Replay) -> Table:
    """Return a row for each UTC day and symbol of a panel: what the symbol has brought up to the end of the day.

    Raises BadInput for a run of one symbol.
    """
    panel = trace.panel
    if panel is None:
        raise BadInput(f"a run of {trace.spec.symbol} alone has no contributions: look at its equity")
    k = len(panel.symbols)
    columns = {
        "day": Series(Kind.TIME, np.repeat(trace.days, k)),
        "symbol": Series(Kind.LABEL, np.tile(np.arange(k, dtype=np.int16), len(trace.days)), panel.symbols),
        "profit": money(np.ascontiguousarray(panel.contribution).reshape(-1)),
    }
    return Table(columns, name="contribution")


def daily_table(days: Any, profits: Sequence[int], capital: int) -> Table:
    """Return a row for each UTC day with bars (midnights in ms): its profit, and the account's value at its end."""
    column = np.array(profits, dtype=np.int64)
    columns = {
        "day": Series(Kind.TIME, days),
        "profit": money(column),
        "equity": money(np.cumsum(column) + capital),
    }
    return Table(columns, index="day", name="daily")


def figures_table(
    results: Sequence[Mapping[str, Any]], varied: Sequence[str] = (), points: Sequence[Mapping[str, Any]] = ()
) -> Table:
    """Return a row for each result: what it is of, and all figures. `varied` parameters have columns `param_NAME`, with
    the values of `points` where a study also varies options.

    A figure's column has the same type in every table, so that files of several jobs can be read as one.
    """
    columns = {
        "job_id": _objects([r["job_id"] for r in results]),
        "strategy": _objects([r["strategy_id"] for r in results]),
        "symbol": _objects([r["symbol"] for r in results]),
        **{name: Series(Kind.TIME, np.array([r[name] for r in results], dtype=np.int64)) for name in OWN_RANGE},
        "params": _objects([msgspec.json.encode(r["params"]).decode() for r in results]),
    }
    given = from_rows(points or [r["params"] for r in results], varied)
    columns |= {f"param_{name}": series for name, series in given.items()}
    return Table(columns | {name: _declared(results, name) for name in RANKED}, name="sets" if varied else "jobs")


def _declared(results: Sequence[Mapping[str, Any]], name: str) -> Series:
    """Return one figure of all results with the unit of the table of metrics; what is a share where that is money, as
    the drawdown of a compound account, becomes percent with its decimals."""
    unit = unit_of(name)
    values: list[Any] = [value_of(r, name) for r in results]
    if unit is Unit.MONEY:
        is_share = [unit_of(name, sizing_of(r)) is Unit.SHARE for r in results]
        values = [v * 100 if s and v is not None else v for v, s in zip(values, is_share, strict=True)]
    kind = Kind.COUNT if divisor_of(unit) == 1 else Kind.SCALED
    return Series(kind, np.array(values, dtype=object), unit=divisor_of(unit), shown_as=unit)


def figures(results: Sequence[Mapping[str, Any]], name: str) -> Series:
    """Return one figure of all results, in the unit that most of them show it in: shares are in percent."""
    values = [value_of(r, name) for r in results]
    units = {unit_of(name, sizing_of(r), "parts" in r) for r in results}
    unit = units.pop() if len(units) == 1 else unit_of(name)
    divisor = divisor_of(unit)
    kind = Kind.COUNT if divisor == 1 else Kind.SCALED
    fits = all(value is not None and -(2**63) <= value < 2**63 for value in values)
    return Series(kind, np.array(values, dtype=np.int64 if fits else object), unit=divisor, shown_as=unit)


def sizing_of(result: Mapping[str, Any]) -> str:
    """Return the sizing of a result's job; a portfolio's too."""
    return str((result.get("spec") or {}).get("sizing", "fixed"))


def divisor_of(unit: Unit) -> int:
    """Return how many of a result's integers make 1 of the shown unit; shares are shown in percent."""
    return unit.scale // 100 if unit is Unit.SHARE else unit.scale


def money(values: Any) -> Series:
    return Series(Kind.SCALED, values, shown_as=Unit.MONEY)


def _objects(values: Sequence[str]) -> Series:
    return Series(Kind.OBJECT, np.array(values, dtype=object))


def constant(text: str, rows: int) -> Series:
    """Return a column of the same text in each row, which takes a byte a row."""
    return Series(Kind.LABEL, np.zeros(rows, dtype=np.int8), (text,))
