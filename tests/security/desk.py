"""What the attacks are made on: the gateway's app and the functions' HTTP entry points over one embedded database, in
this process, with all that is sent to the database taken down."""

import json
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from urllib.parse import quote

import flask
from candlemill.pipeline import events
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Event
from candlemill.store import day_index
from candlemill.store.candle_reader import CandleReader
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.transport import dedup, functions, http, sink
from candlemill.units import clock_ms
from werkzeug.test import EnvironBuilder

MARK = "c4nary"
HOSTILE = (
    f"'; DROP TABLE {MARK}; --",
    f"\\') OR 1=1 UNION ALL SELECT '{MARK}",
    f'`"{MARK}{{symbol:String}}%(x)s{{0}}\\N\t\n\r\\',
    f"{MARK}\0\u2028\u202e\ufffd/*",
)
WRITTEN = ("query", "query_column_block_stream", "command", "raw_insert")


class Desk:
    """`said` are (method, what was sent as SQL) of every call to the database; `sent` what the functions published."""

    def __init__(self, store: ClickHouseStore, patch: Any) -> None:
        self.store = store
        self.said: list[tuple[str, str]] = []
        self.tables: list[tuple[str, str]] = []  # which function has written to which table
        self.sent: list[Event] = []
        self.at_work = ""
        index = day_index.RequestIndex(store)
        self.runtime = HandlerContext(store, index, CandleReader(index.days, store), clock_ms)

        def runtime() -> HandlerContext:
            index.renew()
            return self.runtime

        patch.setattr(http, "handler_context", runtime)
        patch.setattr(sink, "_publish", lambda published: self.sent.extend(published))
        patch.setattr(http, "_published", dedup.PublishDeduplicator())
        self._quietly = store._client.query  # what these tests ask themselves is not taken down
        for name in WRITTEN:
            patch.setattr(store._client, name, self._telling(name, getattr(store._client, name)))

    def _telling(self, name: str, real: Any) -> Any:
        def call(sql: str, *arguments: Any, **more: Any) -> Any:
            assert isinstance(sql, str)
            self.said.append((name, sql))
            if name == "raw_insert":
                self.tables.append((self.at_work, sql))
            return real(sql, *arguments, **more)

        return call

    def function(self, name: str) -> ModuleType:
        functions.handler(name)
        return sys.modules[f"candlemill_function_{name}"]

    def post(
        self, name: str, kind: str, data: Any = None, raw: bytes | None = None, **attributes: str
    ) -> tuple[int, dict[str, Any]]:
        """POST an event to a function's HTTP entry point: the status, and the answer where there is one."""
        headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/evil", "ce-type": quote(kind)}
        headers |= {f"ce-{key}": quote(value, safe=" /:=+-.,") for key, value in attributes.items()}
        body = json.dumps(data).encode() if raw is None else raw
        made = EnvironBuilder(method="POST", headers={**headers, "content-type": "application/json"}, data=body)
        self.at_work = name
        answer, status, _ = self.function(name).main(flask.Request(made.get_environ()))
        self.at_work = ""
        return status, json.loads(answer) if answer else {}

    def deliver(self, first: Event) -> list[Event]:
        """An event, and all that follow from it; what was published meanwhile."""
        waiting, seen = deque([first]), []
        while waiting:
            event = waiting.popleft()
            seen.append(event)
            self.sent.clear()
            status, found = self.post(
                functions.function_of(event), event.type, raw=event.data, partitionkey=event.partitionkey, id=event.id
            )
            assert status == 202, found
            waiting += self.sent
        return seen

    def finish(self, **fields: Any) -> list[Event]:
        """A job that is requested as `kn` does it, run to its end."""
        return self.deliver(Event(id="1", source="/kn", type=events.REQUESTED, data=json.dumps(fields).encode()))

    def rows(self, sql: str) -> Sequence[Sequence[Any]]:
        return self._quietly(sql).result_rows

    def picture(self) -> dict[str, str]:
        """All tables but those of jobs, by what is in them."""
        names = [row[0] for row in self.rows("SELECT name FROM system.tables WHERE database = currentDatabase()")]
        return {
            name: str(self.rows(f"SELECT count(), sum(cityHash64(*)) FROM {name}")[0])  # noqa: S608
            for name in sorted(names)
            if not name.startswith("backtest_") and name not in ("slice_outcomes", "job_notes")
        }

    @contextmanager
    def unharmed(self, *jobs: str) -> Iterator[None]:
        """Whatever happens inside: no candle and no table changes, these jobs' results stay as they are, and nothing
        that was sent stands in SQL."""
        before = self.picture(), [self.store.result_rows(job) for job in jobs], [self.store.job(job) for job in jobs]
        self.said.clear()
        yield
        said = list(self.said)
        assert [one for one in said if MARK in one[1]] == []
        assert all(sql in TABLES for method, sql in said if method == "raw_insert")
        after = self.picture(), [self.store.result_rows(job) for job in jobs], [self.store.job(job) for job in jobs]
        assert before == after


TABLES = {"job_notes", "backtest_jobs", "backtest_slices", "backtest_results", "slice_outcomes", "coverage_days"}


# -- every field of a schema -----------------------------------------------------------------------------------------

Path = tuple[str | int, ...]


def places(schema: Any, root: Any, path: Path = (), depth: int = 0) -> Iterator[Path]:
    """Every place in which a value that a JSON Schema describes can have a leaf, keys of open objects among them
    (as "*key")."""
    if "$ref" in schema:
        named = schema["$ref"].split("/")[1:]
        found = root
        for part in named:
            found = found[part]
        yield from places(found, root, path, depth + 1)
        return
    if depth > 8:
        return
    choices = schema.get("anyOf", []) + schema.get("oneOf", []) + schema.get("allOf", [])
    for choice in choices:
        yield from places(choice, root, path, depth + 1)
    for name, part in schema.get("properties", {}).items():
        yield from places(part, root, (*path, name), depth + 1)
    if isinstance(more := schema.get("additionalProperties"), dict):
        yield (*path, "*key")
        yield from places(more, root, (*path, "fast"), depth + 1)
    if isinstance(items := schema.get("items"), dict):
        yield from places(items, root, (*path, 0), depth + 1)
    if not choices and "properties" not in schema:
        yield path


def with_value(data: Any, path: Path, value: Any) -> Any:
    """A copy of `data` with `value` at the place, and all that is needed to have one."""
    if not path:
        return value
    first, rest = path[0], path[1:]
    if first == "*key":
        return {**(data if isinstance(data, dict) else {}), value: "5"}
    if isinstance(first, int):
        old = list(data) if isinstance(data, list) else []
        return [with_value(old[0] if old else None, rest, value), *old[1:]]
    there = data if isinstance(data, dict) else {}
    return {**there, first: with_value(there.get(first), rest, value)}
