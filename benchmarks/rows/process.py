"""Rows that run candlemill's command line as a process of its own: memory, wall time, ingest, the cost of cutting."""

import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import chain
from candlemill.backtests.plan import make_plan
from data.market import FIRST_OF_TEN, SYMBOL
from lab import MEGABYTE, Lab, Run
from measure import Row, Timer, alternate, milliseconds, timed

SWEEPS = {
    10: ("fast=5:10:5", "slow=110:150:10"),
    1_000: ("fast=5:100:5", "slow=110:600:10"),
    10_000: ("fast=2:101", "slow=110:605:5"),
}
EMPTY, MORE_THAN_EMPTY = "memory: an empty embedded database", 40  # MB that a sweep may take beside it
SERVED = 120  # MB of a sweep with a database in another process
TWO_THOUSAND = ("fast=5:68", "slow=110:265:5")
MANY_SLICES = 120
EMPTY_DATABASE = """
import sys, clickhouse_connect
client = clickhouse_connect.get_client(dsn="chdb://" + sys.argv[1])
client.query("SELECT 1")
client.close()
"""


def rows_memory(lab: Lab) -> Iterator[Row]:
    """The peak memory of sweeps over a stored year, which should not grow with the sweep."""
    python = [sys.executable, "-c"]
    empty = 0
    for what, command in {
        "memory: import chdb alone": [*python, "import chdb"],
        EMPTY: [*python, EMPTY_DATABASE, str(lab.folder("bare"))],
        "memory: candlemill coverage, empty store": [sys.executable, "-m", "candlemill", "coverage"],
    }.items():
        run = lab.launch(lab.folder("empty"), command)
        empty = run.peak_bytes if what == EMPTY else empty
        yield Row(what, megabytes(run), raw=vars(run))
    yield from _sweeps(lab, lab.year_store, "embedded", empty / MEGABYTE + MORE_THAN_EMPTY)
    with lab.served(lab.year_store) as dsn:
        yield from _sweeps(lab, dsn, "with candlemill db", SERVED)


def _sweeps(lab: Lab, store: Path | str, how: str, most: float) -> Iterator[Row]:
    for sets, grid in SWEEPS.items():
        arguments = [x for values in grid for x in ("--grid", values)]
        run = lab.cli(
            store, "sweep", "--symbol", SYMBOL, "--strategy", "sma_cross", *arguments,
            "--workers", "1", "--no-cache", "--top", "10", "--json",
        )  # fmt: skip
        what = f"memory: sweep of {sets:,} sets over a year, {how}"
        note = f"in {milliseconds(run.wall_ns)}"
        yield Row(what, megabytes(run), note, None, f"<= {most:,.0f} MB", "flat", vars(run))


def rows_workers(lab: Lab) -> Iterator[Row]:
    """A sweep with one worker and with two in turns: 1 is twice as fast, and 0.5 no faster."""
    store = lab.year_store
    grid = [x for values in TWO_THOUSAND for x in ("--grid", values)]
    sweep = ("sweep", "--symbol", SYMBOL, "--strategy", "sma_cross", *grid, "--no-cache", "--top", "10", "--json")
    runs: dict[str, list[Run]] = {"1": [], "2": []}
    for _ in range(lab.rounds(5)):
        for workers, taken in runs.items():
            sweep = (
                "sweep",
                "--symbol",
                SYMBOL,
                "--strategy",
                "sma_cross",
                *grid,
                "--no-cache",
                "--top",
                "10",
                "--json",
            )
            taken.append(lab.cli(store, *sweep, "--workers", workers))
    one, two = ([run.wall_ns for run in taken] for taken in runs.values())
    ratio = median(a / b / 2 for a, b in zip(one, two, strict=True))
    cpu = {workers: median(run.cpu_ns for run in taken) for workers, taken in runs.items()}
    note = f"one {milliseconds(median(one))}; {cpu['2'] / cpu['1']:.2f} of its processor time"
    raw = {workers: [vars(run) for run in taken] for workers, taken in runs.items()}
    yield Row(
        "sweep of 2,048 sets over a year, two workers", milliseconds(median(two)), note, ratio, ">= 0.9 x", "", raw
    )


def rows_process(lab: Lab) -> Iterator[Row]:
    """Ten years, one backtest, from the shell and back."""
    store = lab.ten_years_store
    runs = [lab.backtest(store) for _ in range(lab.rounds(5))]
    start = [lab.cli(store, "version") for _ in runs]
    taken = median(run.wall_ns for run in runs)
    note = f"`candlemill version` {milliseconds(median(run.wall_ns for run in start))}"
    raw = {"wall_ns": [run.wall_ns for run in runs], "peak_bytes": max(run.peak_bytes for run in runs)}
    yield Row("ten years, one run, whole process", milliseconds(taken), note, None, "<= 2.50 s", "<= 1.50 s", raw)


def rows_ingest(lab: Lab) -> Iterator[Row]:
    """Ten years of monthly zips into an empty store; a process that opens such a store and does nothing is start."""
    folder = lab.zips(FIRST_OF_TEN, 10)
    rows = lab.ten_years.n
    wall, start = [], []
    for _ in range(lab.rounds(3)):
        empty = lab.folder("ingest")
        start.append(lab.cli(empty, "coverage").wall_ns)
        wall.append(lab.cli(lab.folder("ingest"), "ingest", str(folder)).wall_ns)
    net = median(whole - idle for whole, idle in zip(wall, start, strict=True))
    raw = {"rows": rows, "wall_ns": wall, "start_ns": start}
    what = f"ingest of {rows:,} rows in zips"
    yield Row(f"{what}, whole process", per_second(rows, median(wall)), milliseconds(median(wall)), raw=raw)
    what += ", net of process start"
    yield Row(what, per_second(rows, net), milliseconds(net), None, ">= 1 M rows/s", "2 M rows/s", raw)


def rows_slices(lab: Lab) -> Iterator[Row]:
    """The same ten years in many slices and in one."""
    store, market = lab.ten_years_store, lab.ten_years
    counts = (MANY_SLICES, 1)

    def whole(count: int) -> Timer:
        return lambda: lab.backtest(store, "--slices", str(count)).wall_ns

    what = f"ten years in {MANY_SLICES} slices : in one"
    times = alternate({str(count): whole(count) for count in counts}, lab.rounds(7), warm_up=1)
    yield _cutting(f"{what}, whole process", times, "<= 1.3 x", "<= 1.1 x")
    spec, candles = market.spec("sma_cross", {}), market.candles()

    def computing(count: int) -> Timer:
        plan = make_plan(spec, market.days, count)
        return timed(lambda: chain.compute(spec, plan, candles))

    times = alternate({str(count): computing(count) for count in counts}, lab.rounds(9))
    yield _cutting(f"{what}, computing only", times, "", "")


def _cutting(what: str, times: dict[str, list[int]], reach: str, aim: str) -> Row:
    many, one = times[str(MANY_SLICES)], times["1"]
    overhead = median(a - b for a, b in zip(many, one, strict=True)) / (MANY_SLICES - 1)
    return Row(
        what,
        milliseconds(median(many)),
        f"{milliseconds(median(one))}; {overhead / 1e6:.2f} ms a slice",
        median(a / b for a, b in zip(many, one, strict=True)),
        reach,
        aim,
        {"ns": times, "overhead_ns_per_slice": overhead},
    )


def megabytes(run: Run) -> str:
    return f"{run.peak_bytes / MEGABYTE:,.0f} MB"


def per_second(rows: int, ns: float) -> str:
    return f"{rows / ns * 1e3:,.2f} M rows/s"
