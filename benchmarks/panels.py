"""Panels on one core: `python benchmarks/panels.py [SYMBOLS] [--vectorbt-python PATH]`; 50 symbols unless given.

A year of minutes of each symbol, `xs_momentum` on hourly bars with an account of cash; the same in 12 and 120 slices;
and vectorbt with shared cash and target percentages, which marks at hours only. All take turns in one run, and the
figures are medians of processor time.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from candlemill.backtests.grid import parameters_of
from candlemill.backtests.merge import Outcomes, merge_slices
from candlemill.backtests.panel import run_panel_slice
from candlemill.backtests.panel_bars import PanelWindow, SymbolWindow
from candlemill.backtests.slice import SliceOutcomes
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import context_bars
from candlemill.backtests.states import COLD
from candlemill.engine.candles import CandleColumns
from candlemill.engine.compiled import COMPILED
from candlemill.strategies import build
from data import synthetic
from twins.peers import python_of

PEER = Path(__file__).parent / "twins/peer_vectorbt_panel.py"
LOOKBACK, TOP, ROUNDS = 24, 10, 3
DAY_MS = 86_400_000

Columns = dict[str, Any]


def spec_of(names: list[str], start: int, end: int) -> Spec:
    params = parameters_of(build("xs_momentum", {"lookback": LOOKBACK, "top": TOP, "every": 1}))
    return Spec(symbol=",".join(names), strategy="xs_momentum", params=params, start=start, end=end, account="cash",
                capital=10**12, timeframe=60)  # fmt: skip


def window_of(candles: dict[str, Columns], start: int, end: int, context: int) -> PanelWindow:
    """What a task reads of a slice."""
    symbols = {}
    for name, columns in candles.items():
        lo, hi = np.searchsorted(columns["t"], [start, end]).tolist()
        a = max(0, lo - context)
        parts = {one: [columns[one][a:hi]] for one in ("t", "open", "close")}
        minutes = CandleColumns(parts["t"], parts["open"], [], [], parts["close"], [])
        symbols[name] = SymbolWindow(minutes, lo - a, hi - a, a == 0)
    return PanelWindow(start, end, symbols)


def run(spec: Spec, candles: dict[str, Columns], cuts: list[int]) -> Any:
    """The merged slices, as aggregate makes them of the tasks' outcomes."""
    strategy, state, found = build(spec.strategy, dict(spec.params)), COLD, Outcomes()
    context = context_bars(spec, [strategy], True)
    for number, (start, end) in enumerate(pairwise(cuts)):
        done: SliceOutcomes = run_panel_slice(
            spec, window_of(candles, start, end, context), [(0, strategy)], {0: state}
        )
        found.add(number, True, done)
        state = done.outcomes[0].end.encode()
    return merge_slices(found, 0, len(cuts) - 1)


def seconds(work: Callable[[], Any]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def hourly(candles: dict[str, Columns]) -> Any:
    """Opens and closes of all hours [2, T, K]; an hour without candles keeps the last close."""
    first = min(int(columns["t"][0]) for columns in candles.values()) // 3_600_000
    last = max(int(columns["t"][-1]) for columns in candles.values()) // 3_600_000
    out = np.zeros((2, last - first + 1, len(candles)))
    for k, columns in enumerate(candles.values()):
        hours = columns["t"] // 3_600_000 - first
        begins = np.flatnonzero(np.diff(hours, prepend=-1))
        ends = np.append(begins[1:], len(hours)) - 1
        rows = np.searchsorted(hours[begins], np.arange(out.shape[1]), side="right") - 1
        out[1, :, k] = columns["close"][ends][np.maximum(rows, 0)] / 1e8
        out[0, :, k] = out[1, :, k]
        out[0, hours[begins], k] = columns["open"][begins] / 1e8
    return out


def speed(count: int, python: Path | None) -> None:
    candles = {f"S{k:03}": synthetic.year(k, 2024, 1000.0 + k) for k in range(count)}
    t = next(iter(candles.values()))["t"]
    start, end = int(t[0]) // DAY_MS * DAY_MS, (int(t[-1]) // DAY_MS + 1) * DAY_MS
    spec, days = spec_of(list(candles), start, end), (end - start) // DAY_MS
    plans = {f"{n} slices": [start + days * k // n * DAY_MS for k in range(n)] + [end] for n in (12, 120)}
    whole = run(spec, candles, [start, end])
    for cuts in plans.values():
        cut = run(spec, candles, cuts)
        assert (whole.summary.to_list(), whole.daily, whole.sums) == (cut.summary.to_list(), cut.daily, cut.sums)
    found: dict[str, list[float]] = {"candlemill": [], **{name: [] for name in plans}, "vectorbt": []}
    with tempfile.TemporaryDirectory() as folder:
        peer, output = None, {}
        if python is not None:
            np.save(Path(folder) / "prices.npy", hourly(candles))
            command = [python, PEER, Path(folder) / "prices.npy", str(LOOKBACK), str(TOP)]
            peer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(ROUNDS + 1):  # the first is not counted: vectorbt compiles
            row = {"candlemill": seconds(lambda: run(spec, candles, [start, end]))}
            row |= {name: seconds(lambda cuts=cuts: run(spec, candles, cuts)) for name, cuts in plans.items()}  # type: ignore[misc]
            if peer is not None and peer.stdin is not None and peer.stdout is not None:
                peer.stdin.write("\n")
                peer.stdin.flush()
                output = json.loads(peer.stdout.readline())
                row["vectorbt"] = output["ns"] / 1e9
            for name, took in row.items() if number else ():
                found[name].append(took)
        if peer is not None:
            peer.communicate()
    print(f"{count} symbols, {sum(len(one['t']) for one in candles.values()):,} candles, hourly, engine "
          f"{'compiled' if COMPILED else 'interpreted'}, {whole.summary.fills:,} fills")  # fmt: skip
    for name, tries in found.items():
        if tries:
            ratio = np.median([a / b for a, b in zip(tries, found["candlemill"], strict=True)])
            print(f"{name:<12}{np.median(tries):8.2f} s{ratio:8.2f} x candlemill")
    print(
        f"vectorbt: {output['fills']:,} fills, marks at hours"
        if output
        else "vectorbt not installed: --vectorbt-python"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("symbols", type=int, nargs="?", default=50)
    parser.add_argument("--vectorbt-python", type=Path)
    given = parser.parse_args()
    speed(given.symbols, python_of("vectorbt", given.vectorbt_python))
