"""Guards against fooling oneself. Pure functions of daily profits; docs/guards.md says what they mean.

sharpe.py       how far a Sharpe ratio can be believed, for its length and shape and the number of trials
overfitting.py  the probability of backtest overfitting, by CSCV
folds.py        walk-forward choices, purged and combinatorial cross-validation
resample.py     the bootstrap of days, trades in another order
costs.py        the fee that a result bears; stability.py, the best set's neighbours
sweep.py        what is told with every sweep; run.py, of one run on request
rows.py sums.py normal.py   the exact arithmetic under them
"""

from candlemill.guards.costs import Costs, costs
from candlemill.guards.folds import (
    Choice,
    Fold,
    Span,
    Validation,
    cross_validate,
    make_folds,
    parse_span,
    walk_forward,
)
from candlemill.guards.overfitting import Overfitting, overfitting
from candlemill.guards.resample import Bootstrap, Interval, Shuffle, bootstrap, shuffle_trades
from candlemill.guards.rows import thinned
from candlemill.guards.stability import Stability, stability
from candlemill.guards.sweep import sweep_guards

__all__ = [
    "Bootstrap",
    "Choice",
    "Costs",
    "Fold",
    "Interval",
    "Overfitting",
    "Shuffle",
    "Span",
    "Stability",
    "Validation",
    "bootstrap",
    "costs",
    "cross_validate",
    "make_folds",
    "overfitting",
    "parse_span",
    "shuffle_trades",
    "stability",
    "sweep_guards",
    "thinned",
    "walk_forward",
]
