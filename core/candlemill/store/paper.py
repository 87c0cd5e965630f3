"""Tables of paper runs: what runs, its log, and how far the log has been published."""

from collections.abc import Mapping, Sequence

from candlemill.pipeline.rows import PaperLogRow, PaperRunRow
from candlemill.store.connection import Connection

_RUN = ", ".join(PaperRunRow.__struct_fields__)
_LOG = ", ".join(PaperLogRow.__struct_fields__)


class PaperTables(Connection):
    """The tables of paper runs."""

    def put_paper_run(self, run: PaperRunRow) -> None:
        self._insert("paper_runs", [run])

    def paper_run(self, run_id: str) -> PaperRunRow | None:
        """Return a run by its id, or by the first letters of it if no other id begins with them."""
        sql = f"SELECT {_RUN} FROM paper_runs FINAL WHERE startsWith(run_id, {{run:String}}) LIMIT 2"  # noqa: S608
        found = self._rows(sql, {"run": run_id})
        return PaperRunRow(*found[0]) if len(found) == 1 else None

    def latest_paper_run(self, request_key: str) -> PaperRunRow | None:
        """Return the latest run of a request."""
        sql = f"""
            SELECT {_RUN} FROM paper_runs FINAL WHERE request_key = {{key:String}} ORDER BY begun_at DESC LIMIT 1
        """  # noqa: S608
        rows = self._rows(sql, {"key": request_key})
        return PaperRunRow(*rows[0]) if rows else None

    def paper_runs(self, limit: int = 100) -> list[PaperRunRow]:
        """Return the runs, the latest first."""
        sql = f"SELECT {_RUN} FROM paper_runs FINAL ORDER BY begun_at DESC, run_id LIMIT {{limit:UInt32}}"  # noqa: S608
        return [PaperRunRow(*row) for row in self._rows(sql, {"limit": limit})]

    def put_paper_log(self, rows: Sequence[PaperLogRow]) -> None:
        """Append rows of any runs, all of them or none."""
        self._insert("paper_log", rows, collected=False)

    def paper_log(self, run_id: str, since_ms: int) -> list[PaperLogRow]:
        """Return a run's log in its order; of minutes and their inputs those from `since_ms` on."""
        sql = f"""
            SELECT {_LOG} FROM paper_log FINAL
            WHERE run_id = {{run:String}} AND (kind NOT IN ('minute', 'inputs') OR t >= {{since:Int64}})
            ORDER BY seq, claim
        """  # noqa: S608
        return valid_rows([PaperLogRow(*row) for row in self._rows(sql, {"run": run_id, "since": since_ms})])

    def paper_events(self, run_id: str, after: int, limit: int) -> list[PaperLogRow]:
        """Return the rows of a run's log with a `seq` above `after` whose events are to be published."""
        sql = f"""
            SELECT {_LOG} FROM paper_log FINAL
            WHERE run_id = {{run:String}} AND seq > {{after:UInt64}} AND event != ''
            ORDER BY seq, claim LIMIT {{limit:UInt32}}
        """  # noqa: S608
        bound = {"run": run_id, "after": after, "limit": limit}
        return valid_rows([PaperLogRow(*row) for row in self._rows(sql, bound)])

    def latest_paper_events(self, run_id: str, event: str, limit: int) -> list[PaperLogRow]:
        """Return the last rows of a run's log that publish this type of event, the newest first."""
        sql = f"""
            SELECT {_LOG} FROM paper_log FINAL
            WHERE run_id = {{run:String}} AND event = {{event:String}}
            ORDER BY seq DESC, claim DESC LIMIT {{limit:UInt32}}
        """  # noqa: S608
        return [PaperLogRow(*row) for row in self._rows(sql, {"run": run_id, "event": event, "limit": limit})]

    def put_paper_marks(self, kind: str, values: Mapping[str, int]) -> None:
        """Store marks of runs; the highest value of a run counts."""
        rows = [{"run_id": run_id, "kind": kind, "value": value} for run_id, value in values.items()]
        self._insert("paper_marks", rows, collected=False)

    def paper_marks(self, kind: str, run_ids: Sequence[str]) -> dict[str, int]:
        sql = """
            SELECT run_id, max(value) FROM paper_marks
            WHERE kind = {kind:String} AND run_id IN {runs:Array(String)} GROUP BY run_id
        """
        return {str(run): int(value) for run, value in self._rows(sql, {"kind": kind, "runs": list(run_ids)})}


def valid_rows(rows: Sequence[PaperLogRow]) -> list[PaperLogRow]:
    """Return rows, given in the order of `seq`, without those that a process wrote after another had gone on with the
    run."""
    out: list[PaperLogRow] = []
    claim = 0
    for row in rows:
        if row.claim < claim:
            continue
        if out and out[-1].seq == row.seq:
            out.pop()
        out.append(row)
        claim = row.claim
    return out
