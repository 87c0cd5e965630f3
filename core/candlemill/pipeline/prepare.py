"""Check a spec against the day index and plan its slices."""

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from candlemill.backtests.identity import job_id
from candlemill.backtests.long_candles import check_long_candles
from candlemill.backtests.plan import make_plan
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import sees_panel
from candlemill.backtests.tiers import MILLION, in_force
from candlemill.errors import BadInput, BeingWritten, NoData, UnknownName
from candlemill.pipeline.cache_keys import JobData, job_data
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Requested
from candlemill.pipeline.interfaces import DayIndex
from candlemill.pipeline.marks import marks_digest
from candlemill.pipeline.prepared import Prepared
from candlemill.units import iso


def job_of(context: HandlerContext, request: Requested) -> Prepared:
    """Return the job that is requested: as its process has prepared it, or prepared from the index."""
    own = context.prepared
    if own is not None and own.job.spec == request.spec and own.slices == request.slices:
        return own.job
    return prepare(context.index, validated(request.spec), request.slices)


def data_of(context: HandlerContext, spec: Spec) -> JobData:
    """Return the data of a job: of the prepared one, or from the index. Raises as `job_data`."""
    own = context.prepared
    return own.data if own is not None and own.job.spec == spec else job_data(context.index, spec)


def data_with(context: HandlerContext, spec: Spec, digest: str) -> JobData:
    """Return the data of a planned job: as it is known, if that has the digest, else as the index has it now.
    Raises BadInput if the candles have changed."""
    context.recall()
    with suppress(BadInput, BeingWritten):
        return _unchanged(context, spec, digest)
    return current_data(context, spec, digest)


def current_data(context: HandlerContext, spec: Spec, digest: str) -> JobData:
    """Return the data of a planned job as the index has it now. Raises BadInput if the candles have changed."""
    context.renew()
    return _unchanged(context, spec, digest)


def _unchanged(context: HandlerContext, spec: Spec, digest: str) -> JobData:
    data = data_of(context, spec)
    if data.digest != digest:
        raise BadInput(f"the candles of {spec.shown_symbols} have changed since the job was planned: request it again")
    if spec.marks and marks_digest(context.index, spec) != spec.marks:
        raise BadInput(f"the mark prices of {spec.symbol} have changed since the job was planned: request it again")
    return data


def prepare(index: DayIndex, spec: Spec, slices: int | None) -> Prepared:
    """Check a spec against the metadata index before any work starts. Raises UnknownName and NoData."""
    panel = sees_panel(spec.strategy)
    if panel:
        _check_known(index, spec.symbols)
    elif len(spec.symbols) > 1:
        raise BadInput(f"{spec.strategy} trades one symbol, not {spec.symbol[:80]}: ask for a portfolio")
    check_long_candles(spec)
    data = job_data(index, spec)
    days = data.days
    if not days and panel:
        raise NoData(f"none of {spec.shown_symbols} has a candle in {iso(spec.start)}..{iso(spec.end)}")
    if not days:
        known = index.symbols()
        if spec.symbol not in known:
            advice = "`candlemill coverage` lists what is stored"
            if not known:
                advice = "nothing is stored yet, ingest candles first"
            raise UnknownName("symbol", spec.symbol, known, advice)
        have = index.days(spec.symbol)
        raise NoData(
            f"{spec.symbol} has no candle in {iso(spec.start)}..{iso(spec.end)}: "
            f"stored are {iso(have[0].first)}..{iso(have[-1].last)}"
        )
    scale = index.volume_scale(spec.symbol) if spec.volume_share else 0
    spec = with_tiers(index, msgspec.structs.replace(spec, volume_scale=scale))
    return Prepared(job_id(spec, data.digest), spec, data.digest, make_plan(spec, days, slices))


def _check_known(index: DayIndex, symbols: Sequence[str]) -> None:
    """Raise UnknownName for a symbol that is not stored. One without a candle in the range is allowed."""
    known = set(index.symbols())
    for symbol in symbols:
        if symbol not in known:
            raise UnknownName("symbol", symbol, sorted(known), "`candlemill coverage` lists what is stored")


def with_tiers(index: DayIndex, spec: Spec) -> Spec:
    """Return the spec with the maintenance tiers that are in force in its range, and the digest of its mark prices.

    Raises NoData, BeingWritten, and BadInput for a leverage that no position survives.
    """
    if spec.margin == "none":
        return msgspec.structs.replace(spec, tiers={}, marks="")
    found = {}
    for symbol in spec.symbols:
        found[symbol] = in_force(index.margin_tiers(symbol), spec.start, spec.end)
        if not found[symbol] or found[symbol][0].valid_from > spec.start:
            raise NoData(
                f"{symbol} has no maintenance tiers that are valid at {iso(spec.start)}: store some with "
                "`candlemill margin-tiers FILE`, or leave margin out"
            )
    for symbol, tables in found.items():
        rate = max(table.tiers[0].rate for table in tables)
        if spec.leverage * rate >= MILLION * MILLION:
            raise BadInput(
                f"leverage {spec.leverage / MILLION:g}x: at a maintenance rate of {rate / 10_000:g}% of {symbol} every "
                f"position would be liquidated at once; use less than {MILLION / rate:g}x"
            )
    return msgspec.structs.replace(spec, tiers=found, marks=marks_digest(index, spec))


def with_candles(
    index: DayIndex, given: str, symbols: Sequence[str], start: int, end: int
) -> tuple[list[str], list[str]]:
    """Return a portfolio's symbols to use, and those left out.
    A symbol is left out if only a glob of `given` matches it and it has no candle in the range. Raises NoData if no
    symbol remains."""
    named = set(given.split(","))
    out = [symbol for symbol in symbols if symbol not in named and not _has_candle(index, symbol, start, end)]
    if out and len(out) == len(symbols):
        raise NoData(
            f"none of {len(out):,} symbols of {given} has a candle in {iso(start)}..{iso(end)}: take another range"
        )
    return [symbol for symbol in symbols if symbol not in out], out


def _has_candle(index: DayIndex, symbol: str, start: int, end: int) -> bool:
    return any(day.first < end and day.last >= start for day in index.days(symbol))


def validated(spec: Spec) -> Spec:
    """Return the spec as `resolve` makes it: complete, typed and within all limits."""
    rest = msgspec.structs.asdict(spec)
    span = (rest.pop("start"), rest.pop("end"))
    return resolve(symbol=rest.pop("symbol"), strategy=rest.pop("strategy"), span=span, **rest)
