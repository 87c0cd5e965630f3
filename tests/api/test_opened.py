"""A store that is kept open: the same results, one opening, and closed at the end of the block."""

import sys
import threading
from pathlib import Path
from textwrap import dedent
from typing import Any

import candlemill as cm
import pytest
from candlemill.api import session
from candlemill.errors import DatabaseLocked
from candlemill.store import day_index
from candlemill.store.clickhouse import ClickHouseStore
from conftest import CORE, run_cli

OPTIONS = {"fast": 5, "slow": 20, "progress": False}


def test_calls_share_the_open_store(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dsn = f"chdb://{database}"
    alone = cm.backtest("AAAUSDT", "sma_cross", **OPTIONS)
    opened: list[str] = []

    class Counted(ClickHouseStore):
        def __init__(self, dsn: str) -> None:
            opened.append(dsn)
            super().__init__(dsn)

    monkeypatch.setattr(session, "ClickHouseStore", Counted)
    with cm.open() as s, cm.open(database) as again:
        run = s.backtest("AAAUSDT", "sma_cross", **OPTIONS)
        assert run.result["result_digest"] == alone.result["result_digest"] and len(run.trades) == len(alone.trades)
        assert cm.backtest("AAAUSDT", "sma_cross", **{**OPTIONS, "slow": 30}).params["slow"] == 30
        sweep = again.sweep("AAAUSDT", "sma_cross", fast=[5, 10], slow=[20, 30], progress=False)
        assert sweep.run(0).job_id == sweep.best().job_id and len(s.jobs(kind="sweep")) == 1
        s.label(sweep.job_id, "shared", tags=["x"])
        assert s.load(sweep.job_id).best().params == sweep.best().params
        assert list(s.coverage()["symbol"]) == list(cm.coverage(store=dsn)["symbol"])
        found: list[str] = []
        threads = [
            threading.Thread(target=lambda: found.append(cm.backtest("AAAUSDT", "sma_cross", **OPTIONS).job_id))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [alone.job_id] * 4
        assert opened == [dsn]
        with pytest.raises(cm.BadInput, match="unknown call 'backtests'"):
            s.backtests()
    assert not session._opened
    assert cm.jobs(text="shared").columns[0] == "job_id" and opened == [dsn, dsn]


def test_an_open_embedded_store_is_compared_with_its_index_once(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []
    real = day_index.check_complete

    def counted(store: Any, symbol: str, days: Any) -> None:
        compared.append(symbol)
        real(store, symbol, days)

    monkeypatch.setattr(day_index, "check_complete", counted)
    with cm.open(f"chdb://{database}") as s:
        for slow in (20, 30, 40):
            s.backtest("AAAUSDT", "sma_cross", **{**OPTIONS, "slow": slow})
        s.backtest("BBBUSDT", "sma_cross", **OPTIONS)
    assert compared == ["AAAUSDT", "BBBUSDT"]
    cm.backtest("AAAUSDT", "sma_cross", **{**OPTIONS, "slow": 50})
    assert compared == ["AAAUSDT", "BBBUSDT", "AAAUSDT"]


def test_an_embedded_store_is_free_after_the_block_also_after_an_error(database: Path) -> None:
    dsn = f"chdb://{database}"
    with pytest.raises(ZeroDivisionError), cm.open(dsn):
        locked = run_cli("jobs", CANDLEMILL_CLICKHOUSE_DSN=dsn)
        assert locked.returncode == DatabaseLocked.exit_status and "is open in process" in locked.stderr
        raise ZeroDivisionError
    assert run_cli("jobs", CANDLEMILL_CLICKHOUSE_DSN=dsn).returncode == 0


def test_figures_are_widgets_in_a_notebook(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plotly", "anywidget", "nbclient", "ipykernel"):
        pytest.importorskip(name)
    import nbformat
    from nbclient import NotebookClient

    source = """
        import candlemill as cm
        run = cm.backtest("AAAUSDT", "sma_cross", fast=5, slow=20, progress=False)
        sweep = cm.sweep("AAAUSDT", "sma_cross", fast=[5, 10], slow=[20, 30], progress=False)
        print(type(run.plot()).__name__, type(sweep.plot()).__name__)
        run.plot()
    """
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(dedent(source))])
    monkeypatch.setenv("PYTHONPATH", str(CORE))
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    printed, shown = notebook.cells[0].outputs
    assert printed["text"] == "FigureWidget FigureWidget\n"
    assert "application/vnd.jupyter.widget-view+json" in shown["data"]


def test_figures_are_plain_without_a_notebook(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = pytest.importorskip("plotly.graph_objects")
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert type(cm.backtest("AAAUSDT", "sma_cross", **OPTIONS).plot()) is go.Figure
