"""Table of slice outcomes."""

from collections.abc import Sequence

from candlemill.pipeline.rows import KnownSlice, OutcomeRow
from candlemill.store.connection import Connection

SLICES_PER_QUERY = 500  # keys are sent in the URL, with those of a batch's parameter sets


class OutcomeTable(Connection):
    """The store's table of outcomes; the methods are documented in `store.base.Store`."""

    def known_slices(self, set_keys: Sequence[str], code: str) -> list[KnownSlice]:
        if self.known_keys is not None:
            set_keys = self.known_keys.sets.may_have(set_keys)
        sql = """
            SELECT slice_key, first_ms, start_ms, end_ms, set_key FROM slice_outcomes
            WHERE set_key IN {sets:Array(String)} AND code = {code:String}
        """
        found: dict[tuple[str, int, int, int], set[str]] = {}
        for slice_key, first, a, b, key in self._rows(sql, {"sets": list(set_keys), "code": code}) if set_keys else []:
            found.setdefault((slice_key, first, a, b), set()).add(key)
        return [KnownSlice(*place, sets) for place, sets in found.items()]

    def other_code(self, set_keys: Sequence[str], code: str) -> bool:
        if self.known_keys is not None:
            set_keys = self.known_keys.sets.may_have(set_keys)
        sql = "SELECT 1 FROM slice_outcomes WHERE set_key IN {sets:Array(String)} AND code != {code:String} LIMIT 1"
        return bool(set_keys and self._rows(sql, {"sets": list(set_keys), "code": code}))

    def outcomes(self, set_keys: Sequence[str], code: str, slice_keys: Sequence[str]) -> list[OutcomeRow]:
        sql = f"""
            SELECT {", ".join(OutcomeRow.__struct_fields__)} FROM slice_outcomes
            WHERE set_key IN {{sets:Array(String)}} AND code = {{code:String}} AND slice_key IN {{slices:Array(String)}}
        """  # noqa: S608
        found: list[OutcomeRow] = []
        for k in range(0, len(slice_keys) if set_keys else 0, SLICES_PER_QUERY):
            some = list(slice_keys[k : k + SLICES_PER_QUERY])
            rows = self._rows(sql, {"sets": list(set_keys), "code": code, "slices": some})
            found += [OutcomeRow(*row) for row in rows]
        return found

    def put_outcomes(self, rows: Sequence[OutcomeRow]) -> None:
        if self.known_keys is not None:
            self.known_keys.sets.add(row.set_key for row in rows)
        self._insert_many("slice_outcomes", rows)
