"""docs/scaling.md and its plots, from what the study wrote down. No figure is typed by hand."""

import textwrap
from collections.abc import Sequence

import msgspec
from candlemill.backtests.plan import BATCH_SETS

from loadtests.common.svg import Axis, Series, chart
from loadtests.scaling.arithmetic import Whole, whole
from loadtests.scaling.measure import Sample
from loadtests.scaling.model import Part, Prediction
from loadtests.scaling.points import Local
from loadtests.scaling.study import (
    CORES,
    EXECUTORS,
    HOME,
    RUN_YEARS,
    SETS,
    TOGETHER,
    USUAL_SETS,
    YEARS,
    Compared,
    Study,
)

AIM = 0.85


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def duration(seconds: float) -> str:
    for limit, unit in ((86_400 * 2, 86_400), (7_200, 3_600), (120, 60)):
        if seconds >= limit:
            name = {86_400: "d", 3_600: "h", 60: "min"}[unit]
            return f"{seconds / unit:,.1f} {name}"
    return f"{seconds:,.1f} s"


def big(value: float) -> str:
    for limit, name in ((1e15, " × 10¹⁵"), (1e12, " × 10¹²"), (1e9, " × 10⁹"), (1e6, " million")):
        if value >= limit:
            return f"{value / limit:,.1f}{name}"
    return f"{value:,.0f}"


def size(value: float) -> str:
    for limit, unit in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB")):
        if value >= limit:
            return f"{value / limit:,.1f} {unit}"
    return f"{value / 1e6:,.1f} MB"


# -- pieces --------------------------------------------------------------------------------------------------------


def parts_table(study: Study) -> str:
    names = {
        "plan": "split: plan a job",
        "share": "split: look at a share of its tasks",
        "hand": "split: make a task's event",
        "index": "execute: learn which days there are, once",
        "ask": "execute: look up a task's outcomes",
        "read": "execute: read a task's slices",
        "compute": "execute: compute a task",
        "write": "execute: write its outcomes",
        "later": "the store: merge them with others, later",
        "reported": "aggregate: look at a finished task",
        "merge": "aggregate: merge a batch",
        "figures": "aggregate: a sweep's figures",
    }
    sizes = [f"{one.sets:,} sets × {one.days / 365.25:.0f} years" for one in study.samples]
    head = ["CPU in ms: function + store", *sizes]
    rows = [
        [what, *(_both(one.cost.get(name)) for one in study.samples)]
        for name, what in names.items()
        if any(name in one.cost for one in study.samples)
    ]
    return table(head, rows)


def _both(part: Part | None) -> str:
    return "–" if part is None else f"{1e3 * part.own:,.1f} + {1e3 * part.store:,.0f}"


def compared_table(found: Sequence[Compared]) -> str:
    rows = [
        [
            f"{one.executors}" + (f" on {CORES} cores" if one.executors > CORES else ""),
            f"{one.predicted:.1f} s",
            f"{one.measured:.1f} s",
            f"{100 * one.error:+.0f} %",
            f"{one.others:.1f}",
            f"{one.predicted_cpu:.1f} s",
            f"{one.measured_cpu:.1f} s",
            f"{100 * (one.predicted_cpu / one.measured_cpu - 1):+.0f} %",
        ]
        for one in found
    ]
    head = ["executors", "wall, predicted", "measured", "error", "cores that others took"]
    return table([*head, "CPU, predicted", "measured", "error"], rows)


def carried_table(study: Study) -> str:
    price = study.assumed.dollars_per_cpu_hour / 3600
    alone, together = efficiencies(study.carried_on), efficiencies(study.together)
    rows = []
    for k, (executors, warm) in enumerate(study.carried_on):
        rows.append(
            [
                f"{executors:,}",
                duration(warm.wall),
                f"**{alone[executors]:.2f}**",
                f"{together[executors]:.2f}" if executors in together else "",
                f"{warm.store / warm.cpu:.0%}",
                f"{warm.events / warm.wall:,.0f}",
                f"${(warm.held + warm.others) * price:,.2f}",
                duration(study.cold[k][1].wall),
                duration(study.as_it_is[k][1].wall),
            ]
        )
    head = ["executors", "wall time", "efficiency", f"of {TOGETHER} jobs at once", "the store's share of CPU"]
    return table([*head, "events a second", "cost", "cold", "cold and fixed"], rows)


def efficiencies(found: Sequence[tuple[int, Prediction]]) -> dict[int, float]:
    """The speed-up over one executor, as a share of their number."""
    first = found[0][1].wall
    return {executors: first / one.wall / executors for executors, one in found}


class WorkersCompared(msgspec.Struct, frozen=True):
    """A sweep with one worker and with two, the quickest run of each."""

    sets: int
    years: int
    one: Local
    two: Local
    alone: float  # of the quickest without waiting for others, the efficiency

    @property
    def name(self) -> str:
        return f"{self.sets:,} sets over {self.years} year{'s' * (self.years > 1)}"

    @property
    def by_clock(self) -> float:
        return self.one.wall / self.two.wall / 2


def compare_workers(study: Study) -> list[WorkersCompared]:
    found = []
    for sets, years in HOME:
        runs = [run for run in study.local if (run.sets, run.years) == (sets, years)]
        one, two = ([run for run in runs if run.workers == workers] for workers in (1, 2))
        alone = min(run.alone for run in one) / min(run.alone for run in two) / 2
        best = (min(of, key=lambda run: run.wall) for of in (one, two))
        found.append(WorkersCompared(sets, years, *best, alone))
    return found


def workers_table(found: Sequence[WorkersCompared]) -> str:
    rows = [
        [
            of.name,
            f"{of.one.wall:.1f} s",
            f"{of.two.wall:.1f} s",
            f"**{of.by_clock:.2f}**",
            f"{of.alone:.2f}",
            f"{of.one.parent + of.one.children:.1f} s",
            f"{of.two.parent:.1f} + {of.two.children:.1f} s",
            f"{of.two.others:.1f}",
        ]
        for of in found
    ]
    head = ["sweep", "1 worker", "2 workers", "efficiency", "without waiting", "CPU, 1 worker"]
    return table([*head, "CPU, 2 workers: parent + workers", "cores that others took"], rows)


def reached(found: Sequence[WorkersCompared]) -> str:
    """Which sweeps are as efficient as they are to be."""
    names = [of.name for of in found if of.by_clock >= AIM]
    return f"The aim is {AIM}; as good are: {'; '.join(names) or 'none'}."


def whole_table(of: Whole, price: float) -> str:
    rows = [
        ["candles", big(of.rows)],
        ["candles times sets", big(of.bars_times_sets)],
        ["jobs (a symbol each), tasks", f"{of.symbols:,}; {big(of.tasks)}"],
        ["columns read, each once", size(of.bytes_once)],
        ["columns read, if every task read its slice anew", size(of.bytes_each_task)],
        ["outcomes written", f"{big(of.outcome_rows)}, {size(of.outcome_bytes)}"],
        ["execute", f"{of.execute_hours:,.0f} CPU hours"],
        ["aggregate", f"{of.aggregate_hours:,.0f} CPU hours"],
        ["the store", f"{of.store_hours:,.0f} CPU hours"],
        ["split", f"{of.split_hours:,.0f} CPU hours"],
        [f"all, at ${price:g} per CPU hour", f"{of.hours:,.0f} CPU hours, ${of.dollars:,.0f}"],
        ["executors for a week, a day, an hour", ", ".join(f"{of.executors_for(h):,.0f}" for h in (168, 24, 1))],
    ]
    return table(["what", "how much"], rows)


def _seconds(sample: Sample, part: str) -> str:
    cost = sample.cost[part]
    return f"{cost.own + cost.store:.1f} s"


# -- pictures ------------------------------------------------------------------------------------------------------


def wall_picture(study: Study) -> str:
    def points(found: Sequence[tuple[int, Prediction]]) -> list[tuple[float, float]]:
        return [(float(n), one.wall) for n, one in found]

    first = study.carried_on[0][1].wall
    ideal = [(float(n), first / n) for n, _ in study.carried_on]
    lines = [
        Series("all grow", points(study.carried_on)),
        Series("all grow, cold", points(study.cold)),
        Series("cold, fixed aggregate and store", points(study.as_it_is)),
        Series("ideal", ideal, dashed=True, colour="#9ca3af"),
    ]
    return chart(lines, Axis("executors", log=True), Axis("wall time, s", log=True), title="wall time by executors")


def compared_picture(study: Study) -> str:
    lines = [
        Series("predicted", [(float(one.executors), one.predicted) for one in study.compared]),
        Series("measured", [(float(one.executors), one.measured) for one in study.compared], dots=True),
    ]
    axes = Axis("executors, on two cores"), Axis("wall time, s")
    return chart(lines, *axes, height=240, title="predicted and measured wall time")


def filled(text: str) -> str:
    """The page with its prose in lines of equal length: figures differ in theirs."""
    blocks = text.split("\n\n")
    return "\n\n".join(block if block.startswith("|") else _filled(block) for block in blocks).rstrip() + "\n"


def _filled(block: str) -> str:
    first, _, rest = block.partition("\n")
    if not first.startswith("#"):
        first, rest = "", block
    reported = textwrap.fill(" ".join(rest.split()), 118, break_long_words=False, break_on_hyphens=False)
    return f"{first}\n{reported}".strip()


# -- the page ------------------------------------------------------------------------------------------------------


def page(study: Study) -> str:
    of, assumed, about = whole(study), study.assumed, study.machine
    compared = compare_workers(study)
    usual = next(of for of in compared if of.sets == USUAL_SETS)
    hop, publish = (min(getattr(point, name) for point in study.points) for name in ("hop", "publish"))
    start = min(point.start for point in study.points)
    broker, receive = (1e3 * min(getattr(point, name) for point in study.points) for name in ("broker", "receive"))
    run, large = study.samples
    tasks, most = large.tasks * large.batches, EXECUTORS[-1]
    return filled(f"""# How it scales

This page is written by `python -m loadtests.scaling` (`make scaling`) from [scaling.json](scaling.json), which that
command measured on {study.when}: {about["cpu"]}, {about["cores"]} cores, Python {about["python"]}, the engine
{"compiled" if about["engine_compiled"] else "NOT compiled"}, commit {about["commit"][:10]}, load {about["load"][0]:.1f}
when it began. Every figure is the best of some rounds.

## What the parts cost
The real handlers, one event after the other, on a `candlemill db`: a sweep of SMA crossings that is run whole, and two
batches of one of a million sets, which then ends as if all its batches had been run. The first figure is the function's
CPU time, the second the database's. A task has {large.slices // large.tasks} slices of a quarter for {BATCH_SETS} sets.

{parts_table(study)}

An event takes {1e3 * hop:.1f} ms from a function through the local broker to the next one. It costs the function that
sends it {1e3 * publish:.1f} ms of CPU time, the broker {broker:.1f} ms, the function that takes it {receive:.1f} ms. An
executor's process uses {start:.2f} s of CPU time until it answers.

## Predicted and measured
A small simulator (`loadtests/scaling/model.py`) puts these parts together: events on their way, shares of tasks, lanes,
executors that take one task each and keep what they have read, a store and functions of bounded width, batches that
two merge who find them complete at the same time, repairs, cold starts, slices of uneven length.
Here it is requested about a sweep that was really run: {run.sets:,} sets over
{RUN_YEARS}
years, {run.tasks * run.batches} tasks, by the functions as processes, with `candlemill db` and a broker, all of them
on the
same {CORES} cores.

{compared_table(study.compared)}

The prediction is that of a machine that nobody else uses: where others take a core, wall times are longer than
predicted, and the comparison of CPU times says more. More executors than cores gain nothing but what waits.

![predicted and measured](scaling-measured.svg)

## Two workers on one machine
`candlemill sweep --workers N` of SMA crossings, from the shell and back, on {CORES} cores. Efficiency is the speed-up
over twice the speed of one worker: by the clock, and without the time in which the processes waited for a core, as
Linux tells it: an estimate, and flattering, for they wait for each other too.

{workers_table(compared)}

Two processes that share nothing, each with a sweep of its own in memory, reach **{study.ceiling:.2f}** on this
machine: that is what its two cores are worth together. {reached(compared)} With one worker all is done in one
process. Two are forked before the database opens; they compute the slices, merge the batches and search for
overfitting. The parent does the rest: it starts Python and the embedded database, reads the candles, writes the
results, makes the other figures. That takes it {compared[0].two.parent:.1f} s of CPU time at {compared[0].sets:,} sets
and {usual.two.parent:.1f} s at {USUAL_SETS:,}. The start is the same for every sweep, and nobody can help with
it: the more there is to compute, the less it counts.

## From one executor to 10,000
One symbol, ten years, {SETS:,} sets: {large.batches:,} batches of {large.tasks} tasks are {tasks:,} tasks, of which
{assumed.lanes_per_executor} for each executor are under way at once (`CANDLEMILL_TASKS_UNDER_WAY`).
Batches take turns, so that the tasks of one do not end together. Executors run
already,
but have read nothing; *cold* ones are started for it. Assumed, not measured: {1e3 * assumed.hop:.0f} ms per hop through
a real Broker, {assumed.reaction:g} s until the autoscaler has placed pods, {100 * assumed.repairs:.0f} % of batches
with
a wrong guess, slices that differ by {100 * assumed.skew:.0f} %. For each 100 executors there are
{assumed.aggregates_per_100} aggregates, {assumed.splits_per_100} splits and {assumed.store_cores_per_100} cores of the
store, and the Broker takes the events that the table names. *Fixed*: {assumed.aggregates_fixed} aggregates, as
`knative/base` has them, and {assumed.store_cores_fixed} cores of a store. Aggregates need room: where completions wait
for them, several find the same batch complete and each merges it, so that what is short becomes shorter. With 40
for 100 executors instead, ten executors merge most batches eight times.

{carried_table(study)}

![wall time by executors](scaling-wall.svg)

What ends the gain: {most:,} executors would need {duration(study.carried_on[0][1].wall / most)} for the whole job,
if all
of it could be shared; it takes {duration(study.carried_on[-1][1].wall)}. One after the other come planning
({_seconds(large, "plan")}), some hops of {1e3 * assumed.hop:.0f} ms, the slices that every executor reads once
({_seconds(large, "read")} a task), the last task ({_seconds(large, "compute")}), the merge of its batch
({_seconds(large, "merge")}) and the sweep's figures ({_seconds(large, "figures")}). So a job is worth as many
executors as
it can keep at work for about a minute; more jobs at once use more: {assumed.symbols:,} symbols are
{assumed.symbols:,} jobs.

## {of.symbols:,} symbols, ten years, a million sets

{whole_table(of, assumed.dollars_per_cpu_hour)}

The store's share is that of `candlemill db`, one Python process around chDB; a ClickHouse server answers with less.
An executor keeps the columns of {YEARS} years of a symbol in its cache
({size(of.rows / of.symbols * 24)}), so what is read lies near the first figure times the executors that work on the
same symbol.

**What content addressing saves.** The same job again costs nothing: its id is its answer's. Sets and slices that
are known are found only in jobs of up to 200,000 outcomes, so a million sets in one job are computed anew. Cut into
jobs of {of.sets_reused:,} sets ({large.slices} slices each, {big(SETS / of.sets_reused)} jobs per symbol) they are
found:
a range that grew by a day then costs one slice of {large.slices} at most ({100 / large.slices:.1f} %,
{of.execute_hours / large.slices:,.0f} CPU hours instead of {of.execute_hours:,.0f}), and a tenth more sets a tenth. A
corrected candle costs its slice and those after it whose start it changes. Outcomes are kept for 30 days.
""")
