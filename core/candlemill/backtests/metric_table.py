"""The table of metrics: each figure's name, unit, direction and definition, in one place.

Everything that displays, ranks or describes figures reads it: results in Python, the command line, reports, guards, the
REST interface and, through it, the dashboard. Tests compare docs/metrics.md and docs/guards.md with it. A new metric is
a function in `metrics.py` and a row here.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from candlemill.errors import UnknownName
from candlemill.formatting import Unit, text

MetricPlace = Literal["result", "metrics", "guards"]
Better = Literal["high", "low"]
_SMALL_WORDS = frozenset({"at", "over", "of", "and", "per", "that", "in", "a"})


class Metric(msgspec.Struct, frozen=True):
    """Row of the table. `place` says where the figure is: in the result, in its `metrics`, or in the guards of it or a
    sweep.

    `better` is the better direction, or None if neither is better. `main` figures are the columns of tables of sets.
    """

    key: str
    label: str
    unit: Unit
    better: Better | None
    definition: str
    place: MetricPlace
    main: bool = False

    def unit_of(self, sizing: str = "fixed", joint: bool = False) -> Unit:
        """Return the unit in a result.

        The drawdown of a compound account is a share of its peak; a portfolio (`joint`) counts its open positions.
        """
        if self.key == "max_drawdown" and sizing == "compound":
            return Unit.SHARE
        return Unit.COUNT if self.key == "open_position" and joint else self.unit

    def title(self, unit: Unit) -> str:
        """Return the name in Python's `stats`: the label's words in capitals, with the unit if it is not money."""
        label = re.sub(r"[^\W\d]+", lambda m: m[0] if m[0] in _SMALL_WORDS else m[0][0].upper() + m[0][1:], self.label)
        suffix = {Unit.SHARE: " [%]", Unit.DAYS: " [days]"}.get(unit, "")
        return f"# {label}" if unit is Unit.COUNT else label + suffix


def _rows(
    place: MetricPlace, *rows: tuple[str, str, Unit, Better | None, str], main: Sequence[str] = ()
) -> list[Metric]:
    return [Metric(*row, place=place, main=row[0] in main) for row in rows]


_M, _S, _R, _C, _D, _P = Unit.MONEY, Unit.SHARE, Unit.RATIO, Unit.COUNT, Unit.DAYS, Unit.PPM

METRICS: tuple[Metric, ...] = (
    *_rows(
        "result",
        ("total_pnl", "profit", _M, "high", "profit or loss of all fills and of the open position, after costs"),
        main=("total_pnl",),
    ),
    *_rows(
        "metrics",
        ("return", "return", _S, "high", "profit over capital"),
        ("buy_and_hold", "buy & hold return", _S, None, "last close over first open, less 1, without costs"),
        ("cagr", "CAGR", _S, "high", "growth per 365 days: (end / capital) ^ (365 / days) − 1, to 13 digits"),
        ("volatility", "volatility (ann.)", _S, "low", "sample deviation (n − 1) of the daily returns × √365"),
        main=("return",),
    ),
    *_rows(
        "result",
        ("sharpe_ratio", "Sharpe ratio", _R, "high", "mean over sample deviation of the daily profits × √365"),
        ("sortino_ratio", "Sortino ratio", _R, "high", "mean over downside deviation of the daily profits × √365"),
        main=("sharpe_ratio", "sortino_ratio"),
    ),
    *_rows(
        "metrics",
        ("calmar_ratio", "Calmar ratio", _R, "high", "`cagr` over `max_drawdown_share`"),
        ("omega_ratio", "Omega ratio", _R, "high", "sum of the positive returns over that of the negative ones"),
        (
            "max_drawdown_share", "max. drawdown (days)", _S, "low",
            "the largest fall from a peak between the ends of days, as a share of the peak; the first is the capital",
        ),
    ),
    *_rows(
        "result",
        (
            "max_drawdown", "max. drawdown (bars)", _M, "low",
            "the largest fall from a peak between closes of bars, in money; of a compound account a share of the peak",
        ),
        main=("max_drawdown",),
    ),
    *_rows(
        "metrics",
        (
            "longest_drawdown_days", "longest drawdown", _D, "low",
            "calendar days from a peak to the day that is back at it, or to the last day",
        ),
        ("recovery_factor", "recovery factor", _R, "high", "profit over the largest fall in money, day by day"),
        (
            "value_at_risk", "value at risk 95", _S, "high",
            "the 5 % quantile of the daily returns, between two days in proportion; a loss is negative",
        ),
        (
            "expected_shortfall", "expected shortfall 95", _S, "high",
            "(CVaR) mean of the returns up to that quantile: of the ⌊(n − 1) / 20⌋ + 1 worst",
        ),
        ("best_day", "best day", _S, "high", "the largest daily return"),
        ("worst_day", "worst day", _S, "high", "the smallest daily return"),
        ("positive_days", "positive days", _S, "high", "days with a profit above 0 over all days with bars"),
        ("skew", "skew", _R, "high", "third standardised moment of the population of daily returns"),
        ("kurtosis", "kurtosis", _R, None, "fourth standardised moment of the population of daily returns, less 3"),
    ),
    *_rows(
        "result",
        ("trades", "trades", _C, None, "positions that were closed"),
        ("wins", "wins", _C, "high", "trades with a profit above 0"),
        main=("trades",),
    ),
    *_rows(
        "metrics",
        ("win_rate", "win rate", _S, "high", "wins over trades"),
        ("profit_factor", "profit factor", _R, "high", "`gross_profit` over `gross_loss`"),
        (
            "expectancy_ratio", "expectancy ratio", _R, "high",
            "average trade over average loss: what a trade earns per unit it puts at risk",
        ),
        ("payoff_ratio", "payoff ratio", _R, "high", "average win over average loss"),
        ("average_trade", "avg. trade", _M, "high", "money per trade (vectorbt calls it expectancy)"),
        ("average_win", "avg. win", _M, "high", "money per win"),
        ("average_loss", "avg. loss", _M, "low", "money per loss, as a positive number"),
        main=("win_rate", "profit_factor"),
    ),
    *_rows(
        "result",
        ("gross_profit", "gross profit", _M, "high", "sum of the profits of wins"),
        ("gross_loss", "gross loss", _M, "low", "sum of the losses of all other trades, as a positive number"),
    ),
    *_rows(
        "metrics",
        ("exposure", "exposure time", _S, "low", "bars with a position over all bars"),
        ("turnover_ratio", "turnover ratio", _R, "low", "value of all fills over capital"),
    ),
    *_rows(
        "result",
        ("exposure_bars", "bars with a position", _C, "low", "minute bars with a position"),
        ("fees", "fees", _M, "low", "fees of all fills; below 0 rebates"),
        ("funding", "funding", _M, "low", "funding paid; below 0 received"),
        ("turnover", "turnover", _M, "low", "value of all fills"),
        ("fills", "fills", _C, "low", "purchases and sales"),
        ("unfilled", "unfilled entries", _C, "low", "entries that found no volume, or cost more than a trade has"),
        ("trades_over_gaps", "trades over gaps", _C, "low", "trades held while minutes were missing"),
        ("gap_profit", "earned over gaps", _M, None, "part of the profit made while minutes were missing"),
        ("ambiguous_bars", "ambiguous bars", _C, "low", "bars that the order of events decides: `path` chooses"),
        ("best_path_pnl", "profit, best path", _M, "high", "with `path=both`: the profit of the best order of events"),
        ("open_position", "open position", Unit.SIDE, None, "the side held at the end; of a portfolio, how many are"),
        ("capital", "capital", _M, None, "what the account begins with"),
        ("bars", "bars", _C, None, "minutes with a candle"),
        ("missing_minutes", "missing minutes", _C, "low", "minutes of the range without a candle"),
        (
            "funding_missing_minutes", "minutes without funding", _C, "low",
            "with funding: minutes of the range more than eight hours from every rate",
        ),
        ("days", "days", _C, None, "UTC days with bars"),
        main=("fees",),
    ),
    *_rows(
        "guards",
        ("probabilistic_sharpe", "probabilistic Sharpe", _S, "high", "probability of a true Sharpe ratio above 0"),
        ("deflated_sharpe", "deflated Sharpe", _S, "high", "probability that it beats the luck of independent trials"),
        ("deflated_sharpe_all", "deflated Sharpe, all trials", _S, "high", "the same with all trials independent"),
        ("luck_sharpe", "Sharpe ratio by luck", _R, "low", "what the best of so many trials shows without skill"),
        ("minimum_track_days", "minimum track record", _D, "low", "days that show a Sharpe ratio above 0 with 95 %"),
        ("trials", "trials", _C, None, "parameter sets that ran"),
        ("independent_trials", "independent trials", _C, None, "uncorrelated trials that they are worth"),
        ("rows", "sets used", _C, None, "sets that the guards were computed of"),
        ("probability", "probability of overfitting", _S, "low", "how often the best of one half is below the median"),
        ("loss_probability", "probability of a loss", _S, "low", "how often the choice loses out of sample"),
        ("splits", "splits", _C, None, "ways to cut the days into two halves"),
        ("blocks", "blocks", _C, None, "blocks of days that the halves are made of"),
        ("sets", "sets", _C, None, "sets whose ranks were compared"),
        ("in_sample", "mean in sample", _R, "high", "mean score of the choices in the half that they were made in"),
        ("out_of_sample", "mean out of sample", _R, "high", "mean score of the choices in the other half"),
        ("figure", "best figure", _R, "high", "Sharpe ratio of the best set"),
        ("slope", "slope", _R, "high", "of the score out of sample over that in sample"),
        ("intercept", "intercept", _R, "high", "of the score out of sample over that in sample"),
        ("plateau", "plateau", _S, "high", "share of the best figure that its neighbours keep"),
        ("neighbours", "neighbours", _C, None, "sets beside the best one in the grid"),
        ("mean", "neighbours' mean", _S, "high", "mean of the neighbours' figures over the best one"),
        ("worst", "worst neighbour", _S, "high", "the lowest of the neighbours' figures over the best one"),
        ("profitable", "profitable neighbours", _S, "high", "share of neighbours with a figure above 0"),
        ("fee", "fee paid", _P, "low", "mean rate of the fees paid"),
        ("break_even_fee", "break-even fee", _P, "high", "rate at which the profit is gone"),
        ("level", "level", _P, None, "share of the replicates inside an interval"),
        ("seed", "seed", _C, None, "of the resampling's random numbers"),
        ("replicates", "replicates", _C, None, "resampled runs"),
        ("block_days", "block length", _D, None, "mean length of the blocks that days are drawn in"),
        ("loss", "share with a loss", _S, "low", "share of the replicates that lose"),
        ("deeper", "share with a deeper drawdown", _S, None, "share of orders of trades with a deeper drawdown"),
        ("longest_losing_streak", "longest losing streak", _C, "low", "trades in a row without a profit"),
        ("efficiency", "efficiency", _S, "high", "score out of sample over that in sample"),
        ("worse_half", "share in the worse half", _S, "low", "how often the choice ends in the worse half"),
        ("paths", "paths", _C, None, "whole runs out of sample that the splits make up"),
    ),
)  # fmt: skip

BY_KEY: dict[str, Metric] = {row.key: row for row in METRICS}
RANKED: tuple[str, ...] = tuple(row.key for row in METRICS if row.place != "guards")
MAIN: tuple[str, ...] = tuple(row.key for row in METRICS if row.main)


def metric_of(key: str) -> Metric:
    """Return the row of a figure. Raises UnknownName for a figure that no result has."""
    row = BY_KEY.get(key)
    if row is None or row.place == "guards":
        raise UnknownName("figure", key, list(RANKED), f"known are {', '.join(RANKED)}")
    return row


def path_of(key: str) -> tuple[str, ...]:
    """Return the path of a figure in a result. Raises UnknownName."""
    return ("metrics", key) if metric_of(key).place == "metrics" else (key,)


def value_of(result: Mapping[str, Any], key: str) -> int | None:
    """Return a figure of a result, None if undefined. Raises UnknownName."""
    found: Any = result
    for name in path_of(key):
        found = (found or {}).get(name)
    return found if isinstance(found, int) else None


def is_descending(key: str, best: bool = True) -> bool:
    """Return whether the best (or the worst) sets are sorted from high to low."""
    return (BY_KEY[key].better != "low") == best if key in BY_KEY else best


def order_of(values: Sequence[int | None], descending: bool) -> list[int]:
    """Return the sorted positions of `values`: undefined ones last in both directions, equal ones in their original
    order.
    """
    known = [k for k, value in enumerate(values) if value is not None]
    # `reverse` keeps equal elements in their order.
    known.sort(key=lambda k: values[k] or 0, reverse=descending)
    return known + [k for k, value in enumerate(values) if value is None]


def label(key: str) -> str:
    return BY_KEY[key].label if key in BY_KEY else key.replace("_", " ")


def unit_of(key: str, sizing: str = "fixed", joint: bool = False) -> Unit:
    """Return the unit of a figure. A figure without a row is a count."""
    return BY_KEY[key].unit_of(sizing, joint) if key in BY_KEY else Unit.COUNT


# Stored as 0 where they are undefined: without trades, over a single day. `metrics.js` has the same.
NONE_AT_ZERO = ("sharpe_ratio", "sortino_ratio")


def shown(key: str, value: Any, sizing: str = "fixed", largest: int | None = None) -> str:
    """Return a figure as text for people; `largest` is the largest absolute value in its column."""
    if isinstance(value, bool | str):
        return str(value)
    return text(None if key in NONE_AT_ZERO and not value else value, unit_of(key, sizing), largest)


def metric_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return names and texts of a result's metrics, in the table's order."""
    sizing, found = result.get("spec", {}).get("sizing", "fixed"), result.get("metrics") or {}
    return [(label(key), shown(key, found[key], sizing)) for key in BY_KEY if key in found]
