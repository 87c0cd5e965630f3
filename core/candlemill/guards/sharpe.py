"""How far a Sharpe ratio can be believed: for its track's length and shape, and for how many were tried.

D. H. Bailey and M. Lopez de Prado, "The Sharpe ratio efficient frontier", Journal of Risk 15(2), 2012: the
probabilistic Sharpe ratio and the minimum track record length. The same, "The deflated Sharpe ratio: correcting for
selection bias, backtest overfitting and non-normality", Journal of Portfolio Management 40(5), 2014.

Sharpe ratios in here are per day and doubles, those that leave are annual and scaled by 10^8. Only + - * /, square
roots and the series of `normal` make them, in a fixed order.
"""

from decimal import Decimal
from math import ceil, sqrt

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.guards import normal
from candlemill.rounding import ordered_sum, scaled

EULER_GAMMA = Decimal("0.5772156649015328606065120900824024310422")
CONFIDENCE = Decimal("0.95")


class Track(msgspec.Struct, frozen=True):
    """The shape of a series: its length, mean over sample deviation, and the population's skew and kurtosis.

    The kurtosis is 3 for a normal distribution.
    """

    days: int
    sharpe: float
    skew: float
    kurtosis: float


def track_of(profits: NDArray[np.int64]) -> Track | None:
    """The track of daily profits; None for fewer than two days or no variation."""
    n = len(profits)
    if n < 2 or not (profits != profits[0]).any():
        return None
    values = profits.astype(np.float64)
    mean = ordered_sum(values) / n
    away = values - mean
    away /= float(np.abs(away).max())  # shape has no unit, and fourth powers of money leave the doubles' best range
    squares = away * away
    second = ordered_sum(squares) / n
    skew = ordered_sum(squares * away) / n / (second * sqrt(second))
    kurtosis = ordered_sum(squares * squares) / n / (second * second)
    deviation = sqrt(second * n / (n - 1)) * float(np.abs(values - mean).max())
    return Track(n, mean / deviation, skew, kurtosis)


def probabilistic_sharpe(track: Track, benchmark: float = 0.0) -> int:
    """The probability, scaled by 10^8, that the true Sharpe ratio is above `benchmark` (per day)."""
    z = (track.sharpe - benchmark) * sqrt(track.days - 1) / sqrt(_spread(track))
    return round(normal.cdf(Decimal(z)) * 10**8)


def minimum_track_record(track: Track, benchmark: float = 0.0, confidence: Decimal = CONFIDENCE) -> int | None:
    """Days after which such a track shows a Sharpe ratio above `benchmark` with `confidence`; None if it has none."""
    if track.sharpe <= benchmark:
        return None
    z = float(normal.quantile(confidence)) / (track.sharpe - benchmark)
    return 1 + ceil(_spread(track) * z * z)


def expected_maximum(trials: int, variance: float) -> float:
    """The Sharpe ratio that the best of `trials` independent sets has by luck; theirs vary by `variance`, around 0.

    Between whole numbers of trials, as for the effective number, the same formula holds; 0 for one trial.
    """
    if trials < 2 or variance <= 0:
        return 0.0
    one = Decimal(1)
    first = normal.quantile(one - one / trials)
    second = normal.quantile(one - one / (trials * normal.CONTEXT.exp(one)))
    return sqrt(variance) * float((one - EULER_GAMMA) * first + EULER_GAMMA * second)


def deflated_sharpe(track: Track, trials: int, variance: float) -> int:
    """The probability, scaled by 10^8, that the true Sharpe ratio is above what luck gives the best of `trials`."""
    return probabilistic_sharpe(track, expected_maximum(trials, variance))


def annual(sharpe: float) -> int:
    """Per 365 days, scaled by 10^8."""
    return scaled(sharpe * sqrt(365))


def _spread(track: Track) -> float:
    """The estimate's variance times (days - 1): above 0 but for rounding, as kurtosis is at least 1 + skew^2."""
    sr = track.sharpe
    return max(1 - track.skew * sr + (track.kurtosis - 1) / 4 * sr * sr, 1e-12)
