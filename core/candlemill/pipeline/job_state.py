"""Job states: which attempt a request belongs to, and which row of a job is current. `later` defines their order."""

import msgspec

from candlemill.backtests.plan import Plan
from candlemill.backtests.spec import Spec
from candlemill.errors import BadInput
from candlemill.pipeline.events import Requested
from candlemill.pipeline.rows import RANKS, JobRow

AHEAD_MS = 86_400_000  # largest difference between the clocks of two machines
OF_SYMBOLS = frozenset({"sweeps", "walk_forwards"})  # one job for each symbol, and no joint result
WORKFLOWS = frozenset({"portfolio", "walk_forward"}) | OF_SYMBOLS

_plans, _requests = msgspec.json.Decoder(Plan), msgspec.json.Decoder(Requested)


def kind_of(request: Requested) -> str:
    if request.walk_forward is not None:
        return "walk_forwards" if request.weights else "walk_forward"
    if request.weights:
        return "sweeps" if request.spec.grid else "portfolio"
    return "sweep" if request.spec.grid else "backtest"


def plan_of(row: JobRow) -> Plan | None:
    """Return the job's plan; None before it is planned, and if another release wrote it."""
    try:
        return _plans.decode(row.plan)
    except msgspec.DecodeError:
        return None


def request_of(row: JobRow) -> Requested | None:
    """Return the request of the job; None if another release wrote it."""
    try:
        return _requests.decode(row.request)
    except msgspec.DecodeError:
        return None


def is_answered(known: JobRow | None, request: Requested) -> bool:
    """Return whether a request needs no work: the job is done, or the attempt that it started has ended."""
    if known is None or not known.finished:
        return False
    return (known.state == "done" and not request.fresh) or _is_late(known, request)


def _is_late(known: JobRow, request: Requested) -> bool:
    return 0 < request.attempt <= known.attempt


class Attempt(msgspec.Struct, frozen=True):
    """The attempt that a request belongs to: its number, its plan, and its state once planned."""

    number: int
    plan: Plan
    state: str = "planned"


def attempt_of(known: JobRow | None, request: Requested, plan: Plan, now: int) -> Attempt:
    """Return the current attempt, or a new one if there is none or it does not satisfy the request.

    `plan` is the plan that the request alone would get. The current attempt satisfies every request, except one for
    another number of slices and one for a fresh computation; a late request is always satisfied.
    """
    if known is not None and not known.finished:
        kept = plan_of(known)
        if not known.plan:
            return Attempt(known.attempt, _of_run(plan, known.attempt, request))
        if kept is not None and (_is_late(known, request) or _serves(kept, request, plan)):
            return Attempt(known.attempt, kept, _planned(known.state))
    number = next_attempt(known, request, now)
    return Attempt(number, _of_run(plan, number, request))


def next_attempt(known: JobRow | None, request: Requested, now: int) -> int:
    """Return the number of the attempt that the request starts.
    Raises BadInput for a time too far in the future: the job could not be requested again before it."""
    least = known.attempt + 1 if known else 1
    if request.attempt > max(least, now + AHEAD_MS):
        raise BadInput(f"attempt {request.attempt} lies more than a day ahead: it is the time in ms of the request")
    return max(request.attempt or now, least)


def _of_run(plan: Plan, attempt: int, request: Requested) -> Plan:
    return msgspec.structs.replace(plan, run=attempt if request.fresh else 0)


def _serves(kept: Plan, request: Requested, plan: Plan) -> bool:
    if request.fresh:  # without its time, it looks the same as a copy of the request that started this attempt
        return kept.run > 0 and not request.attempt
    return request.slices is None or plan.cuts == kept.cuts


def _planned(state: str) -> str:
    return max(state, "planned", key=lambda one: RANKS.get(one, 0))


def later(known: JobRow | None, row: JobRow) -> JobRow:
    """Return the current one of two rows of a job; `row` is the newer."""
    return row if known is None or row.order >= known.order else known


def accepted(job_id: str, spec: Spec, data_digest: str, request: Requested, known: JobRow | None, now: int) -> JobRow:
    """Return the first row of a new attempt, to be written before its request is published (see `request_of`).

    `known` is the job's current row; a job that is running, or done and not requested fresh, needs no new attempt.
    """
    attempt = next_attempt(known, msgspec.structs.replace(request, attempt=now), now)
    return JobRow(
        job_id=job_id,
        state="accepted",
        spec=spec.to_json().decode(),
        plan="",
        data_digest=data_digest,
        started_ms=now,
        kind=kind_of(request),
        attempt=attempt,
        request=msgspec.json.encode(msgspec.structs.replace(request, attempt=attempt, retry=0)).decode(),
    )


# -- workflows: jobs whose steps are jobs --------------------------------------------------------------------------


class Step(msgspec.Struct, frozen=True, array_like=True):
    """A job that a workflow waits for.
    A failure before `attempt` does not count; with `fresh`, neither does an earlier result."""

    job_id: str
    attempt: int
    fresh: bool = False


class Steps(msgspec.Struct, frozen=True):
    """Plan of a workflow."""

    steps: list[Step]


_steps = msgspec.json.Decoder(Steps)


def steps_of(row: JobRow) -> list[Step]:
    """Return the jobs that a workflow waits for; empty before it is planned, and for other jobs."""
    try:
        return _steps.decode(row.plan).steps if row.kind in WORKFLOWS else []
    except msgspec.DecodeError:
        return []


def step_of(job_id: str, known: JobRow | None, attempt: int, fresh: bool) -> Step:
    """Return a step of a workflow's new attempt.
    A job that is done or running is reused. With `fresh`, only one that was started fresh since is reused, for
    example by another instance that takes the same step at the same time."""
    if known is None:
        return Step(job_id, attempt, fresh)
    earlier = request_of(known)
    serves = not fresh or (known.attempt >= attempt and earlier is not None and earlier.fresh)
    if not serves or known.state in ("failed", "cancelled"):
        return Step(job_id, max(attempt, known.attempt + 1), fresh)
    return Step(job_id, known.attempt, fresh)


def is_done(step: Step, child: JobRow | None) -> bool:
    return child is not None and child.state == "done" and (not step.fresh or child.attempt >= step.attempt)


def begins(known: JobRow | None, request: Requested) -> bool:
    """Return whether a request for a workflow starts a new attempt instead of joining the current one."""
    if known is None or known.finished:
        return True
    earlier = request_of(known)
    served = earlier is not None and (earlier.fresh or not request.fresh) and not (request.fresh and request.attempt)
    return not served and not _is_late(known, request)
