"""Runs of many seeds, for as long as requested. Prints what fails, with its seed, its shortest trace; exit 1 then."""

import argparse
import itertools
import sys
import time
from collections import Counter

from loadtests.fault_simulation.cases import families
from loadtests.fault_simulation.run import Verdict, family, shrunk, simulate

REPORT_SECONDS = 5.0
SHOWN = 40


def replay(seed: int) -> int:
    """The whole trace of one run."""
    found = simulate(seed)
    for line in found.trace:
        print(_line(line))
    print(f"seed {seed}: {dict(found.states)}, trace {found.digest[:16]}, wrong: {found.wrong or 'nothing'}")
    return 1 if found.wrong else 0


def _line(line: tuple[object, ...]) -> str:
    ms, *rest = line
    return f"{int(str(ms)) / 1000:10.3f}  " + " ".join(str(part) for part in rest)


def output(found: Verdict) -> str:
    lines = [f"seed {found.seed} fails: {'; '.join(found.wrong)}"]
    lines += [f"  with these faults alone: {', '.join(f'{name}{place}' for name, place in found.fired) or 'none'}"]
    jobs = set(" ".join(found.wrong).split())
    output = [line for line in found.trace if line[1] in ("FAULT", "WRONG") or line[1] in jobs] or found.trace
    shown = output if len(output) <= 2 * SHOWN else [*output[:SHOWN], (output[SHOWN][0], "..."), *output[-SHOWN:]]
    return "\n".join(lines + ["  " + _line(line) for line in shown])


def main() -> int:
    ask = argparse.ArgumentParser(prog="python -m loadtests.fault_simulation", description=__doc__)
    ask.add_argument("--seeds", type=int, default=10_000, help="how many runs")
    ask.add_argument("--first", type=int, default=1)
    ask.add_argument("--minutes", type=float, help="run on for as long, however many seeds that are")
    ask.add_argument("--family", choices=[*families()], help="only seeds whose first job is one of these")
    ask.add_argument("--seed", type=int, help="one run, with its trace")
    ask.add_argument("--failures", type=int, default=5, help="stop after as many")
    args = ask.parse_args()
    if args.seed is not None:
        return replay(args.seed)
    faults: Counter[str] = Counter()
    states: Counter[str] = Counter()
    began = shown = time.monotonic()
    bad = runs = deliveries = 0
    for seed in itertools.count(args.first):
        if args.family and family(seed) != args.family:
            continue
        now = time.monotonic()
        over = now - began > args.minutes * 60 if args.minutes else runs >= args.seeds
        if over or bad >= args.failures:
            break
        if now - shown > REPORT_SECONDS:
            shown = now
            print(f"{runs:,} runs, {runs / (now - began):.0f}/s, {bad} bad", file=sys.stderr, flush=True)
        found = simulate(seed)
        runs += 1
        deliveries += found.events
        faults.update(name for name, _ in found.fired)
        states += found.states
        if found.wrong:
            bad += 1
            print(output(shrunk(seed)), flush=True)
    seconds = time.monotonic() - began
    print(f"{runs:,} runs of {deliveries:,} deliveries in {seconds:.0f} s ({runs / seconds:.0f}/s), {bad} violations")
    print("jobs:  ", ", ".join(f"{name} {count:,}" for name, count in states.most_common()))
    print("faults:", ", ".join(f"{name} {count:,}" for name, count in faults.most_common()))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
