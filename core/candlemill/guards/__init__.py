"""Statistical checks against overfitting and luck. Pure functions of daily profits; docs/guards.md explains them.

deflated_sharpe.py  probabilistic and deflated Sharpe ratio: corrected for track length, shape and number of trials
overfitting.py      the probability of backtest overfitting, by CSCV
walk_forward.py     walk-forward choices, purged and combinatorial cross-validation
bootstrap.py        the stationary bootstrap of days, and random orders of trades
break_even.py       the break-even fee; stability.py, the neighbours of the best set
gaps.py             warnings about missing candles and funding rates
sweep.py            the guards of every sweep; run.py, of one run on request
tried.py            the sets of a sweep, listed or as columns
matrix.py daily_sums.py normal_distribution.py   the exact arithmetic that they use

`bootstrap`, `overfitting`, `stability` and `walk_forward` are modules here: the functions of these names are imported
from them, so that neither hides the other.
"""

from candlemill.guards.bootstrap import Bootstrap, Interval, Shuffle, shuffle_trades
from candlemill.guards.break_even import Costs, costs
from candlemill.guards.matrix import thinned
from candlemill.guards.overfitting import Overfitting
from candlemill.guards.stability import Stability
from candlemill.guards.sweep import sweep_guards
from candlemill.guards.tried import GridSets
from candlemill.guards.walk_forward import (
    Choice,
    Fold,
    Span,
    Validation,
    cross_validate,
    make_folds,
    parse_span,
)

__all__ = [
    "Bootstrap",
    "Choice",
    "Costs",
    "Fold",
    "GridSets",
    "Interval",
    "Overfitting",
    "Shuffle",
    "Span",
    "Stability",
    "Validation",
    "costs",
    "cross_validate",
    "make_folds",
    "parse_span",
    "shuffle_trades",
    "sweep_guards",
    "thinned",
]
