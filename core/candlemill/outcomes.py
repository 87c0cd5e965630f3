"""Outcomes as they are kept, for every job that needs them: see `addresses` for what they are kept under."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from candlemill.addresses import Addresses, SetAddress
from candlemill.daily import pack_days
from candlemill.work import Done, Outcome


class OutcomeRow(msgspec.Struct, frozen=True):
    """One row of `slice_outcomes`: what a parameter set made of a slice from a start state.

    Its address is `set_key`, `code`, `slice_key` and `start_state`, the digest of that state. `first_ms` is where what
    the set looks back at begins. Lists are JSON; `days` are runs of UTC days, as in `daily`.
    """

    set_key: str
    code: str
    slice_key: str
    start_state: str
    first_ms: int
    start_ms: int
    end_ms: int
    guessed: bool  # or handed over by the slice before
    end_state: str
    summary: str
    daily: str
    days: str

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return 256 + len(self.end_state) + len(self.summary) + len(self.daily)


class KnownSlice(msgspec.Struct, frozen=True):
    """A slice of which some parameter sets have outcomes, from whatever start."""

    key: str
    first_ms: int
    start_ms: int
    end_ms: int
    sets: set[str]


class OutcomeLedger(Protocol):
    """Where outcomes are kept. `code` is `model.code_key`."""

    def known_slices(self, set_keys: Sequence[str], code: str) -> list[KnownSlice]:
        """What is known of these sets."""

    def other_code(self, set_keys: Sequence[str], code: str) -> bool:
        """Whether other code has outcomes of one of these sets."""

    def outcomes(self, set_keys: Sequence[str], code: str, slice_keys: Sequence[str]) -> list[OutcomeRow]:
        """The outcomes of these sets in these slices, from whatever start."""

    def put_outcomes(self, rows: Sequence[OutcomeRow]) -> None: ...

    def release(self, set_keys: Sequence[str]) -> None:
        """The batch of these sets is merged: nobody is about to ask for their outcomes."""


def rows_of(addresses: Addresses, sets: Mapping[int, SetAddress], cuts: tuple[int, int], done: Done, guessed: bool) -> list[OutcomeRow]:
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
