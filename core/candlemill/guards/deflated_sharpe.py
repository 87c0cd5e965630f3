"""Probabilistic and deflated Sharpe ratio: corrections for track length, shape and the number of trials.

D. H. Bailey and M. Lopez de Prado, "The Sharpe ratio efficient frontier", Journal of Risk 15(2), 2012: the
probabilistic Sharpe ratio and the minimum track record length. The same, "The deflated Sharpe ratio: correcting for
selection bias, backtest overfitting and non-normality", Journal of Portfolio Management 40(5), 2014.

Sharpe ratios inside this module are per day and doubles; ratios that it returns are annual and scaled by 10^8. They
are computed only with + - * /, square roots and the series of `normal_distribution`, in a fixed order.
"""

from decimal import Decimal
from math import ceil, sqrt

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.guards import normal_distribution
from candlemill.units import ordered_sum, scaled

EULER_GAMMA = Decimal("0.5772156649015328606065120900824024310422")
CONFIDENCE = Decimal("0.95")


class Track(msgspec.Struct, frozen=True):
    """The shape of a series: its length, mean / sample standard deviation, and population skewness and kurtosis.

    The kurtosis is 3 for a normal distribution.
    """

    days: int
    sharpe: float
    skew: float
    kurtosis: float


def track_of(profits: NDArray[np.int64]) -> Track | None:
    """Return the track of daily profits; None for fewer than two days or no variation."""
    n = len(profits)
    if n < 2 or not (profits != profits[0]).any():
        return None
    values = profits.astype(np.float64)
    mean = ordered_sum(values) / n
    away = values - mean
    away /= float(np.abs(away).max())  # skewness has no unit; fourth powers of money may overflow doubles
    squares = away * away
    second = ordered_sum(squares) / n
    skew = ordered_sum(squares * away) / n / (second * sqrt(second))
    kurtosis = ordered_sum(squares * squares) / n / (second * second)
    deviation = sqrt(second * n / (n - 1)) * float(np.abs(values - mean).max())
    return Track(n, mean / deviation, skew, kurtosis)


def probabilistic_sharpe(track: Track, benchmark: float = 0.0) -> int:
    """Return the probability, scaled by 10^8, that the true Sharpe ratio is above `benchmark` (per day)."""
    z = (track.sharpe - benchmark) * sqrt(track.days - 1) / sqrt(_spread(track))
    return round(normal_distribution.cdf(Decimal(z)) * 10**8)


def minimum_track_record(track: Track, benchmark: float = 0.0, confidence: Decimal = CONFIDENCE) -> int | None:
    """Return the days needed to show a Sharpe ratio above `benchmark` with `confidence`; None if it is not above."""
    if track.sharpe <= benchmark:
        return None
    z = float(normal_distribution.quantile(confidence)) / (track.sharpe - benchmark)
    return 1 + ceil(_spread(track) * z * z)


def expected_maximum(trials: int, variance: float) -> float:
    """Return the expected maximum Sharpe ratio (per day) of `trials` independent sets whose true ratio is 0.

    `variance` is the variance of their Sharpe ratios. 0 for one trial. The formula is also used for an effective
    number of trials that is not a whole number.
    """
    if trials < 2 or variance <= 0:
        return 0.0
    one = Decimal(1)
    first = normal_distribution.quantile(one - one / trials)
    second = normal_distribution.quantile(one - one / (trials * normal_distribution.CONTEXT.exp(one)))
    return sqrt(variance) * float((one - EULER_GAMMA) * first + EULER_GAMMA * second)


def deflated_sharpe(track: Track, trials: int, variance: float) -> int:
    """Return the probability, scaled by 10^8, that the true Sharpe ratio is above `expected_maximum` of `trials`."""
    return probabilistic_sharpe(track, expected_maximum(trials, variance))


def annual(sharpe: float) -> int:
    """Convert a daily Sharpe ratio to an annual one (365 days), scaled by 10^8."""
    return scaled(sharpe * sqrt(365))


def _spread(track: Track) -> float:
    """The estimate's variance times (days - 1). Above 0 except for rounding, as kurtosis is at least 1 + skew^2."""
    sr = track.sharpe
    return max(1 - track.skew * sr + (track.kurtosis - 1) / 4 * sr * sr, 1e-12)
