"""python -m loadtests.scaling: measure, predict, compare, and write docs/scaling.json, .md and the plots."""

import argparse
import sys

import msgspec

from loadtests.common.lab import ROOT
from loadtests.scaling.page import compare_workers, compared_picture, compared_table, page, wall_picture, workers_table
from loadtests.scaling.study import Assumed, Measured, Study, better, concluded, measure

DOCS = ROOT / "docs"
FOUND = DOCS / "scaling.json"


def written() -> dict[str, str]:
    """The pages as they follow from docs/scaling.json, by their names."""
    found = msgspec.json.decode(FOUND.read_bytes(), type=Study)
    return {
        "scaling.md": page(found),
        "scaling-wall.svg": wall_picture(found),
        "scaling-measured.svg": compared_picture(found),
    }


def main() -> int:
    ask = argparse.ArgumentParser(prog="python -m loadtests.scaling", description=__doc__)
    ask.add_argument("--pages", action="store_true", help="only write the pages, from docs/scaling.json")
    ask.add_argument("--again", action="store_true", help="keep what was better in docs/scaling.json")
    ask.add_argument("--rounds", type=int, default=2, help="each measurement is the best of so many (default 2)")
    ask.add_argument("--dollars", type=float, default=Assumed().dollars_per_cpu_hour, help="per CPU hour")
    args = ask.parse_args()
    if not args.pages:
        seen = measure(args.rounds)
        if args.again:
            seen = better(seen, msgspec.json.decode(FOUND.read_bytes(), type=Measured))
        found = concluded(seen, Assumed(dollars_per_cpu_hour=args.dollars))
        FOUND.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
        print(compared_table(found.compared))
        print(workers_table(compare_workers(found)))
    for name, text in written().items():
        (DOCS / name).write_text(text)
    print(f"written to {DOCS / 'scaling.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
