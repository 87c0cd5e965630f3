"""The bits that a job must end with: those of the uncut run, made without any handler, cut or hand-over."""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from typing import Any, cast

import msgspec
import numpy as np
from candlemill import campaigns, service
from candlemill.daily import pack, unpack
from candlemill.errors import CandlemillError
from candlemill.events import Requested
from candlemill.guards import sweep_guards, thinned
from candlemill.io.tapes import Tapes
from candlemill.ledger import Funding, JobRow, Ledger, ResultRow, Runtime
from candlemill.model import SCALE, Spec, grid_points, job_id
from candlemill.plan import Day, make_plan
from candlemill.reduce import Merged, Outcomes, join, result_of
from candlemill.states import Step, Steps, request_of
from candlemill.work import COLD, COLUMNS, run_task

from loadtests.simulation.cases import Candles, Columns, market, read


class Bits(msgspec.Struct, frozen=True):
    """A job's results by the ids of its sets, as digest and daily profits; and its figures."""

    results: dict[str, tuple[str, str]]
    figures: str


def bits_of(row: ResultRow) -> tuple[str, str]:
    return str(msgspec.json.decode(row.result)["result_digest"]), row.daily


def expected(row: JobRow) -> Bits | None:
    """Of the candles that have the job's digest; None where no candles have."""
    request = request_of(row)
    return None if request is None else _expected(request_key(request), row.spec, row.data_digest)


def request_key(request: Requested) -> bytes:
    """What of a request decides the bits, beside the spec."""
    return msgspec.json.encode((request.weights, request.walk_forward))


@cache
def _expected(key: bytes, spec_json: str, data_digest: str) -> Bits | None:
    spec = msgspec.json.decode(spec_json, type=Spec)
    weights, walk = msgspec.json.decode(key)
    request = msgspec.convert({"spec": msgspec.to_builtins(spec), "weights": weights, "walk_forward": walk}, Requested)
    symbols = list(weights) or [spec.symbol]
    for stages in product((0, 3), repeat=len(symbols)):
        still = Still({symbol: market(symbol).stages[k] for symbol, k in zip(symbols, stages, strict=True)})
        try:
            if not request.is_campaign:
                job = service.prepare(still, spec, 1)
                if job.data_digest == data_digest:
                    return _job(still, spec, data_digest)
            elif campaigns.prepare_campaign(still, request).data_digest == data_digest:
                return _campaign(still, request, spec, data_digest)
        except CandlemillError:  # one that has no result
            return Bits({}, "")
    return None


class Still:
    """An index of some symbols, and their store, that never change."""

    def __init__(self, candles: Mapping[str, Candles]) -> None:
        self._candles = candles

    def symbols(self) -> list[str]:
        return sorted(self._candles)

    def days(self, symbol: str, start: int = 0, end: int = 1 << 62) -> list[Day]:
        return self._candles[symbol].days

    def volume_scale(self, symbol: str) -> int:
        return SCALE

    def funding(self, symbol: str) -> Funding:
        return market(symbol).funding

    def read_columns(self, symbol: str, start: int, end: int, names: Sequence[str]) -> Columns:
        return read(self._candles[symbol], start, end, names)


def _rows(still: Still, spec: Spec, data_digest: str) -> list[tuple[dict[str, Any], ResultRow]]:
    """Every set with its result, over the whole range in one go from a cold start."""
    whole = make_plan(spec, still.days(spec.symbol), 1)
    window = Tapes(still.days, still).window(spec, spec.start, spec.end, 0, COLUMNS)  # type: ignore[arg-type]
    if spec.funding:
        funding = still.funding(spec.symbol)
        window.tape.add_funding(funding.t, funding.rate)
    out = []
    for point, params, strategy in grid_points(spec, 0, spec.combinations):
        outcomes = Outcomes()
        outcomes.add(0, True, run_task(spec, window, [(point, strategy)], {point: COLD}))
        merged = join(outcomes, point, 1)
        assert isinstance(merged, Merged)
        own = job_id(spec.single(params), data_digest)
        result, profits = result_of(spec.single(params), whole, merged, own, data_digest)
        result["execution_time_ms"] = 0
        told, daily = msgspec.json.encode(result).decode(), pack(merged.days, profits)
        out.append((params, ResultRow(own, "", 0, int(str(result["sharpe_ratio"])), 0, 0, "", told, daily)))
    return out


def _job(still: Still, spec: Spec, data_digest: str) -> Bits:
    found = _rows(still, spec, data_digest)
    results = {row.job_id: bits_of(row) for _, row in found}
    if len(found) < 2:
        return Bits(results, "")
    sets = [(params, row.sharpe_ratio) for params, row in found]
    rows = thinned(len(sets), max(range(len(sets)), key=lambda k: sets[k][1]))
    matrix = np.stack([unpack(found[k][1].daily)[1] for k in rows])
    return Bits(results, msgspec.json.encode(sweep_guards(matrix, rows, sets, spec.grid)).decode())


class _Uncut:
    """A ledger that has the results of a campaign's steps."""

    def __init__(self, rows: Sequence[ResultRow]) -> None:
        self._rows = {row.job_id: row for row in rows}

    def job(self, name: str) -> None:
        return None

    def results(self, job_ids: Sequence[str]) -> list[ResultRow]:
        return [self._rows[one] for one in job_ids]

    def sweep_daily(self, sweep_id: str, job_ids: Sequence[str]) -> dict[str, str]:
        return {one: self._rows[one].daily for one in job_ids}


def _campaign(still: Still, request: Requested, spec: Spec, data_digest: str) -> Bits:
    """What the core makes of its steps' uncut results."""
    campaign = campaigns.prepare_campaign(still, request)
    found = [row for job in campaign.jobs for _, row in _rows(still, job.spec, job.data_digest)]
    ledger = cast(Ledger, _Uncut(found))
    steps = [Step(job.job_id, 0) for job in campaign.jobs]
    plan = msgspec.json.encode(Steps(steps)).decode()
    row = JobRow(campaign.job_id, "planned", spec.to_json().decode(), plan, data_digest, 0, kind="walk_forward")
    if request.walk_forward is None:
        joint = campaigns._joint_row(row, request, steps, ledger)
        return Bits({joint.job_id: bits_of(joint)}, "")
    runtime = Runtime(ledger, still, cast(Any, None), lambda: 0)
    return Bits({}, campaigns._choose(row, request, request.walk_forward, runtime).figures)
