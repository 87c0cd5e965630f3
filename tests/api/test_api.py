"""The Python API: the command line's jobs, the same bits, handed over without copies."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import candlemill as cm
import numpy as np
import pytest
from candlemill.cli.main import main
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.strategies.builtin.moving_averages import SmaCross
from candlemill.tables.table import Table
from conftest import CORE, environment

SCALE = 10**8
TIMES = {"execution_time_ms", "slices", "repaired_slices"}
GRID = {"fast": [5, 10, 20], "slow": [50, 100]}
CLI_GRID = ("--grid", "fast=5,10,20", "--grid", "slow=50,100")
Said = Callable[..., Any]


@pytest.fixture
def said(database: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    """The command line's JSON, from the database that the API uses too."""

    def call(*arguments: str) -> Any:
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return call


def timeless(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in TIMES}


def own(symbol: str = "AAAUSDT") -> cm.Candles:
    """The stored candles, by way of floats."""
    return cm.Candles.from_columns(cm.candles(symbol).to_numpy(), symbol)


class Higher(cm.Windowed, frozen=True):
    """Long while the close is above that `back` bars ago."""

    back: cm.Length = 60

    def lookback(self) -> int:
        return self.back

    def positions(self, bars: Any) -> Any:
        out = np.zeros(bars.n, dtype=np.int8)
        out[self.back :] = bars.close[self.back :] > bars.close[: -self.back]
        return out


# -- the same as the command line ----------------------------------------------------------------------------------


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, candlemill as cm; cm.__version__; dir(cm); print(sorted(set(sys.modules) & "
        "{'numpy', 'msgspec', 'pandas', 'polars', 'pyarrow', 'plotly', 'chdb', 'clickhouse_connect', 'tqdm'}));"
        "cm.backtest, cm.Candles; print(sorted(set(sys.modules) & "
        "{'pandas', 'polars', 'pyarrow', 'plotly', 'chdb', 'clickhouse_connect'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, timeout=300, text=True, check=True
    )
    assert done.stdout == "[]\n[]\n"
    with pytest.raises(AttributeError, match="no attribute 'backtestt'"):
        _ = cm.backtestt


def test_a_run_is_the_command_line_s(said: Said) -> None:
    options = ("--range", "2024-02", "--stop-loss", "20000", "--take-profit", "30000", "--timeframe", "5m")
    job = ("backtest", "--symbol", "AAAUSDT", "--strategy", "sma_cross", "--param", "slow=60", *options)
    given: dict[str, Any] = {"slow": 60, "stop_loss": 20_000, "take_profit": 30_000, "timeframe": "5m"}
    for how, more in (
        ((), {}),
        (("--quantity", "0.5", "--slippage", "100"), {"quantity": 0.5, "slippage": 100}),
        (("--sizing", "compound", "--capital", "2500.25"), {"sizing": "compound", "capital": "2500.25"}),
    ):
        there = said(*job, *how)
        here = cm.backtest("AAAUSDT", "sma_cross", range="2024-02", **given, **more)
        assert here.result == there, "the stored row"
        again = cm.backtest("AAAUSDT", SmaCross(slow=60), range="2024-02", **given, **more, fresh=True, slices=2)
        assert timeless(again.result) == timeless(there) and again.result["slices"] == 2
        mine = cm.backtest(own(), SmaCross, range="2024-02", **given, **more)
        assert timeless(mine.result) == timeless(there), "own candles have the same address and the same bits"


def test_sweeps_walk_forwards_and_portfolios_too(said: Said) -> None:
    common = ("--strategy", "sma_cross", "--range", "all")
    there = said("sweep", "--symbol", "AAAUSDT", *common, *CLI_GRID)
    for symbol in ("AAAUSDT", own()):
        swept = cm.sweep(symbol, "sma_cross", **GRID)
        assert swept.guards is not None
        assert (swept.job_id, swept.guards.exact, len(swept)) == (there["job_id"], there["guards"], 6)
        assert timeless(swept.best().result) == timeless(there["results"][0])
        assert swept.sets["sharpe_ratio"].tolist() == [row["sharpe_ratio"] / SCALE for row in there["results"]]
        assert swept.sets["fast"].tolist() == [row["params"]["fast"] for row in there["results"]]
        least = min(there["results"], key=lambda row: row["max_drawdown"])
        assert swept.best("max_drawdown").job_id == least["job_id"]
    arrays = cm.sweep("AAAUSDT", SmaCross, fast=np.array([5, 10, 20]), slow=range(50, 101, 50), metric="trades")
    assert arrays.job_id == swept.job_id and arrays.sets["trades"].tolist() == sorted(arrays.sets["trades"])[::-1]
    assert arrays.warnings == there["guards"]["warnings"] != []
    spans = ("--train", "3d", "--test", "2d")
    there = said("walk-forward", "--symbol", "AAAUSDT", *common, *CLI_GRID, *spans)
    for symbol in ("AAAUSDT", own()):
        walked = cm.walk_forward(symbol, "sma_cross", **GRID, train="3d", test="2d")
        assert walked.sweep_id == there["sweep_id"] and timeless(walked.result) == timeless(there["result"])
        assert walked.folds["in_sample"].tolist() == [fold["in_sample"] / SCALE for fold in there["folds"]]
        assert walked.equity["equity"][-1] == walked.stats["End Value"]
    there = said("backtest", "--symbol", "*USDT", *common, "--weight", "BBBUSDT=2.5")
    for symbols in ("*USDT", ["AAAUSDT", "BBBUSDT"], [own(), own("BBBUSDT")]):
        joint = cm.backtest(symbols, "sma_cross", weights={"BBBUSDT": 2.5})
        assert joint.result["result_digest"] == there["result_digest"] and joint.job_id == there["job_id"]
        assert joint.daily.exact("equity")[-1] == there["capital"] + there["total_pnl"]
        assert list(joint.parts) == ["AAAUSDT", "BBBUSDT"] and len(joint.parts["BBBUSDT"].trades) > 0


def test_coverage_and_candles(said: Said) -> None:
    there = said("coverage")["symbols"]
    found = cm.coverage()
    assert found["symbol"].tolist() == list(there) == ["AAAUSDT", "BBBUSDT"]
    assert found["missing"].tolist() == [90, 0]
    months = cm.coverage("AAAUSDT")
    assert months["digest"].tolist() == [month["data_digest"] for month in there["AAAUSDT"]]
    assert cm.candles("AAAUSDT", "2024-02").data_digest == there["AAAUSDT"][1]["data_digest"]
    with pytest.raises(cm.BadInput, match="unknown symbol 'AAAUSD': did you mean 'AAAUSDT'"):
        cm.coverage("AAAUSD")


# -- what a run tells ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizing", ["fixed", "notional", "compound"])
def test_tables_add_up_to_the_result(database: Path, sizing: str) -> None:
    r = cm.backtest("AAAUSDT", "sma_cross", allow_short=True, stop_loss=3000, sizing=sizing)
    result, value = r.result, r.result["capital"] + r.result["total_pnl"]
    assert r.daily.exact("equity")[-1] == value and r.daily.exact("profit").sum() == result["total_pnl"]
    assert abs(int(r.equity.exact("equity")[-1]) - value) <= (10_000 if sizing == "compound" else 1)
    assert len(r.trades) == result["trades"] and len(r.equity) == result["bars"] and len(r.daily) == result["days"]
    profit = r.trades.exact("profit")
    if sizing != "compound":  # whose gross figures are of returns, see semantics.md
        assert abs(profit.sum() - (result["gross_profit"] - result["gross_loss"])) <= len(profit)
    assert set(r.trades["reason"]) == {"signal", "stop"} and set(r.trades["side"]) == {"long", "short"}
    assert (r.trades["exit_time"] >= r.trades["entry_time"]).all()
    assert r.stats["# Trades"] == result["trades"] and r.stats["Profit"] == result["total_pnl"] / SCALE
    assert r.stats["Return [%]"] == result["metrics"]["return"] / 10**6
    with pytest.raises(cm.BadInput, match=r"unknown figure 'Sharpe': did you mean"):
        _ = r.stats["Sharpe"]
    assert r.stats.get("Sharpe") is None and "Sharpe" not in r.stats


def test_tables_are_handed_over_without_copies(database: Path) -> None:
    pa, pd, pl = pytest.importorskip("pyarrow"), pytest.importorskip("pandas"), pytest.importorskip("polars")
    r = cm.backtest("AAAUSDT", "sma_cross")
    equity = r.equity
    raw = equity.exact("close")
    assert np.shares_memory(raw, r.trace.close) and np.shares_memory(equity["time"], r.trace.t)
    table = equity.arrow(exact=True)
    for name in ("time", "close", "equity", "drawdown"):
        assert table[name].chunk(0).buffers()[1].address == equity.exact(name).__array_interface__["data"][0]
    assert str(table.schema.field("time").type) == "timestamp[ms, tz=UTC]"
    frame = equity.pandas(exact=True)
    assert str(frame.index.dtype) == "datetime64[ms, UTC]"
    assert np.shares_memory(frame["close"].to_numpy(), raw)
    trades = r.trades
    wide = {"pandas": trades.pandas(), "polars": trades.polars(), "arrow": trades.arrow().to_pandas()}
    for one in wide.values():
        assert np.array_equal(np.asarray(one["profit"]), trades["profit"])
        assert list(one["reason"]) == trades["reason"].tolist()
        assert [int(t.timestamp() * 1000) for t in one["exit_time"]] == trades.exact("exit_time").tolist()
    assert pl.DataFrame(trades).shape == (len(trades), len(trades.columns)) == pa.table(trades).shape
    assert isinstance(pd.Series(r.stats)["Sharpe Ratio"], float)


def test_what_is_not_installed_is_named(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    r = cm.backtest("AAAUSDT", "buy_and_hold")
    for name, call in (("pyarrow", r.daily.arrow), ("pandas", r.daily.pandas), ("polars", r.daily.polars)):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(cm.BadInput, match=f"needs {name}: pip install"):
            call()


def test_everything_shows_itself(database: Path, tmp_path: Path) -> None:
    r = cm.backtest("AAAUSDT", "sma_cross", quantity="0.1")
    swept = cm.sweep("AAAUSDT", "sma_cross", **GRID)
    walked = cm.walk_forward("AAAUSDT", "sma_cross", **GRID, train="3d", test="2d")
    joint = cm.backtest("AAAUSDT,BBBUSDT", "buy_and_hold")
    for one in (r, swept, walked, joint, r.trades, r.equity, own(), cm.coverage()):
        assert 0 < len(one._repr_html_()) < 20_000 and len(repr(one)) > 40
    assert "<svg" in r._repr_html_() and "Sharpe Ratio" in repr(r) and r.job_id in repr(r)
    pytest.importorskip("plotly")
    for k, page in enumerate((r, swept, walked)):
        path = page.report(tmp_path / f"{k}.html")
        assert path.read_text().startswith("<!doctype html>"), path
    assert r.plot("price").data and swept.plot("fast", "slow").data and r.plot().data
    with pytest.raises(cm.BadInput, match="unknown figure 'equty': did you mean 'equity'"):
        r.plot("equty")


# -- what cannot be requested ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fasst": 5}, "unknown option or parameter 'fasst': did you mean 'fast'? sma_cross takes fast, slow"),
        ({"fees": 5}, "did you mean 'fee'?"),
        ({"fee": 0.001}, "fee=0.001 has no unit: write 0.1% or 1000"),
        ({"fast": [5, 10]}, "fast has several values: use cm.sweep for a grid"),
        ({"fast": 60}, "fast=60 must be less than slow=50"),
        ({"quantity": "1e"}, "quantity '1e' is not a decimal number"),
        ({"capital": 0.123456789}, "capital '0.123456789' has more than 8 decimals"),
        ({"range": 2023}, "range=2023: write it like 2023, 2023-05"),
        ({"range": "2025"}, "AAAUSDT has no candle in 2025"),
        ({"slices": 0}, "slices=0 is not a whole number from 1 on"),
        ({"workers": 1.5}, "workers=1.5 is not a whole number"),
        ({"max_gap": 0}, "AAAUSDT misses 90 of"),
        ({"weights": {"AAAUSDT": 1}}, "weights are for portfolios"),
        ({"params": {"slow": 70}, "slow": 60}, "slow is given twice"),
    ],
)
def test_a_wrong_option_is_named(database: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(cm.BadInput) as caught:
        cm.backtest("AAAUSDT", "sma_cross", **options)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_wrong_subject_is_named(database: Path) -> None:
    for call, words in (
        (lambda: cm.backtest("AAAUSD", "sma_cross"), "unknown symbol 'AAAUSD': did you mean 'AAAUSDT'"),
        (lambda: cm.backtest(5, "sma_cross"), "5 is neither a symbol nor Candles"),
        (lambda: cm.backtest([own(), "AAAUSDT"], "sma_cross"), "nor several of one kind"),
        (lambda: cm.backtest([own(), own()], "sma_cross"), "two sets of candles have the same symbol"),
        (lambda: cm.backtest(own(), "sma_cross", store="chdb:///x"), "leave store out"),
        (lambda: cm.backtest("AAAUSDT", "sma_crss"), "unknown strategy 'sma_crss': did you mean 'sma_cross'"),
        (lambda: cm.backtest("AAAUSDT", int), "is neither a strategy's name"),
        (lambda: cm.sweep("AAAUSDT", "sma_cross"), "no parameter has several values"),
        (lambda: cm.sweep("AAAUSDT", "sma_cross", fast=[5, 10], metric="sharp").sets, "did you mean 'sharpe_ratio'"),
        (lambda: cm.sweep("AAAUSDT", Higher, back=[5, 9], workers=2), "other processes load a strategy as FILE.py"),
    ):
        with pytest.raises(cm.BadInput) as caught:
            call()
        assert words in str(caught.value)


# -- strategies of one's own ---------------------------------------------------------------------------------------

CELL = """
import candlemill as cm
import numpy as np
LEVEL = {level}
def above(close, back): return close[back:] * {factor} > close[:-back] * LEVEL
class Rising(cm.Windowed, frozen=True):
    back: cm.Length = 60
    def lookback(self): return self.back
    def positions(self, bars):
        out = np.zeros(bars.n, dtype=np.int8)
        out[self.back:] = above(bars.close, self.back)
        return out
"""


def cell(level: Any = 1, factor: int = 1) -> Any:
    """A class as a notebook's cell defines it: in a namespace, without a file."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(CELL.format(level=level, factor=factor), namespace)
    return namespace["Rising"]


def test_a_class_an_instance_and_a_file_are_one_strategy(database: Path, tmp_path: Path) -> None:
    file = tmp_path / "rising_strategy.py"
    file.write_text(CELL.format(level=1, factor=1))
    runs = [
        cm.backtest("AAAUSDT", Higher, back=120),
        cm.backtest("AAAUSDT", Higher(back=120)),
        cm.backtest("AAAUSDT", "momentum_v1", lookback=120),
        cm.backtest("AAAUSDT", cell(), back=120),
    ]
    for one in runs[1:]:
        for name in ("entry_time", "exit_time", "profit"):
            assert np.array_equal(one.trades.exact(name), runs[0].trades.exact(name))
    assert runs[0].job_id == runs[1].job_id != runs[2].job_id
    with pytest.raises(cm.BadInput, match=r"strategy name .rising. of .* is taken by __main__"):
        cm.backtest("AAAUSDT", f"{file}:Rising", back=120)


def test_an_address_changes_with_everything_that_a_class_uses(database: Path) -> None:
    def job(kind: Any) -> str:
        return str(cm.backtest("AAAUSDT", kind).job_id)

    first = job(cell())
    assert job(cell()) == first, "the same cell run again"
    others = [job(cell(factor=2)), job(cell(level=2)), job(cell(level="np.int64(1)"))]
    assert len({first, *others}) == 4
    with pytest.raises(cm.BadInput, match=r"Rising uses .*, of which there is no digest"):
        job(cell(level="open('/dev/null')"))


HELPERS = """
import functools
NAMES = {{"a", "b", "c", "d"}}
class Holder:
    def __init__(self): self.size = {size}
    def scale(self, x): return x * {factor}
held = Holder()
@functools.lru_cache
def doubled(x): return x * {twice}
half = functools.partial(pow, {power})
import candlemill as cm
class Uses(cm.Windowed, frozen=True):
    def lookback(self): return 1
    def positions(self, bars):
        return bars.close > held.scale(doubled(half(1))) + ("a" in {{"x", "y", "z"}}) + len(NAMES)
"""


def digest_of(**changes: int) -> str:
    from candlemill.strategies import source_digest
    from candlemill.strategies.bytecode_digest import adopt

    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(HELPERS.format(**{"size": 1, "factor": 2, "twice": 2, "power": 2, **changes}), namespace)
    return source_digest(adopt(namespace["Uses"]))


def test_the_digest_sees_through_wrappers_and_is_the_same_in_every_process() -> None:
    first = digest_of()
    changed = [digest_of(**{name: 7}) for name in ("size", "factor", "twice", "power")]
    assert len({first, *changed}) == 5
    code = "import test_api; print(test_api.digest_of())"
    here, root = Path(__file__).parent, CORE.parent
    path = ":".join(map(str, (CORE, here, here.parent, here.parent / "support", root / "benchmarks")))
    for seed in ("1", "2"):
        env = environment(PYTHONHASHSEED=seed, PYTHONPATH=path)
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, timeout=300, text=True, check=True
        )
        assert done.stdout.strip() == first


def test_a_result_s_trades_are_those_of_its_own_class(database: Path) -> None:
    old = cm.backtest("AAAUSDT", cell())
    new = cm.backtest("AAAUSDT", cell(factor=2))
    assert len(old.trades) == old.stats["# Trades"] != new.stats["# Trades"] == len(new.trades)
    changed = cell()
    stale = cm.backtest("AAAUSDT", changed)
    changed.positions.__globals__["LEVEL"] = 3
    with pytest.raises(cm.BadInput, match="rising or the candles of AAAUSDT have changed since: run it again"):
        _ = stale.trades


def test_a_check_finds_what_looks_ahead(database: Path) -> None:
    class Peeks(Higher, frozen=True):
        def positions(self, bars: Any) -> Any:
            return bars.close < bars.close[-1]

    honest = cm.check(Higher, own(), only=["future-cut", "lookback"], timeframes=["1m"], seconds=0.5, back=20)
    assert honest.honest and honest["lookback"].verdict == "ok" and "no fault found" in repr(honest)
    peeking = cm.check(Peeks, "AAAUSDT", only=["future-cut"], seconds=0.5)
    assert not peeking.honest and "FAULT future-cut" in repr(peeking) and "<pre>" in peeking._repr_html_()
    assert callable(cm.check), "no module of that name hides it"


# -- notebooks and scripts -----------------------------------------------------------------------------------------


def test_calls_take_turns_and_share_a_folder_with_an_open_store(database: Path) -> None:
    found: list[Table] = []
    with ClickHouseStore(f"chdb://{database}"):  # a handle of the notebook's own
        jobs = [
            threading.Thread(target=lambda k=k: found.append(cm.backtest("AAAUSDT", "sma_cross", fast=k).trades))
            for k in (5, 6, 7, 8)
        ]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
    assert len({len(trades) for trades in found}) > 1 and len(found) == 4
    assert cm.coverage(store=f"chdb://{database}")["symbol"].tolist() == ["AAAUSDT", "BBBUSDT"]


SCRIPT = """
import candlemill as cm
candles = cm.Candles.from_columns(cm.candles("AAAUSDT").to_numpy())
print(len(cm.sweep(candles, "sma_cross", fast=[5, 10], slow=[50, 60], workers=2, slices=3)))
"""


def test_a_script_needs_no_main_guard_for_workers(database: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        timeout=300,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("4\n", "")


def test_the_example_notebook_runs_and_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    path = CORE.parent / "docs/example.ipynb"
    assert path.stat().st_size < 400_000
    book = nbformat.read(path, as_version=4)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells) and any(cell.outputs for cell in cells)
    monkeypatch.setenv("PYTHONPATH", str(CORE))
    fresh = nbclient.NotebookClient(book, timeout=300, kernel_name="python3").execute()
    assert not [out for cell in fresh.cells for out in cell.get("outputs", []) if out.output_type == "error"]


def test_a_grid_over_several_symbols_runs_each(said: Said) -> None:
    """No symbol is left out in silence: each has the sweep and the walk-forward that it has alone."""
    both = cm.sweep(["AAAUSDT", "BBBUSDT"], "sma_cross", range="2024-02", **GRID)
    output = said("sweep", "--symbol", "AAAUSDT,BBBUSDT", "--strategy", "sma_cross", *CLI_GRID,
                "--range", "2024-02")  # fmt: skip
    assert both.job_id == output["job_id"] and list(both.parts) == ["AAAUSDT", "BBBUSDT"]
    assert [part["sets"] for part in output["parts"]] == [6, 6] and len(both) == len(both.sets) == 12
    for symbol in both.parts:
        assert both[symbol].job_id == cm.sweep(symbol, "sma_cross", range="2024-02", **GRID).job_id
    ratios = both.sets.exact("sharpe_ratio").tolist()
    assert ratios == sorted(ratios, reverse=True) and set(both.sets["symbol"]) == {"AAAUSDT", "BBBUSDT"}
    assert both.best()["BBBUSDT"].job_id == both["BBBUSDT"].best().job_id
    assert "one of 12 sets on 2 symbols" in both.warnings[-1] and "12 sets" in repr(both)
    walks = cm.walk_forward("*USDT", "sma_cross", train="3d", test="2d", range="2024-02", **GRID)
    alone = cm.walk_forward("BBBUSDT", "sma_cross", train="3d", test="2d", range="2024-02", **GRID)
    assert walks["BBBUSDT"].result["result_digest"] == alone.result["result_digest"]
    assert walks.results["symbol"].tolist() == ["AAAUSDT", "BBBUSDT"]
    with pytest.raises(cm.BadInput, match="the symbols are AAAUSDT, BBBUSDT"):
        _ = walks["CCCUSDT"]
    candles = [own("AAAUSDT"), own("BBBUSDT")]
    assert (
        cm.sweep(candles, "sma_cross", range="2024-02", **GRID).best()["AAAUSDT"].params
        == both.best()["AAAUSDT"].params
    )


def test_a_fold_without_candles_stays_in_the_table(database: Path) -> None:
    candles = own()
    days = (candles.columns["t"] - candles.columns["t"][0]) // 86_400_000
    kept = (days < 3) | (days > 5)
    columns = {name: column[kept] for name, column in candles.to_numpy().items()}
    walk = cm.walk_forward(
        cm.Candles.from_columns(columns, "OWN"), "sma_cross", train="1d", test="1d", max_gap=20_000, **GRID
    )
    table = walk.folds
    chosen = ~np.isnan(table["out_of_sample"])
    assert len(table) > chosen.sum() > 0  # those in the gap have no choice
    assert (np.diff(table.exact("test_start")) == 86_400_000).all()
    assert repr(table)
