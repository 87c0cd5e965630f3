"""Several symbols with one strategy: shares of the capital, and the joint result.

Each symbol is a job of its own, so symbols with a stored result are not run again. Joint figures are computed from the
daily profits, which are exact however the jobs were cut. Joint drawdowns are therefore measured at the ends of UTC
days.
"""

import hashlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec
import numpy as np

from candlemill.backtests.daily import unpack
from candlemill.backtests.metrics import metrics
from candlemill.backtests.result import INTERVAL, SHARPE_RECIPE, compounded, digest_of_result, sharpe, sortino
from candlemill.backtests.slice import PATHS
from candlemill.backtests.spec import Spec
from candlemill.engine.candles import Column
from candlemill.engine.compound import LOG
from candlemill.errors import BadInput, TooLarge, UnknownName
from candlemill.units import SCALE, parse_decimal

SYMBOLS_LIMIT = 2_000
SUMS = (
    "bars", "missing_minutes", "capital", "total_pnl", "trades", "wins", "gross_profit", "gross_loss", "fees",
    "funding", "turnover", "fills", "unfilled", "exposure_bars", "ambiguous_bars", "trades_over_gaps",
    "gap_profit", "borrow", "cut_orders", "rejected_orders", "liquidations",
)  # fmt: skip


class Part(msgspec.Struct, frozen=True):
    """One symbol of a portfolio: its job's result and daily figures."""

    symbol: str
    result: dict[str, Any]
    daily: str


def symbols_of(text: str, known: Sequence[str]) -> list[str]:
    """Return the symbols of `BTCUSDT,ETHUSDT` or a glob like `*USDT`, in order, each once.

    Raises UnknownName, and BadInput for too many.
    """
    names = list(dict.fromkeys(text.split(",")))
    if len(names) > SYMBOLS_LIMIT:  # before the slower comparison of each with all known names
        raise BadInput(f"{len(names):,} symbols, the limit of a portfolio is {SYMBOLS_LIMIT:,}: use several")
    found: list[str] = []
    for name in names:
        matches = [symbol for symbol in known if fnmatchcase(symbol, name)] if any(c in name for c in "*?[") else [name]
        if not matches:
            raise UnknownName("symbols", name, list(known), "`candlemill coverage` lists what is stored")
        found += matches
    found = list(dict.fromkeys(found))
    if len(found) > SYMBOLS_LIMIT:
        raise BadInput(f"{len(found):,} symbols, the limit of a portfolio is {SYMBOLS_LIMIT:,}: use several")
    return found


def parse_weights(texts: Sequence[str], symbols: Sequence[str]) -> dict[str, int]:
    """Parse weights such as `BTCUSDT=0.5` for some or all symbols, scaled; the other symbols have weight 1."""
    weights = dict.fromkeys(symbols, SCALE)
    for text in texts:
        symbol, equals, value = text.partition("=")
        if not equals:
            raise BadInput(f"weight {text!r} is not like BTCUSDT=0.5")
        if symbol not in weights:
            raise UnknownName("symbol", symbol, list(symbols), "weights belong to the portfolio's symbols")
        weights[symbol] = parse_decimal(value, f"weight of {symbol}")
    return weights


def parts_of(spec: Spec, weights: Mapping[str, int]) -> list[Spec]:
    """Return the jobs of a portfolio.

    Weights multiply the quantity of fixed trades; with the other sizings they divide the capital (and the notional).
    Raises BadInput if a share is 0.
    """
    total = sum(weights.values())
    out = []
    for symbol, weight in weights.items():
        if spec.sizing == "fixed" and spec.account == "units":
            change: dict[str, int | None] = {"quantity": spec.quantity * weight // SCALE}
        else:
            change = {"capital": (spec.capital or 0) * weight // total}
            if spec.notional is not None:
                change["notional"] = spec.notional * weight // total
        if 0 in change.values():
            raise BadInput(f"the share of {symbol} comes to nothing: give it more weight or the portfolio more capital")
        out.append(msgspec.structs.replace(spec, symbol=symbol, **change))
    return out


def portfolio_result(
    spec: Spec, weights: Mapping[str, int], parts: Sequence[Part]
) -> tuple[dict[str, Any], tuple[Column, list[int]]]:
    """Return the joint result and the daily profits of the whole, in money, of the days with bars of any symbol.

    The joint result has the fields of a job's result where they are meaningful, and each symbol's own result under
    `parts`.
    """
    days, profits = joint_profits(parts)
    result: dict[str, Any] = {name: sum(part.result[name] for part in parts) for name in SUMS}
    capital = result["capital"]
    marks = np.concatenate(([0], np.cumsum(np.array(profits, dtype=object))))
    falls = np.maximum.accumulate(marks) - marks
    ratios = profits
    drawdown = int(max(falls))
    if spec.sizing == "compound":
        ratios = _returns(profits, capital)
        peaks = np.maximum.accumulate(marks + capital)
        drawdown = int(max(fall * SCALE // peak for fall, peak in zip(falls, peaks, strict=True)))
    squares, losses = sum(x * x for x in ratios), sum(x * x for x in ratios if x < 0)
    result |= {
        "job_id": portfolio_id([(part.result["job_id"], weights[part.symbol]) for part in parts]),
        "strategy_id": spec.strategy,
        "symbol": ",".join(part.symbol for part in parts),
        "params": parts[0].result["params"],
        "start": spec.start,
        "end": spec.end,
        "sharpe_ratio": sharpe(sum(ratios), squares, len(ratios)),
        "sortino_ratio": sortino(sum(ratios), losses, len(ratios)),
        "max_drawdown": drawdown,
        "days": len(days),
        "open_position": sum(part.result["open_position"] != 0 for part in parts),
        "first_open": capital,
        "last_close": capital + sum(_held(part.result) for part in parts),
        "sharpe_recipe": SHARPE_RECIPE,
        "spec": msgspec.to_builtins(spec) | {"symbol": ",".join(weights)},
        "weights": dict(weights),
        "part_digests": [part.result["result_digest"] for part in parts],
        "data_digest": hashlib.sha256(",".join(part.result["data_digest"] for part in parts).encode()).hexdigest(),
    }
    if spec.path == "both":
        result |= _interval(parts)
    result["metrics"] = metrics(days, profits, capital, result)
    result |= {"result_digest": digest_of_result(result), "parts": [part.result for part in parts]}
    return result, (days, profits)


def _interval(parts: Sequence[Part]) -> dict[str, Any]:
    """Return the interval of the whole: of the figures that add up over symbols."""
    sums = [name for name in INTERVAL if name in SUMS]
    ends = {path: [part.result["interval"][path] for part in parts] for path in PATHS}
    found = {path: {name: sum(end[name] for end in of_parts) for name in sums} for path, of_parts in ends.items()}
    return {"interval": found, "best_path_pnl": found["best"]["total_pnl"]}


def portfolio_id(parts: Sequence[tuple[str, int]]) -> str:
    """Return the content address of a portfolio: that of its jobs' ids with their weights."""
    identity = ",".join(f"{job_id}*{weight}" for job_id, weight in parts)
    return hashlib.sha256(f"portfolio {identity}".encode()).hexdigest()[:32]


def joint_profits(parts: Sequence[Part]) -> tuple[Column, list[int]]:
    """Return the union of the parts' days, and the joint profit of each; a symbol without bars on a day adds 0."""
    total: dict[int, int] = {}
    for part in parts:
        days, figures = unpack(part.daily)
        for day, profit in zip(days.tolist(), profits_of(part.result, figures), strict=True):
            total[day] = total.get(day, 0) + profit
    days = np.array(sorted(total), dtype=np.int64)
    profits = [total[day] for day in days.tolist()]
    if any(abs(profit) >= 1 << 62 for profit in profits):
        raise TooLarge("a day's profit (scaled) does not fit 64 bits: use smaller quantities")
    return days, profits


def profits_of(result: Mapping[str, Any], daily: Column) -> list[int]:
    """Return a result's daily profits in money, from the daily figures that are stored with it."""
    figures: list[int] = daily.tolist()
    if result["spec"]["sizing"] == "compound" and "parts" not in result:
        return compounded(figures, result["capital"])
    return figures


def _returns(profits: Sequence[int], capital: int) -> list[int]:
    """Return profits over the value before them, in 10^-15; 0 once the value is 0 or less."""
    value = capital
    out = []
    for profit in profits:
        out.append(profit * LOG // value if value > 0 else 0)
        value += profit
    return out


def _held(result: Mapping[str, Any]) -> int:
    """Return the profit of holding the symbol with its share of the capital from the first to the last bar."""
    first, last = result["first_open"], result["last_close"]
    return int(result["capital"] * (last - first) // first) if first else 0
