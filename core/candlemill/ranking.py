"""The figures that results are ordered by: where each is found in a result, and which end of it is good."""

from collections import defaultdict

import numpy as np

from candlemill.errors import UnknownName
from candlemill.metrics import metrics

RESULT_FIGURES = (
    "total_pnl", "sharpe_ratio", "sortino_ratio", "max_drawdown", "trades", "wins", "gross_profit", "gross_loss",
    "fees", "funding", "turnover", "fills", "exposure_bars",
)  # fmt: skip
METRIC_FIGURES = tuple(metrics(np.empty(0, dtype=np.int64), [], 1, defaultdict(int)))
FIGURES = (*RESULT_FIGURES, *METRIC_FIGURES)
SMALLER_IS_BETTER = frozenset({
    "max_drawdown", "max_drawdown_share", "longest_drawdown_days", "volatility", "gross_loss", "average_loss", "fees",
    "fills", "turnover", "turnover_ratio", "exposure", "exposure_bars", "unfilled", "trades_over_gaps",
    "ambiguous_bars",
})  # fmt: skip


def path_of(figure: str) -> tuple[str, ...]:
    """Where a result has it. Raises UnknownName."""
    if figure in RESULT_FIGURES:
        return (figure,)
    if figure in METRIC_FIGURES:
        return ("metrics", figure)
    raise UnknownName("figure", figure, list(FIGURES), f"known are {', '.join(FIGURES)}")
