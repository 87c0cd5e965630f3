"""Checks of a store, and repairs.

Each check yields findings. With `repair` it also removes wrong rows, so that they are computed again when they are
needed. Lost candles must be ingested again; the findings name them.
"""

import json
from collections.abc import Iterator, Sequence

import msgspec

from candlemill.backtests.plan import valid_sets
from candlemill.backtests.spec import spec_from_json
from candlemill.errors import CandlemillError, StoreDown, StoreError
from candlemill.pipeline.cache_keys import JobData
from candlemill.pipeline.job_state import OF_SYMBOLS, steps_of
from candlemill.pipeline.rows import JobRow
from candlemill.store.candle_writer import current_days, recount
from candlemill.store.integrity import Difference, damaged_days
from candlemill.store.maintenance import MaintenanceStore
from candlemill.store.shared_memory import orphans, remove
from candlemill.stored_days import Day
from candlemill.units import iso

TABLES = (
    "market_data_1m",
    "coverage_days",
    "symbols",
    "funding_rates",
    "margin_tiers",
    "backtest_jobs",
    "backtest_slices",
    "backtest_results",
    "slice_outcomes",
)
SYNCED = ("market_data_1m", "coverage_days", "symbols")
IDS_SHOWN = 5
REPAIR = "candlemill doctor --repair"


class Finding(msgspec.Struct, frozen=True):
    """A problem: `kind` is machine-readable, `text` for people; `way_out` is the remaining action, empty if none."""

    kind: str
    text: str
    repaired: bool = False
    way_out: str = ""

    @property
    def is_settled(self) -> bool:
        return self.kind == "detached_part" or (self.repaired and not self.way_out)


def examine(store: MaintenanceStore, repair: bool = False) -> Iterator[Finding]:
    """Yield all findings, in an order in which a repair does not hide the next one. Raises StoreError."""
    yield from _parts(store, repair)
    yield from _detached(store)
    indexed = {symbol: list(current_days(store, symbol)) for symbol in store.symbols()}
    damage: dict[str, list[Difference]] = {}
    for symbol in sorted({*indexed, *store.candle_symbols()}):
        try:
            damage[symbol] = damaged_days(store, symbol)
        except StoreDown:
            raise
        except StoreError as error:  # a broken part that is not detached
            yield Finding("candles", f"{symbol}: {error}", False, REPAIR)
    yield from _results(store, indexed, repair)
    for symbol, found in damage.items():
        if found:
            yield _candles(store, symbol, found, repair)
    yield from _scales(store)
    yield from _jobs_without_results(store, repair)
    yield from _results_without_jobs(store, repair)
    yield from _durability(store, repair)
    yield from _shared_memory(repair)


# -- parts of tables -----------------------------------------------------------------------------------------------


def _parts(store: MaintenanceStore, repair: bool) -> Iterator[Finding]:
    """Find parts with wrong checksums, which make queries fail; `repair` detaches them."""
    for table in TABLES:
        for part, message in store.broken_parts(table):
            if repair:
                store.detach_part(table, part)
            yield Finding("part", f"{table}: part {part} is broken: {message}", repair, "" if repair else REPAIR)


def _detached(store: MaintenanceStore) -> Iterator[Finding]:
    """Find parts that the database detached at its start; other checks find the lost rows."""
    for table, part, reason in store.detached_parts():
        yield Finding(
            "detached_part",
            f"{table}: part {part} is not read any more ({reason or 'detached'})",
            False,
            f"if there are no other findings: ALTER TABLE {table} DROP DETACHED PART '{part}' "
            "SETTINGS allow_drop_detached = 1",
        )


# -- candles -------------------------------------------------------------------------------------------------------


def _candles(store: MaintenanceStore, symbol: str, found: Sequence[Difference], repair: bool) -> Finding:
    """Finding of days whose candles differ from the index.

    `repair` counts them again, so that the missing candles are gaps, which `coverage --check`, `ingest --symbol` and a
    feed find.
    """
    days = [one.start for one in found]
    stored, indexed = (sum(getattr(one, name) for one in found) for name in ("stored_rows", "indexed_rows"))
    text = f"{symbol}: {len(days):,} days {_span(days)} have {stored:,} candles, {indexed:,} by the index"
    if repair:
        store.forget_files(symbol)
        recount(store, {symbol: days})
    get = f"ingest these days again: candlemill ingest FILES, or --symbol {symbol} --from {iso(days[0])[:10]}"
    return Finding("candles", text, repair, get if repair else f"{REPAIR}, then {get}")


def _span(days: Sequence[int]) -> str:
    return iso(days[0])[:10] if len(days) == 1 else f"from {iso(days[0])[:10]} to {iso(days[-1])[:10]}"


def _scales(store: MaintenanceStore) -> Iterator[Finding]:
    for symbol in store.candle_symbols():
        if store.volume_scale(symbol) is None:
            text = f"{symbol}: its volume scale is not stored"
            yield Finding("volume_scale", text, False, "ingest one of its files, with --volume-scale if it had another")


# -- jobs and results ----------------------------------------------------------------------------------------------


def _results(store: MaintenanceStore, indexed: dict[str, list[Day]], repair: bool) -> Iterator[Finding]:
    """Find results whose number of bars differs from their candles: computed while candles were missing."""
    job_data: dict[tuple[str, int, int, bool], JobData] = {}
    wrong: set[str] = set()
    for symbol, start, end, digest, bars, has_funding, ids in store.result_bars():
        key = (symbol, start, end, has_funding)
        if key not in job_data:
            funding = store.funding(symbol) if has_funding else None
            job_data[key] = JobData(indexed.get(symbol, []), funding, start, end)
        least, most = job_data[key].bars(start, end)
        if job_data[key].digest != digest or least <= bars <= most:
            continue
        jobs = [*ids, *store.sweeps_of(ids)]
        wrong |= set(jobs)
        text = f"{symbol} {iso(start)}..{iso(end)}: {_shown(ids)} of {bars:,} bars, the candles have {most:,}"
        if repair:
            store.delete_results(ids)
            store.delete_outcomes(start, end)
            _fail(store, jobs, "it was computed while candles were missing: run it again")
        yield Finding("wrong_result", f"wrong: {text}", repair, "" if repair else REPAIR)
    derived = [one for one, parts in store.portfolio_parts() if wrong & set(parts)]
    derived += [row.job_id for row in store.done_jobs() if wrong & {step.job_id for step in steps_of(row)}]
    if derived:
        if repair:
            store.delete_results(derived)
            _fail(store, derived, "it was computed from results of missing candles: run it again")
        yield Finding(
            "wrong_result", f"computed from wrong results: {_shown(derived)}", repair, "" if repair else REPAIR
        )


def _jobs_without_results(store: MaintenanceStore, repair: bool) -> Iterator[Finding]:
    for row in store.done_jobs():
        missing = _missing_results(store, row)
        if not missing:
            continue
        if repair:
            _fail(store, [row.job_id], "its results were lost: run it again")
        yield Finding(
            "job_without_result", f"{row.kind} {row.job_id} is done, {missing}", repair, "" if repair else REPAIR
        )


def _missing_results(store: MaintenanceStore, row: JobRow) -> str:
    """Missing results of a done job; empty if none. Without its strategy, a sweep needs only one result."""
    if row.kind == "walk_forward":
        return "" if row.figures else "without figures"
    if row.kind in OF_SYMBOLS or row.kind == "study":
        return ""
    if row.kind != "sweep":
        return "" if store.has_result(row.job_id) else "without a result"
    found = store.count_sweep(row.job_id)
    try:
        sets = valid_sets(spec_from_json(row.spec))
    except CandlemillError:
        sets = 1
    return f"with {found:,} of {sets:,} results" if found < sets else ""


def _fail(store: MaintenanceStore, job_ids: Sequence[str], reason: str) -> None:
    """Mark jobs as failed, in a new attempt, and delete their task records: their next request computes them again."""
    for row in store.job_rows(job_ids).values():
        store.delete_tasks(row.job_id)
        store.put_job(msgspec.structs.replace(row, attempt=row.attempt + 1, state="failed", reason=reason, figures=""))


def _results_without_jobs(store: MaintenanceStore, repair: bool) -> Iterator[Finding]:
    """Find results without a job. A single result gets a job again; results of a sweep cannot be shown as a sweep."""
    without_job = store.results_without_jobs()
    if single := [one for one, sweep in without_job if not sweep]:
        if repair:
            store.put_jobs([_job_of(json.loads(row.result)) for row in store.results(single)])
        yield Finding("result_without_job", f"no job for {_shown(single)}", repair, "" if repair else REPAIR)
    if sweeps := sorted({sweep for _, sweep in without_job if sweep}):
        text = f"no job for the results of {len(sweeps):,} sweeps, such as {sweeps[0]}"
        yield Finding("result_without_job", text, False, "run the sweep again")


def _job_of(result: dict[str, object]) -> JobRow:
    kind = "portfolio" if "parts" in result else "backtest"
    spec = msgspec.json.encode(result["spec"]).decode()
    return JobRow(str(result["job_id"]), "done", spec, "", str(result["data_digest"]), 0, kind=kind, attempt=1)


def _shown(ids: Sequence[str]) -> str:
    shown = sorted(set(ids))
    more = f" and {len(shown) - IDS_SHOWN:,} more" if len(shown) > IDS_SHOWN else ""
    return f"{'results' if len(shown) > 1 else 'result'} {', '.join(shown[:IDS_SHOWN])}{more}"


# -- the machine ---------------------------------------------------------------------------------------------------


def _durability(store: MaintenanceStore, repair: bool) -> Iterator[Finding]:
    """Find tables of an earlier release, which may lose inserts in a power loss."""
    for table in SYNCED:
        if store.is_synced(table):
            continue
        if repair:
            store.sync_inserts(table)
        yield Finding("durability", f"{table}: inserts are not synced to the disk", repair, "" if repair else REPAIR)


def _shared_memory(repair: bool) -> Iterator[Finding]:
    for name, size in orphans():
        if repair:
            remove(name)
        text = f"shared memory {name} of {size >> 20:,} MiB belongs to no process"
        yield Finding("shared_memory", text, repair, "" if repair else REPAIR)
