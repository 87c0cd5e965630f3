"""Conversion between a task's work and stored outcomes; `cache_keys` defines their keys."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec

from candlemill.backtests.daily import pack_days, unpack_days
from candlemill.backtests.merge import Outcomes
from candlemill.backtests.slice import SliceOutcome, SliceOutcomes
from candlemill.pipeline.cache_keys import CacheKeys, ParamSetKey
from candlemill.pipeline.interfaces import JobStore
from candlemill.pipeline.rows import OutcomeRow


def rows_of(
    cache_keys: CacheKeys, sets: Mapping[int, ParamSetKey], cuts: tuple[int, int], done: SliceOutcomes, guessed: bool
) -> list[OutcomeRow]:
    """Return a task's work as rows to store."""
    days = pack_days(done.days)
    contexts = {sets[one.point].context for one in done.outcomes}
    slice_keys = {context: cache_keys.slice_key(*cuts, context) for context in contexts}
    rows = []
    for outcome in done.outcomes:
        set_key = sets[outcome.point]
        slice_key = slice_keys[set_key.context]
        rows.append(
            OutcomeRow(
                set_key=set_key.key,
                code=cache_keys.code,
                slice_key=slice_key.key,
                start_state=outcome.start,
                first_ms=slice_key.first,
                start_ms=slice_key.start,
                end_ms=slice_key.end,
                guessed=guessed,
                end_state=outcome.end,
                summary=_summary_text(outcome),
                daily=_text(outcome.daily),
                days=days,
            )
        )
    return rows


def _text(numbers: list[int]) -> str:
    return msgspec.json.encode(numbers).decode()


class _WithMore(msgspec.Struct, frozen=True, omit_defaults=True):
    """Summary, and of a panel the sums of its symbols, or the tape of a job that keeps tapes."""

    summary: list[int]
    sums: list[int] = []
    tape: str = ""


_numbers = msgspec.json.Decoder(list[int])
_summaries = msgspec.json.Decoder(list[int] | _WithMore)


def _summary_text(outcome: SliceOutcome) -> str:
    more = bool(outcome.sums or outcome.tape)
    found = _WithMore(outcome.summary, outcome.sums, outcome.tape) if more else outcome.summary
    return msgspec.json.encode(found).decode()


def outcome_of(row: OutcomeRow, point: int) -> SliceOutcome:
    found, daily = _summaries.decode(row.summary), _numbers.decode(row.daily)
    if isinstance(found, _WithMore):
        return SliceOutcome(point, row.start_state, row.end_state, found.summary, daily, found.sums, found.tape)
    return SliceOutcome(point, row.start_state, row.end_state, found, daily)


def slices_of(cache_keys: CacheKeys, sets: Mapping[int, ParamSetKey], cuts: Sequence[int]) -> dict[str, int]:
    """Return the numbers of the slices between `cuts`, by their slice keys for these sets."""
    contexts = {set_key.context for set_key in sets.values()}
    return {
        cache_keys.slice_key(start, end, context).key: number
        for number, (start, end) in enumerate(pairwise(cuts))
        for context in contexts
    }


def outcomes_of(
    cache_keys: CacheKeys, sets: Mapping[int, ParamSetKey], cuts: Sequence[int], store: JobStore
) -> Outcomes:
    """Return all outcomes in the store of these sets in the slices between `cuts`."""
    points = {set_key.key: point for point, set_key in sets.items()}
    numbers = slices_of(cache_keys, sets, cuts)
    found = Outcomes()
    days: dict[str, list[int]] = {}
    for row in store.outcomes(list(points), cache_keys.code, list(numbers)):
        if row.days not in days:
            days[row.days] = unpack_days(row.days).tolist()
        outcome = outcome_of(row, points[row.set_key])
        found.put(numbers[row.slice_key], not row.guessed, days[row.days], outcome)
    return found
