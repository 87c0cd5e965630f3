"""Events that nobody here has sent: whoever reaches a function can send one, so none is believed more than it must."""

import json
import time
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest
from candlemill.backtests.spec import spec_from_json
from candlemill.local.runner import JobRunner
from candlemill.pipeline import events
from candlemill.pipeline.cache_keys import CacheKeys, job_data
from candlemill.pipeline.events import Event
from candlemill.pipeline.job_state import AHEAD_MS
from candlemill.strategies import loader
from candlemill.transport.functions import ROUTES

from security.conftest import REQUEST, one_of
from security.desk import Desk

FUNCTIONS = ("split", "execute", "aggregate")
DAY_MS = 86_400_000
STRATEGY = """
from candlemill.strategies import Windowed

class Marked(Windowed, frozen=True):
    \"""Long after a fall.\"""
    def lookback(self):
        return 1
    def positions(self, bars):
        return bars.close < bars.open
"""


def planned(desk: Desk, **fields: Any) -> tuple[str, list[Event]]:
    """A job that is planned and not begun, and its tasks."""
    desk.sent.clear()
    assert desk.post("split", events.REQUESTED, {**REQUEST, **fields})[0] == 202
    tasks = list(desk.sent)
    assert {task.type for task in tasks} == {events.SLICE_REQUESTED}
    return tasks[0].partitionkey, tasks


def finish(desk: Desk, tasks: list[Event]) -> None:
    for task in tasks:
        desk.deliver(task)


def true_to_the_candles(desk: Desk, job_id: str) -> bool:
    """Whether a stored result is what the candles give, computed anew."""
    runner = JobRunner(desk.store)
    row = desk.store.job(job_id)
    assert row is not None and row.state == "done"
    found = runner.verify(runner.prepare(spec_from_json(row.spec), None), job_id, lambda a, b: None)
    assert found.sets == 1
    return not found.different


def test_a_function_takes_its_own_types_only(desk: Desk, output: list[Event], job: str) -> None:
    with desk.unharmed(job):
        for name, kind in product(FUNCTIONS, (*events.DATA, "dev.candlemill.backtest.requested.v2", "com.example.x")):
            if ROUTES.get(kind) == name:
                continue
            data = next((event.data for event in output if event.type == kind), b"{}")
            status, found = desk.post(name, kind, raw=data, partitionkey=job)
            assert (status, found["title"]) == (422, "bad_input"), (name, kind)


def test_who_says_it_does_not_count(desk: Desk, output: list[Event], job: str) -> None:
    """A source is anybody's to write; so is the id, and a subject is not looked at."""
    end = one_of(output, events.COMPLETED)
    with desk.unharmed(job):
        for source in ("/candlemill/aggregate", "/evil", "https://candlemill.example/split"):
            assert desk.post("aggregate", end.type, raw=end.data, source=source, subject="x", id="x")[0] == 202


def test_an_end_that_did_not_come_is_not_believed(desk: Desk) -> None:
    job_id, tasks = planned(desk, **{"params.fast": "6", "slices": "3"})
    assert len(tasks) == 3
    for kind, more in (
        (events.COMPLETED, {}),
        (events.FAILED, {"reason": "so I say"}),
        *((events.SLICE_COMPLETED, {"batch": batch, "slice": k, "task": "x"}) for batch in (0, 9) for k in range(3)),
    ):
        assert desk.post("aggregate", kind, {"job_id": job_id, **more})[0] == 202
    row = desk.store.job(job_id)
    assert row is not None and row.state == "planned"
    assert desk.store.results([job_id]) == []
    finish(desk, tasks)
    assert true_to_the_candles(desk, job_id)


def test_another_jobs_task_is_refused(desk: Desk, output: list[Event], job: str) -> None:
    task = json.loads(one_of(output, events.SLICE_REQUESTED).data)
    other, tasks = planned(desk, **{"params.fast": "7"})
    theirs = json.loads(tasks[0].data)
    with desk.unharmed(job):
        for forged in (
            {**theirs, "spec": task["spec"]},
            {**theirs, "spec": {**theirs["spec"], "fee": 0}},
            {**theirs, "data_digest": "0" * 64},
            {**theirs, "job_id": "f" * 32},
            {**theirs, "job_id": theirs["job_id"] + "\n"},
            {**theirs, "first": 7, "repairs": [{"point": 7, "slice": 0, "count": 1, "start": "0,0,0,0,0,0|"}]},
            {**theirs, "cuts": [theirs["cuts"][0] - DAY_MS, theirs["cuts"][1]]},
            {**theirs, "cuts": theirs["cuts"][::-1]},
            {**theirs, "payload": "mine"},
        ):
            status, found = desk.post("execute", events.SLICE_REQUESTED, forged)
            assert (status, found["title"]) == (422, "bad_input"), forged
    assert desk.store.partials(other) == []
    finish(desk, tasks)


def test_tasks_that_its_plan_does_not_have_change_no_result(desk: Desk) -> None:
    """Other cuts, other numbers, made-up starts: each is computed truly, and kept as what it is."""
    job_id, tasks = planned(desk, **{"params.fast": "8", "slices": "3"})
    second = json.loads(tasks[1].data)
    a, b = second["cuts"]
    for forged in (
        {**second, "cuts": [a, b - 60_000]},
        {**second, "cuts": [a + 1, b]},
        {**second, "slice": 2},
        {**second, "batch": 5},
        {**second, "place": 77},
        {**second, "cuts": [a, (a + b) // 2, b]},
        {**second, "run": 1},
        {**second, "run": 2**70},
        *(
            {**second, "repairs": [{"point": 0, "slice": 1, "count": 1, "start": start}]}
            for start in ("1,1,0,1,0,0|", "-1,0,1,0,0,99|", "0,0,0,0,0,0|anything")
        ),
    ):
        assert desk.post("execute", events.SLICE_REQUESTED, forged)[0] == 202, forged
    finish(desk, tasks)
    assert true_to_the_candles(desk, job_id)


def test_a_made_up_outcome_is_found_by_verify(desk: Desk) -> None:
    """Whoever may write outcomes can lie, and nobody else: no event carries one. `candlemill verify` tells."""
    job_id, tasks = planned(desk, **{"params.fast": "9", "account": "units"})
    for task in tasks:
        desk.post("execute", task.type, raw=task.data, id=task.id)
    spec = events.read(tasks[0], events.SliceRequested).spec
    cache_keys = CacheKeys(spec, job_data(JobRunner(desk.store).index, spec))
    keys = [one.key for one in cache_keys.sets(0, 1).values()]
    slices = [one.key for one in desk.store.known_slices(keys, cache_keys.code)]
    own = desk.store.outcomes(keys, cache_keys.code, slices)
    assert own
    for row in own:
        numbers = json.loads(row.summary)
        numbers[1] += 10**12  # profit
        desk.store._command(
            "DELETE FROM slice_outcomes WHERE set_key = {s:String} AND slice_key = {k:String}",
            {"s": row.set_key, "k": row.slice_key},
        )
        desk.store.put_outcomes([msgspec.structs.replace(row, summary=json.dumps(numbers))])
    for task in tasks:
        data = json.loads(task.data)
        done = {"job_id": job_id, "batch": data["batch"], "slice": data["slice"], "task": task.id}
        desk.post("aggregate", events.SLICE_COMPLETED, done)
    assert not true_to_the_candles(desk, job_id)


def test_a_replayed_request_begins_nothing(desk: Desk, output: list[Event], job: str) -> None:
    task = json.loads(one_of(output, events.SLICE_REQUESTED).data)
    row = desk.store.job(job)
    assert row is not None
    with desk.unharmed(job):
        for attempt in (1, row.attempt - 1, row.attempt):
            for fresh in (False, True):
                desk.sent.clear()
                data = {"spec": task["spec"], "attempt": attempt, "fresh": fresh}
                assert desk.post("split", events.REQUESTED, data, partitionkey=job)[0] == 202
                assert {event.type for event in desk.sent} == {events.COMPLETED}
        desk.sent.clear()
        assert desk.post("execute", events.SLICE_REQUESTED, task)[0] == 202  # the job is done: not even looked at
        assert desk.sent == []


def test_a_dead_letter_ends_what_runs_and_nothing_else(desk: Desk, output: list[Event], job: str) -> None:
    task = one_of(output, events.SLICE_REQUESTED)
    with desk.unharmed(job):  # done is done
        given_up = {"partitionkey": job, "knativeerrorcode": "500", "knativeerrordata": "so I say"}
        assert desk.post("aggregate", task.type, raw=task.data, **given_up)[0] == 202
    other, tasks = planned(desk, **{"params.fast": "11"})
    row = desk.store.job(other)
    assert row is not None
    old = {"spec": json.loads(tasks[0].data)["spec"], "attempt": row.attempt - 1}
    desk.post("aggregate", events.REQUESTED, old, partitionkey=other, knativeerrorcode="500")
    assert desk.store.job(other).state == "planned"  # type: ignore[union-attr]
    for name in ("../" + other, other + "\n", "'; --", other.upper()):
        assert desk.post("aggregate", "x", {}, partitionkey=name, knativeerrorcode="500")[0] == 202
        assert desk.store.job(name) is None
    desk.post("aggregate", tasks[0].type, raw=tasks[0].data, partitionkey=other, knativeerrorcode="500")
    ended = desk.store.job(other)
    assert ended is not None and (ended.state, "answered 500" in ended.reason) == ("failed", True)


@pytest.mark.clock
def test_no_attempt_lies_beyond_tomorrow(desk: Desk) -> None:
    """The highest attempt counts: one of a far future would be the last that a job ever has."""
    now = int(time.time() * 1000)
    spec = json.loads(planned(desk, **{"params.fast": "12"})[1][0].data)["spec"]
    spec["fee"] = 999
    for attempt in (now + 2 * AHEAD_MS, 2**62):
        status, found = desk.post("split", events.REQUESTED, {"spec": spec, "attempt": attempt})
        assert (status, "lies more than a day ahead" in found["detail"]) == (422, True)
    weights = {"AAAUSDT": 10**8, "BBBUSDT": 10**8}
    assert desk.post("split", events.REQUESTED, {"spec": spec, "weights": weights, "attempt": 2**62})[0] == 422


def test_another_version_of_a_strategy_is_refused(desk: Desk, tmp_path: Path) -> None:
    """What was planned with one source is not computed with another, and a name is never looked up as a file."""
    ran = tmp_path / "ran"
    file = tmp_path / "marked.py"
    file.write_text(STRATEGY)
    requested = {"symbol": "AAAUSDT", "strategy": loader.load(str(file))}
    desk.sent.clear()
    assert desk.post("split", events.REQUESTED, requested)[0] == 202
    tasks = list(desk.sent)
    file.write_text(STRATEGY + f"\nopen({str(ran)!r}, 'w')\n")
    task = json.loads(tasks[0].data)
    for wanted in (str(file), f"{file}:Marked", "../marked.py", "marked.py", f"file://{file}", "marked:Marked"):
        forged = {**task, "spec": {**task["spec"], "strategy": wanted}}
        assert desk.post("execute", events.SLICE_REQUESTED, forged)[0] == 422
        assert desk.post("split", events.REQUESTED, {"spec": forged["spec"]})[0] == 422
        assert desk.post("split", events.REQUESTED, {**requested, "strategy": wanted})[0] == 422
    assert not ran.exists()
    loader.load(str(file))
    assert ran.exists()
    status, found = desk.post("execute", events.SLICE_REQUESTED, task)
    assert (status, "another version of" in found["detail"]) == (422, True)


@pytest.mark.parametrize("kind", [kind for kind in events.DATA if kind != events.WATCH])  # of that nothing is read
def test_what_no_event_of_its_type_says_is_refused(desk: Desk, kind: str) -> None:
    for raw in (
        b"[]",
        b"null",
        b'{"unknown": 1}',
        b'"x"',
        b"1",
        b'{"job_id": 5}',
        b'{"job_id": "F' + b"0" * 31 + b'"}',
    ):
        assert desk.post(ROUTES[kind], kind, raw=raw)[0] == 422, raw
