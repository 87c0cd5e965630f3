"""A result's metrics by the kind of number each is; one nobody told us about is shown plainly."""

from collections.abc import Callable, Mapping
from typing import Any

from candlemill.report import units

_SHARES = frozenset({
    "return", "total_return", "cagr", "volatility", "var_95", "cvar_95", "win_rate", "exposure", "hold_return",
    "buy_and_hold", "best_day", "worst_day", "best_month", "worst_month", "probabilistic_sharpe", "average_return",
})  # fmt: skip
_MONEY = frozenset({
    "expectancy", "average_trade", "average_win", "average_loss", "best_trade", "worst_trade", "total_pnl",
    "max_drawdown", "gross_profit", "gross_loss", "fees", "funding", "hold_profit",
})  # fmt: skip
_COUNTS = frozenset({
    "trades", "wins", "losses", "days", "bars", "fills", "longest_drawdown", "longest_drawdown_days", "median_bars",
    "exposure_bars", "max_consecutive_wins", "max_consecutive_losses", "ambiguous_bars", "trades_over_gaps",
})  # fmt: skip
_NAMES = {
    "cagr": "CAGR", "var_95": "daily VaR, 95%", "cvar_95": "daily CVaR, 95%", "total_pnl": "profit",
    "max_drawdown": "max drawdown", "return": "return", "sharpe_ratio": "Sharpe ratio",
    "sortino_ratio": "Sortino ratio", "longest_drawdown": "longest drawdown, days",
    "longest_drawdown_days": "longest drawdown, days",
}  # fmt: skip

_SHOW: dict[str, Callable[[int], str]] = {
    "share": units.percent,
    "money": units.money,
    "count": units.count,
    "ratio": units.ratio,
}


def label(name: str) -> str:
    return _NAMES.get(name, name.replace("_", " "))


def kind(name: str) -> str:
    """`share`, `money`, `count` or `ratio`; everything else that is scaled is a ratio."""
    return "share" if name in _SHARES else "money" if name in _MONEY else "count" if name in _COUNTS else "ratio"


def shown(name: str, value: Any) -> str:
    if value is None:
        return units.NO_VALUE
    if isinstance(value, bool) or not isinstance(value, int):
        return str(value)
    return _SHOW[kind(name)](value)


def metric_rows(metrics: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    return [(label(name), shown(name, value)) for name, value in (metrics or {}).items()]
