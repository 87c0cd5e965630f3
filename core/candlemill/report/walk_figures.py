"""The figures of a walk-forward."""

from collections.abc import Mapping, Sequence
from typing import Any

from candlemill.backtests.metric_table import label
from candlemill.backtests.replay import Replay
from candlemill.report import figures, times
from candlemill.report.theme import LIGHT, figure
from candlemill.report.thin import floats

NAMED_FOLDS = 16  # with more folds there is no space for numbers


def stitched(found: Mapping[str, Any]) -> Any:
    """Draw the equity of the consecutive tests, with every second fold shaded."""
    trace: Replay = found["trace"]
    folds = found["folds"]
    curve = figures.equity(trace)
    curve.update_layout(
        title_text="Out of sample, fold after fold",
        meta={"note": f"{len(folds):,} folds, every second one shaded: each trades what was best before it began."},
        shapes=[_shade(fold) for fold in folds[::2]],
    )
    if len(folds) <= NAMED_FOLDS:
        curve.update_layout(annotations=[_number(k, fold) for k, fold in enumerate(folds)])
    return curve


def _shade(fold: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "rect", "xref": "x", "x0": fold["test_start"], "x1": fold["test_end"], "yref": "paper", "y0": 0,
        "y1": 1, "fillcolor": LIGHT["fold"], "line": {"width": 0}, "layer": "below",
    }  # fmt: skip


def _number(k: int, fold: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "text": str(k + 1), "x": (fold["test_start"] + fold["test_end"]) // 2, "y": 1, "yref": "paper",
        "yanchor": "top", "showarrow": False, "font": {"color": LIGHT["muted"], "size": 11},
    }  # fmt: skip


def scores(folds: Sequence[Mapping[str, Any]], score: str = "sharpe_ratio") -> Any:
    """Draw the scores in sample and out of sample of each fold."""
    names = [str(k + 1) for k in range(len(folds))]
    periods = [f"{times.day(fold['test_start'])} to {times.day(fold['test_end'] - 1)}" for fold in folds]

    def bars(name: str, key: str, color: str) -> dict[str, Any]:
        return {
            "type": "bar",
            "name": name,
            "x": names,
            "y": floats([fold[key] for fold in folds]),
            "customdata": periods,
            "marker": {"color": color},
            "hovertemplate": f"fold %{{x}}, %{{customdata}}<br>{name} %{{y:,.4~r}}<extra></extra>",
        }

    data = [bars("in sample", "in_sample", LIGHT["muted"]), bars("out of sample", "out_of_sample", LIGHT["line"])]
    layout = {
        "bargap": 0.3,
        "xaxis": {"title": {"text": "fold"}, "type": "category", "nticks": 20},
        "yaxis": {"title": {"text": label(score)}, "zeroline": True, "zerolinecolor": LIGHT["muted"]},
    }
    return figure("Promised and kept", data, layout, f"{label(score)} of the chosen set in each fold.")
