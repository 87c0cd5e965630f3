"""Sets of a grid as columns, beside the same sets in a list."""

from itertools import product

import hypothesis.strategies as st
import numpy as np
from candlemill.guards import GridSets, sweep_guards
from candlemill.guards.stability import stability
from hypothesis import given, settings

VALUES = {
    "fast": st.lists(st.integers(2, 40), min_size=1, max_size=4, unique=True),
    "mode": st.lists(st.sampled_from("abc"), min_size=1, max_size=2, unique=True),
    "band": st.lists(st.sampled_from([0.5, 1.0, 2.5]), min_size=1, max_size=3, unique=True),
}


@settings(max_examples=80)
@given(st.fixed_dictionaries(VALUES), st.integers(0, 1 << 20))
def test_columns_and_lists_have_the_same_guards(axes: dict[str, list[object]], seed: int) -> None:
    random = np.random.default_rng(seed)
    names = sorted(axes)
    points = [dict(zip(names, values, strict=True)) for values in product(*(axes[name] for name in names))]
    ran = np.flatnonzero(random.random(len(points)) < 0.8)
    if not len(ran):
        ran = np.array([0])
    figures = random.integers(-4, 5, len(ran))  # few values, so that many sets are equally good
    listed = [(points[k], int(figure)) for k, figure in zip(ran, figures, strict=True)]
    columns = GridSets(axes, ran, figures, lambda point: points[point])  # type: ignore[arg-type]
    assert stability(axes, columns) == stability(axes, listed)  # type: ignore[arg-type]
    matrix = random.integers(-(10**12), 10**12, (len(ran), 40))
    rows = range(len(ran))
    assert sweep_guards(matrix, rows, columns, axes) == sweep_guards(matrix, rows, listed, axes)  # type: ignore[arg-type]
