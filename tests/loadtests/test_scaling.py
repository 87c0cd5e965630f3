"""The simulator of scaling, and that docs/scaling.md says what was measured."""

import pytest

pytest.importorskip("psutil", reason="psutil is not installed: pip install '.[test]'")

from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.scaling.__main__ import DOCS, written
from loadtests.scaling.fit import nonnegative
from loadtests.scaling.model import Costs, Job, Part, World, predict

SECONDS = st.floats(0.001, 5.0)
PARTS = st.builds(Part, SECONDS, SECONDS)
JOBS = st.builds(Job, st.integers(1, 8), st.integers(1, 8), st.sampled_from([0.0, 0.5, 1.0]), st.integers(1, 9))
COSTS = st.builds(
    Costs,
    hop=SECONDS, split=PARTS, split_task=PARTS, ask=PARTS, read=PARTS, compute=SECONDS, write=PARTS, reported=PARTS,
    merge=PARTS, repair=PARTS, figures=PARTS, start=SECONDS, skew=st.floats(0, 0.5),
)  # fmt: skip
NOTHING = Part()
CLOSE = 1 + 1e-9


def only(compute: float, skew: float = 0.0, figures: float = 0.0) -> Costs:
    """Nothing costs anything but computing, and a serial end."""
    rest = (NOTHING, NOTHING, NOTHING, NOTHING)
    return Costs(0.0, *rest, compute, NOTHING, NOTHING, NOTHING, NOTHING, Part(figures), 0.0, skew)


@given(JOBS, SECONDS, st.floats(0, 0.5), st.integers(1, 20))
def test_without_overheads_another_executor_does_no_harm(job: Job, compute: float, skew: float, executors: int) -> None:
    costs = only(compute, skew)
    fewer, more = (predict(costs, job, World(n)).wall for n in (executors, executors + 1))
    assert more <= fewer * CLOSE


@given(JOBS, SECONDS, st.integers(1, 20), SECONDS)
def test_amdahl_and_graham_hold(job: Job, compute: float, executors: int, serial: float) -> None:
    """No executor count beats the serial part and an even share; a list of tasks is never worse by more than one."""
    found = predict(only(compute, figures=serial), job, World(executors))
    shared = job.tasks * compute / executors
    assert (serial + max(shared, compute)) / CLOSE <= found.wall <= (serial + shared + compute) * CLOSE
    alone = predict(only(compute, figures=serial), job, World(1)).wall
    assert alone == pytest.approx(serial + job.tasks * compute)


@settings(deadline=None)
@given(COSTS, JOBS, st.integers(1, 12), st.integers(0, 3))
def test_work_is_conserved(costs: Costs, job: Job, executors: int, cores: int) -> None:
    """Whoever shares what: the same work is done but for slices read again, nobody computes more than there are cores,
    and the same world comes to the same end."""
    world = World(executors, cores)
    found = predict(costs, job, world)
    again = predict(costs, job, World(1, cores))
    reads = (costs.read.own + costs.read.store) * job.slices * (executors - 1)
    assert again.cpu / CLOSE <= found.cpu <= (again.cpu + reads) * CLOSE
    assert found.busy <= found.held * CLOSE
    assert 0 <= found.others <= found.cpu
    if cores:
        assert found.wall * CLOSE >= found.cpu / cores
    assert predict(costs, job, world) == found


@settings(deadline=None)
@given(COSTS, JOBS, st.integers(1, 12), st.integers(1, 4))
def test_what_is_scarce_only_slows(costs: Costs, job: Job, executors: int, slots: int) -> None:
    """A cold start, a narrow store: the sum of what they can serve at once bounds the end from below."""
    narrow = predict(costs, job, World(executors, store_slots=slots))
    least = job.tasks * (costs.ask.store + costs.write.store + costs.reported.store) / slots
    assert narrow.wall * CLOSE >= least
    cold = predict(costs, job, World(executors, cold=True, reaction=2.0))
    assert cold.wall >= 2.0 + costs.start


def test_coefficients_are_found_again_and_never_negative() -> None:
    rows = [(1.0, x, x * y) for x in (1.0, 5.0, 9.0) for y in (2.0, 3.0)]
    values = [0.25 + 3 * row[2] for row in rows]
    assert nonnegative(rows, values) == pytest.approx([0.25, 0.0, 3.0])
    assert all(one >= 0 for one in nonnegative(rows, [-value for value in values]))


def test_the_page_says_what_was_measured() -> None:
    """docs/scaling.md and its plots follow from docs/scaling.json: no figure is typed by hand."""
    for name, text in written().items():
        assert (DOCS / name).read_text() == text, f"{name} is not what `python -m loadtests.scaling --pages` writes"
