"""Search among jobs: the database finds what the plain definition finds; notes belong to their job."""

import json
import random
from typing import Any

import pytest
from candlemill.errors import BadInput, UnknownName
from candlemill.pipeline.job_search import checked_notes, parse_figure, parse_param, search
from candlemill.pipeline.rows import FigureLimit, JobRow, Notes, ResultRow
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.store.memory import MemoryStore

DAY = 86_400_000
SCALE = 10**8


def fill(store: Any, seed: int) -> None:
    """Store jobs of all kinds with random parameters, figures and notes."""
    draw = random.Random(seed)
    for k in range(40):
        name, kind = f"id{k:02}", draw.choice(["backtest", "sweep", "portfolio", "walk_forward"])
        params: dict[str, Any] = {"fast": draw.choice([5, 10]), "mode": draw.choice(["a", "b"])}
        spec: dict[str, Any] = {"symbol": "X", "strategy": "s", "params": params}
        if kind == "sweep":
            spec |= {"params": {"mode": "a"}, "grid": {"fast": draw.sample([5, 10, 20], 2), "share": [0.5, 0.25]}}
        figures = json.dumps({"job_id": f"run{k}"}) if kind == "walk_forward" else ""
        store.put_jobs(
            [JobRow(name, "done", json.dumps(spec), "{}", "d", 1, kind=kind, attempt=(k + 1) * DAY, figures=figures)]
        )
        for set_ in range(3 if kind == "sweep" else 1):
            sharpe, cagr = draw.choice([-1, 0, 1, 2]) * SCALE, draw.choice([None, 5 * 10**30, SCALE // 10])
            shown = cagr if cagr is None or cagr < 2**63 else str(cagr)
            result = json.dumps({"sharpe_ratio": sharpe, "metrics": {"cagr": shown if shown is None else int(shown)}})
            own = f"set{k}-{set_}" if kind == "sweep" else f"run{k}" if kind == "walk_forward" else name
            sweep_id = name if kind == "sweep" else ""
            store.put_results([ResultRow(own, "s", 0, sharpe, 0, 0, sweep_id, result, number=set_)])
        if draw.random() < 0.7:
            tags = draw.sample(["live", "odd one", "ü"], draw.randint(0, 2))
            store.put_notes(checked_notes(name, draw.choice(["", "Tuesday's"]), draw.choice(["", "Best SO far"]), tags))


def test_the_database_finds_what_the_definition_finds(store: ClickHouseStore) -> None:
    memory = MemoryStore([])
    for one in (store, memory):
        fill(one, 7)
    terms: dict[str, list[Any]] = {
        "kind": ["sweep", "portfolio"],
        "tags": [["live"], ["live", "odd one"], ["ü"], ["none"]],
        "text": ["tuesday", "so FAR", "odd", "nothing like it"],
        "params": [["fast=10"], ["fast=20", "share=0.5"], ["mode=b"], ["fast=7"]],
        "figures": [["sharpe_ratio>1"], ["sharpe_ratio>=-1", "sharpe_ratio<0"], ["cagr>20%"], ["cagr<=0.1"]],
        "since": ["1970-01-20"],
        "until": ["1970-02"],
    }
    draw, sizes = random.Random(3), set()
    for _ in range(60):
        chosen = {name: draw.choice(terms[name]) for name in draw.sample(sorted(terms), draw.randint(1, 3))}
        if {"since", "until"} & set(chosen):  # ranges begin in 2009; times of requests here do not
            continue
        wanted = search(**chosen)
        found = [[entry.row.job_id for entry in one.jobs(wanted)] for one in (store, memory)]
        assert found[0] == found[1], chosen
        sizes.add(len(found[0]))
    assert len(sizes) > 5
    assert store.tags() == memory.tags() and store.notes(["id00", "id01", "x"]) == memory.notes(["id00", "id01", "x"])


def test_notes_are_replaced_and_go_with_their_job(store: ClickHouseStore) -> None:
    for one in (store, MemoryStore([])):
        one.put_jobs([JobRow("j", "done", "{}", "{}", "d", 1, attempt=1)])
        one.put_notes(Notes("j", "first", "", ["a"]))
        one.put_notes(Notes("j", "second", "text", ["b"]))
        assert one.notes(["j"]) == {"j": Notes("j", "second", "text", ["b"])}
        assert one.tags() == [("b", 1)]
        one.delete_job("j")
        assert one.notes(["j"]) == {} and one.jobs(search(text="second")) == []


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("sharpe_ratio>1.5", FigureLimit("sharpe_ratio", True, 150_000_001)),
        ("sharpe_ratio >= 1.5", FigureLimit("sharpe_ratio", True, 150_000_000)),
        ("return>20%", FigureLimit("return", True, 20_000_001)),
        ("trades<2.5", FigureLimit("trades", False, 2)),
        ("trades<3", FigureLimit("trades", False, 2)),
        ("total_pnl<=-0.000000001", FigureLimit("total_pnl", False, -1)),
    ],
)
def test_limits_are_exact(text: str, limit: FigureLimit) -> None:
    assert parse_figure(text) == limit


def test_terms_that_cannot_be_read() -> None:
    for text in ("sharpe_ratio", "sharpe_ratio=1", "1<sharpe_ratio", "sharpe_ratio>1e5", "sharpe_ratio>1;x"):
        with pytest.raises(BadInput, match="is not like"):
            parse_figure(text)
    with pytest.raises(UnknownName, match="sharpe_ratio"):
        parse_figure("sharp_ratio>1")
    assert parse_param("fast=10") == ("fast", "10") and parse_param("mode=a=b") == ("mode", '"a=b"')
    for text in ("fast", "=1", "fast=[1]", "fast=null"):
        with pytest.raises(BadInput):
            parse_param(text)
    for label, note, tags in (
        ("x" * 201, "", []),
        ("a\nb", "", []),
        ("", "a\x00", []),
        ("", "", ["a,b"]),
        ("", "", [" a"]),
    ):
        with pytest.raises(BadInput):
            checked_notes("j", label, note, tags)
    with pytest.raises(BadInput, match="limit is 8"):
        search(params=["a=1"] * 9)
