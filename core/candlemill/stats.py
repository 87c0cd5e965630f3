"""A result's figures by the names that people know, in their own units."""

from collections.abc import Mapping
from datetime import UTC, datetime
from math import nan
from typing import Any

from candlemill.errors import UnknownName
from candlemill.model import SCALE

MONEY, SHARE, RATIO, COUNT = SCALE, SCALE // 100, SCALE, 1

# What a figure is called, its key in the result or its metrics, and how many of the result's units make one of ours.
FIGURES: tuple[tuple[str, str, int], ...] = (
    ("Return [%]", "return", SHARE),
    ("Buy & Hold Return [%]", "buy_and_hold", SHARE),
    ("CAGR [%]", "cagr", SHARE),
    ("Volatility (Ann.) [%]", "volatility", SHARE),
    ("Sharpe Ratio", "sharpe_ratio", RATIO),
    ("Sortino Ratio", "sortino_ratio", RATIO),
    ("Calmar Ratio", "calmar_ratio", RATIO),
    ("Omega Ratio", "omega_ratio", RATIO),
    ("Max. Drawdown [%]", "max_drawdown_share", SHARE),
    ("Max. Drawdown", "max_drawdown", MONEY),
    ("Longest Drawdown [days]", "longest_drawdown_days", COUNT),
    ("Recovery Factor", "recovery_factor", RATIO),
    ("Value at Risk 95 [%]", "value_at_risk", SHARE),
    ("Expected Shortfall 95 [%]", "expected_shortfall", SHARE),
    ("Best Day [%]", "best_day", SHARE),
    ("Worst Day [%]", "worst_day", SHARE),
    ("Positive Days [%]", "positive_days", SHARE),
    ("Skew", "skew", RATIO),
    ("Kurtosis", "kurtosis", RATIO),
    ("# Trades", "trades", COUNT),
    ("Win Rate [%]", "win_rate", SHARE),
    ("Profit Factor", "profit_factor", RATIO),
    ("Expectancy Ratio", "expectancy_ratio", RATIO),
    ("Payoff Ratio", "payoff_ratio", RATIO),
    ("Avg. Trade", "average_trade", MONEY),
    ("Avg. Win", "average_win", MONEY),
    ("Avg. Loss", "average_loss", MONEY),
    ("Exposure Time [%]", "exposure", SHARE),
    ("Fees", "fees", MONEY),
    ("Funding", "funding", MONEY),
    ("Turnover", "turnover", MONEY),
    ("# Fills", "fills", COUNT),
    ("# Trades over Gaps", "trades_over_gaps", COUNT),
    ("# Ambiguous Bars", "ambiguous_bars", COUNT),
    ("Open Position", "open_position", COUNT),
)
UNITS = {key: unit for _, key, unit in FIGURES} | {
    "total_pnl": MONEY, "capital": MONEY, "gross_profit": MONEY, "gross_loss": MONEY, "turnover_ratio": RATIO,
    "wins": COUNT, "bars": COUNT, "days": COUNT, "exposure_bars": COUNT, "unfilled": COUNT, "missing_minutes": COUNT,
}  # fmt: skip


class Stats(dict[str, Any]):
    """Figures by name, in the order in which they are read. What is undefined is NaN."""

    def __missing__(self, name: str) -> Any:
        raise UnknownFigure("figure", name, list(self), f"known are {', '.join(self)}")

    def __repr__(self) -> str:
        width = max(map(len, self))
        return "\n".join(f"{name:<{width}}  {shown(value)}" for name, value in self.items())


class UnknownFigure(UnknownName, KeyError):
    """A figure that there is none of."""


def stats_of(result: Mapping[str, Any]) -> Stats:
    """`result` as reduce.result_of makes it."""
    found = Stats()
    found["Start"], found["End"] = _moment(result["start"]), _moment(result["end"])
    found["Bars"], found["Missing Minutes"], found["Days"] = (result[k] for k in ("bars", "missing_minutes", "days"))
    found["Start Value"] = result["capital"] / MONEY
    found["End Value"] = (result["capital"] + result["total_pnl"]) / MONEY
    found["Profit"] = result["total_pnl"] / MONEY
    for name, key, _ in FIGURES:
        unit = unit_of(key, result["spec"]["sizing"])
        named = "Max. Drawdown (bars) [%]" if key == "max_drawdown" and unit == SHARE else name
        found[named] = figure(result, key, unit)
    return found


def unit_of(key: str, sizing: str) -> int:
    """A compound account's drawdown is a share of its peak."""
    return SHARE if key == "max_drawdown" and sizing == "compound" else UNITS[key]


def figure(result: Mapping[str, Any], key: str, unit: int) -> Any:
    """One figure of a result or its metrics in units of `unit`, NaN where undefined. Raises UnknownName."""
    metrics = result.get("metrics") or {}
    if key not in UNITS or (key not in result and key not in metrics):
        raise UnknownName("figure", key, sorted(UNITS), f"known are {', '.join(sorted(UNITS))}")
    value = result[key] if key in result else metrics[key]
    if value is None:
        return nan
    return value if unit == COUNT else value / unit


def shown(value: Any) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    if isinstance(value, float):
        return "–" if value != value else f"{value:,.2f}" if abs(value) >= 100 else f"{value:,.4g}"
    return f"{value:,}"


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
