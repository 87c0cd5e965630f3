"""A load test as a page that carries all it needs."""

from collections.abc import Sequence
from html import escape

from loadtests.common.svg import Axis, Series, chart
from loadtests.load.feed.stage import Followed
from loadtests.load.figures import ERRORS_ALLOWED, Kind, Stage, cost_seconds, percentile
from loadtests.load.run import Found

AIM_PER_SECOND = 200
BACKTEST = "a new backtest, requested to done"
BY_EVENTS = "a new backtest by events"

STYLE = """
:root { color-scheme: light; --ink: #111827; --soft: #6b7280; --line: #e5e7eb; --good: #047857; --bad: #b91c1c; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 32px 24px 64px; max-width: 1080px; color: var(--ink); background: #ffffff;
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 40px 0 4px; }
h3 { font-size: 15px; margin: 24px 0 6px; }
p { margin: 0 0 12px; color: var(--soft); max-width: 76ch; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; margin: 20px 0; }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; }
.tile b { display: block; font-size: 24px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; } .good b { color: var(--good); } .bad b { color: var(--bad); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: 0 0 16px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; font-size: 13px; color: var(--soft); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.bar { width: 190px; text-align: left; } td.wrong { color: var(--bad); font-weight: 600; }
svg { max-width: 100%; height: auto; } pre { background: #f9fafb; border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 12px; overflow-x: auto; font-size: 13px; }
"""


def page(found: Found) -> str:
    parts = [_head(found)]
    if found.gateway:
        parts.append(_gateway(found.gateway))
    for stage in found.events:
        parts.append(_events(stage))
    if found.feed is not None:
        parts.append(_feed(found.feed))
    title = "candlemill under load"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>"
    )


def _head(found: Found) -> str:
    of = found.machine
    load = " ".join(f"{one:.1f}" for one in of["load"])
    engine = "compiled" if of["engine_compiled"] else "NOT compiled"
    tiles = []
    if found.gateway:
        first = found.gateway[0]
        reached = first.per_second >= AIM_PER_SECOND
        tiles.append(_tile(f"{first.per_second:,.0f}/s", f"requests, mixed use (aim {AIM_PER_SECOND}/s)", reached))
    stages = [*found.gateway, *found.events]
    if stages:
        requests, errors = sum(one.requests for one in stages), sum(one.errors for one in stages)
        used = 100 * errors / (ERRORS_ALLOWED * requests)
        tiles.append(_tile(f"{errors:,}", f"unexpected errors in {requests:,} requests", not errors))
        tiles.append(_tile(f"{used:.0f} %", f"of the error budget ({100 * ERRORS_ALLOWED:g} %) used", used <= 100))
    if costs := _costs(found):
        tiles.append(_tile(f"{1e3 * costs[0][1]:,.0f} ms", "CPU time per backtest over REST"))
    if found.feed is not None:
        tiles.append(_tile(f"{found.feed.messages_per_second:,.0f}/s", "messages that the feed takes"))
    return (
        f"<h1>candlemill under load</h1><p>{escape(found.when)}, commit {escape(of['commit'][:10])}, "
        f"{escape(of['cpu'])}, {of['cores']} cores, Python {of['python']}, engine {engine}. "
        f"Load of the machine before it began: {load}.</p><div class='tiles'>{''.join(tiles)}</div>"
    )


def _tile(figure: str, what: str, good: bool | None = None) -> str:
    kind = "" if good is None else " good" if good else " bad"
    return f"<div class='tile{kind}'><b>{escape(figure)}</b><span>{escape(what)}</span></div>"


def _costs(found: Found) -> list[tuple[str, float]]:
    """CPU seconds per backtest, where nothing else was requested."""
    costs = [("over REST", cost_seconds(one, BACKTEST)) for one in found.gateway if one.name == "Backtester"]
    return [(what, cost) for what, cost in costs if cost]


# -- sections ------------------------------------------------------------------------------------------------------


def _gateway(stages: Sequence[Stage]) -> str:
    first, alone = stages[0], stages[1:]
    parts = [f"<h2>The gateway: all users together</h2><p>{escape(first.about)}, for {first.seconds:.0f} s.</p>"]
    parts.append(_stage(first))
    if alone:
        head = ("users", "requests/s", "CPU ms per request", "p50 ms", "p95 ms", "p99 ms", "errors")
        rows = [
            [
                one.name,
                f"{one.per_second:,.0f}",
                f"{one.served_cpu_ms:,.1f}",
                *(f"{ms:,.1f}" for ms in one.ms),
                str(one.errors),
            ]
            for one in alone
        ]
        parts.append(
            "<h2>The gateway: each kind of user alone</h2>"
            f"<p>{escape(alone[0].about)}. CPU time is that of the serving processes, without what they use when "
            "nobody asks. The percentiles are of all requests of each kind.</p>" + table(head, rows)
        )
        for one in alone:
            if one.name == "Backtester" and one.count(BACKTEST):
                rate, cost = one.count(BACKTEST) / one.seconds, cost_seconds(one, BACKTEST)
                parts.append(
                    f"<p>Backtesters ask for one month with one parameter set each, and watch it to its end: "
                    f"<b>{1e3 * cost:,.1f} ms</b> of CPU time per backtest, {rate:,.1f} backtests a second.</p>"
                )
        parts += [_reported(one) for one in alone]
    return "".join(parts)


def _events(stage: Stage) -> str:
    parts = [f"<h2>The functions, by CloudEvents</h2><p>{escape(stage.about)}, for {stage.seconds:.0f} s.</p>"]
    parts.append(_stage(stage))
    rows = []
    for name, ms in sorted(stage.more.get("took", {}).items()):
        ascending = sorted(ms)
        times = [f"{percentile(ascending, share):,.1f}" for share in (0.5, 0.95, 0.99)]
        rows.append([name, f"{len(ms):,}", *times])
    head = ("function and its answer", "deliveries", "p50 ms", "p95 ms", "p99 ms")
    parts.append("<h3>Deliveries, as the broker saw them</h3>" + table(head, rows))
    cost = cost_seconds(stage, BY_EVENTS, "a sweep of 12 sets by events")
    parts.append(f"<p>{1e3 * cost:,.0f} ms of CPU time per job, database and broker and small sweeps included.</p>")
    return "".join(parts)


def _feed(found: Followed) -> str:
    late = ", ".join(f"{one:.2f}" for one in found.late) or "none ended"
    rows = [
        ["symbols", f"{found.symbols:,}"],
        ["messages per second", f"{found.messages_per_second:,.0f}"],
        ["finished candles taken", f"{found.finals:,}"],
        ["candles stored", f"{found.stored:,}"],
        ["greatest lag after each minute's end, s", late],
        ["minutes missing at the end", f"{found.missing_minutes:,}"],
        ["messages refused", f"{found.refused:,}"],
        ["CPU, cores", f"{found.cores['feed']:.3f} (the exchange {found.cores['exchange']:.3f})"],
        ["CPU per message, µs", f"{1e6 * found.cores['feed'] / max(found.messages_per_second, 1e-9):,.0f}"],
        ["memory, MB", f"{found.memory_mb:,.0f}"],
    ]
    return (
        f"<h2>The feed, beside a simulated exchange</h2><p>{found.symbols:,} symbols for {found.seconds:.0f} s. The "
        "lag of a symbol is how long ago its last finished minute ended without its candle being there.</p>"
        + table(("", ""), rows)
    )


def _stage(stage: Stage) -> str:
    seconds = [(float(k), float(n)) for k, n in enumerate(stage.by_second)]
    picture = chart([Series("requests", seconds)], Axis("second"), Axis("requests answered"), 1000, 190)
    cores = ", ".join(f"{name} {used:.2f}" for name, used in stage.cores.items())
    kinds = [kind for kind in stage.kinds if not kind.is_journey]
    journeys = [kind for kind in stage.kinds if kind.is_journey]
    most = max((kind.p99 for kind in kinds), default=1.0)
    longest = max((kind.p99 for kind in journeys), default=1.0)
    memory = ", ".join(f"{name} {mb:,} MB" for name, mb in stage.more.get("memory_mb", {}).items())
    return (
        f"<p><b>{stage.requests:,} requests, {stage.per_second:,.0f}/s, {stage.errors:,} unexpected errors.</b> "
        f"CPU in cores: {escape(cores)}. Of the serving processes {stage.served_cpu_ms:.1f} ms per request. "
        f"Memory: {escape(memory or 'not measured')}. Load at the end {stage.load:.1f}.</p>"
        f"{picture}<h3>Latency by kind of request</h3>{_kinds(kinds, most)}"
        + (f"<h3>Whole journeys</h3>{_kinds(journeys, longest)}" if journeys else "")
        + _reported(stage)
    )


def _kinds(kinds: Sequence[Kind], most: float) -> str:
    head = ("kind", "count", "p50 ms", "p90", "p95", "p99", "most", "", "errors")
    rows = []
    for kind in kinds:
        times = [f"{ms:,.1f}" for ms in (kind.p50, kind.p90, kind.p95, kind.p99, kind.most)]
        rows.append([kind.name, f"{kind.count:,}", *times, _bar(kind, most), f"{kind.errors:,}"])
    return table(head, rows, raw=7)


def _bar(kind: Kind, most: float) -> str:
    """p50 dark, up to p99 light."""
    dark, light = 180 * kind.p50 / most, 180 * kind.p99 / most
    return (
        f'<svg width="180" height="10" role="img" aria-label="p50 {kind.p50:.1f} ms, p99 {kind.p99:.1f} ms">'
        f'<rect width="{light:.1f}" height="10" rx="2" fill="#bfdbfe"/>'
        f'<rect width="{dark:.1f}" height="10" rx="2" fill="#2563eb"/></svg>'
    )


def _reported(stage: Stage) -> str:
    if not stage.errors_reported:
        return ""
    lines = "\n".join(escape(one[:300]) for one in stage.errors_reported[:20])
    return f"<h3>Unexpected errors of {escape(stage.name)}</h3><pre>{lines}</pre>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], raw: int = -1) -> str:
    """`raw` is the column that is HTML already."""
    top = "".join(f"<th>{escape(one)}</th>" for one in head)
    body = []
    for row in rows:
        cells = [
            f"<td class='bar'>{cell}</td>" if k == raw else f"<td>{escape(cell)}</td>" for k, cell in enumerate(row)
        ]
        if head[-1] == "errors" and row[-1] != "0":
            cells[-1] = f"<td class='wrong'>{escape(row[-1])}</td>"
        body.append(f"<tr>{''.join(cells)}</tr>")
    return f"<div class='scroll'><table><thead><tr>{top}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
