"""From a task's work to outcomes as they are kept, and back: see `addresses` for what they are kept under."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec

from candlemill.addresses import Addresses, SetAddress
from candlemill.daily import pack_days, unpack_days
from candlemill.ledger import Ledger, OutcomeRow
from candlemill.reduce import Outcomes
from candlemill.work import Done, Outcome


def rows_of(
    addresses: Addresses, sets: Mapping[int, SetAddress], cuts: tuple[int, int], done: Done, guessed: bool
) -> list[OutcomeRow]:
    """A task's work as it is kept."""
    days = pack_days(done.days)
    places = {context: addresses.place(*cuts, context) for context in {sets[o.point].context for o in done.outcomes}}
    rows = []
    for outcome in done.outcomes:
        address = sets[outcome.point]
        place = places[address.context]
        rows.append(
            OutcomeRow(
                set_key=address.key,
                code=addresses.code,
                slice_key=place.key,
                start_state=outcome.start,
                first_ms=place.first,
                start_ms=place.start,
                end_ms=place.end,
                guessed=guessed,
                end_state=outcome.end,
                summary=_text(outcome.summary),
                daily=_text(outcome.daily),
                days=days,
            )
        )
    return rows


def _text(numbers: list[int]) -> str:
    return msgspec.json.encode(numbers).decode()


_numbers = msgspec.json.Decoder(list[int])


def outcome_of(row: OutcomeRow, point: int) -> Outcome:
    return Outcome(point, row.start_state, row.end_state, _numbers.decode(row.summary), _numbers.decode(row.daily))


def slices_of(addresses: Addresses, sets: Mapping[int, SetAddress], cuts: Sequence[int]) -> dict[str, int]:
    """The numbers of the slices between `cuts` by the keys that these sets have them under."""
    contexts = {address.context for address in sets.values()}
    return {
        addresses.place(start, end, context).key: number
        for number, (start, end) in enumerate(pairwise(cuts))
        for context in contexts
    }


def outcomes_of(addresses: Addresses, sets: Mapping[int, SetAddress], cuts: Sequence[int], ledger: Ledger) -> Outcomes:
    """All that the ledger has of these sets in the slices between `cuts`."""
    points = {address.key: point for point, address in sets.items()}
    numbers = slices_of(addresses, sets, cuts)
    found = Outcomes()
    days: dict[str, list[int]] = {}
    for row in ledger.outcomes(list(points), addresses.code, list(numbers)):
        if row.days not in days:
            days[row.days] = unpack_days(row.days).tolist()
        outcome = outcome_of(row, points[row.set_key])
        found.put(numbers[row.slice_key], not row.guessed, days[row.days], outcome)
    return found
