"""Rows of a panel: the bars of all symbols side by side, against the obvious way."""

from typing import Any

import hypothesis.strategies as st
import numpy as np
from candlemill.engine.candles import CandleColumns, bar_origin
from candlemill.engine.panel_rows import PanelRows, SymbolBars
from hypothesis import given, settings

MINUTE = 60_000
FIELDS = ("open", "high", "low", "close", "volume")
Rows = dict[int, tuple[int, ...]]


@st.composite
def symbols(draw: Any) -> list[tuple[Rows, int, int, bool]]:
    """Candles with gaps; of some symbols none at all, or none in the slice."""
    found = []
    for _ in range(draw(st.integers(1, 4))):
        minutes = sorted(draw(st.sets(st.integers(1430, 1480), max_size=40)))
        rows = {m * MINUTE: tuple(draw(st.lists(st.integers(1, 50), min_size=5, max_size=5))) for m in minutes}
        lo = draw(st.integers(0, len(rows)))
        found.append((rows, lo, draw(st.integers(lo, len(rows))), draw(st.booleans())))
    return found


@given(symbols(), st.sampled_from([1, 5, 15, 60]), st.integers(1430, 1480), st.integers(0, 50))
@settings(max_examples=150)
def test_rows_have_the_bars_of_all_symbols(
    given_: list[tuple[Rows, int, int, bool]], k: int, start: int, length: int
) -> None:
    bars, cells, instants, minutes = [], {}, {}, set()
    for number, (rows, lo, hi, cold) in enumerate(given_):
        t, columns = [np.array(list(rows), dtype=np.int64)], []
        for field in range(5):
            columns.append([np.array([row[field] for row in rows.values()], dtype=np.int64)])
        bars.append(SymbolBars(CandleColumns(t, *columns), lo, hi, cold))
        minutes |= set(list(rows)[lo:hi])
        own: dict[int, list[int]] = {}
        for time in rows:
            own.setdefault((time - bar_origin(k)) // (k * MINUTE), []).append(time)
        if not cold and k > 1 and own:
            del own[min(own)]
        for bar, times in own.items():
            parts = list(zip(*(rows[time] for time in times), strict=True))
            cells[bar, number] = [parts[0][0], max(parts[1]), min(parts[2]), parts[3][-1], sum(parts[4])]
            instants[bar] = max(instants.get(bar, 0), times[-1])
    found = PanelRows(bars, k, start * MINUTE, (start + length) * MINUTE)
    times, columns_ = found.times(), found.columns()
    numbers = sorted(instants)
    assert times["t"].tolist() == [bar * k * MINUTE + bar_origin(k) for bar in numbers]
    assert times["instants"].tolist() == [instants[bar] for bar in numbers]
    assert times["minutes"].tolist() == sorted(minutes)
    inside = [start * MINUTE <= instants[bar] < (start + length) * MINUTE for bar in numbers]
    assert found.stop - found.first == sum(inside)
    assert all(inside[found.first : found.stop])
    for row, bar in enumerate(numbers):
        for number in range(len(bars)):
            shown = [columns_[field][row, number] for field in FIELDS]
            assert shown == cells.get((bar, number), [0] * 5)
            assert columns_["present"][row, number] == ((bar, number) in cells)
    before = [(list(rows)[lo - 1], list(rows.values())[lo - 1][3]) if lo else (-1, 0) for rows, lo, _, _ in given_]
    assert list(zip(*(column.tolist() for column in found.before()), strict=True)) == before
