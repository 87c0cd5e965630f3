"""Call a strategy's own `step()` on bar after bar: the loop around it is compiled."""

from collections.abc import Callable
from typing import Any

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import Bars, Column, native


def run_steps(
    step: Callable[[Any, Any], Any],
    make_bar: Callable[[int, int, int, int, int, int], Any],
    state: Any,
    bars: Bars,
    first: int,
) -> tuple[list[Any], Any]:
    """Return what `step(state, bar)` answers on bars `first` to `bars.n - 1`, and the state after them.

    `make_bar` makes a bar of six numbers; those of columns that are not read are 0.
    """
    t, open, high, low, close, volume = [
        numbers(column, bars.n, first) for column in (bars.t, bars.open, bars.high, bars.low, bars.close, bars.volume)
    ]
    out: list[Any] = []
    n: i64 = len(t)
    j: i64 = 0
    while j < n:
        bar = make_bar(int(t[j]), int(open[j]), int(high[j]), int(low[j]), int(close[j]), int(volume[j]))
        answer = step(state, bar)
        if isinstance(answer, tuple) and len(answer) == 2:
            position: Any = answer[0]
            state = answer[1]
        else:
            position, state = answer
        out.append(position)
        j += 1
    return out, state


def numbers(column: Column, n: int, first: int) -> vec[i64]:
    return native(column[first:] if len(column) else np.zeros(n - first, dtype=np.int64))
