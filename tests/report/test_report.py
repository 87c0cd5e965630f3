"""Reports without a browser: what figures and tables keep of a run, what a page holds, and what it must not."""

import base64
import hashlib
import json
import re
import shlex
import subprocess
import sys
import time
import zlib
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

pytest.importorskip("plotly", reason="plotly is not installed: pip install candlemill[report]")

import candlemill as cm
import report_samples as samples
from candlemill import formatting
from candlemill.backtests.command_line import command_of
from candlemill.backtests.metric_table import shown
from candlemill.backtests.order_chart import OrderChart, OrderFill, OrderLine
from candlemill.backtests.replay import Replay
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import Spec
from candlemill.cli import jobs, main
from candlemill.engine.candles import DAY_MS, MINUTE_MS
from candlemill.errors import BadInput, UnknownName
from candlemill.report import (
    figures,
    sweep_figures,
    thin,
    walk_figures,
    write_report,
    write_sweep_report,
    write_walk_forward_report,
)
from candlemill.report.page import Html, markup
from candlemill.report.pivot import Sets
from candlemill.report.series import holding, returns, rolling_sharpe, worst_drawdowns
from candlemill.report.zoom import detail
from candlemill.units import SCALE
from hypothesis import given, settings
from hypothesis import strategies as st

YEAR = 525_600
LIMIT_BYTES = 5_000_000
LIMIT_SECONDS = 2.0


@pytest.fixture(scope="module")
def month() -> Replay:
    return samples.trace(43_200, gap=90)


def written(write: Any, what: Any, folder: Path) -> str:
    write(what, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def data_of(page: str) -> dict[str, Any]:
    packed = re.search(r'id="data">([^<]*)<', page)
    assert packed
    found: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed[1])))
    return found


def text_of(page: str) -> str:
    """The page without its packed parts."""
    return re.sub(r'(<script type="text/plain"[^>]*>)[^<]*', r"\1", page)


# -- what is drawn -------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-(2**50), 2**50), min_size=1, max_size=400), st.integers(4, 60))
def test_thinned_lines_keep_ends_and_extremes(values: list[int], limit: int) -> None:
    column = np.array(values, np.int64)
    kept = thin.extremes(column, limit)
    assert (np.diff(kept) > 0).all() and {0, len(values) - 1} <= set(kept.tolist())
    assert column[kept].min() == min(values) and column[kept].max() == max(values)
    assert len(kept) <= limit + 4


@pytest.mark.parametrize("step", [1, 15, 240, 1440])
def test_candles_are_those_of_their_minutes(month: Replay, step: int) -> None:
    first = 77
    t, o, h, lo, c = thin.candles(month, step, first)
    slots = month.t[first:] // (step * MINUTE_MS)
    for k in range(0, len(t), max(len(t) // 7, 1)):
        inside = np.flatnonzero(slots == t[k] // (step * MINUTE_MS)) + first
        assert (o[k], c[k]) == (month.open[inside[0]], month.close[inside[-1]])
        assert (h[k], lo[k]) == (month.high[inside].max(), month.low[inside].min())
    assert len(t) == len(np.unique(slots))


def test_equity_figure_shows_the_exact_extremes(month: Replay) -> None:
    hold, strategy, below = figures.equity(month).data
    assert len(strategy.y) < 2_000 < len(month.t)
    for line, column in ((hold, holding(month)), (strategy, month.equity)):
        drawn = [value for value in line.y if value is not None]
        ends = [min(drawn), max(drawn), drawn[-1]]
        assert ends == pytest.approx([x / SCALE for x in (column.min(), column.max(), column[-1])], abs=0.01)
    assert min(value for value in below.y if value is not None) == pytest.approx(
        -month.result["max_drawdown"] / SCALE, abs=0.01
    )


@settings(deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=60), st.integers(1, 4))
def test_drawdowns_are_those_of_a_walk_along_the_equity(steps: list[int], limit: int) -> None:
    base = samples.trace(len(steps) + 60)
    cut = {name: getattr(base, name)[: len(steps)] for name in ("t", "open", "high", "low", "close")}
    equity = np.cumsum(np.array(steps, np.int64))
    run = Replay(**{name: getattr(base, name) for name in base.__struct_fields__} | cut | {"equity": equity})
    depths, peak, depth = [], 0, 0
    for value in [*equity.tolist(), 10**6]:
        if value >= peak:
            depths, peak, depth = [*depths, depth], value, 0
        depth = max(depth, peak - value)
    found = worst_drawdowns(run, limit)
    assert [d.depth for d in found] == sorted((d for d in depths if d), reverse=True)[:limit]
    for d in found:
        bottom = int(np.searchsorted(run.t, d.bottom))
        assert max(0, *equity[: bottom + 1].tolist()) - equity[bottom] == d.depth
        assert d.end is None or d.start <= d.bottom < d.end


def test_deepest_drawdown_is_the_results(month: Replay) -> None:
    assert worst_drawdowns(month, 1)[0].depth == month.result["max_drawdown"]


def test_rolling_sharpe_over_all_days_is_the_results(month: Replay) -> None:
    daily = returns(month.daily, month.capital, month.spec.sizing == "compound")
    days, values = rolling_sharpe(month.days, daily, len(month.days))
    assert days.tolist() == [month.days[-1]]
    assert values[0] == pytest.approx(month.result["sharpe_ratio"] / SCALE, abs=1e-7)


def test_months_and_profits_account_for_everything() -> None:
    run = samples.trace(80 * 1440, start=samples.START - 40 * DAY_MS)
    heat = figures.monthly(run).data[0]
    assert list(heat.y) == ["2022", "2023"] and heat.x[-1] == "Year"
    money = [float(text.replace(",", "")) for row in heat.customdata for text in row[:12] if text]
    assert sum(money) == pytest.approx(run.equity[-1] / SCALE, abs=1)
    bars = figures.profits(run).data[0]
    assert sum(bars.y) == len(run.trades)
    lost = sum(y for x, y in zip(bars.x, bars.y, strict=True) if x < 0)
    assert lost == (run.trades.profit < 0).sum()


def test_marked_trades_are_exact_and_include_the_best_and_the_worst(month: Replay) -> None:
    figure = figures.price(month)
    marks = {trace.name: trace for trace in figure.data[2:]}
    best, worst = int(month.trades.profit.argmax()), int(month.trades.profit.argmin())
    assert month.trades.exit_t[best] in marks["exit, won"].x and month.trades.exit_t[worst] in marks["exit, lost"].x
    shown_fills = dict(zip(marks["long"].x, marks["long"].y, strict=True))
    for k in np.flatnonzero(np.isin(month.trades.entry_t, list(shown_fills)) & (month.trades.side > 0)):
        assert shown_fills[month.trades.entry_t[k]] == pytest.approx(month.trades.entry_price[k] / SCALE, rel=1e-6)
    assert f"of {len(month.trades):,} trades" in figure.layout.meta["note"]


def test_closer_candles_and_trades_decode_to_the_run(month: Replay) -> None:
    """As page.js decodes them."""
    found = detail(month, [3])
    tick, unit = round(found["tick"] * SCALE), round(found["unit"] * SCALE)
    for level in found["levels"]:
        dt, opening, body, above, below = level["candles"]
        t = np.array(list(accumulate(dt))) * MINUTE_MS
        close = np.cumsum(np.add(opening, body))
        o = close - body
        high, low = np.maximum(o, close) + above, np.minimum(o, close) - below
        all_t, all_o, all_h, all_l, all_c = thin.candles(month, level["step"])
        kept = np.isin(all_t, t)
        assert (all_t[kept] == t).all()
        for mine, theirs in ((o, all_o), (high, all_h), (low, all_l), (close, all_c)):
            assert (mine * tick == theirs[kept]).all()
    entry, held, side, at, change, profit = found["trades"]
    assert (np.cumsum(entry) * MINUTE_MS == month.trades.entry_t).all()
    assert ((np.cumsum(entry) + held) * MINUTE_MS == month.trades.exit_t).all()
    assert np.abs(np.cumsum(at) * unit - month.trades.entry_price).max() < unit
    assert side == month.trades.side.tolist() and len(change) == len(profit) == found["total"]


# -- sweeps --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", ["best", "mean"])
@pytest.mark.parametrize("metric", ["sharpe_ratio", "max_drawdown"])
def test_heat_map_is_the_best_or_the_mean_of_its_sets(over: str, metric: str) -> None:
    sweep = samples.sweep(128, extra=True)
    drawn = sweep_figures.heat_map(sweep, metric=metric, over=over)
    assert (drawn.layout.xaxis.title.text, drawn.layout.yaxis.title.text) == ("fast", "slow")  # as declared
    heat = drawn.data[0]
    for j, slow in enumerate(heat.y):
        for k, fast in enumerate(heat.x):
            inside = [
                r[metric] / SCALE
                for r in sweep["results"]
                if (str(r["params"]["fast"]), str(r["params"]["slow"])) == (fast, slow)
            ]
            if not inside:
                assert heat.z[j][k] is None
                continue
            best = min(inside) if metric == "max_drawdown" else max(inside)
            wanted = best if over == "best" else sum(inside) / len(inside)
            assert heat.z[j][k] == pytest.approx(wanted, rel=1e-4)


def test_long_axes_are_grouped_and_one_parameter_is_a_line() -> None:
    sweep = samples.sweep(10)
    line = samples.trace(3_000)
    spec = resolve(symbol="A", strategy="sma_cross", span=(samples.START, samples.START + DAY_MS),
                   params={"slow": 5000}, grid={"fast": list(range(1, 301))})  # fmt: skip
    results = [{**line.result, "params": {**spec.params, "fast": k}, "sharpe_ratio": k} for k in range(1, 301)]
    found = sweep_figures.heat_map({**sweep, "spec": spec, "results": results})
    assert found.data[0].type == "scatter" and list(found.data[0].x[:2]) == ["1–3", "4–6"]
    assert Sets({**sweep, "spec": json.loads(spec.to_json()), "results": results}).order("sharpe_ratio")[0] == 299


def test_what_a_sweep_does_not_have_is_named() -> None:
    sweep = samples.sweep(16)
    with pytest.raises(UnknownName, match="did you mean 'slow'"):
        sweep_figures.heat_map(sweep, "fast", "slw")
    with pytest.raises(UnknownName, match="did you mean 'sharpe_ratio'"):
        sweep_figures.heat_map(sweep, metric="sharp_ratio")
    with pytest.raises(BadInput, match="no result"):
        sweep_figures.heat_map({**sweep, "results": []})


# -- the command that asks again -----------------------------------------------------------------------------------

minutes = st.integers(0, 3 * 525_600)
spans = st.one_of(
    st.tuples(minutes, minutes).map(sorted).map(lambda ab: (ab[0], ab[1] + 1)),
    st.tuples(st.integers(0, 1000), st.integers(1, 800)).map(lambda ab: (ab[0] * 1440, (ab[0] + ab[1]) * 1440)),
    st.sampled_from([(0, 525_600), (0, 31 * 1440), (31 * 1440, 59 * 1440), (0, 525_600 + 527_040)]),
)


accounts = st.one_of(
    st.fixed_dictionaries({"quantity": st.integers(1, 10**12), "capital": st.none() | st.integers(1, 10**15)}),
    st.fixed_dictionaries({"sizing": st.just("notional"), "notional": st.integers(1, 10**13)}),
    st.fixed_dictionaries({"sizing": st.just("compound"), "capital": st.integers(1, 10**13)}),
)
costs = st.fixed_dictionaries(
    {
        "fee": st.integers(-900, 5000),
        "maker_fee": st.none() | st.integers(-900, 5000),
        "slippage": st.integers(0, 900),
        "stop_loss": st.sampled_from([0, 20_000]),
        "timeframe": st.sampled_from([1, 5, 60, 90, 1440, 10_080]),
        "fill": st.sampled_from(["next_open", "close"]),
        "symbol": st.sampled_from(["BTCUSDT", "A B", "it's", "-x", "$HOME"]),
        "funding": st.booleans(),
    }
)


@settings(max_examples=100, deadline=None)
@given(spans, accounts, costs, st.sampled_from(["backtest", "sweep", "walk-forward"]))
def test_command_asks_for_the_same_spec(
    span: tuple[int, int], account: dict[str, Any], costs: dict[str, Any], verb: str
) -> None:
    grid = verb != "backtest"
    spec = resolve(
        strategy="sma_cross",
        span=(samples.START + span[0] * MINUTE_MS, samples.START + span[1] * MINUTE_MS),
        params={"allow_short": True} if grid else {"fast": 7, "slow": 70, "allow_short": True},
        grid={"fast": [5, 10, 15], "slow": [20, 50, 100]} if grid else {},
        **account,
        **costs,
    )
    more = {"train": "90d", "anchored": ""} if verb == "walk-forward" else {}
    words = shlex.split(command_of(spec, verb, **more))
    assert words[:2] == ["candlemill", verb]
    args = main.parser().parse_args(words[1:])
    assert jobs.spec_of_arguments(args, getattr(args, "grid", [])) == spec
    assert verb != "walk-forward" or (args.train, args.anchored) == ("90d", True)


# -- pages ---------------------------------------------------------------------------------------------------------

REPORTS = {
    "run": (write_report, lambda: samples.trace(20_000, gap=90)),
    "sweep": (write_sweep_report, lambda: samples.sweep(100)),
    "walk": (write_walk_forward_report, lambda: samples.walk_forward(40, 4)),
}


@pytest.mark.parametrize("name", REPORTS)
def test_page_asks_nobody_for_anything(name: str, tmp_path: Path) -> None:
    write, make = REPORTS[name]
    page = written(write, make(), tmp_path)
    text = text_of(page)
    assert not re.search(r"https?:|//[a-z]+\.|\bsrc=|url\(|@import|<iframe|<img", text)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy and "default-src 'none'" in policy[1] and "connect-src" not in policy[1]
    script = re.search(r"<script>(.*)</script>", text, re.S)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy[1]
    boxes = re.findall(r'<div class="plot" id="(\w+)"', text)
    assert boxes and set(boxes) == set(data_of(page)["figures"])
    assert page == written(write, make(), tmp_path), "the same input gives another page"


def test_untrusted_text_stays_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><b>'\"&"
    run = samples.trace(5_000, symbol=evil)
    page = written(write_report, run, tmp_path)
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert data_of(page)["figures"]["price"]["layout"]["yaxis"]["title"]["text"].startswith("&lt;script")
    sweep = samples.sweep(16)
    spec = sweep["spec"]
    grid = {"<i>": [1, 2], "slow": spec.grid["slow"]}
    for k, r in enumerate(sweep["results"]):
        r["params"] = {"<i>": 1 + k % 2, "slow": spec.grid["slow"][k // 2 % len(spec.grid["slow"])]}
    spec = Spec(**{name: getattr(spec, name) for name in spec.__struct_fields__} | {"grid": grid, "symbol": evil})
    page = written(write_sweep_report, {**sweep, "spec": spec, "guards": {"<u>": 5, "warnings": ["<s>"]}}, tmp_path)
    for tag in ("<i>", "<u>", "<s>", "<script>alert"):
        assert tag not in text_of(page)
    assert "<i>" not in data_of(page)["figures"]["heat"]["layout"]["xaxis"]["title"]["text"]


@pytest.mark.parametrize(
    "run",
    [
        samples.trace(1, quiet=True),
        samples.trace(700, quiet=True),
        samples.trace(3_000, sizing="compound", capital=10_000 * SCALE),
        samples.trace(3_000, start=samples.START - 1440 * MINUTE_MS, fee=0, short=False),
    ],
    ids=["one bar", "no trade", "compound", "over New Year"],
)
def test_small_and_odd_runs_have_reports(run: Replay, tmp_path: Path) -> None:
    page = text_of(written(write_report, run, tmp_path))
    assert shlex.quote(run.spec.symbol) in page and "nan" not in page.replace("minant", "")
    folds = [{"train_start": run.spec.start, "train_end": run.spec.start, "test_start": run.spec.start,
              "test_end": run.spec.end, "params": {}, "in_sample": 0, "out_of_sample": 0}]  # fmt: skip
    written(write_walk_forward_report, {"folds": folds, "trace": run, "guards": None}, tmp_path)


def test_walk_forward_tells_what_each_fold_made() -> None:
    found = samples.walk_forward(40, 4)
    figure = walk_figures.stitched(found)
    assert len(figure.layout.shapes) == 2 and [a.text for a in figure.layout.annotations] == ["1", "2", "3", "4"]
    inner, outer = walk_figures.scores(found["folds"]).data
    assert list(outer.y) == pytest.approx([f["out_of_sample"] / SCALE for f in found["folds"]], abs=1e-5)
    assert len(inner.x) == 4


def test_a_year_of_minutes_is_quick_and_small(tmp_path: Path) -> None:
    run = samples.trace(YEAR, short=False)
    assert len(run.trades) > 6_500
    begin = time.process_time()
    write_report(run, tmp_path / "year.html")
    assert time.process_time() - begin < LIMIT_SECONDS
    assert (tmp_path / "year.html").stat().st_size < LIMIT_BYTES


# -- figures as text -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scaled, text",
    [
        (0, "0.00"), (123, "0.00000123"), (1_234_567, "0.01235"), (-150_000_000, "-1.50"),
        (123_456_789_012_345, "1,234,568"), (999_999_500_000, "10,000.00"), (None, "–"), (-1, "-0.00000001"),
    ],
)  # fmt: skip
def test_money(scaled: int | None, text: str) -> None:
    assert formatting.money(scaled) == text


def test_metrics_by_unit_and_unknown_ones_as_counts() -> None:
    output = [
        shown("return", 12_345_678),
        shown("average_trade", -5 * SCALE),
        shown("trades", 1234),
        shown("odd", SCALE),
    ]
    assert output == ["12.35%", "-5.00", "1,234", "100,000,000"]
    assert [shown("cagr", None), shown("note", "<b>"), shown("flag", True)] == ["–", "<b>", "True"]
    assert shown("max_drawdown", 25_000_000, "compound") == "25.00%"
    assert [shown("sharpe_ratio", 0), shown("total_pnl", 0)] == ["–", "0.00"]  # a ratio of 0 is undefined


def test_only_markup_is_markup() -> None:
    assert markup("<b>") == "&lt;b&gt;" and markup(Html("<b>")) == "<b>"


def test_plotly_is_imported_late_and_its_lack_reported_in_one_line() -> None:
    code = (
        "import sys; sys.modules['plotly'] = None; sys.modules['plotly.graph_objects'] = None\n"
        "import report_samples, candlemill.report as r\n"
        "try: r.write_report(report_samples.trace(100), 'x.html')\n"
        "except Exception as e: print(type(e).__name__, e)\n"
    )
    env = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, timeout=300, check=False)
    assert done.stdout.decode().strip() == "BadInput reports and figures need plotly: pip install candlemill[report]"


def test_lines_break_where_candles_are_missing() -> None:
    """Two days, five without candles, two days: no line is drawn over the five."""
    day = 1_440
    minutes = np.array([*range(2 * day), *range(7 * day, 9 * day)], dtype=np.int64)
    price = 100 + minutes % 97
    columns = {"time": minutes * 60_000 + 1_617_235_200_000, **dict.fromkeys(("open", "high", "low", "close"), price)}
    trace = cm.backtest(cm.Candles.from_columns(columns, "GAPUSDT"), "sma_cross", fast=5, slow=30).trace
    before, after = int(trace.t[2 * day - 1]), int(trace.t[2 * day])
    for line in figures.equity(trace).data:
        at = line.y.tolist().index(None) if hasattr(line.y, "tolist") else list(line.y).index(None)
        assert (line.x[at - 1], line.x[at], line.x[at + 1]) == (before, after, after)
    for line in figures.price(trace).data[:2]:
        assert sum(value is None or value != value for value in line.y) == 1
    band = figures.price(trace).data[0]
    at = list(band.x).index(None)
    assert max(band.x[:at]) <= before and min(band.x[at + 1 :]) >= after, "each side of the gap has an outline"


def test_orders_are_drawn_with_their_levels_and_ambiguous_minutes(month: Replay, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="without orders or fills"):
        figures.orders(month)
    t, close = month.t[500:700].tolist(), int(month.close[600])
    lines = [
        OrderLine("<b>up", "stop", 1, close, t[10], t[20], "filled"),
        OrderLine("buy1", "limit", 1, close - 1, t[10], t[30], "moved"),
        OrderLine("out", "limit", -1, close * 3, t[10], t[30], "standing"),
        *(OrderLine(key, "level", 0, close, t[20], t[90], "gone") for key in ("stop", "take", "liquidation")),
    ]
    fills = [OrderFill(t[20], "<b>up", close, 0, 10**6, True), OrderFill(t[90], "stop", close, 10**6, 0, False)]
    drawn = figures.orders(replace(month, orders=OrderChart(lines, fills, [t[20]], t[0], t[-1] + MINUTE_MS)))
    by_name = {one.name: one for one in drawn.data}
    assert set(by_name) == {
        "candles", "buys, stop order", "buys, limit order", "stop of the position", "target of the position",
        "liquidation price", "bought", "sold",
    }  # fmt: skip
    assert list(by_name["candles"].close) == thin.floats(month.close[500:700])
    assert list(by_name["buys, stop order"].x) == [t[10], t[20], None]
    assert by_name["buys, stop order"].text[0] == "&lt;b&gt;up (filled)"
    assert (list(by_name["bought"].y), by_name["bought"].text[0]) == ([close / SCALE], "&lt;b&gt;up, ambiguous minute")
    assert [(shape.x0, shape.x1) for shape in drawn.layout.shapes] == [(t[20], t[20] + MINUTE_MS)]
    assert "1 filled, 1 moved, 1 standing. 1 ambiguous minute: shaded. 1 line lies outside" in drawn.layout.meta["note"]
    page = written(write_report, replace(month, orders=OrderChart(lines, fills, [], t[0], t[-1] + MINUTE_MS)), tmp_path)
    assert "Orders on candles" in page
