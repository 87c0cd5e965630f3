"""Positions that are wanted, traded by vectorbt's `Portfolio.from_signals`."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import vectorbt as vbt
from candlemill.units import SCALE
from candles import times_of
from deals import Deals
from numpy.typing import NDArray

RICH = 1000  # times the first price in cash: no order is ever short of money
OPEN, CLOSED = 0, 1  # as vectorbt's records have it

Wanted = NDArray[np.int8]


class Simulated(NamedTuple):
    portfolio: Any
    deals: Deals
    left_open: Deals  # at most one trade, without an exit
    equity: NDArray[np.float64]  # at each bar's close, the starting cash left out


def signals_of(wanted: Wanted) -> dict[str, NDArray[np.bool_]]:
    """Entries and exits where the wanted position changes; between changes nothing is requested, as while locked."""
    before = np.concatenate(([0], wanted[:-1]))
    return {
        "entries": (wanted == 1) & (before != 1),
        "exits": (wanted != 1) & (before == 1),
        "short_entries": (wanted == -1) & (before != -1),
        "short_exits": (wanted != -1) & (before == -1),
    }


def plain(frame: pd.DataFrame, wanted: Wanted, fill: str = "next_open", **options: Any) -> Simulated:
    """One row per bar, as vectorbt's users have it. `wanted` is decided at closes, `options` are from_signals'."""
    acted, price = wanted, frame["Close"]
    if fill == "next_open":
        acted, price = np.concatenate(([0], wanted[:-1])).astype(np.int8), frame["Open"]
    prices = {name.lower(): frame[name] for name in ("Open", "High", "Low", "Close")}
    portfolio = vbt.Portfolio.from_signals(**prices, **signals_of(acted), **_defaults(frame, options), price=price)
    return _simulated(portfolio, frame, 1)


def in_order(frame: pd.DataFrame, wanted: Wanted, fill: str = "next_open", **options: Any) -> Simulated:
    """Two rows per bar, in candlemill's order: orders at the open, then stops within the bar; or stops, then orders at
    the close.

    A row of orders has no prices but the order's, so no stop is looked at there; a row of the bar has no signals.
    """
    n, at = len(frame), 0 if fill == "next_open" else 1
    acted = np.zeros(2 * n, dtype=np.int8)
    decided = np.concatenate(([0], wanted[:-1])) if at == 0 else wanted
    acted[0::2], acted[1::2] = decided, decided
    requested = signals_of(acted)
    if at == 1:
        requested = {name: np.roll(signal, 1) for name, signal in requested.items()}
    rows = frame.index.repeat(2)
    prices = {}
    for name in ("Open", "High", "Low", "Close"):
        column = np.full(2 * n, np.nan)
        column[1 - at :: 2] = frame[name]
        prices[name.lower()] = pd.Series(column, index=rows)
    price = np.repeat(frame["Open" if at == 0 else "Close"].to_numpy(), 2)
    spread = {name: _per_row(value, n) for name, value in options.items()}
    portfolio = vbt.Portfolio.from_signals(**prices, **requested, **_defaults(frame, spread), price=price)
    return _simulated(portfolio, frame, 2)


def _per_row(value: Any, bars: int) -> Any:
    """An option of each bar for both its rows; one of each row stays."""
    return np.repeat(value, 2) if isinstance(value, np.ndarray) and len(value) == bars else value


def stops(stop_loss: int = 0, take_profit: int = 0, trailing_stop: int = 0) -> dict[str, Any]:
    """vectorbt's options for candlemill's rates in ppm: levels from the entry, exits as market orders, which slip."""
    if not (stop_loss or take_profit or trailing_stop):
        return {}
    if stop_loss and trailing_stop:
        raise ValueError("vectorbt has one stop per position: fixed or trailing")
    return {
        "sl_stop": (stop_loss or trailing_stop) / 1e6 or np.nan,
        "sl_trail": bool(trailing_stop),
        "tp_stop": take_profit / 1e6 or np.nan,
        "stop_entry_price": "Price" if trailing_stop else "FillPrice",
        "stop_exit_price": "StopMarket",
    }


def rounded_stops(
    frame: pd.DataFrame, wanted: Wanted, fill: str, slippage: int, stop_loss: int, take_profit: int
) -> dict[str, Any]:
    """The same rates with distances rounded up to 10^-8, as candlemill has them: where a price is a few hundred such
    units that decides what touches. Half a unit keeps floats from answering a touch by noise."""
    side = wanted.astype(np.int64) if fill == "close" else np.concatenate(([0], wanted[:-1])).astype(np.int64)
    raw = frame["Close" if fill == "close" else "Open"].to_numpy()
    units = np.rint(raw * SCALE).astype(np.int64)
    entry = units + side * -(-units * slippage // 10**6)
    base = raw * (1 + side * slippage / 1e6) * SCALE
    stop = entry - side * -(-entry * stop_loss // 10**6) + side / 2
    take = entry + side * -(-entry * take_profit // 10**6) - side / 2
    found: dict[str, Any] = {"stop_entry_price": "FillPrice", "stop_exit_price": "StopMarket"}
    if stop_loss:
        found["sl_stop"] = np.maximum(side * (base - stop) / base, 0)
    if take_profit:
        found["tp_stop"] = np.maximum(side * (take - base) / base, 0)
    return found


def _defaults(frame: pd.DataFrame, options: dict[str, Any]) -> dict[str, Any]:
    rich = RICH * float(frame["Open"].iloc[0])
    return {"size": 1.0, "init_cash": rich, "upon_opposite_entry": "Reverse", "freq": "1min"} | options


def _simulated(portfolio: Any, frame: pd.DataFrame, rows: int) -> Simulated:
    """`rows` of the portfolio are one bar."""
    closed, left_open = (trades_of(portfolio, frame, rows, status) for status in (CLOSED, OPEN))
    return Simulated(portfolio, closed, left_open, _equity(portfolio, frame, rows))


def trades_of(portfolio: Any, frame: pd.DataFrame, rows: int = 1, status: int = CLOSED) -> Deals:
    records = portfolio.exit_trades.records
    records = records[records["status"] == status]
    t = times_of(frame.index)
    found = {
        "entry_t": t[records["entry_idx"] // rows],
        "exit_t": t[records["exit_idx"] // rows],
        "side": 1 - 2 * records["direction"].astype(np.int64),
        "entry_price": records["entry_price"],
        "exit_price": records["exit_price"],
        "quantity": records["size"],
        "fees": records["entry_fees"] + records["exit_fees"],
        "profit": records["pnl"],
    }
    return pd.DataFrame(found).reset_index(drop=True)


def _equity(portfolio: Any, frame: pd.DataFrame, rows: int) -> NDArray[np.float64]:
    """Cash and position at each bar's last row, the position at the bar's close."""
    last = slice(rows - 1, None, rows)
    cash, assets = portfolio.cash().to_numpy()[last], portfolio.assets().to_numpy()[last]
    found: NDArray[np.float64] = cash + assets * frame["Close"].to_numpy() - portfolio.init_cash
    return found
