"""Kills of processes that write a store, by seed: with parts lost or cut short, clocks set, and disks full.

Each seed takes a store of two symbols, lets commands, `serve` with a user, or `db` with two writers work on it, kills
them at a random moment, damages what they left, and asks again: an answer is right to the bit or is refused, after
`doctor --repair` and another `ingest` every job ends right, and `serve` leaves no job unfinished. `--kind feed` and
`--kind paper` kill these on the simulated exchange, `--seeds` times (see `simulated`).

`python -m loadtests.kills --seeds 200` prints what failed, with its seed; exit 1 then.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from candlemill.cli import main as cli
from candlemill.config import DSN_VARIABLE

from loadtests.kills import simulated, victims
from loadtests.kills.market import write_market
from loadtests.kills.victims import COMMANDS

PATIENCE_SECONDS = 120  # of computing: five times as many of waiting
KINDS = ("commands", "serve", "db")
DAMAGE = (*["nothing"] * 12, "emptied", "halved", "deleted")
STEPS_SECONDS = (0, 0, -72 * 3_600, -3_600, -60, 60, 3_600, 72 * 3_600)


def run(folder: Path, arguments: tuple[str, ...]) -> tuple[int, str]:
    """A command in this process: its status and what it printed."""
    os.environ[DSN_VARIABLE] = f"chdb://{folder}"
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = cli.main([*arguments, "--json"])
    return status, out.getvalue() if status == 0 else out.getvalue() + err.getvalue()


def digests(text: str) -> dict[str, str]:
    """Digests of results by their job ids: a job over other candles has another."""
    found = json.loads(text)
    return {row["job_id"]: row["result_digest"] for row in found.get("results", [found])}


def forked(work: Callable[[], Any], seconds: float, log: Path) -> tuple[str, Any]:
    """Do it in a process of its own group, killed with all that it started when it has computed for `seconds`, or five
    times as long has passed. Returns how it ended."""
    log.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        status = 1
        try:
            log.with_suffix(".part").write_text(json.dumps(work()))
            log.with_suffix(".part").replace(log)
            status = 0
        except BaseException as error:
            log.with_suffix(".error").write_text(f"{type(error).__name__}: {error}")
        finally:
            os._exit(status)
    lives = victims.outlived(pid, seconds)
    with contextlib.suppress(ProcessLookupError):  # and what it has left running
        os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if lives:
        return "killed", None
    return ("done", json.loads(log.read_text())) if log.exists() else (f"died {status}", None)


def damage(folder: Path, chance: Random) -> str:
    """Lose or cut one part of any table; return what was done."""
    how = chance.choice(DAMAGE)
    parts = sorted({path.parent for path in folder.glob("store/*/*/*/data.bin")})
    if how == "nothing" or not parts:
        return "nothing"
    part = chance.choice(parts)
    if how == "deleted":
        shutil.rmtree(part)
    else:
        os.truncate(part / "data.bin", 0 if how == "emptied" else (part / "data.bin").stat().st_size // 2)
    return how


def victim(kind: str, work: Path, market: Path, right: dict[str, str], chance: Random, step: int, full: bool) -> None:
    victims.shift_clocks(step)
    if full:
        victims.fill_disk(chance)
    if kind == "serve":
        victims.serve(work / "db", right, work / "wrong", chance)
    elif kind == "db":
        victims.db(work / "db", market, chance)
    else:
        victims.commands(f"chdb://{work / 'db'}", market, chance)


def requested(folder: Path, wanted: list[dict[str, str]]) -> list[str]:
    """Ask for each job once; return wrong figures under right ids. Refusals are right.

    Where the index has lost a month, the range that is stored is shorter, and so the job another.
    """
    wrong = []
    for command, right in zip(COMMANDS, wanted, strict=True):
        status, text = run(folder, command)
        found = digests(text) if status == 0 else {}
        if any(found[name] != digest for name, digest in right.items() if name in found):
            wrong.append(f"{' '.join(command)}: {text[:300]}")
    return wrong


def healed(folder: Path, market: Path, wanted: list[dict[str, str]]) -> list[str]:
    """After a repair and another ingest every job has its right result."""
    _, repaired = run(folder, ("doctor", "--repair"))
    status, text = run(folder, ("ingest", str(market)))
    wrong = [f"ingest: {text[:300]}"] if status else []
    for command, right in zip(COMMANDS, wanted, strict=True):
        status, text = run(folder, command)
        if status or digests(text) != right:
            wrong.append(f"healed {' '.join(command)}: {status} {text[:300]}")
    return [*wrong, f"doctor: {repaired[:2_000]}"] if wrong else []


def one(
    seed: int, kind: str, base: Path, market: Path, work: Path, wanted: list[dict[str, str]], counts: Counter[str]
) -> list[str]:
    chance, folder, log = Random(seed), work / "db", work / "log"
    right = {name: digest for found in wanted for name, digest in found.items()}
    for name in ("wrong", "kills"):
        (work / name).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder, symlinks=True)
    for _ in range(chance.randint(6, 20) if kind == "commands" else chance.randint(1, 4)):
        step, is_full = chance.choice(STEPS_SECONDS), chance.random() < 0.2
        seconds = chance.uniform(0.1, 3.0) if kind == "commands" else chance.uniform(0.3, 6.0)
        output, _ = forked(lambda: victim(kind, work, market, right, chance, step, is_full), seconds, log)  # noqa: B023
        counts[f"{kind} {output.split()[0]}"] += 1
        counts["full disks"] += is_full
        counts["clocks set"] += step != 0
        counts[damage(folder, chance)] += 1
        chance = Random(chance.random())
    wrong, alone = (
        file.read_text().splitlines() if (file := work / name).exists() else [] for name in ("wrong", "kills")
    )
    counts.update(alone)
    looks: list[tuple[str, Callable[[], list[str]]]] = [
        ("requested", lambda: requested(folder, wanted)),
        ("healed", lambda: healed(folder, market, wanted)),
    ]
    if kind == "serve":
        looks.append(("resumed", lambda: victims.unfinished(folder, 4 * PATIENCE_SECONDS)))
    for name, work_of in looks:
        output, found = forked(work_of, PATIENCE_SECONDS, log)
        if output != "done":
            error = log.with_suffix(".error")
            wrong.append(
                f"{name}: {'stuck' if output == 'killed' else output} {error.read_text() if error.exists() else ''}"
            )
        else:
            wrong += found
    return [f"seed {seed}, {kind}: {text}" for text in wrong]


def main() -> int:
    ask = argparse.ArgumentParser(prog="python -m loadtests.kills", description=__doc__)
    ask.add_argument("--seeds", type=int, default=100)
    ask.add_argument("--first", type=int, default=1)
    ask.add_argument("--kind", choices=(*KINDS, *simulated.KINDS), help="kill only these")
    ask.add_argument("--minutes", type=float, help="end after as long")
    args = ask.parse_args()
    if args.kind in simulated.KINDS:
        return 1 if simulated.run(args.kind, args.first, args.seeds) else 0
    counts: Counter[str] = Counter()
    failures = seeds = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        market, base = work / "market", work / "base"
        write_market(market)
        output, wanted = forked(lambda: baseline(base, market), PATIENCE_SECONDS, work / "log")
        assert output == "done", (work / "log.error").read_text() if (work / "log.error").exists() else output
        for seed in range(args.first, args.first + args.seeds):
            if args.minutes and time.monotonic() - began > 60 * args.minutes:
                break
            kind = args.kind or KINDS[seed % len(KINDS)]
            for text in one(seed, kind, base, market, work, wanted, counts):
                failures += 1
                print(text, flush=True)
            seeds += 1
            if seeds % 5 == 0:
                print(f"{seeds} seeds, {dict(counts)}, {failures} failures", file=sys.stderr, flush=True)
    print(
        f"{seeds} seeds from {args.first} on in {time.monotonic() - began:.0f} s: {dict(counts)}, {failures} failures"
    )
    return 1 if failures else 0


def baseline(base: Path, market: Path) -> list[dict[str, str]]:
    """Ingest the market; return what each command gives on a store that nobody disturbs."""
    other = base.with_name("undisturbed")
    for folder in (base, other):
        status, text = run(folder, ("ingest", str(market)))
        assert status == 0, text
    return [digests(run(other, command)[1]) for command in COMMANDS]


if __name__ == "__main__":
    sys.exit(main())
