"""The OpenAPI document: grouped by task, with examples that are real."""

from typing import Any

import msgspec
from candlemill.gateway.app import GROUPS
from candlemill.gateway.examples import BACKTEST, RECORDED, REQUESTS, answers
from candlemill.pipeline.request import Request

from gateway.conftest import Gateway


def test_every_operation_is_in_one_group(gateway: Gateway) -> None:
    document = gateway.get("/openapi.json")
    tags = [operation["tags"] for methods in document["paths"].values() for operation in methods.values()]
    assert [tag["name"] for tag in document["tags"]] == [name for name, _, _ in GROUPS]
    assert all(len(found) == 1 for found in tags)
    assert {found[0] for found in tags} == {name for name, _, _ in GROUPS}


def test_requests_of_the_page_are_requests(gateway: Gateway) -> None:
    body = gateway.get("/openapi.json")["paths"][BACKTEST]["post"]["requestBody"]["content"]["application/json"]
    assert {name: one["value"] for name, one in body["examples"].items()} == REQUESTS
    kinds = [msgspec.convert(request, Request).kind for request in REQUESTS.values()]
    assert kinds == ["backtest", "sweep", "walk_forward", "portfolio"]


DIFFER = ("params", "grid", "settings", "spec", "request")  # by request


def shape(value: Any, depth: int = 2) -> Any:
    """The names of an answer's fields and of theirs; of lists those of their first item."""
    if isinstance(value, dict) and depth:
        return {name: shape(inner, depth - 1) for name, inner in value.items() if name not in DIFFER}
    rows = [inner for inner in value if isinstance(inner, dict)] if isinstance(value, list) else []
    return [shape(inner, depth) for inner in rows[:1]] if rows else ""


def test_answers_of_the_page_have_the_fields_of_answers(gateway: Gateway) -> None:
    stored = {"symbol": "AAAUSDT", "range": "all"}
    ids = {name: gateway.finish(**REQUESTS[name] | stored)["job_id"] for name in ("a backtest", "a sweep")}
    for path, name in RECORDED.items():
        if path == "/api/v1/backtests":
            continue  # the newest of many kinds
        found = gateway.get(path.format(job_id=ids.get(name, "")))
        assert shape(found) == shape(answers()[path]), f"{path}: run docs/api_examples.py"
