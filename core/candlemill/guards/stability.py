"""Whether the best parameter set stands on a plateau or on a needle: how its neighbours in the grid fare.

R. Pardo, "The evaluation and optimization of trading strategies", 2nd edition 2008: a robust set is one whose
neighbours do nearly as well.
"""

from collections.abc import Mapping, Sequence

import msgspec

from candlemill.model import SCALE, ParamValue
from candlemill.rounding import divide, ratio


class Stability(msgspec.Struct, frozen=True):
    """The best set and its neighbours: one step along one numeric axis. Shares are scaled by 10^8.

    `profitable`: the share of neighbours with a figure above 0. `mean` and `worst` neighbour as shares of the best;
    `plateau`: the mean of these shares, each kept between 0 and 1: 1 is a plateau, 0 a needle. The last four are None
    without neighbours, the last three also where the best is not above 0.
    """

    best: dict[str, ParamValue]
    figure: int
    neighbours: int
    profitable: int | None
    mean: int | None
    worst: int | None
    plateau: int | None


def stability(
    axes: Mapping[str, Sequence[ParamValue]], figures: Sequence[tuple[Mapping[str, ParamValue], int]]
) -> Stability | None:
    """Of the grid `axes` (parameter to its values) and the figure of each set that ran; None if none did.

    The first of equally good sets is the best. Steps are between neighbouring values in ascending order; words and
    switches have no order and no steps. Points of the grid that did not run (fast >= slow) are not neighbours.
    """
    if not figures:
        return None
    ladders = {name: sorted(values) for name, values in axes.items() if all(_is_number(x) for x in values)}
    names = sorted(axes)
    found = {tuple(params[name] for name in names): figure for params, figure in figures}
    best, top = max(figures, key=lambda item: item[1])
    near = [found[key] for key in _around(best, names, ladders) if key in found]
    if not near:
        return Stability(dict(best), top, 0, None, None, None, None)
    profitable = ratio(sum(x > 0 for x in near), len(near))
    if top <= 0:
        return Stability(dict(best), top, len(near), profitable, None, None, None)
    return Stability(
        best=dict(best),
        figure=top,
        neighbours=len(near),
        profitable=profitable,
        mean=ratio(sum(near), top * len(near)),
        worst=ratio(min(near), top),
        plateau=divide(sum(max(x, 0) for x in near) * SCALE, top * len(near)),
    )


def _around(
    best: Mapping[str, ParamValue], names: list[str], ladders: Mapping[str, list[ParamValue]]
) -> list[tuple[ParamValue, ...]]:
    out = []
    for name, ladder in ladders.items():
        at = ladder.index(best[name])
        for k in (at - 1, at + 1):
            if 0 <= k < len(ladder):
                out.append(tuple(ladder[k] if n == name else best[n] for n in names))
    return out


def _is_number(value: ParamValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
