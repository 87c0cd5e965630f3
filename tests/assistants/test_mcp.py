"""`candlemill mcp` as an assistant meets it: the SDK's own client, a process of its own, stdin and stdout."""

import asyncio
import base64
import json
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")
pytest.importorskip("litestar")

import candlemill as cm
from candlemill.config import DSN_VARIABLE
from conftest import environment
from gateway.conftest import Gateway, serving
from mcp import Client
from mcp.client.stdio import StdioServerParameters

READING = {"coverage", "strategies", "figures", "plan", "jobs", "result", "sets", "trades", "picture", "paper"}
COMPUTING = {"backtest", "sweep", "optimize", "check", "cancel", "label"}
GRID = {"fast": [5, 10], "slow": "20:40:10"}
PATIENCE_SECONDS = 200

Call = Callable[..., Awaitable[Any]]


def talk(talked: Callable[[Client, Call], Awaitable[None]], *arguments: str, **env: str) -> None:
    """Let a client talk to a server of its own."""
    given = environment(**env)
    parameters = StdioServerParameters(command=sys.executable, args=["-m", "candlemill", "mcp", *arguments], env=given)

    async def run() -> None:
        async with Client(parameters, read_timeout_seconds=PATIENCE_SECONDS) as client:

            async def call(name: str, **more: Any) -> Any:
                found = await client.call_tool(name, more)
                if found.is_error:
                    raise AssertionError(found.content[0].text)
                return found.structured_content or json.loads(found.content[0].text)

            await talked(client, call)

    asyncio.run(asyncio.wait_for(run(), 2 * PATIENCE_SECONDS))


async def failure(client: Client, name: str, **arguments: Any) -> str:
    found = await client.call_tool(name, arguments)
    assert found.is_error, found
    return str(found.content[0].text)


def test_an_assistant_runs_a_sweep_and_looks_at_it(database: Path) -> None:
    async def talked(client: Client, call: Call) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == READING | COMPUTING
        assert {name for name, tool in tools.items() if tool.annotations.read_only_hint} == READING
        assert {one["symbol"] for one in (await call("coverage"))["symbols"]} == {"AAAUSDT", "BBBUSDT"}
        known = {one["name"]: one for one in (await call("strategies"))["strategies"]}
        assert "fast" in known["sma_cross"]["schema"]["properties"]
        job = {"symbol": "AAAUSDT", "strategy": "sma_cross", "grid": GRID}
        assert (await call("plan", **job))["plan"]["sets"] == 6
        sweep = await call("sweep", **job, options={"fee": "5bp"}, wait=60)
        assert (sweep["state"], sweep["result"]["sets"]) == ("done", 6) and sweep["result"]["guards"]["trials"] == 6
        best = (await call("sets", job_id=sweep["job_id"], limit=2))["items"]
        worst = (await call("sets", job_id=sweep["job_id"], order="worst", limit=1))["items"][0]
        assert len(best) == 2 and Decimal(best[0]["sharpe_ratio"]) > Decimal(worst["sharpe_ratio"])
        assert (await call("result", job_id=best[0]["job_id"]))["result"]["total_pnl"] == best[0]["total_pnl"]
        for job_id in (sweep["job_id"], best[0]["job_id"]):
            (picture,) = (await client.call_tool("picture", {"job_id": job_id})).content
            assert picture.mime_type == "image/png" and base64.b64decode(picture.data)[:4] == b"\x89PNG"
        run = await call("backtest", symbol="AAAUSDT", strategy="sma_cross", params=best[0]["params"],
                         options={"fee": "5bp"}, wait=60)  # fmt: skip
        assert run["job_id"] == best[0]["job_id"]
        trades = await call("trades", job_id=run["job_id"], sort="pnl", order="desc", limit=1)
        assert trades["total"] == run["result"]["trades"]
        await call("label", job_id=sweep["job_id"], label="an assistant's", tags=["try"])
        (line,) = (await call("jobs", tags=["try"], where=["trades>=1"]))["items"]
        assert (line["job_id"], line["label"]) == (sweep["job_id"], "an assistant's")
        assert (await call("check", strategy="sma_cross", seconds=0.3))["honest"] is True
        space = {"fast": "2:20", "slow": [30, 60]}
        study = await call("optimize", symbol="AAAUSDT", strategy="sma_cross", space=space, trials=4, wait=60)
        assert (study["state"], study["result"]["trials"]) == ("done", 4)
        assert study["result"]["best"]["point"].keys() == space.keys() and study["result"]["guards"]["warnings"]

    talk(talked, "--allow-jobs", **{DSN_VARIABLE: f"chdb://{database}"})
    assert len(cm.jobs(text="assistant's")) == 1


def test_without_leave_nothing_is_computed_and_no_code_is_chosen(
    database: Path, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "mine.py"
    code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")

    async def reading(client: Client, call: Call) -> None:
        assert {tool.name for tool in (await client.list_tools()).tools} == READING
        for name in COMPUTING:
            with pytest.raises(Exception, match=f"(?i)unknown tool.*{name}|{name}"):
                found = await client.call_tool(name, {"symbol": "AAAUSDT", "strategy": "sma_cross"})
                raise RuntimeError(found.content[0].text if found.is_error else "it ran")
        assert "unknown job" in await failure(client, "result", job_id="0" * 32)
        assert (await call("jobs"))["items"] == []
        assert "unknown strategy" in await failure(client, "plan", symbol="AAAUSDT", strategy="mine.py:Mine")

    async def computing(client: Client, call: Call) -> None:
        for name, more in (("backtest", {}), ("sweep", {"grid": GRID})):
            for path in ("mine.py:Mine", f"{code}:Mine"):  # the second is longer than any name
                output = await failure(client, name, symbol="AAAUSDT", strategy=path, **more)
                assert "unknown strategy" in output or "length <= 64" in output
        assert "unknown strategy" in await failure(client, "check", strategy=str(code))
        output = await failure(client, "backtest", symbol="AAAUSDT", strategy="sma_cross", options={"symbol": "B"})
        assert "symbol is an argument of its own" in output
        assert "unknown symbol" in await failure(client, "backtest", symbol="NONE", strategy="sma_cross")
        assert "fees" in await failure(client, "backtest", symbol="AAAUSDT", strategy="sma_cross", options={"fees": 1})

    async def paper(client: Client, call: Call) -> None:
        (run,) = (await call("paper"))["runs"]
        assert (run["symbol"], run["strategy"]) == ("AAAUSDT", "grid") and run["last"]["state"]
        one = await call("paper", run=run["run"][:8], limit=100)
        minutes = [decision["minute"] for decision in one["decisions"]]
        assert one["run"] == run and one["decisions"][0] == run["last"] and minutes == sorted(minutes, reverse=True)
        (row,) = published[run["last"]["minute"]]
        assert Decimal(run["last"]["equity"]) == Decimal(row["equity"]) / 10**8
        assert Decimal(run["last"]["exposure"]) == Decimal(row["exposure"]) / 10**6
        orders = [order for decision in one["decisions"] for order in decision["orders"]]
        assert orders and all(0 < Decimal(order["price"]) < 10**6 for order in orders)
        assert "unknown paper run" in await failure(client, "paper", run="abcdef")

    words = ("--symbol", "AAAUSDT", "--strategy", "grid", "--from", "2024-01-30", "--since", "2024-02-01")
    status, out, err = run("paper", *words, "--follow", "--once", "--json")
    assert status == 0, err
    published: dict[int, list[Any]] = {}
    for line in map(json.loads, out.splitlines()):
        published.setdefault(line["data"]["minute"], []).append(line["data"])
    monkeypatch.chdir(tmp_path)
    talk(paper, **{DSN_VARIABLE: f"chdb://{database}"})
    talk(reading, **{DSN_VARIABLE: f"chdb://{database}"})
    talk(computing, "--allow-jobs", **{DSN_VARIABLE: f"chdb://{database}"})
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def guarded(stored_market: Path, tmp_path: Path) -> Iterator[tuple[Gateway, str]]:
    """A gateway with keys, and a key."""
    from candlemill.gateway.api_keys import make_key

    key, line = make_key("assistant")
    (tmp_path / "keys").write_text(f"{line}\n")
    shutil.copytree(stored_market, tmp_path / "db", symlinks=True)
    with serving(tmp_path / "db", CANDLEMILL_API_KEYS=str(tmp_path / "keys")) as gateway:
        yield gateway, key


def test_a_gateway_elsewhere_wants_its_key(guarded: tuple[Gateway, str]) -> None:
    gateway, key = guarded
    url = ("--url", f"http://127.0.0.1:{gateway.port}", "--allow-jobs")

    async def refused(client: Client, call: Call) -> None:
        assert "a key is needed" in await failure(client, "coverage")

    async def served(client: Client, call: Call) -> None:
        run = await call("backtest", symbol="AAAUSDT", strategy="sma_cross", params={"fast": 5, "slow": 20}, wait=60)
        assert run["state"] == "done"

    async def nobody(client: Client, call: Call) -> None:
        assert "does not answer" in await failure(client, "coverage")

    talk(refused, *url)
    talk(served, *url, CANDLEMILL_API_KEY=key)
    talk(nobody, "--url", "http://127.0.0.1:9")
