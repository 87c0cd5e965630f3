"""The simulator of scaling, and that docs/scaling.md says what was measured."""

import pytest

pytest.importorskip("psutil", reason="psutil is not installed: pip install '.[test]'")

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.scaling.__main__ import DOCS, written
from loadtests.scaling.model import Costs, Job, Part, World, predict

SECONDS = st.floats(0.001, 5.0)
PARTS = st.builds(Part, SECONDS, SECONDS)
JOBS = st.builds(
    Job, st.integers(1, 8), st.integers(1, 8), st.integers(0, 40), st.sampled_from([0.0, 0.5, 1.0]), st.integers(1, 9)
)
COSTS = st.builds(
    Costs,
    hop=SECONDS, broker=SECONDS, receive=SECONDS, publish=SECONDS, plan=PARTS, share=PARTS, hand=SECONDS, ask=PARTS,
    read=PARTS, compute=SECONDS, write=PARTS, reported=PARTS, merge=PARTS, repair=PARTS, figures=PARTS, start=SECONDS,
    skew=st.floats(0, 0.5), index=PARTS, later=SECONDS,
)  # fmt: skip
FREE = Costs(*[0.0] * 4, *[Part()] * 2, 0.0, *[Part()] * 2, 0.0, *[Part()] * 5, 0.0)
CLOSE = 1 + 1e-9


def only(compute: float, skew: float = 0.0, figures: float = 0.0) -> Costs:
    """Nothing costs anything but computing, and a serial end."""
    return msgspec.structs.replace(FREE, compute=compute, skew=skew, figures=Part(figures))


@given(JOBS, SECONDS, st.floats(0, 0.5), st.integers(1, 20))
def test_without_overheads_another_executor_does_no_harm(job: Job, compute: float, skew: float, executors: int) -> None:
    costs, job = only(compute, skew), msgspec.structs.replace(job, lanes=0)
    fewer, more = (predict(costs, job, World(n)).wall for n in (executors, executors + 1))
    assert more <= fewer * CLOSE


@given(JOBS, SECONDS, st.integers(1, 20), SECONDS, st.integers(0, 9))
def test_amdahl_and_graham_hold(job: Job, compute: float, executors: int, serial: float, more: int) -> None:
    """No executor count beats the serial part and an even share; a list of tasks is never worse by more than one. As
    many lanes as executors are enough, where events take no time."""
    job = msgspec.structs.replace(job, lanes=executors + more)
    found = predict(only(compute, figures=serial), job, World(executors))
    shared = job.places * compute / executors
    assert (serial + max(shared, compute)) / CLOSE <= found.wall <= (serial + shared + compute) * CLOSE
    alone = predict(only(compute, figures=serial), job, World(1)).wall
    assert alone == pytest.approx(serial + job.places * compute)


@given(JOBS, SECONDS, st.integers(1, 20))
def test_fewer_lanes_than_executors_leave_some_idle(job: Job, compute: float, lanes: int) -> None:
    job = msgspec.structs.replace(job, lanes=lanes)
    found, narrow = (predict(only(compute), job, World(n)).wall for n in (lanes + 5, lanes))
    assert found == pytest.approx(narrow)


@settings(deadline=None)
@given(COSTS, JOBS, st.integers(1, 12), st.integers(0, 3), st.integers(1, 2))
def test_work_is_conserved(costs: Costs, job: Job, executors: int, cores: int, jobs: int) -> None:
    """Whoever shares what: the same work is done but for what is read again, and for batches that two merge who found
    them complete at the same time. Nobody computes more than there are cores, and the same world comes to the same
    end."""
    world = World(executors, cores)
    found = predict(costs, job, world, jobs)
    again = predict(costs, job, World(1, cores), jobs)
    merge, figures, read, index = (one.own + one.store for one in (costs.merge, costs.figures, costs.read, costs.index))
    once, alone = (one.cpu - one.merges * merge - one.figures * figures for one in (found, again))
    close = (CLOSE - 1) * found.cpu
    assert alone - close <= once <= alone + (read * job.tasks + index) * (executors - 1) * jobs + close
    assert found.merges >= job.batches * jobs and found.figures >= jobs
    assert found.events == again.events >= 2 * job.places * jobs
    assert found.busy <= found.held * CLOSE
    assert 0 <= found.others <= found.cpu and 0 <= found.store <= found.others
    if cores:  # the store, and reports that change nothing, may go on when the job has ended
        report = costs.broker + costs.receive + costs.reported.own + costs.reported.store + costs.publish
        needed = once - (costs.later + report) * job.places * jobs + (job.batches * merge + figures) * jobs
        assert found.wall * cores >= needed - close
    assert predict(costs, job, world, jobs) == found


@settings(deadline=None)
@given(COSTS, JOBS, st.integers(1, 12), st.integers(1, 4))
def test_what_is_scarce_only_slows(costs: Costs, job: Job, executors: int, slots: int) -> None:
    """A cold start, a narrow store: the sum of what they can serve at once bounds the end from below."""
    narrow = predict(costs, job, World(executors, store_slots=slots))
    least = job.places * (costs.ask.store + costs.write.store) / slots
    assert narrow.wall * CLOSE >= least
    cold = predict(costs, job, World(executors, cold=True, reaction=2.0))
    assert cold.wall >= 2.0 + costs.start


def test_shares_are_handed_out_as_by_split() -> None:
    """Of 20,000 lanes each is requested once; shares come on top, of shares."""
    job = Job(10, 2_000, lanes=20_000)
    found = predict(only(1.0), job, World(20_000))
    assert 2 * job.places < found.events < 2.1 * job.places
    assert found.wall == pytest.approx(1.0)


def test_the_page_says_what_was_measured() -> None:
    """docs/scaling.md and its plots follow from docs/scaling.json: no figure is typed by hand."""
    for name, text in written().items():
        assert (DOCS / name).read_text() == text, f"{name} is not what `python -m loadtests.scaling --pages` writes"
