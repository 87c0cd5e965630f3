"""Parameter stability: compares the best parameter set with its neighbours in the grid.

R. Pardo, "The evaluation and optimization of trading strategies", 2nd edition 2008: a robust set is one whose
neighbours do nearly as well.
"""

from collections.abc import Mapping, Sequence

import msgspec

from candlemill.backtests.spec import ParamValue
from candlemill.guards.tried import ListedSets, Params, Tried
from candlemill.units import SCALE, divide, ratio


class Stability(msgspec.Struct, frozen=True):
    """Figures of the best set's neighbours, one step along one numeric axis. Shares are scaled by 10^8.

    `profitable`: the share of neighbours with a figure above 0. `mean` and `worst` neighbour as shares of the best;
    `plateau`: the mean of these shares, each clipped to 0 to 1: near 1 the neighbours are as good as the best set, near
    0 the best set is isolated. The last four are None without neighbours, the last three also where the best is not
    above 0.
    """

    best: dict[str, ParamValue]
    figure: int
    neighbours: int
    profitable: int | None
    mean: int | None
    worst: int | None
    plateau: int | None


def stability(axes: Mapping[str, Sequence[ParamValue]], sets: Tried | Sequence[tuple[Params, int]]) -> Stability | None:
    """Compute the stability of the best set; None if no set ran.

    `axes` is the grid (parameter to its values), `sets` have the figure of each set that ran. Steps are between
    neighbouring values in ascending order; texts and booleans have no steps. Points of the grid that did not run (fast
    >= slow) are not neighbours.
    """
    if not len(sets):
        return None
    tried = ListedSets(sets, list(axes)) if isinstance(sets, Sequence) else sets
    ladders = {name: sorted(values) for name, values in axes.items() if all(_is_number(x) for x in values)}
    at = tried.best()
    best, top = tried.params(at), tried.figure(at)
    near = [figure for params in _around(best, ladders) if (figure := tried.figure_at(params)) is not None]
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


def _around(best: Params, ladders: Mapping[str, list[ParamValue]]) -> list[Params]:
    out: list[Params] = []
    for name, ladder in ladders.items():
        at = ladder.index(best[name])
        for k in (at - 1, at + 1):
            if 0 <= k < len(ladder):
                out.append({**best, name: ladder[k]})
    return out


def _is_number(value: ParamValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
