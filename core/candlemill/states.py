"""A job's states: which attempt a request is for, and which of a job's rows counts. `ledger` has their order."""

import msgspec

from candlemill.errors import BadInput
from candlemill.events import Requested
from candlemill.ledger import RANKS, JobRow
from candlemill.model import Spec
from candlemill.plan import Plan

AHEAD_MS = 86_400_000  # how far clocks of two machines may be apart
CAMPAIGNS = frozenset({"portfolio", "walk_forward"})

_plans, _requests = msgspec.json.Decoder(Plan), msgspec.json.Decoder(Requested)


def kind_of(request: Requested) -> str:
    if request.is_campaign:
        return "walk_forward" if request.walk_forward is not None else "portfolio"
    return "sweep" if request.spec.grid else "backtest"


def plan_of(row: JobRow) -> Plan | None:
    """The job's plan; None before it has one, and where another release made it."""
    try:
        return _plans.decode(row.plan)
    except msgspec.DecodeError:
        return None


def request_of(row: JobRow) -> Requested | None:
    """What asked for the job; None where another release wrote it down."""
    try:
        return _requests.decode(row.request)
    except msgspec.DecodeError:
        return None


def is_answered(known: JobRow | None, request: Requested) -> bool:
    """Whether a request asks for nothing: the job is done, or the attempt that it began has ended."""
    if known is None or not known.finished:
        return False
    return (known.state == "done" and not request.fresh) or _is_late(known, request)


def _is_late(known: JobRow, request: Requested) -> bool:
    return 0 < request.attempt <= known.attempt


class Attempt(msgspec.Struct, frozen=True):
    """The attempt that a request is for: its number, its plan, and its state now that it is planned."""

    number: int
    plan: Plan
    state: str = "planned"


def attempt_of(known: JobRow | None, request: Requested, plan: Plan, now: int) -> Attempt:
    """The attempt under way, or a new one where there is none, and where that one cannot serve.

    `plan` is how the request alone would have the job cut. What is under way serves all but a wish for other slices
    and one for nothing that is stored; a request that comes late wishes nothing any more.
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
    """The number of the attempt that the request begins. Raises BadInput for one of a far future: the job could not be
    asked for again before then."""
    least = known.attempt + 1 if known else 1
    if request.attempt > max(least, now + AHEAD_MS):
        raise BadInput(f"attempt {request.attempt} lies more than a day ahead: it is the time in ms of the request")
    return max(request.attempt or now, least)


def _of_run(plan: Plan, attempt: int, request: Requested) -> Plan:
    return msgspec.structs.replace(plan, run=attempt if request.fresh else 0)


def _serves(kept: Plan, request: Requested, plan: Plan) -> bool:
    if request.fresh:  # without its time, it cannot be told from a copy of the one that began this
        return kept.run > 0 and not request.attempt
    return request.slices is None or plan.cuts == kept.cuts


def _planned(state: str) -> str:
    return max(state, "planned", key=lambda one: RANKS.get(one, 0))


def later(known: JobRow | None, row: JobRow) -> JobRow:
    """Which of two rows of a job counts, `row` being the newer."""
    return row if known is None or row.order >= known.order else known


def accepted(job_id: str, spec: Spec, data_digest: str, request: Requested, known: JobRow | None, now: int) -> JobRow:
    """The first row of a new attempt, to be written before its request is published: `request_of` it says that.

    `known` is the job as it stands; where it is under way, or done and not asked for afresh, there is nothing to ask.
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
        request=msgspec.json.encode(msgspec.structs.replace(request, attempt=attempt, drive=0)).decode(),
    )


# -- campaigns: jobs whose steps are jobs --------------------------------------------------------------------------


class Step(msgspec.Struct, frozen=True, array_like=True):
    """A job that a campaign waits for. What ended badly before `attempt` does not count; nor, if it is to be computed
    `fresh`, what was done."""

    job_id: str
    attempt: int
    fresh: bool = False


class Steps(msgspec.Struct, frozen=True):
    """A campaign's plan."""

    steps: list[Step]


_steps = msgspec.json.Decoder(Steps)


def steps_of(row: JobRow) -> list[Step]:
    """The jobs that a campaign waits for; none before it is planned, and of a job that is no campaign."""
    try:
        return _steps.decode(row.plan).steps if row.kind in CAMPAIGNS else []
    except msgspec.DecodeError:
        return []


def step_of(job_id: str, known: JobRow | None, attempt: int, fresh: bool) -> Step:
    """A step of a campaign's new attempt. What is done, or under way, will do, unless all is to be computed afresh:
    then what was begun afresh since will, as when another instance takes the same step at the same time."""
    if known is None:
        return Step(job_id, attempt, fresh)
    asked = request_of(known)
    serves = not fresh or (known.attempt >= attempt and asked is not None and asked.fresh)
    if not serves or known.state in ("failed", "cancelled"):
        return Step(job_id, max(attempt, known.attempt + 1), fresh)
    return Step(job_id, known.attempt, fresh)


def is_done(step: Step, child: JobRow | None) -> bool:
    return child is not None and child.state == "done" and (not step.fresh or child.attempt >= step.attempt)


def begins(known: JobRow | None, request: Requested) -> bool:
    """Whether a request for a campaign begins a new attempt, rather than joining the one under way."""
    if known is None or known.finished:
        return True
    asked = request_of(known)
    served = asked is not None and (asked.fresh or not request.fresh) and not (request.fresh and request.attempt)
    return not served and not _is_late(known, request)
