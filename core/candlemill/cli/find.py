"""The commands that find jobs again: jobs, label, diff."""

import argparse
from typing import Any

import msgspec

from candlemill.backtests.metric_table import label as label_of
from candlemill.backtests.metric_table import shown
from candlemill.backtests.settings import settings_text
from candlemill.cli.arguments import Parser, count_argument, open_store, output, text_argument
from candlemill.formatting import table
from candlemill.pipeline.job_search import checked_notes
from candlemill.units import iso

KINDS = ("backtest", "sweep", "portfolio", "walk_forward", "sweeps", "walk_forwards", "study")
ID_SHOWN = 12
SETS_SHOWN = 20
LISTED = 20


def jobs_arguments(sub: Parser) -> None:
    for name, text in (
        ("symbol", "of this symbol"),
        ("strategy", "of this strategy"),
        ("text", "part of a label, note or tag"),
    ):
        sub.add_argument(f"--{name}", default="", type=text_argument, metavar=name.upper(), help=text)
    sub.add_argument("--kind", choices=KINDS, default="", help="of this kind")
    sub.add_argument("--state", default="", metavar="STATE", help="done, failed, cancelled, planned …")
    sub.add_argument("--tag", action="append", default=[], type=text_argument, metavar="TAG", help="with this tag")
    sub.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="also in a grid")
    text = "like sharpe_ratio>1.5, max_drawdown<=2000 or return>20%%; of a sweep one set suffices"
    sub.add_argument("--where", action="append", default=[], metavar="FIGURE>N", help=text)
    sub.add_argument("--since", default="", metavar="DATE", help="requested since 2023, 2023-05 or 2023-05-07")
    sub.add_argument("--until", default="", metavar="DATE", help="requested until the end of this date")
    sub.add_argument("--parts", action="store_true", help="list the jobs of portfolios and walk-forwards too")
    sub.add_argument("--top", type=count_argument, default=LISTED, metavar="N", help="how many (default 20)")


def label_arguments(sub: Parser) -> None:
    sub.add_argument("job", type=text_argument, metavar="JOB", help="the first letters of a job's id, six or more")
    sub.add_argument("label", nargs="?", type=text_argument, metavar="LABEL", help="a line of text")
    sub.add_argument("--note", metavar="TEXT", help="more text, in place of the one before")
    sub.add_argument("--tag", action="append", default=[], type=text_argument, metavar="TAG", help="add it")
    sub.add_argument("--untag", action="append", default=[], type=text_argument, metavar="TAG", help="remove it")


def notes_arguments(sub: Parser) -> None:
    """Add the notes that a command gives to the job it runs."""
    sub.add_argument("--label", type=text_argument, metavar="TEXT", help="of the job, for finding it again")
    sub.add_argument("--note", metavar="TEXT", help="more text about the job")
    sub.add_argument("--tag", action="append", default=[], type=text_argument, metavar="TAG", help="add it to the job")


def write_notes(args: argparse.Namespace, store: Any, job_id: str) -> None:
    """Write the notes that were given to a job, if any. Raises BadInput."""
    from candlemill.local.job_list import annotate

    if args.label is not None or args.note is not None or args.tag:
        annotate(store, job_id, args.label, args.note, args.tag)


def check_notes(args: argparse.Namespace) -> None:
    """Raise BadInput for notes that cannot be written, before a job runs."""
    checked_notes("", args.label or "", args.note or "", args.tag)


def diff_arguments(sub: Parser) -> None:
    for name in ("a", "b"):
        sub.add_argument(name, type=text_argument, metavar="JOB", help="the first letters of a job's id, six or more")


def run_jobs(args: argparse.Namespace) -> None:
    from candlemill.local.job_list import listed
    from candlemill.pipeline.job_search import search

    job_filter = search(
        state=args.state,
        kind=args.kind,
        symbol=args.symbol,
        strategy=args.strategy,
        whole=not args.parts,
        tags=args.tag,
        text=args.text,
        params=args.param,
        figures=args.where,
        since=args.since,
        until=args.until,
    )
    with open_store() as store:
        found = listed(store, job_filter, args.top)
    lines = [msgspec.to_builtins(one) for one in found]
    output(args, {"jobs": lines}, _jobs_table(found) if found else "no such job")


def _jobs_table(found: Any) -> str:
    from candlemill.cli.tables import symbols_text

    cells = [
        [
            one.job_id[:ID_SHOWN],
            iso(one.requested_ms)[:16].replace("T", " "),
            one.kind.replace("_", "-") + (f" of {one.sets:,}" if one.sets else ""),
            symbols_text(one.symbol),
            one.state if one.total_pnl is None else shown("total_pnl", one.total_pnl),
            "" if one.sharpe_ratio is None else shown("sharpe_ratio", one.sharpe_ratio),
        ]
        for one in found
    ]
    lines = table(cells, ["job", "requested", "kind", "symbol", "total PnL", "Sharpe"], right=(4, 5)).splitlines()
    described = [f"{line}\n  {_about(one)}".rstrip() for line, one in zip(lines[2:], found, strict=True)]
    return "\n".join([*lines[:2], *described])


def _about(one: Any) -> str:
    tags = " ".join(f"#{tag}" for tag in one.tags)
    return " ".join(
        filter(None, [one.strategy, settings_text(one.settings), f'"{one.label}"' if one.label else "", tags])
    )


def run_label(args: argparse.Namespace) -> None:
    from candlemill.local.job_list import annotate

    with open_store() as store:
        notes = annotate(store, args.job, args.label, args.note, args.tag, args.untag)
    rows = [("label", notes.label), ("note", notes.note), ("tags", ", ".join(notes.tags)), ("job", notes.job_id)]
    output(args, msgspec.to_builtins(notes), table([row for row in rows if row[1]]))


def run_diff(args: argparse.Namespace) -> None:
    from candlemill.local.differences import difference

    with open_store() as store:
        found = difference(store, args.a, args.b)
    output(args, msgspec.to_builtins(found), _differences(found))


def _differences(found: Any) -> str:
    if found.nothing:
        return f"nothing differs{f' but {found.code}' if found.code else ''}"
    parts = []
    sides = [found.a[:ID_SHOWN], found.b[:ID_SHOWN]]
    if found.request:
        rows = [[name, _text(a), _text(b)] for name, (a, b) in found.request.items()]
        parts.append(table(rows, ["request", *sides]))
    if found.candles:
        parts.append(table([["digest", *(digest[:16] for digest in found.candles)]], ["candles", *sides]))
    if found.code:
        parts.append(f"code: {found.code}")
    if found.figures:
        figures = [[label_of(name), *(shown(name, one) for one in pair)] for name, pair in found.figures.items()]
        parts.append(table(figures, ["figure", *sides], right=(1, 2)))
    if found.sets:
        parts.append(f"{len(found.sets):,} parameter sets of both have other figures, such as")
        parts += [f"  {_set(one)}" for one in found.sets[:SETS_SHOWN]]
    return "\n\n".join(parts)


def _set(one: dict[str, Any]) -> str:
    params = " ".join(f"{name}={value}" for name, value in one["params"].items())
    pairs = {name: pair for name, pair in one.items() if name != "params"}
    return f"{params}: " + ", ".join(
        f"{label_of(name)} {shown(name, a)} and {shown(name, b)}" for name, (a, b) in pairs.items()
    )


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:60]
