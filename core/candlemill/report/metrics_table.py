"""A result's metrics by the kind of number each is; one nobody told us about is shown plainly."""

from collections.abc import Callable, Mapping
from typing import Any

from candlemill.report import units

_SHARES = frozenset({
    "return", "cagr", "volatility", "max_drawdown_share", "value_at_risk", "expected_shortfall", "best_day",
    "worst_day", "positive_days", "win_rate", "exposure", "buy_and_hold", "probability",
    "loss_probability", "probabilistic_sharpe", "deflated_sharpe", "deflated_sharpe_all",
    "worse_half", "loss", "deeper", "profitable", "mean", "worst", "plateau", "level", "efficiency",
})  # fmt: skip
_MONEY = frozenset({
    "total_pnl", "max_drawdown", "gross_profit", "gross_loss", "fees", "funding", "average_trade", "average_win",
    "average_loss", "turnover",
})  # fmt: skip
_COUNTS = frozenset({
    "trades", "wins", "days", "bars", "fills", "longest_drawdown_days", "exposure_bars", "ambiguous_bars",
    "trades_over_gaps", "unfilled", "sets", "blocks", "splits", "trials", "paths", "missing_minutes",
    "minimum_track_days", "independent_trials", "rows", "neighbours", "seed", "replicates", "block_days", "fee",
    "break_even_fee",
})  # fmt: skip
_NAMES = {
    "cagr": "growth a year (CAGR)", "total_pnl": "profit", "sharpe_ratio": "Sharpe ratio",
    "deflated_sharpe": "deflated Sharpe",
    "sortino_ratio": "Sortino ratio", "calmar_ratio": "Calmar ratio", "omega_ratio": "Omega ratio",
    "value_at_risk": "value at risk, 95%", "probabilistic_sharpe": "probabilistic Sharpe",
    "longest_drawdown_days": "longest drawdown, days", "max_drawdown_share": "max drawdown, daily",
    "positive_days": "days with a profit", "deflated_sharpe_all": "deflated Sharpe, all trials",
    "luck_sharpe": "Sharpe ratio that luck gives", "rows": "sets looked at", "fee": "fee, ppm",
    "break_even_fee": "break-even fee, ppm", "block_days": "days in a block",
}  # fmt: skip
_SHOW: dict[str, Callable[[int], str]] = {
    "share": units.percent,
    "money": units.money,
    "count": units.count,
    "ratio": units.ratio,
}


def label(name: str) -> str:
    return _NAMES.get(name, name.replace("_", " "))


def kind(name: str, sizing: str = "fixed") -> str:
    """`share`, `money`, `count` or `ratio`; everything else that is scaled is a ratio. A compound account's drawdown is
    a share of its peak."""
    if name == "max_drawdown" and sizing == "compound":
        return "share"
    return "share" if name in _SHARES else "money" if name in _MONEY else "count" if name in _COUNTS else "ratio"


def shown(name: str, value: Any, sizing: str = "fixed") -> str:
    if value is None:
        return units.NO_VALUE
    if isinstance(value, bool) or not isinstance(value, int):
        return str(value)
    return _SHOW[kind(name, sizing)](value)


def metric_rows(metrics: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    return [(label(name), shown(name, value)) for name, value in (metrics or {}).items()]
