"""What is reported with a sweep, costs and stability."""

import json
import os
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from candlemill.backtests.result import sharpe
from candlemill.errors import BadInput
from candlemill.guards import Costs, Stability, costs, sweep_guards
from candlemill.guards.stability import stability
from candlemill.units import SCALE
from hypothesis import given

AXES = {"fast": [5, 10, 20], "slow": [50, 100, 200]}
POINTS = [{"fast": fast, "slow": slow, "allow_short": False} for fast in AXES["fast"] for slow in AXES["slow"]]


def ratios(matrix: np.ndarray) -> list[int]:
    return [sharpe(sum(row), sum(x * x for x in row), len(row)) for row in matrix.tolist()]


def noise(sets: int = 9, days: int = 365) -> np.ndarray:
    return np.random.default_rng(11).integers(-(10**12), 10**12, (sets, days))


def guards(matrix: np.ndarray) -> dict:  # type: ignore[type-arg]
    sets = list(zip(POINTS, ratios(matrix), strict=False))
    found = sweep_guards(matrix, range(len(matrix)), sets, AXES)
    assert json.loads(json.dumps(found)) == found
    return found


def test_noise_is_warned_of() -> None:
    found = guards(noise())
    assert found["trials"] == 9
    assert found["best"] == POINTS[int(np.argmax(ratios(noise())))]
    assert found["sharpe_ratio"] == pytest.approx(max(ratios(noise())), abs=2)
    assert found["deflated_sharpe"] < found["probabilistic_sharpe"]
    assert found["deflated_sharpe_all"] <= found["deflated_sharpe"]
    assert any("may be luck" in line for line in found["warnings"])


def test_a_plateau_of_good_sets_is_not() -> None:
    matrix = noise() // 8 + np.random.default_rng(5).integers(-(10**12), 12 * 10**11, 365)
    matrix[4] += 3 * 10**10
    found = guards(matrix)
    assert found["warnings"] == []
    assert found["best"] == POINTS[4]
    assert found["independent_trials"] == 1
    assert found["overfitting"]["probability"] == 0
    assert found["stability"]["neighbours"] == 4
    assert found["minimum_track_days"] <= 365


def test_one_set_few_days_and_no_trades() -> None:
    one = guards(noise(1))
    assert (one["trials"], one["overfitting"], one["luck_sharpe"]) == (1, None, 0)
    assert one["deflated_sharpe"] == one["probabilistic_sharpe"]
    assert "too few" in guards(noise(9, 20))["warnings"][0]
    still = guards(np.zeros((9, 365), dtype=np.int64))
    assert (still["sharpe_ratio"], still["deflated_sharpe"], still["overfitting"]["probability"]) == (
        None,
        None,
        SCALE // 2,
    )
    with pytest.raises(BadInput, match="best set"):
        sweep_guards(noise(2), [0, 1], [(POINTS[k], k) for k in range(3)], AXES)


SCRIPT = """
import sys
import numpy as np
from numpy._core._multiarray_umath import __cpu_features__
from threadpoolctl import threadpool_info
from candlemill.guards import sweep_guards
from candlemill.guards.bootstrap import bootstrap
from candlemill.backtests.metrics import metrics
matrix = np.random.Philox(key=3).random_raw((40, 365)).astype(np.int64) >> 20
sets = [({"a": k}, int(row.sum())) for k, row in enumerate(matrix)]
result = dict.fromkeys(
    ("trades", "wins", "gross_profit", "gross_loss", "exposure_bars", "bars", "turnover", "last_close", "first_open"), 7
)
days = np.arange(365) * 86_400_000
print(sweep_guards(matrix, range(40), sets, {"a": list(range(40))}))
print([metrics(days, row, 10**15, result) for row in matrix], bootstrap(matrix[0], 10**15, 1, 99))
print(__cpu_features__, [library.get("architecture") for library in threadpool_info()], file=sys.stderr)
"""


def test_other_processors_give_the_same_bits() -> None:
    """As far as one machine can show it: without NumPy's vector code, with another kernel of OpenBLAS."""
    from numpy._core._multiarray_umath import __cpu_dispatch__  # type: ignore[attr-defined]

    core = Path(__file__).parents[2] / "core"
    plain = {"NPY_DISABLE_CPU_FEATURES": " ".join(__cpu_dispatch__), "OPENBLAS_CORETYPE": "Prescott"}
    said = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONPATH": str(core), **more},
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        for more in ({}, plain)
    ]
    if said[0].stderr == said[1].stderr:
        pytest.skip("this processor has no vector code that NumPy and OpenBLAS can do without")
    assert said[0].stdout == said[1].stdout
    assert "deflated_sharpe" in said[0].stdout


def test_break_even_fee() -> None:
    """A turnover of 1,000,000 paid 1,000 in fees (0.1 %) and left 500: the fees may grow by half."""
    found = costs(500 * SCALE, 1_000 * SCALE, 1_000_000 * SCALE)
    assert (found.fee, found.break_even_fee) == (1_000, 1_500)
    assert found.table[0] == (0, 1_500 * SCALE)
    assert (1_000, 500 * SCALE) in found.table
    assert (5_000, -3_500 * SCALE) in found.table
    assert costs(-2_000 * SCALE, 1_000 * SCALE, 1_000_000 * SCALE).break_even_fee == -1_000
    assert costs(0, 0, 0) == Costs(None, None, [])


@given(st.integers(-(10**15), 10**15), st.integers(0, 10**14), st.integers(1, 10**18))
def test_break_even_is_where_the_profit_ends(total: int, fees: int, turnover: int) -> None:
    found = costs(total, fees, turnover)
    assert found.break_even_fee is not None
    assert total + fees - turnover * found.break_even_fee / 10**6 >= -turnover / 10**9
    assert (total + fees) * 10**6 < turnover * (found.break_even_fee + 1)
    assert [profit for _, profit in found.table] == sorted((profit for _, profit in found.table), reverse=True)


def test_plateau_and_needle() -> None:
    figures = [(point, 100) for point in POINTS]
    figures[4] = (POINTS[4], 200)
    plateau = Stability(POINTS[4], 200, 4, SCALE, SCALE // 2, SCALE // 2, SCALE // 2)
    assert stability(AXES, figures) == plateau
    figures = [(point, -100) for point in POINTS]
    figures[0] = (POINTS[0], 200)
    assert stability(AXES, figures) == Stability(POINTS[0], 200, 2, 0, -SCALE // 2, -SCALE // 2, 0)
    assert stability(AXES, figures[:1]) == Stability(POINTS[0], 200, 0, None, None, None, None)
    assert stability(AXES, figures[1:2]) == Stability(POINTS[1], -100, 0, None, None, None, None)
    assert stability(AXES, []) is None


def test_steps_go_by_value_and_words_have_none() -> None:
    axes = {"fast": [20, 5, 10], "allow_short": [False, True], "mode": ["a", "b"]}
    points = [{"fast": f, "allow_short": s, "mode": m} for f in axes["fast"] for s in axes["allow_short"] for m in "ab"]
    figures = [
        (p, {5: 10, 10: 40, 20: 80}[p["fast"]] + (not p["allow_short"]) * 100 + (p["mode"] == "a")) for p in points
    ]
    found = stability(axes, figures)
    assert found is not None
    assert found.best == {"fast": 20, "allow_short": False, "mode": "a"}
    assert (found.neighbours, found.worst) == (1, round(141 / 181 * SCALE))
