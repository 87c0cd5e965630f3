"""Guards of a finished sweep.

The record of each merged batch has what the guards need of its sets: their scores, and sums of their daily profits. The
end of the sweep adds these up, instead of reading ten thousand results again, or keeping them in memory.
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.backtests.daily import figures as figures_of
from candlemill.backtests.grid import grid_points
from candlemill.backtests.identity import job_id
from candlemill.backtests.plan import Plan
from candlemill.backtests.spec import Spec
from candlemill.errors import StoreDown
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.rows import JobRow, ResultRow, Scores, require_all, scores_of
from candlemill.pipeline.tasks import done_ending

if TYPE_CHECKING:
    from candlemill.guards import GridSets

Integers = NDArray[np.int64]


class _Part(msgspec.Struct, frozen=True):
    """What a batch leaves: arrays as bytes. `rows` are the points of the sets whose profits are summed."""

    points: bytes
    scores: bytes
    rows: bytes = b""
    days: int = 0
    blocks: bytes = b""
    squares: bytes = b""
    ratios: bytes = b""
    total: bytes = b""


_decoder = msgspec.msgpack.Decoder(_Part)


def part_of(spec: Spec, results: Sequence[ResultRow]) -> str:
    """Return what a batch leaves, from its results. The same results give the same text."""
    from candlemill.guards.matrix import at_even_distances  # imported here so that an executor starts faster
    from candlemill.guards.row_sums import row_sums

    points, scores = scores_of(results)
    part = _Part(points.tobytes(), scores.tobytes())
    kept = points[at_even_distances(points, spec.combinations)].tolist()
    if kept:
        daily = {row.number: row.daily for row in results}
        sums = row_sums(np.stack([figures_of(daily[point]) for point in kept]))
        arrays = {name: getattr(sums, name).tobytes() for name in ("blocks", "squares", "ratios", "total")}
        rows = np.array(kept, dtype=np.int64).tobytes()
        part = msgspec.structs.replace(part, rows=rows, days=sums.days, **arrays)
    return b64encode(msgspec.msgpack.encode(part)).decode()


def sweep_figures(job: JobRow, spec: Spec, plan: Plan, runtime: HandlerContext) -> str:
    """Return the guards of a sweep's best Sharpe ratio as JSON; empty with fewer than two results.
    Raises StoreDown if the store does not show all of the sweep's results yet."""
    parts = runtime.store.sweep_parts(job.job_id, done_ending(plan))
    if len(parts) < plan.batches:
        raise StoreDown(f"the store shows {len(parts):,} of {plan.batches:,} batches of {job.job_id}: ask again")
    if all(parts.values()):  # an earlier release left none
        return _of_parts(job, spec, [_decoder.decode(b64decode(parts[batch])) for batch in sorted(parts)], runtime)
    return _of_results(job, spec, runtime)


def _of_parts(job: JobRow, spec: Spec, parts: Sequence[_Part], runtime: HandlerContext) -> str:
    from candlemill.guards.row_sums import RowSums, joined, row_sums
    from candlemill.guards.sweep import guards_of_sums

    points, scores = (_integers(b"".join(getattr(part, name) for part in parts)) for name in ("points", "scores"))
    if len(points) < 2:
        return ""
    sets = _grid_sets(spec, (points, scores))
    best = int(points[sets.best()])
    profits = _daily(job, spec, [sets.best()], sets, runtime)[0]
    rows = [_integers(part.rows) for part in parts if part.rows]
    sums = [
        RowSums(
            part.days,
            np.frombuffer(part.blocks).reshape(-1, len(part.rows) // 8),
            np.frombuffer(part.squares).reshape(-1, len(part.rows) // 8),
            np.frombuffer(part.ratios),
            _integers(part.total),
        )
        for part in parts
        if part.rows
    ]
    if best not in np.concatenate([*rows, _integers(b"")]):
        rows.append(np.array([best]))
        sums.append(row_sums(profits[None, :]))
    found = joined(sums, np.argsort(np.concatenate(rows)))
    return _text(guards_of_sums(found, profits, sets, spec.grid, runtime.spread, len(sets)))


def _of_results(job: JobRow, spec: Spec, runtime: HandlerContext) -> str:
    from candlemill.guards import sweep_guards, thinned

    found = runtime.store.sweep_scores(job.job_id)
    if found is None:
        return ""
    points = np.fromiter((point for point, _, _ in grid_points(spec, 0, spec.combinations)), dtype=np.int64)
    if not np.array_equal(points, found[0]):
        raise StoreDown(f"the store shows {len(found[0]):,} of {len(points):,} results of {job.job_id}: ask again")
    if len(points) < 2:
        return ""
    sets = _grid_sets(spec, found)
    rows = thinned(points, spec.combinations, sets.best())
    matrix = np.stack(_daily(job, spec, rows, sets, runtime))
    return _text(sweep_guards(matrix, rows, sets, spec.grid, runtime.spread))


def _grid_sets(spec: Spec, scores: Scores) -> "GridSets":
    from candlemill.guards import GridSets

    return GridSets(spec.grid, *scores, lambda point: next(grid_points(spec, point, 1))[1])


def _daily(job: JobRow, spec: Spec, rows: Sequence[int], sets: "GridSets", runtime: HandlerContext) -> list[Integers]:
    """Return the daily profits of some sets, given by their indices."""
    ids = [job_id(spec.single(dict(sets.params(k))), job.data_digest) for k in rows]
    daily = require_all(ids, runtime.store.sweep_daily(job.job_id, ids))
    return [figures_of(daily[own]) for own in ids]


def _integers(data: bytes) -> Integers:
    return np.frombuffer(data, dtype=np.int64)


def _text(guards: dict[str, Any]) -> str:
    return msgspec.json.encode(guards).decode()
