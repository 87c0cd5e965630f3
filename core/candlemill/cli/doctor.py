"""`candlemill doctor`: checks that the store is complete and consistent."""

import argparse
import sys
from typing import TYPE_CHECKING

import msgspec

from candlemill.cli.arguments import output

if TYPE_CHECKING:  # late import: else every command would take longer to start
    from candlemill.store.doctor import Finding


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--repair", action="store_true", help="count again, and remove wrong rows")


def run(args: argparse.Namespace) -> int:
    """Print the findings; return 0 if nothing is left to repair, else 1."""
    from candlemill.config import dsn
    from candlemill.store.doctor import examine
    from candlemill.store.maintenance import MaintenanceStore

    found: list[Finding] = []
    with MaintenanceStore(dsn()) as store:
        for one in examine(store, args.repair):
            found.append(one)
            if not args.json:
                print(_line(one), flush=True)
    is_whole = all(one.is_settled for one in found)
    repaired = sum(one.repaired for one in found)
    line = f"{len(found):,} findings, {repaired:,} repaired" if found else "nothing is wrong"
    if args.json:
        output(args, {"whole": is_whole, "findings": [msgspec.to_builtins(one) for one in found]}, "")
    else:
        print(line, file=sys.stderr if found else sys.stdout)
    return int(not is_whole)


def _line(one: "Finding") -> str:
    line = f"{'repaired' if one.repaired else 'found'}: {one.text}"
    return f"{line}\n  {one.way_out}" if one.way_out else line
