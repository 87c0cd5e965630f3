"""Table of labels, notes and tags of jobs."""

from collections.abc import Sequence

import msgspec

from candlemill.pipeline.rows import Notes
from candlemill.store.connection import Connection
from candlemill.units import clock_ms


class NoteTable(Connection):
    """The table of notes; the methods are documented in `store.base.Store`. The newest row of a job is valid."""

    def put_notes(self, notes: Notes) -> None:
        sql = "SELECT toUnixTimestamp64Micro(max(updated_at)) FROM job_notes WHERE job_id = {job:String}"
        last = int(self._rows(sql, {"job": notes.job_id})[0][0])
        now = max(clock_ms() * 1000, last + 1)  # the newest row is the last one, even after the clock was set back
        self._insert("job_notes", [msgspec.structs.asdict(notes) | {"updated_at": now / 10**6}])

    def notes(self, job_ids: Sequence[str]) -> dict[str, Notes]:
        if not job_ids:
            return {}
        sql = """
            SELECT job_id, label, note, tags FROM job_notes FINAL
            WHERE job_id IN {jobs:Array(String)} AND NOT (label = '' AND note = '' AND empty(tags))
        """
        rows = self._rows(sql, {"jobs": list(job_ids)})
        return {str(row[0]): Notes(str(row[0]), str(row[1]), str(row[2]), list(row[3])) for row in rows}

    def tags(self, limit: int = 1_000) -> list[tuple[str, int]]:
        sql = """
            SELECT arrayJoin(tags) AS tag, count() AS jobs FROM job_notes FINAL
            GROUP BY tag ORDER BY jobs DESC, tag LIMIT {limit:UInt32}
        """
        return [(str(row[0]), int(row[1])) for row in self._rows(sql, {"limit": limit})]
