"""Load tests: users over REST, users by events, a feed. Writes loadtests/results/load.html and load.json.

python -m loadtests [gateway] [functions] [feed] [--seconds 45] [--users 240] [--think 1]
python -m loadtests gateway --host https://gateway.example --seconds 300

The second is for a cluster: CANDLEMILL_LOAD_KEY is the API key.
"""

import argparse
import sys
from pathlib import Path

import msgspec

from loadtests.common.lab import RESULTS
from loadtests.load.report import AIM_PER_SECOND, page
from loadtests.load.run import Options, run

WHAT = ("gateway", "functions", "feed")


def main() -> int:
    ask = argparse.ArgumentParser(prog="python -m loadtests", description=__doc__.partition("\n")[0])
    ask.add_argument("what", nargs="*", choices=[*WHAT, []], help=f"any of {', '.join(WHAT)} (default all)")
    ask.add_argument("--seconds", type=float, default=45.0, help="of the stage with all users (default 45)")
    ask.add_argument("--users", type=int, default=240, help="people at once (default 240)")
    ask.add_argument("--think", type=float, default=1.0, help="mean seconds before each request (default 1)")
    ask.add_argument("--host", default="", help="a gateway that runs already; nothing else is tested then")
    ask.add_argument("--seed", type=int, default=0, help="of what users choose; 0 takes another one each time")
    ask.add_argument("--out", type=Path, default=RESULTS)
    args = ask.parse_args()
    options = Options(args.what or list(WHAT), args.seconds, args.users, args.think, args.host, args.seed)
    found = run(options)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "load.json").write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    (args.out / "load.html").write_text(page(found))
    for stage in (*found.gateway, *found.events):
        aim = f" (aim {AIM_PER_SECOND}/s)" if stage.name == "all" else ""
        print(
            f"{stage.name}: {stage.per_second:,.0f} requests/s{aim}, {stage.errors} unexpected errors, "
            f"{stage.served_cpu_ms:.1f} CPU ms per request"
        )
    print(f"written to {args.out / 'load.html'} and load.json")
    return 1 if any(stage.errors for stage in (*found.gateway, *found.events)) else 0


if __name__ == "__main__":
    sys.exit(main())
