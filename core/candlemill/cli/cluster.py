"""`candlemill cluster`: installation on Kubernetes with Knative. Needs the extra `cluster`."""

import argparse
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from candlemill.cli.arguments import Parser, count_argument, output, text_argument
from candlemill.engine.candles import DAY_MS
from candlemill.errors import BadInput, CandlemillError, ClusterError

NAMESPACE = "candlemill"
SMOKE_DAYS = 7


def add_arguments(sub: Parser) -> None:
    actions = sub.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)

    def action(name: str, run: Callable[[argparse.Namespace], int | None], text: str) -> Parser:
        made = actions.add_parser(name, help=text, description=text)
        made.add_argument("-v", "--verbose", action="store_true", help="show the traceback of an error")
        made.add_argument("--json", action="store_true", help="write one JSON object on stdout")
        made.set_defaults(run=run)
        return made

    def on_cluster(name: str, run: Callable[[argparse.Namespace], int | None], text: str) -> Parser:
        made = action(name, run, text)
        made.add_argument("--context", metavar="NAME", help="of the kubeconfig (default: its current one)")
        return made

    def in_namespace(name: str, run: Callable[[argparse.Namespace], int | None], text: str) -> Parser:
        made = on_cluster(name, run, text)
        made.add_argument("--namespace", default=NAMESPACE, metavar="NAME", help=f"(default {NAMESPACE})")
        made.add_argument("--url", metavar="URL", help="where the gateway is (default: through the cluster's API)")
        return made

    for name, run, text in (
        ("deploy", run_deploy, "apply an overlay of knative/ and wait until all of it is ready"),
        ("down", run_down, "remove what an overlay made; the namespace and its volumes stay"),
    ):
        made = on_cluster(name, run, text)
        made.add_argument(
            "overlay", nargs="?", default="local", metavar="OVERLAY", help="local, production or a folder"
        )
        if name == "deploy":
            made.add_argument("--timeout", type=count_argument, default=300, metavar="SECONDS", help="how long to wait")
        else:
            made.add_argument("--all", action="store_true", help="the namespace too, with all data in its volumes")
    in_namespace("status", run_status, "services, revisions, executors, triggers, and how many tasks wait")
    watch = in_namespace("watch", run_watch, "follow a job, and how many executors there are")
    watch.add_argument("job", type=text_argument, metavar="JOB", help="the first letters of its id")
    smoke = in_namespace("smoke", run_smoke, "run one small job twice, cut differently, and compare")
    smoke.add_argument("--symbol", type=text_argument, metavar="S", help="(default: the first that is stored)")
    smoke.add_argument("--strategy", default="sma_cross", type=text_argument, metavar="NAME", help="a built-in one")
    smoke.add_argument("--timeout", type=count_argument, default=300, metavar="SECONDS", help="for each run")
    schema = action("schema", run_schema, "print the tables' SQL, for a cluster or for one server")
    schema.add_argument(
        "--on-cluster", metavar="NAME", help="create replicated tables on all nodes; {cluster} is the macro"
    )
    schema.add_argument("--roles", action="store_true", help="the roles' SQL instead")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _api(args: argparse.Namespace) -> Any:
    from candlemill.cluster.kube_api import Api

    return Api(args.context)


def _gateway(args: argparse.Namespace, api: Any) -> Any:
    from candlemill.cluster.deploy import Gateway

    return Gateway(api, args.namespace, args.url)


def run_deploy(args: argparse.Namespace) -> None:
    from candlemill.cluster import deploy

    api, objects = _api(args), deploy.objects_of(args.overlay)
    _say(f"{len(objects)} objects to {api.address}")
    deploy.apply(api, objects, _say)
    began = time.monotonic()
    parts = deploy.wait_until_ready(api, objects, args.timeout, _say)
    found = {"cluster": api.address, "objects": len(parts), "seconds": round(time.monotonic() - began, 1)}
    output(args, found, f"all {len(parts)} objects are ready")


def run_down(args: argparse.Namespace) -> None:
    from candlemill.cluster import deploy

    api = _api(args)
    count = deploy.remove(api, deploy.objects_of(args.overlay), args.all, _say)
    output(args, {"cluster": api.address, "deleted": count}, f"{count} objects deleted")


def run_status(args: argparse.Namespace) -> int:
    from candlemill.cluster import deploy
    from candlemill.formatting import table

    api = _api(args)
    found = deploy.status(api, args.namespace)
    try:
        found["open_tasks"] = _gateway(args, api).open_tasks()
    except ClusterError as error:
        found["open_tasks"] = None
        _say(f"how many tasks wait is not known: {error}")
    services = [
        (one["name"], _word(one), one["revision"], f"{one['pods_ready']} of {one['pods']}", one["max"], one["url"])
        for one in found["services"]
    ]
    events = [(one["kind"], one["name"], _word(one), one["to"]) for one in found["events"]]
    text = table(services, ["service", "state", "revision", "pods ready", "at most", "address"])
    text += "\n\n" + table(events, ["", "name", "state", "to"])
    if found["open_tasks"] is not None:
        text += f"\n\n{found['open_tasks']:,} tasks of unfinished jobs are not done"
    output(args, found, text)
    return 0 if all(one["ready"] for one in found["services"] + found["events"]) else 1


def _word(one: dict[str, Any]) -> str:
    return "ready" if one["ready"] else one["why"] or "not ready"


def run_watch(args: argparse.Namespace) -> int:
    from candlemill.cluster import deploy
    from candlemill.cluster.deploy import counted

    if not re.fullmatch("[0-9a-f]{32}", args.job):
        raise BadInput(f"{args.job!r} is no job's id: those are 32 hexadecimal digits")
    api = _api(args)
    began, last = time.monotonic(), None
    rows = []
    for last in deploy.follow(api, args.namespace, _gateway(args, api), args.job):
        seconds = time.monotonic() - began
        pods = last.executors
        rows.append({"seconds": round(seconds, 1), "done": last.done, "total": last.total, "executors": pods.ready})
        starting = f" and {pods.all - pods.ready} starting" if pods.all > pods.ready else ""
        repairs = f", {counted(last.repairs, 'repair')}" if last.repairs else ""
        line = f"{seconds:7.1f} s  {last.state:9} {last.done:6,} of {counted(last.total, 'task')}{repairs}"
        _say(f"{line}  on {counted(pods.ready, 'executor')}{starting}")
    assert last is not None
    found = {"job_id": args.job, "state": last.state, "reason": last.reason, "moments": rows}
    if last.state == "done":
        output(args, found, f"{args.job} is done")
        return 0
    raise CandlemillError(f"job {args.job} ended as {last.state}: {last.reason}")


def run_smoke(args: argparse.Namespace) -> None:
    from candlemill.cluster import deploy

    api = _api(args)
    gateway = _gateway(args, api)
    symbols = {one["symbol"]: one for one in gateway.call("GET", "/api/v1/symbols")["symbols"]}
    if not symbols:
        raise BadInput("no candles are stored there yet: the feed brings the first within minutes, or ingest some")
    symbol = args.symbol or min(symbols)
    if symbol not in symbols:
        raise BadInput(f"{symbol!r} is not stored there: {', '.join(sorted(symbols)[:10])} are")
    found = deploy.smoke(api, args.namespace, gateway, _small_job(symbols[symbol], args.strategy), args.timeout, _say)
    output(args, found, f"{symbol}: the same bits from 1 and from {found['slices']} slices, {found['result_digest']}")


def _small_job(symbol: dict[str, Any], strategy: str) -> dict[str, Any]:
    """Return a request for the last stored days of a symbol, whole days if there are several."""
    last = symbol["last_ms"] // DAY_MS * DAY_MS
    first = max(symbol["first_ms"] // DAY_MS * DAY_MS, last - SMOKE_DAYS * DAY_MS)
    if last > first:
        last -= DAY_MS
    days = [datetime.fromtimestamp(t / 1000, UTC).strftime("%Y-%m-%d") for t in (first, max(first, last))]
    return {"symbol": symbol["symbol"], "strategy": strategy, "range": f"{days[0]}..{days[1]}"}


def run_schema(args: argparse.Namespace) -> None:
    from candlemill.config import bundled
    from candlemill.store.schema import on_cluster, statements

    folder = bundled("schema")
    paths = [folder / "roles/roles.sql"] if args.roles else sorted(folder.glob("*.sql"))
    found = statements(path.read_text() for path in paths)
    if args.on_cluster:
        found = [on_cluster(one, args.on_cluster) for one in found]
    output(args, {"statements": found}, ";\n\n".join(found) + ";")
