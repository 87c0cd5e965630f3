"""SQL in every field of every request: the fields come from the published descriptions, not from a list that ages."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from candlemill.cli import main
from candlemill.pipeline import events
from candlemill.pipeline.events import Event
from candlemill.store import clickhouse as io_store
from candlemill.transport.functions import ROUTES

from security.conftest import REQUEST
from security.desk import HOSTILE, Desk, places, with_value

ROOT = Path(__file__).parents[2]
ATTRIBUTES = ("id", "source", "partitionkey", "work", "traceparent", "subject", "knativeerrordest", "anything")


def test_what_is_bound_comes_back_as_it_was(desk: Desk) -> None:
    """The driver's way of writing parameters is not trusted unseen."""
    for text in HOSTILE:
        assert desk.store._rows("SELECT {x:String}", {"x": text})[0][0] == text
        assert desk.store._rows("SELECT {x:Array(String)}", {"x": [text, "y"]})[0][0] == [text, "y"]


def operations(client: Any) -> list[tuple[str, str, Any]]:
    described = client.get("/openapi.json").json()
    return [(method, path, one) for path, found in described["paths"].items() for method, one in found.items()]


def test_sql_in_every_field_of_rest(desk: Desk, client: Any, job: str, sweep: str) -> None:
    described = client.get("/openapi.json").json()
    requested = 0
    with desk.unharmed(job, sweep):
        for method, path, operation in operations(client):
            known = {
                "job_id": sweep if "results" in path or "heatmap" in path else job,
                "symbol": "AAAUSDT",
                "table": "trades",
                "run": "0" * 32,
            }
            for given in operation.get("parameters", []):
                for text in HOSTILE:
                    values = known | {given["name"]: text} if given["in"] == "path" else known
                    url = re.sub(r"\{(\w+)\}", lambda found, v=values: quote(v[found[1]], safe=""), path)
                    query = {given["name"]: text} if given["in"] == "query" else {}
                    headers = {given["name"]: quote(text)} if given["in"] == "header" else {}
                    if method == "delete" and given["in"] != "path":
                        continue
                    answer = client.request(method, url, params=query, headers=headers)
                    requested += 1
                    assert answer.status_code < 500, (method, url, query, answer.text)
            for content in operation.get("requestBody", {}).get("content", {}).values():
                base = {"symbol": "AAAUSDT", "strategy": "sma_cross", "range": "2024-01"}
                for place in sorted(set(places(content["schema"], described)), key=str):
                    for text in HOSTILE:
                        answer = client.request(method, path, json=with_value(base, place, text))
                        requested += 1
                        assert answer.status_code < 500, (method, path, place, text, answer.text)
    assert requested > 300


@pytest.mark.parametrize("kind", events.DATA)
def test_sql_in_every_field_of_an_event(desk: Desk, output: list[Event], job: str, kind: str) -> None:
    schema = json.loads((ROOT / f"schema/events/{kind}.json").read_text())
    sound = {event.type: json.loads(event.data) for event in output if event.type != events.REQUESTED}
    sound[events.REQUESTED] = {"spec": sound[events.SLICE_REQUESTED]["spec"]}
    base = sound.get(kind, {"job_id": job, "reason": "x"} if kind == events.FAILED else {})
    with desk.unharmed(job):
        for place in sorted(set(places(schema, schema)), key=str):
            for text in HOSTILE:
                status, found = desk.post(ROUTES[kind], kind, with_value(base, place, text), partitionkey=job)
                assert status in (202, 422, 503), (place, text, found)
        for name in ATTRIBUTES:
            for text in HOSTILE:
                status, found = desk.post(ROUTES[kind], kind, base, **{"partitionkey": job, name: text})
                assert status in (202, 422, 503), (name, text, found)


def test_sql_in_the_flat_fields_of_kn(desk: Desk, client: Any, job: str) -> None:
    described = client.get("/openapi.json").json()
    (body,) = described["paths"]["/api/v1/backtest"]["post"]["requestBody"]["content"].values()
    with desk.unharmed(job):
        for place in sorted(set(places(body["schema"], described)), key=str):
            for text in HOSTILE:
                name = ".".join(str(part) for part in place).replace("*key", text)
                status, found = desk.post("split", events.REQUESTED, {**REQUEST, name: text})
                assert status in (202, 422), (name, text, found)


def test_sql_in_every_text_of_the_command_line(desk: Desk, job: str, capsys: Any) -> None:
    class Same:
        """The store, which a command opens and closes."""

        def __enter__(self) -> Any:
            return desk.store

        def __exit__(self, *_: object) -> None:
            pass

    commands = next(iter(main.parser()._subparsers._group_actions)).choices  # type: ignore[union-attr]
    requested = 0
    with desk.unharmed(job), pytest.MonkeyPatch.context() as patch:
        patch.setattr(io_store, "ClickHouseStore", lambda dsn: Same())
        for name in ("backtest", "sweep", "walk-forward", "plan", "coverage", "results", "verify"):
            base = (
                ["--symbol", "AAAUSDT", "--strategy", "sma_cross"]
                if name not in ("coverage", "results", "verify")
                else []
            )
            for action in commands[name]._actions:
                if action.nargs == 0 or action.choices or getattr(action.type, "__name__", "") in ("int", "Path"):
                    continue
                for text in HOSTILE[1:2]:
                    given = [action.option_strings[-1], text] if action.option_strings else [text]
                    if action.option_strings and action.option_strings[-1] in ("--param", "--grid", "--weight"):
                        given = [given[0], f"fast={text}"]
                    try:
                        status = main.main([name, *base, *given])
                    except SystemExit as error:
                        status = int(error.code or 0)
                    requested += 1
                    assert status in (0, 1, 2), (name, given)
                    assert "Traceback" not in capsys.readouterr().err
    assert requested > 40
