"""The table of outcomes, as a part of the store."""

from collections.abc import Sequence
from typing import Any

import msgspec

from candlemill.ledger import KnownSlice, OutcomeRow

SLICES_AT_ONCE = 500  # keys in one query: they travel in its address, beside those of a batch's sets


class OutcomeTable:
    """See `ledger.Ledger`."""

    def _rows(self, sql: str, bound: dict[str, object]) -> Sequence[Sequence[Any]]:
        raise NotImplementedError

    def _insert(self, table: str, rows: Sequence[msgspec.Struct | dict[str, Any]]) -> None:
        raise NotImplementedError

    def known_slices(self, set_keys: Sequence[str], code: str) -> list[KnownSlice]:
        sql = f"""
            SELECT slice_key, first_ms, start_ms, end_ms,
                groupUniqArray(transform(set_key, {{sets:Array(String)}}, range({len(set_keys)}), 0))
            FROM slice_outcomes
            WHERE set_key IN {{sets:Array(String)}} AND code = {{code:String}}
            GROUP BY slice_key, first_ms, start_ms, end_ms
        """  # noqa: S608
        found = self._rows(sql, {"sets": list(set_keys), "code": code}) if set_keys else []
        return [KnownSlice(key, first, a, b, {set_keys[k] for k in sets}) for key, first, a, b, sets in found]

    def other_code(self, set_keys: Sequence[str], code: str) -> bool:
        sql = "SELECT 1 FROM slice_outcomes WHERE set_key IN {sets:Array(String)} AND code != {code:String} LIMIT 1"
        return bool(self._rows(sql, {"sets": list(set_keys), "code": code}))

    def outcomes(self, set_keys: Sequence[str], code: str, slice_keys: Sequence[str]) -> list[OutcomeRow]:
        sql = f"""
            SELECT {", ".join(OutcomeRow.__struct_fields__)} FROM slice_outcomes
            WHERE set_key IN {{sets:Array(String)}} AND code = {{code:String}} AND slice_key IN {{slices:Array(String)}}
        """  # noqa: S608
        found: list[OutcomeRow] = []
        for k in range(0, len(slice_keys) if set_keys else 0, SLICES_AT_ONCE):
            some = list(slice_keys[k : k + SLICES_AT_ONCE])
            rows = self._rows(sql, {"sets": list(set_keys), "code": code, "slices": some})
            found += [OutcomeRow(*row) for row in rows]
        return found

    def put_outcomes(self, rows: Sequence[OutcomeRow]) -> None:
        self._insert("slice_outcomes", rows)

    def release(self, set_keys: Sequence[str]) -> None:
        """Nothing of them is kept in memory."""
