"""The sets that a sweep has tried, as the guards see them: listed, or the points of a large grid."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from candlemill.backtests.spec import ParamValue

Params = Mapping[str, ParamValue]


class Tried(Protocol):
    """Sets that ran, in order, each with the figure that ranks it; higher is better."""

    def __len__(self) -> int: ...
    def best(self) -> int:
        """Return the index of the best set: the first of equally good ones. There is at least one."""

    def params(self, k: int) -> Params: ...
    def figure(self, k: int) -> int: ...
    def figure_at(self, params: Params) -> int | None:
        """Return the figure of the set with these values on the grid's axes; None if it did not run."""


class ListedSets:
    """Sets in a list, each with its figure. `axes` are the names of the grid's parameters."""

    def __init__(self, sets: Sequence[tuple[Params, int]], axes: Sequence[str]) -> None:
        self._sets = sets
        self._axes = sorted(axes)
        self._figures: dict[tuple[ParamValue, ...], int] | None = None

    def __len__(self) -> int:
        return len(self._sets)

    def best(self) -> int:
        return max(range(len(self._sets)), key=lambda k: self._sets[k][1])

    def params(self, k: int) -> Params:
        return self._sets[k][0]

    def figure(self, k: int) -> int:
        return self._sets[k][1]

    def figure_at(self, params: Params) -> int | None:
        if self._figures is None:
            self._figures = {self._key(found): figure for found, figure in self._sets}
        return self._figures.get(self._key(params))

    def _key(self, params: Params) -> tuple[ParamValue, ...]:
        return tuple(params[name] for name in self._axes)


class GridSets:
    """Sets of a grid as columns, so that a million of them take a few megabytes.

    `points` are the grid points that ran, ascending; they are numbered with the parameters in alphabetical order, the
    last one changing fastest. `figures` are theirs. `params_of` returns the parameters of a grid point.
    """

    def __init__(
        self,
        axes: Mapping[str, Sequence[ParamValue]],
        points: NDArray[np.int64],
        figures: NDArray[np.int64],
        params_of: Callable[[int], Params],
    ) -> None:
        self._axes = {name: list(axes[name]) for name in sorted(axes)}
        self._points, self._figures = points, figures
        self._params_of = params_of

    def __len__(self) -> int:
        return len(self._points)

    def best(self) -> int:
        return int(self._figures.argmax())

    def params(self, k: int) -> Params:
        return self._params_of(int(self._points[k]))

    def figure(self, k: int) -> int:
        return int(self._figures[k])

    def figure_at(self, params: Params) -> int | None:
        point = 0
        for name, values in self._axes.items():
            point = point * len(values) + values.index(params[name])
        at = int(np.searchsorted(self._points, point))
        return self.figure(at) if at < len(self._points) and self._points[at] == point else None
