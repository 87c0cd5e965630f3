"""The bits that a job must end with: those of the uncut run, made without any handler, cut or hand-over."""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from typing import Any, cast

import msgspec
import numpy as np
from candlemill.backtests.daily import pack, unpack
from candlemill.backtests.grid import grid_points
from candlemill.backtests.identity import job_id
from candlemill.backtests.merge import MergedSlices, Outcomes, merge_slices
from candlemill.backtests.panel import run_panel_slice
from candlemill.backtests.plan import make_plan
from candlemill.backtests.result import result_of
from candlemill.backtests.slice import run_slice
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import COLUMNS
from candlemill.backtests.states import COLD
from candlemill.backtests.tiers import TierTable
from candlemill.errors import CandlemillError
from candlemill.guards import sweep_guards, thinned
from candlemill.pipeline import prepare, workflows
from candlemill.pipeline.cache_keys import PanelData, job_data
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Requested
from candlemill.pipeline.interfaces import JobStore
from candlemill.pipeline.job_state import OF_SYMBOLS, Step, Steps, kind_of, request_of
from candlemill.pipeline.panel_window import panel_window
from candlemill.pipeline.rows import JobRow, ResultRow
from candlemill.store.candle_reader import CandleReader
from candlemill.stored_days import Day, Funding
from candlemill.units import SCALE

from loadtests.fault_simulation.cases import TIERS, Candles, Columns, market, read


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
    symbols = list(weights) or list(spec.symbols)
    for stages in product((0, 3), repeat=len(symbols)):
        still = Still({symbol: market(symbol).stages[k] for symbol, k in zip(symbols, stages, strict=True)})
        try:
            if not request.is_workflow:
                job = prepare.prepare(still, spec, 1)
                if job.data_digest == data_digest:
                    return _job(still, spec, data_digest)
            elif workflows.prepare_workflow(still, request).data_digest == data_digest:
                return _workflow(still, request, spec, data_digest)
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

    def margin_tiers(self, symbol: str) -> list[TierTable]:
        return TIERS

    def read_columns(self, symbol: str, start: int, end: int, names: Sequence[str]) -> Columns:
        return read(self._candles[symbol], start, end, names)


def _rows(still: Still, spec: Spec, data_digest: str) -> list[tuple[dict[str, Any], ResultRow]]:
    """Every set with its result, over the whole range in one go from a cold start."""
    data, candles = job_data(still, spec), CandleReader(still.days, still)  # type: ignore[arg-type]
    whole = make_plan(spec, data.days, 1)
    panel = window = None
    if isinstance(data, PanelData):
        panel = panel_window(candles, still, spec, data, (spec.start, spec.end), 0, COLUMNS)
    else:
        window = candles.window(spec, spec.start, spec.end, 0, COLUMNS)
    if window is not None and spec.funding:
        funding = still.funding(spec.symbol)
        window.candles.add_funding(funding.t, funding.rate)
    out = []
    for point, params, strategy in grid_points(spec, 0, spec.combinations):
        outcomes = Outcomes()
        sets, starts = [(point, strategy)], {point: COLD}
        run = run_panel_slice(spec, panel, sets, starts) if panel else run_slice(spec, window, sets, starts)  # type: ignore[arg-type]
        outcomes.add(0, True, run)
        merged = merge_slices(outcomes, point, 1)
        assert isinstance(merged, MergedSlices)
        own = job_id(spec.single(params), data_digest)
        result, profits = result_of(spec.single(params), whole, merged, own, data_digest)
        result["execution_time_ms"] = 0
        output, daily = msgspec.json.encode(result).decode(), pack(merged.days, profits)
        out.append((params, ResultRow(own, "", 0, int(str(result["sharpe_ratio"])), 0, 0, "", output, daily)))
    return out


def _job(still: Still, spec: Spec, data_digest: str) -> Bits:
    found = _rows(still, spec, data_digest)
    results = {row.job_id: bits_of(row) for _, row in found}
    if len(found) < 2:
        return Bits(results, "")
    sets = [(params, row.sharpe_ratio) for params, row in found]
    points = np.array([point for point, _, _ in grid_points(spec, 0, spec.combinations)])
    rows = thinned(points, spec.combinations, max(range(len(sets)), key=lambda k: sets[k][1]))
    matrix = np.stack([unpack(found[k][1].daily)[1] for k in rows])
    return Bits(results, msgspec.json.encode(sweep_guards(matrix, rows, sets, spec.grid)).decode())


class _Uncut:
    """A store that has the results of a workflow's steps."""

    def __init__(self, rows: Sequence[ResultRow]) -> None:
        self._rows = {row.job_id: row for row in rows}

    def job(self, name: str) -> None:
        return None

    def results(self, job_ids: Sequence[str]) -> list[ResultRow]:
        return [self._rows[one] for one in job_ids]

    def sweep_daily(self, sweep_id: str, job_ids: Sequence[str]) -> dict[str, str]:
        return {one: self._rows[one].daily for one in job_ids}


def _workflow(still: Still, request: Requested, spec: Spec, data_digest: str) -> Bits:
    """What the core makes of its steps' uncut results."""
    workflow = workflows.prepare_workflow(still, request)
    if kind_of(request) in OF_SYMBOLS:
        return Bits({}, "")
    found = [row for job in workflow.jobs for _, row in _rows(still, job.spec, job.data_digest)]
    store = cast(JobStore, _Uncut(found))
    steps = [Step(job.job_id, 0) for job in workflow.jobs]
    plan = msgspec.json.encode(Steps(steps)).decode()
    row = JobRow(workflow.job_id, "planned", spec.to_json().decode(), plan, data_digest, 0, kind="walk_forward")
    if request.walk_forward is None:
        joint = workflows._joint_row(row, request, steps, store)
        return Bits({joint.job_id: bits_of(joint)}, "")
    runtime = HandlerContext(store, still, cast(Any, None), lambda: 0)
    return Bits({}, workflows._choose(row, request, request.walk_forward, runtime).figures)
