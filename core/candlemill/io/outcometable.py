"""The table of outcomes, as a part of the store."""

from collections.abc import Sequence

from candlemill.io.table import Table
from candlemill.ledger import KnownSlice, OutcomeRow

SLICES_AT_ONCE = 500  # keys in one query: they travel in its address, beside those of a batch's sets


class OutcomeTable(Table):
    """See `ledger.Ledger`."""

    def known_slices(self, set_keys: Sequence[str], code: str) -> list[KnownSlice]:
        if self.seen is not None:
            set_keys = self.seen.sets.perhaps(set_keys)
        sql = """
            SELECT slice_key, first_ms, start_ms, end_ms, set_key FROM slice_outcomes
            WHERE set_key IN {sets:Array(String)} AND code = {code:String}
        """
        found: dict[tuple[str, int, int, int], set[str]] = {}
        for slice_key, first, a, b, key in self._rows(sql, {"sets": list(set_keys), "code": code}) if set_keys else []:
            found.setdefault((slice_key, first, a, b), set()).add(key)
        return [KnownSlice(*place, sets) for place, sets in found.items()]

    def other_code(self, set_keys: Sequence[str], code: str) -> bool:
        if self.seen is not None:
            set_keys = self.seen.sets.perhaps(set_keys)
        sql = "SELECT 1 FROM slice_outcomes WHERE set_key IN {sets:Array(String)} AND code != {code:String} LIMIT 1"
        return bool(set_keys and self._rows(sql, {"sets": list(set_keys), "code": code}))

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
        if self.seen is not None:
            self.seen.sets.note(row.set_key for row in rows)
        self._insert("slice_outcomes", rows)

    def release(self, set_keys: Sequence[str]) -> None:
        """Nothing of them is kept in memory."""
